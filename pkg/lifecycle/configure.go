package lifecycle

import (
	"context"
	"errors"
	"fmt"
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
	if _, err := o.Ledger.ApplyCertificate(ctx, key, c.Spec); err != nil {
		return refusedConfig(in, key, err)
	}
	return o.obtain(ctx, key, ledger.ForEnrollment, in)
}

// ConfigWithdrawn deletes the configuration of config.deleted. Its output stays.
func (o *Obtainer) ConfigWithdrawn(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	return refusedConfig(in, key, o.Ledger.DeleteCertificate(ctx, key))
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
		return refusedConfig(in, key, err)
	}
	return o.issuerChanged(ctx, key, in)
}

// IssuerWithdrawn deletes the issuer of issuer.deleted.
func (o *Obtainer) IssuerWithdrawn(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	return refusedConfig(in, key, o.Ledger.DeleteIssuer(ctx, key))
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
		fact.Reason = "OwnedByAnother"
	case errors.As(err, &status) && rejectedForGood(status.Status()):
		fact.Reason = string(status.Status().Reason)
		for _, c := range causes(status.Status()) {
			fact.Fields = append(fact.Fields, c.Field+": "+c.Message)
		}
	default:
		return nil, err
	}
	e := model.NewEvent(model.ConfigRejected, key, fact)
	e.SetID(model.DerivedID(model.ConfigRejected, in.ID()))
	return []event.Event{model.Follow(in, e)}, nil
}

func rejectedForGood(s metav1.Status) bool {
	switch s.Reason {
	case metav1.StatusReasonInvalid, metav1.StatusReasonBadRequest, metav1.StatusReasonForbidden, metav1.StatusReasonNotFound:
		return true
	default:
		return false
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
	if err != nil || in.Type() == model.ResourceDelete {
		return nil, err // a withdrawn configuration takes its record with it, by its owner reference
	}
	switch kind, _ := in.Extensions()["kind"].(string); kind {
	case model.CertificateKind:
		var c model.CMPCertificate
		if in.DataAs(&c) == nil && settled(c.Status.ObservedGeneration == c.Generation, c.Status.Conditions, c.Status.NextAttempt, o.now()) {
			return nil, nil
		}
		return o.obtain(ctx, key, ledger.ForEnrollment, in)
	case model.IssuerKind:
		var i model.CMPIssuer
		if in.DataAs(&i) == nil && i.Generation != 0 && i.Status.ObservedGeneration == i.Generation {
			return nil, nil
		}
		return o.issuerChanged(ctx, key, in)
	default:
		return nil, nil
	}
}

// settled: the object as the event shows it says itself that there is nothing to do
// now. Most of these events are the echo of our own status.
func settled(current bool, conditions []metav1.Condition, next *metav1.Time, now time.Time) bool {
	waits := next != nil && next.After(now)
	ready := meta.IsStatusConditionTrue(conditions, model.Ready) && !meta.IsStatusConditionTrue(conditions, model.Reconciling)
	return current && (waits || ready || meta.IsStatusConditionTrue(conditions, model.Stalled))
}

// issuerChanged checks what an issuer refers to and wakes the certificates that are
// not ready.
func (o *Obtainer) issuerChanged(ctx context.Context, key types.NamespacedName, in event.Event) ([]event.Event, error) {
	issuer, err := o.Ledger.Issuer(ctx, key)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := o.reportIssuer(ctx, issuer, o.checkIssuer(ctx, issuer)); err != nil {
		return nil, err
	}
	return o.dependents(ctx, key, in)
}

func (o *Obtainer) checkIssuer(ctx context.Context, issuer *model.CMPIssuer) error {
	if _, err := o.authority(ctx, issuer); err != nil {
		return err
	}
	if issuer.Spec.InitialAuthentication == nil {
		return nil
	}
	_, err := o.bootstrap(ctx, issuer)
	return err
}

// reportIssuer writes what was found about an issuer into its status. Losing a race
// for it is no harm: the next attempt reports again.
func (o *Obtainer) reportIssuer(ctx context.Context, issuer *model.CMPIssuer, found error) error {
	ready := metav1.Condition{Type: model.Ready, Status: metav1.ConditionTrue, Reason: "Usable",
		Message: "trust and bootstrap credentials can be read", ObservedGeneration: issuer.Generation}
	var why *unmetError
	switch {
	case errors.As(found, &why):
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, why.reason, bounded(why.message)
	case found != nil:
		return found
	}
	before := issuer.Status.DeepCopy()
	issuer.Status.ObservedGeneration = issuer.Generation
	meta.SetStatusCondition(&issuer.Status.Conditions, ready)
	if equality.Semantic.DeepEqual(before, &issuer.Status) {
		return nil
	}
	err := o.Ledger.UpdateIssuerStatus(ctx, issuer)
	if errors.Is(err, ledger.ErrConflict) || errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	return err
}

// dependents asks for every certificate of an issuer that is not ready to be looked at.
func (o *Obtainer) dependents(ctx context.Context, issuer types.NamespacedName, in event.Event) (out []event.Event, err error) {
	q := ledger.Query{Namespace: issuer.Namespace, Issuer: issuer.Name}
	err = o.Ledger.Certificates(ctx, q, func(c *model.CMPCertificate) error {
		key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
		if meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready) {
			return nil
		}
		e := model.NewEvent(model.EnrollmentRequested, key, model.Work{Reason: model.WorkDependency})
		e.SetID(model.DerivedID(model.EnrollmentRequested, in.ID(), string(c.UID)))
		out = append(out, model.Follow(in, e))
		return nil
	})
	return out, err
}

// wakeDependents: a fresh identity is what the certificates of its issuer waited for.
func (a *attempt) wakeDependents(ctx context.Context) error {
	if a.cert.Spec.Type != model.CMPIdentity {
		return nil
	}
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
