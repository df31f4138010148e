package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// ConfigDeclared applies the configuration of config.created and config.updated, and
// goes on as Enroll does. The event must have passed [model.CheckCertificateEvent].
func (o *Obtainer) ConfigDeclared(ctx context.Context, in event.Event) ([]event.Event, error) {
	var c model.CMPCertificate
	key, err := decode(in, &c)
	if err != nil {
		return nil, err
	}
	applied, err := o.Ledger.ApplyCertificate(ctx, key, c.Spec)
	if err != nil {
		return refusedConfig(in, key, err)
	}
	return o.obtainFor(ctx, sight{cert: applied}, key, ledger.ForEnrollment, in)
}

// ConfigWithdrawn deletes the configuration of config.deleted, and carries out its
// deletionPolicy; by default its output stays.
func (o *Obtainer) ConfigWithdrawn(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	cert, err := o.Ledger.Certificate(ctx, key)
	if err != nil {
		return nil, ignoreGone(err)
	}
	if err := o.Ledger.DeleteCertificate(ctx, key); err != nil {
		return refusedConfig(in, key, err)
	}
	if slices.Contains(cert.Finalizers, model.CleanUpFinalizer) {
		return o.obtain(ctx, key, ledger.ForEnrollment, in)
	}
	return []event.Event{endedAsKept(cert, in)}, o.release(ctx, issuerKey(cert))
}

// endedAsKept tells the end of a configuration whose output stays, the same fact whoever sees it: nothing
// keeps such a configuration from going, so that it is told afterwards.
func endedAsKept(cert *model.CMPCertificate, in event.Event) event.Event {
	return model.Follow(in, endFact(cert, model.DeletionKeep, nil))
}

// IssuerDeclared applies the issuer of issuer.created and issuer.updated, checks what
// it refers to, and wakes the certificates that wait for it.
func (o *Obtainer) IssuerDeclared(ctx context.Context, in event.Event) ([]event.Event, error) {
	var i model.CMPIssuer
	key, err := decode(in, &i)
	if err != nil {
		return nil, err
	}
	if _, err := o.Ledger.ApplyIssuer(ctx, key, i.Spec); err != nil {
		return o.refusedIssuer(ctx, in, key, err)
	}
	return o.issuerChanged(ctx, key, in)
}

// refusedIssuer tells a refusal that users of the issuer are the reason of from others.
func (o *Obtainer) refusedIssuer(ctx context.Context, in event.Event, key types.NamespacedName, err error) ([]event.Event, error) {
	if !guarded(err) {
		return refusedConfig(in, key, err)
	}
	users, listErr := o.users(ctx, key)
	if listErr != nil {
		return nil, listErr
	}
	return inUse(in, key, users, err.Error()), nil
}

// IssuerWithdrawn deletes the issuer of issuer.deleted, unless certificates refer to it.
func (o *Obtainer) IssuerWithdrawn(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	users, err := o.users(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return inUse(in, key, users, "delete them first, or point them to another issuer"), nil
	}
	if err := o.release(ctx, key); err != nil {
		return nil, err
	}
	if err := o.Ledger.DeleteIssuer(ctx, key); err != nil {
		return o.refusedIssuer(ctx, in, key, err)
	}
	return nil, nil
}

func decode(in event.Event, into any) (types.NamespacedName, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return key, err
	}
	return key, model.DecodeData(in, into)
}

// refusedConfig turns a refusal that repeating would not cure into the fact
// config.rejected; other errors stay errors.
func refusedConfig(in event.Event, key types.NamespacedName, err error) ([]event.Event, error) {
	if err == nil {
		return nil, nil
	}
	fact := model.RejectedFact{Message: bounded(err.Error())}
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, ledger.ErrOwnedByAnother):
		fact.Reason = model.ReasonOwnedByAnother
	case errors.As(err, &status) && rejectedForGood(status.Status()):
		fact.Reason = rejectionReason(status.Status())
		for _, c := range causes(status.Status()) {
			fact.Fields = append(fact.Fields, c.Field+": "+c.Message)
		}
	default:
		return nil, err
	}
	return rejected(in, key, fact), nil
}

// Rejected is the fact that a declaration can never be applied: its data break a rule. Of an
// event that does not say what it is about nothing can be told.
func Rejected(in event.Event, why error) []event.Event {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil
	}
	fact := model.RejectedFact{Reason: model.ReasonConfigInvalid, Message: bounded(why.Error())}
	if invalid, ok := errors.AsType[*model.InvalidError](why); ok {
		fact.Fields = invalid.Fields
	}
	return rejected(in, key, fact)
}

func rejected(in event.Event, key types.NamespacedName, fact model.RejectedFact) []event.Event {
	e := model.NewEvent(model.ConfigRejected, key, fact)
	e.SetID(model.DerivedID(model.ConfigRejected, in.ID()))
	return []event.Event{model.Follow(in, e)}
}

func rejectedForGood(s metav1.Status) bool {
	switch s.Reason {
	case metav1.StatusReasonInvalid, metav1.StatusReasonBadRequest, metav1.StatusReasonNotFound:
		return true
	case metav1.StatusReasonForbidden:
		return !lacksRight(s)
	default:
		return false
	}
}

// lacksRight tells a right that certloop itself lacks, which the sender of an event can do
// nothing about, from a refusal of what was sent: by an admission policy or webhook, by a quota, by a
// namespace that is being deleted. The API server gives both the same reason; RBAC alone says
// who may not do what.
func lacksRight(s metav1.Status) bool {
	return strings.Contains(s.Message, `User "`) && strings.Contains(s.Message, `" cannot `)
}

// rejectionReason is the reason of a refusal as docs/reasons.md has it.
func rejectionReason(s metav1.Status) string {
	switch s.Reason {
	case metav1.StatusReasonNotFound:
		return model.ReasonNamespaceNotFound
	case metav1.StatusReasonForbidden:
		return model.ReasonForbidden
	default:
		return model.ReasonConfigInvalid
	}
}

func causes(s metav1.Status) []metav1.StatusCause {
	if s.Details == nil {
		return nil
	}
	return s.Details.Causes
}

// Observed handles the events of an ApiServerSource about our custom resources.
func (o *Obtainer) Observed(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	switch kind, _ := in.Extensions()["kind"].(string); kind {
	case model.CertificateKind:
		return o.certificateObserved(ctx, key, in)
	case model.IssuerKind, model.ClusterIssuerKind:
		var i model.CMPIssuer
		if in.Type() == model.ResourceDelete {
			return nil, nil // who refers to it finds out
		}
		if in.DataAs(&i) == nil && IssuerAtRest(&i) {
			return nil, o.tidy(ctx, key, &i, in)
		}
		return o.issuerChanged(ctx, key, in)
	default:
		return nil, nil
	}
}

func (o *Obtainer) certificateObserved(ctx context.Context, key types.NamespacedName, in event.Event) ([]event.Event, error) {
	var c model.CMPCertificate
	shown := in.DataAs(&c) == nil
	c.Namespace, c.Name = key.Namespace, key.Name
	switch {
	case in.Type() == model.ResourceDelete && c.Spec.IssuerRef.Name == "":
		return nil, nil // its record goes with it, by its owner reference
	case in.Type() == model.ResourceDelete && c.Spec.Deletion() == model.DeletionKeep:
		return []event.Event{endedAsKept(&c, in)}, o.release(ctx, issuerKey(&c))
	case in.Type() == model.ResourceDelete:
		return nil, o.release(ctx, issuerKey(&c)) // its end was told before it went
	case !shown:
		return o.obtain(ctx, key, ledger.ForEnrollment, in)
	case AtRest(&c, o.now()):
		return nil, nil
	}
	seen, err := o.firstSight(ctx, &c)
	if err != nil {
		return nil, err
	}
	return o.obtainFor(ctx, seen, key, ledger.ForEnrollment, in)
}

// firstSight reads a configuration that is new to us by the lists that find its rivals, which are to be
// made anyway.
func (o *Obtainer) firstSight(ctx context.Context, shown *model.CMPCertificate) (sight, error) {
	if shown.Status.ObservedGeneration != 0 || shown.DeletionTimestamp != nil {
		return sight{}, nil
	}
	cert, rivals, err := o.Ledger.Among(ctx, shown)
	return sight{cert: cert, rivals: rivals, listed: cert != nil}, err
}

// tidy releases an issuer that nobody uses any more, should that have been missed: its events are
// replayed whenever an ApiServerSource starts.
func (o *Obtainer) tidy(ctx context.Context, key types.NamespacedName, i *model.CMPIssuer, in event.Event) error {
	if in.Type() == model.ResourceAdd && o.holds(i) {
		return o.release(ctx, key)
	}
	return nil
}

// issuerChanged checks what an issuer refers to and wakes the certificates that are
// not ready.
func (o *Obtainer) issuerChanged(ctx context.Context, key types.NamespacedName, in event.Event) ([]event.Event, error) {
	o.known.forget(key)
	ca, _, err := o.authority(ctx, key)
	var why *unmetError
	if ca == nil && errors.As(err, &why) {
		return nil, nil // gone: who refers to it finds out
	}
	if ca == nil {
		return nil, err
	}
	news, err := o.reportIssuer(ctx, ca, in, err)
	if err != nil {
		return nil, err
	}
	if len(news) == 0 && declared(in) {
		// As it is now: who was faster with the status may have told before anybody listened.
		now, err := o.Ledger.Issuer(ctx, key)
		if err != nil {
			return nil, ignoreGone(err)
		}
		news = append(news, issuerStands(now, in))
	}
	if ca.issuer.DeletionTimestamp != nil {
		if err := o.release(ctx, key); err != nil {
			return nil, err
		}
	}
	for i := range news {
		news[i] = model.Follow(in, news[i])
	}
	woken, err := o.dependents(ctx, key, in)
	return append(news, woken...), err
}

// reportIssuer writes what was found about an issuer into its status, and gives the fact
// that its readiness has changed, or its configuration. Losing a race for the status is no harm: the next look reports again.
// Who wrote the status may have died before the fact was published, so that the same event, delivered
// once more, brings the same fact once more.
func (o *Obtainer) reportIssuer(ctx context.Context, ca *authority, in event.Event, found error) ([]event.Event, error) {
	if found == nil {
		found = ca.usable()
	}
	ready := metav1.Condition{Type: model.Ready, Status: metav1.ConditionTrue, Reason: model.ReasonUsable, Message: ca.readiness()}
	var why *unmetError
	switch {
	case errors.As(found, &why):
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, why.reason, bounded(why.message)
	case found != nil:
		return nil, found
	}
	issuer, cause := ca.issuer.DeepCopy(), model.DerivedID(in.Source(), in.ID())
	was := meta.FindStatusCondition(ca.issuer.Status.Conditions, model.Ready)
	issuer.Status.ObservedGeneration, issuer.Status.Inputs, issuer.Status.TrustNotAfter = issuer.Generation, ca.versions(), ca.trustEnd()
	set(&issuer.Status.Conditions, ready, issuer.Generation)
	now := meta.FindStatusCondition(issuer.Status.Conditions, model.Ready)
	if was == nil || was.Status != now.Status || was.Reason != now.Reason {
		now.LastTransitionTime, issuer.Status.ReadyCause = transition(o.now(), was), cause
	}
	if ca.issuer.Status.ObservedGeneration != issuer.Generation { // whoever changed it hears how it stands now
		issuer.Status.ReadyCause = cause
	}
	if !equality.Semantic.DeepEqual(&ca.issuer.Status, &issuer.Status) {
		err := o.Ledger.UpdateIssuerStatus(ctx, issuer)
		if errors.Is(err, ledger.ErrConflict) {
			return nil, nil
		}
		if err != nil {
			return nil, ignoreGone(err)
		}
	}
	if issuer.Status.ReadyCause != cause {
		return nil, nil
	}
	return []event.Event{issuerFact(issuer, *now)}, nil
}

func issuerFact(issuer *model.CMPIssuer, ready metav1.Condition) event.Event {
	eventType := model.IssuerReady
	if ready.Status != metav1.ConditionTrue {
		eventType = model.IssuerFailed
	}
	e := model.NewEvent(eventType, ledger.IssuerKey(issuer), model.IssuerFact{Reason: ready.Reason, Message: ready.Message, Generation: issuer.Generation})
	e.SetID(model.DerivedID(eventType, string(issuer.UID), ready.Reason, ready.LastTransitionTime.UTC().Format(time.RFC3339), fmt.Sprint(issuer.Generation)))
	return e
}

// transition is when a condition changed: a whole second that no earlier change has, because the
// fact of the change is recognised by it.
func transition(now time.Time, was *metav1.Condition) metav1.Time {
	now = now.Truncate(time.Second)
	if was != nil && !now.After(was.LastTransitionTime.Time) {
		now = was.LastTransitionTime.Add(time.Second)
	}
	return metav1.NewTime(now)
}

// dependents asks for every certificate of an issuer that is not ready to be looked at.
func (o *Obtainer) dependents(ctx context.Context, issuer types.NamespacedName, in event.Event) (out []event.Event, err error) {
	_, err = o.referring(ctx, issuer, func(c *model.CMPCertificate) error {
		if settledWell(c) {
			return nil
		}
		eventType := model.EnrollmentRequested
		if meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready) {
			eventType = model.RenewalRequested // what it waits for is its renewal
		}
		e := model.NewEvent(eventType, types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, model.Work{Reason: model.WorkDependency})
		e.SetID(model.DerivedID(eventType, in.ID(), string(c.UID)))
		out = append(out, model.Follow(in, e))
		return nil
	})
	return out, err
}

// settledWell: nothing that its issuer can bring is waited for.
func settledWell(c *model.CMPCertificate) bool {
	conditions := c.Status.Conditions
	return meta.IsStatusConditionTrue(conditions, model.Ready) &&
		!meta.IsStatusConditionTrue(conditions, model.Reconciling) && !meta.IsStatusConditionTrue(conditions, model.Stalled)
}

// wakeDependents: a fresh identity is what the certificates of its issuer waited for.
func (a *attempt) wakeDependents(ctx context.Context) error {
	if a.cert.Spec.Type != model.CMPIdentity {
		return nil
	}
	a.o.known.forget(a.issuerKey()) // its Secret is another one now
	woken, err := a.o.dependents(ctx, a.issuerKey(), a.in)
	if err != nil {
		return fmt.Errorf("waking the certificates of %s: %w", a.issuerKey(), err)
	}
	for _, e := range woken {
		if e.Subject() != a.key.String() {
			a.facts = append(a.facts, e)
		}
	}
	return nil
}
