package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// Watcher compares what is with what should be and tells the difference. It talks to
// no CA and writes nothing. It is safe for concurrent use.
type Watcher struct {
	Ledger *ledger.Store
	// Namespaces are the ones scans look into; all of them when empty.
	Namespaces []string
	// Namespace is certloop's own: there are the Secrets that a CMPClusterIssuer names.
	Namespace string
	// Now is the clock; time.Now when nil.
	Now func() time.Time

	memory sweepMemory
	users  users
}

func (w *Watcher) now() time.Time {
	if w.Now != nil {
		return w.Now()
	}
	return time.Now()
}

// Changed handles the events of an ApiServerSource about Secrets: an output that no
// longer holds what was delivered becomes secret.modified or secret.deleted, a Secret that
// an issuer has not seen yet as it is now, or that is gone, input.changed, and enrollment.requested
// for the certificates whose CA bundle it is. Our own writes are recognised by their metadata and tell nothing.
func (w *Watcher) Changed(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	secret, err := w.Ledger.SecretMetadata(ctx, key)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return w.gone(ctx, key, in)
	case err != nil:
		return nil, err
	case secret.Labels[model.RoleLabel] == model.RoleRecord, ledger.AsWritten(secret):
		return nil, nil
	case secret.Labels[model.RoleLabel] == model.RoleInput:
		return w.markedInput(ctx, key, secret.ResourceVersion, in)
	case ledger.OwnerName(secret) == "":
		return w.unmarked(ctx, key, in)
	default:
		return w.marked(ctx, secret, in)
	}
}

// marked looks at a Secret that says whose output it is.
func (w *Watcher) marked(ctx context.Context, secret *metav1.PartialObjectMetadata, in event.Event) ([]event.Event, error) {
	key := types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}
	c, err := w.Ledger.Certificate(ctx, types.NamespacedName{Namespace: secret.Namespace, Name: ledger.OwnerName(secret)})
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return w.unmarked(ctx, key, in)
	case err != nil:
		return nil, err
	case !slices.Contains(c.Spec.Output.SecretNames(), secret.Name):
		return w.unmarked(ctx, key, in)
	case c.Status.Secrets[secret.Name] == secret.ResourceVersion:
		return nil, nil
	}
	return w.compare(ctx, c, in)
}

// unmarked looks for the configurations that name a Secret.
func (w *Watcher) unmarked(ctx context.Context, key types.NamespacedName, in event.Event) (out []event.Event, err error) {
	err = w.Ledger.CertificatesOf(ctx, key.Namespace, key.Name, func(c *model.CMPCertificate) error {
		facts, err := w.compare(ctx, c, in)
		out = append(out, facts...)
		return err
	})
	return out, err
}

// gone looks for whoever needs a Secret that does not exist.
func (w *Watcher) gone(ctx context.Context, key types.NamespacedName, in event.Event) ([]event.Event, error) {
	if name, ok := model.RecordOf(key.Name); ok {
		return w.recordGone(ctx, types.NamespacedName{Namespace: key.Namespace, Name: name}, in)
	}
	out, err := w.unmarked(ctx, key, in)
	if err != nil || len(out) > 0 {
		return out, err
	}
	return w.inputChanged(ctx, key, "", in)
}

// recordGone looks at the certificate whose record does not exist any more. Mostly it has gone with it.
func (w *Watcher) recordGone(ctx context.Context, key types.NamespacedName, in event.Event) ([]event.Event, error) {
	c, err := w.Ledger.Certificate(ctx, key)
	if err != nil {
		return nil, ignoreGone(err)
	}
	return w.compare(ctx, c, in)
}

// markedInput looks for whoever uses a Secret that people marked as an input.
func (w *Watcher) markedInput(ctx context.Context, key types.NamespacedName, version string, in event.Event) ([]event.Event, error) {
	issuers, err := w.inputChanged(ctx, key, version, in)
	if err != nil {
		return nil, err
	}
	certificates, err := w.bundleChanged(ctx, key, version, in)
	return append(issuers, certificates...), err
}

// inputChanged tells the issuers that name a Secret and have not seen it as it is now.
func (w *Watcher) inputChanged(ctx context.Context, key types.NamespacedName, version string, in event.Event) (out []event.Event, err error) {
	err = w.issuers(ctx, key.Namespace, func(i *model.CMPIssuer) error {
		if slices.Contains(i.Spec.Inputs(), key.Name) && i.Status.Inputs[key.Name] != version {
			out = append(out, inputFact(i, key.Name, version, in))
		}
		return nil
	})
	return out, err
}

// bundleChanged asks for the delivery of the certificates whose CA bundle a Secret is. It reads all of the
// namespace, which is done for no Secret that has gone: what it held last stays.
func (w *Watcher) bundleChanged(ctx context.Context, key types.NamespacedName, version string, in event.Event) (out []event.Event, err error) {
	err = w.Ledger.Certificates(ctx, ledger.Query{Namespace: key.Namespace}, func(c *model.CMPCertificate) error {
		if src := c.Spec.CABundle; src != nil && src.SecretName == key.Name && otherBundle(c, version) {
			out = append(out, model.Follow(in, bundleFact(c, version)))
		}
		return nil
	})
	return out, err
}

// otherBundle: what was delivered has not seen the Secret of its CA bundle as it is now.
func otherBundle(c *model.CMPCertificate, version string) bool {
	return c.Status.Revision > 0 && !c.Spec.Paused && c.DeletionTimestamp == nil && c.Status.Secrets[c.Spec.CABundle.SecretName] != version
}

// bundleFact asks for a look at a certificate whose CA bundle has changed.
func bundleFact(c *model.CMPCertificate, version string) event.Event {
	e := model.NewEvent(model.EnrollmentRequested, types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, model.Work{Reason: model.WorkDependency})
	e.SetID(model.DerivedID(model.EnrollmentRequested, string(c.UID), "bundle", version))
	return e
}

// issuers visits those whose Secrets are in a namespace.
func (w *Watcher) issuers(ctx context.Context, namespace string, visit func(*model.CMPIssuer) error) error {
	if err := w.Ledger.Issuers(ctx, namespace, visit); err != nil {
		return err
	}
	if namespace == "" || namespace != w.Namespace {
		return nil
	}
	return w.Ledger.ClusterIssuers(ctx, visit)
}

func inputFact(i *model.CMPIssuer, secret, version string, in event.Event) event.Event {
	key := ledger.IssuerKey(i)
	e := model.NewEvent(model.InputChanged, key, model.InputFact{SecretName: secret, ResourceVersion: version, IssuerKind: ledger.IssuerKind(key)})
	e.SetID(model.DerivedID(model.InputChanged, string(i.UID), secret, i.Status.Inputs[secret], version))
	return model.Follow(in, e)
}

// compare tells whether the output of one certificate has drifted from its record.
func (w *Watcher) compare(ctx context.Context, c *model.CMPCertificate, in event.Event) ([]event.Event, error) {
	rec, err := w.Ledger.Record(ctx, c)
	if errors.Is(err, ledger.ErrNotManaged) || errors.Is(err, ledger.ErrSpoilt) {
		return nil, nil // enroll tells in the status; the others are still to be looked at
	}
	if err != nil {
		return nil, err
	}
	if lost(c, rec) {
		return []event.Event{model.Follow(in, lostFact(c))}, nil
	}
	if rec.Current == nil || rec.Lease != nil {
		return nil, nil // nothing was delivered yet, or somebody is delivering
	}
	found, err := w.Ledger.Outputs(ctx, c)
	if err != nil {
		return nil, err
	}
	deviations, err := rec.Deviations(found)
	if errors.Is(err, ledger.ErrKeyLost) {
		return []event.Event{model.Follow(in, driftFact(c, found, rec, keyLost(c), in))}, nil
	}
	if err != nil {
		return nil, err
	}
	var out []event.Event
	for _, d := range deviations {
		e := driftFact(c, found, rec, d, in)
		if rec.Outdated(found[d.SecretName]) {
			e = undelivered(c, rec)
		}
		out = append(out, model.Follow(in, e))
	}
	return out, nil
}

// lost: there is no record of what was delivered, so that nobody could put it back or renew it by
// its own key. What has ended or is paused is left as it is.
func lost(c *model.CMPCertificate, rec *ledger.Record) bool {
	return rec.Version() == "" && c.Status.Revision > 0 && c.DeletionTimestamp == nil && !c.Spec.Paused
}

// lostFact asks for a look at a certificate of which the record is lost.
func lostFact(c *model.CMPCertificate) event.Event {
	e := model.NewEvent(model.EnrollmentRequested, types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, model.Work{Reason: model.WorkRetry})
	e.SetID(model.DerivedID(model.EnrollmentRequested, string(c.UID), "lost", fmt.Sprint(c.Status.Revision)))
	return e
}

// keyLost is how an output has drifted that no longer holds the only copy of the key.
func keyLost(c *model.CMPCertificate) ledger.Deviation {
	return ledger.Deviation{SecretName: c.Spec.Output.KeySecretName(), Cause: ledger.ErrKeyLost.Error()}
}

// undelivered asks for the delivery of a certificate whose output still holds the former
// one: whoever obtained it is about to deliver it, or died.
func undelivered(c *model.CMPCertificate, rec *ledger.Record) event.Event {
	e := model.NewEvent(model.EnrollmentRequested, types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, model.Work{Reason: model.WorkRetry})
	e.SetID(model.DerivedID(model.EnrollmentRequested, string(c.UID), "undelivered", fmt.Sprint(rec.Current.Revision)))
	return e
}

func driftFact(c *model.CMPCertificate, found ledger.Outputs, rec *ledger.Record, d ledger.Deviation, in event.Event) event.Event {
	eventType, seen := model.SecretDeleted, in.ID()
	if secret := found[d.SecretName]; secret != nil {
		eventType, seen = model.SecretModified, secret.ResourceVersion
	}
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	e := model.NewEvent(eventType, key, model.SecretFact{SecretName: d.SecretName, Cause: d.Cause})
	e.SetID(model.DerivedID(eventType, string(c.UID), d.SecretName, fmt.Sprint(rec.Current.Revision), seen))
	return e
}

// tick is the data of a PingSource event of ours.
type tick struct {
	Scan string `json:"scan"` // "expiry" (also when absent) or "sweep"
}

func scanOf(in event.Event) string {
	var t tick
	if in.DataAs(&t) != nil || t.Scan == "" {
		return "expiry"
	}
	return t.Scan
}

// Scan handles a tick: it asks for what is due and for what has been pending too
// long. It is level-triggered: a tick that was missed is made up for by the next, and a
// tick too many finds nothing new. It needs no right to any Secret.
//
// It reads the certificates whose renewal day is today or yesterday, and those that
// were never issued; Sweep finds what is older.
func (w *Watcher) Scan(ctx context.Context, in event.Event) ([]event.Event, error) {
	if scanOf(in) != "expiry" {
		return nil, nil
	}
	s := w.newScan(in)
	today, yesterday, never := model.RenewalDay(s.now), model.RenewalDay(s.now.AddDate(0, 0, -1)), ""
	for _, day := range []string{today, yesterday, never} {
		if err := s.each(ctx, w, ledger.Query{RenewalDay: &day}); err != nil {
			return nil, err
		}
	}
	s.askDue(0)
	if s.held.Due > s.held.Told {
		s.out = append(s.out, s.heldFact())
	}
	return s.completed(), nil
}

// each looks at what q selects in every namespace that w looks into.
func (s *scan) each(ctx context.Context, w *Watcher, q ledger.Query) error {
	for _, q.Namespace = range w.namespaces() {
		if err := s.passOver(q.Namespace, w.Ledger.Certificates(ctx, q, s.look)); err != nil {
			return err
		}
	}
	return nil
}

// namespaces are those to look into; the empty one stands for all of them.
func (w *Watcher) namespaces() []string {
	if len(w.Namespaces) == 0 {
		return []string{""}
	}
	return w.Namespaces
}

// unreadAtMost is how many namespaces scan.completed names.
const unreadAtMost = 20

// passOver notes that the API server does not let us read a namespace, which is none of the
// others' business: whoever deletes one takes our right to it away with its RoleBinding. Every other error
// remains, and so does this one where it is about all namespaces.
func (s *scan) passOver(namespace string, err error) error {
	if namespace == "" || !apierrors.IsForbidden(err) {
		return err
	}
	if !s.passedOver(namespace) && len(s.fact.Unread) < unreadAtMost {
		s.fact.Unread = append(s.fact.Unread, namespace)
	}
	return nil
}

func (s *scan) passedOver(namespace string) bool { return slices.Contains(s.fact.Unread, namespace) }

// scan is one pass over certificates.
type scan struct {
	in   event.Event
	now  time.Time
	took func() time.Duration
	fact model.ScanFact
	held model.HeldFact
	due  []*model.CMPCertificate // that nobody works on yet
	// issuers that were woken because their CA did not answer.
	issuers map[types.NamespacedName]bool
	out     []event.Event
}

func (w *Watcher) newScan(in event.Event) *scan {
	began := w.now()
	return &scan{in: in, now: began, took: func() time.Duration { return w.now().Sub(began) }}
}

// overdueAfter is how long past its time a wait must be before a scan takes its alarm
// for lost.
const overdueAfter = time.Minute

func (s *scan) look(c *model.CMPCertificate) error {
	s.fact.Looked++
	st := &c.Status
	switch {
	case unseen(c):
		s.fact.Pending++
		s.tell(c, model.EnrollmentRequested, model.Work{Reason: model.WorkRetry})
	case c.DeletionTimestamp != nil:
		s.lookAtLeaving(c)
	case c.Spec.Paused:
	case s.waitsForCA(c):
	case st.RenewalTime != nil && !s.now.Before(st.RenewalTime.Time):
		s.lookAtDue(c)
	case s.forgotten(c):
		s.fact.Pending++
		s.tell(c, model.EnrollmentRequested, model.Work{Reason: model.WorkRetry})
	}
	return nil
}

// lookAtLeaving asks for the end of a withdrawn configuration to go on, when it should have by now.
func (s *scan) lookAtLeaving(c *model.CMPCertificate) {
	since := c.DeletionTimestamp.Time
	if next := c.Status.NextAttempt; next != nil && next.After(since) {
		since = next.Time
	}
	if slices.Contains(c.Finalizers, model.CleanUpFinalizer) && s.now.Sub(since) > overdueAfter {
		s.fact.Pending++
		s.tell(c, model.EnrollmentRequested, model.Work{Reason: model.WorkRetry})
	}
}

// lookAtDue keeps what is due for askDue. What waits for a person is told without being counted:
// nothing is asked of the CA for it now. What has its next attempt before it is told when it is
// near its end.
func (s *scan) lookAtDue(c *model.CMPCertificate) {
	st := &c.Status
	s.held.Due++
	if next := st.NextAttempt; next != nil && s.now.Sub(next.Time) <= overdueAfter {
		s.held.Due--
		s.lookAtEnd(c)
		return
	}
	if meta.IsStatusConditionTrue(st.Conditions, model.Stalled) {
		s.held.Due--
		s.tellDue(c)
		return
	}
	s.due = append(s.due, c)
}

func (s *scan) expired(c *model.CMPCertificate) bool {
	return c.Status.NotAfter != nil && !s.now.Before(c.Status.NotAfter.Time)
}

func (s *scan) tellDue(c *model.CMPCertificate) {
	if s.expired(c) {
		s.fact.Expired++
		s.tell(c, model.CertificateExpired, certificateFact(c))
		return
	}
	s.fact.Expiring++
	s.tell(c, model.CertificateExpiring, certificateFact(c))
}

// How many due certificates a scan asks to be renewed: dueAlways, or dueShare of those it has
// looked at, whichever is more. A scan every minute renews a whole fleet within twenty, and fleets whose
// certificates live for an hour or longer never notice; a clock that jumped, or a CA whose
// certificates all end at once, cannot set all of it to work in one moment.
const (
	dueAlways = 50
	dueShare  = 0.05
)

// askDue asks for the renewal of as many as may be, nearest expiry first. told says how many
// this scan has asked for before.
func (s *scan) askDue(told int) {
	slices.SortFunc(s.due, func(a, b *model.CMPCertificate) int { return a.Status.NotAfter.Compare(b.Status.NotAfter.Time) })
	allowed := max(dueAlways, int(dueShare*float64(s.fact.Looked))) - told
	n := min(len(s.due), max(0, allowed))
	for _, c := range s.due[:n] {
		s.tellDue(c)
	}
	s.held.Told += n
	s.due = nil
}

// heldFact tells that more is due than is asked for now.
func (s *scan) heldFact() event.Event {
	e := model.NewEvent(model.ScanHeld, types.NamespacedName{}, s.held)
	e.SetID(model.DerivedID(model.ScanHeld, s.in.ID()))
	return model.Follow(s.in, e)
}

// unseen: it was changed or withdrawn, or something was asked for, since it was looked at last.
func unseen(c *model.CMPCertificate) bool {
	seen := c.Status.ObservedGeneration
	return seen != 0 && (seen != c.Generation || len(annotated(c)) > 0)
}

// forgotten: it should have been worked on by now and nobody has said a word.
func (s *scan) forgotten(c *model.CMPCertificate) bool {
	since := c.CreationTimestamp.Time
	switch next := c.Status.NextAttempt; {
	case meta.IsStatusConditionTrue(c.Status.Conditions, model.Stalled):
		return false
	case next != nil:
		since = next.Time
	case meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready):
		return false
	}
	return s.now.Sub(since) > overdueAfter
}

func certificateFact(c *model.CMPCertificate) model.CertificateFact {
	st := &c.Status
	f := model.CertificateFact{Serial: st.Serial, Fingerprint: st.Fingerprint, Revision: st.Revision, SecretName: c.Spec.Output.SecretName, NotAfter: *st.NotAfter}
	if st.NotBefore != nil {
		f.NotBefore = *st.NotBefore
	}
	if st.RenewalTime != nil {
		f.RenewalTime = *st.RenewalTime
	}
	return f
}

// tell says it once in ten minutes, however many ticks there are: by then either
// something has come of it or it was lost.
func (s *scan) tell(c *model.CMPCertificate, eventType string, data any) {
	e := model.NewEvent(eventType, types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, data)
	window := s.now.Truncate(announceFor).Format(time.RFC3339)
	e.SetID(model.DerivedID(eventType, string(c.UID), fmt.Sprint(c.Status.Revision), window))
	s.out = append(s.out, model.Follow(s.in, e))
}

func (s *scan) completed() []event.Event {
	s.fact.Seconds = s.took().Seconds()
	return append(s.out, model.Follow(s.in, model.NewEvent(model.ScanCompleted, types.NamespacedName{}, s.fact)))
}
