package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// outcome is how an attempt ended, for status and history.
type outcome struct {
	reason  string // empty when all is well
	message string
	next    time.Time // when certloop goes on by itself; zero when it does not
	parked  bool      // somebody must change something
	missing bool      // something is looked for that certloop does not make
	fact    string    // event type to tell, when it is news
}

// outcomeOfRecord is what the record says of the last attempt.
func (a *attempt) outcomeOfRecord() outcome {
	at := a.rec.Attempt
	if f := a.rec.Flight; f != nil && at.Reason == "" && !f.NextPoll.IsZero() {
		return outcome{reason: model.ReasonWaitingForCA, next: f.NextPoll,
			message: "the CA asked us to come back at " + f.NextPoll.UTC().Format(time.RFC3339)}
	}
	return outcome{reason: at.Reason, message: at.Message, next: at.Next, parked: at.Parked != ""}
}

// failed ends an attempt that will be repeated.
func (a *attempt) failed(ctx context.Context, reason string, err error) error {
	at := &a.rec.Attempt
	at.Failed++
	at.Next = a.o.now().Add(a.retryDelay())
	at.Reason, at.Message, at.Parked = reason, bounded(err.Error()), ""
	out := a.outcomeOfRecord()
	a.tellKept(a.outcomeFact(model.CertificateFailed, out))
	if err := a.release(ctx); err != nil {
		return err
	}
	a.o.Log.WarnContext(ctx, "attempt failed", "certificate", a.key.String(), "reason", reason, "err", at.Message, "next", at.Next)
	a.later(at.Next, model.Work{Reason: model.WorkRetry})
	return a.report(ctx, out)
}

// outage ends an attempt that did not reach the CA. While the circuit is open the end of
// the outage wakes it, and no alarm of its own.
func (a *attempt) outage(ctx context.Context, err error) error {
	open, openErr := a.unreachable(ctx, err)
	if openErr != nil {
		a.o.Log.WarnContext(ctx, "the circuit could not be opened", "certificate", a.key.String(), "err", openErr)
	}
	if !open {
		return a.failed(ctx, model.ReasonCAUnreachable, err)
	}
	at := &a.rec.Attempt
	at.Failed++
	at.Next, at.Reason, at.Message, at.Parked = time.Time{}, model.ReasonCAUnreachable, bounded(err.Error()), ""
	if err := a.release(ctx); err != nil {
		return err
	}
	a.o.Log.WarnContext(ctx, "probe failed", "certificate", a.key.String(), "issuer", a.issuerKey().String(), "err", at.Message)
	return a.report(ctx, held(a.circuit()))
}

// park ends an attempt that repeating would not cure.
func (a *attempt) park(ctx context.Context, reason string, err error) error {
	at := &a.rec.Attempt
	at.Failed++
	at.Next, at.Reason, at.Message = time.Time{}, reason, bounded(err.Error())
	at.Parked = view{config: a.config, issuer: issuerState(a.ca)}.parkedFor()
	out := a.outcomeOfRecord()
	a.tellKept(a.outcomeFact(model.CertificateParked, out))
	if err := a.release(ctx); err != nil {
		return err
	}
	a.o.Log.ErrorContext(ctx, "certificate parked", "certificate", a.key.String(), "reason", reason, "err", at.Message)
	return a.report(ctx, out)
}

func (a *attempt) release(ctx context.Context) error {
	a.rec.Lease = nil
	return a.save(ctx, "release")
}

// retryDelay is how long to wait after a failed attempt.
func (a *attempt) retryDelay() time.Duration {
	if a.fixed() {
		return model.FirstRetry
	}
	var lifetime, left time.Duration
	if a.rec.Current != nil {
		cert := a.rec.Current.Certificate()
		lifetime, left = cert.NotAfter.Sub(cert.NotBefore), cert.NotAfter.Sub(a.o.now())
	}
	return model.RetryDelay(a.rec.Attempt.Failed, lifetime, left, jitter())
}

// fixed: the issuer wants every attempt repeated after 30 s, whatever the CA said.
func (a *attempt) fixed() bool {
	return a.ca != nil && a.ca.issuer.Spec.Retry.Policy == model.RetryFixed30s
}

// waitLonger grows the interval at which something missing is looked for, 30 s to 1 min.
func waitLonger(attempts int64) time.Duration {
	return min(model.RetryDelay(attempts, 0, 0, jitter()), time.Minute)
}

// unmet ends an attempt that could not begin because something is missing or wrong
// that certloop does not make. It looks again by itself; events make it look sooner.
func (a *attempt) unmet(ctx context.Context, err error) error {
	var why *unmetError
	if !errors.As(err, &why) {
		return err
	}
	if a.insist() || a.rec.Lease != nil {
		if err := a.release(ctx); err != nil {
			return err
		}
	}
	out := a.lacking(why)
	a.later(out.next, model.Work{Reason: model.WorkDependency})
	return a.report(ctx, out)
}

// lacking is how an attempt ends for want of something, which is told when it is news.
func (a *attempt) lacking(why *unmetError) outcome {
	out := outcome{reason: why.reason, message: bounded(why.message), next: a.o.now().Add(waitLonger(a.cert.Status.Attempts + 1)), missing: true}
	if !a.knownFor(why.reason) {
		out.fact = model.CertificateWaiting
	}
	return out
}

// knownFor: the status gives this reason already.
func (a *attempt) knownFor(reason string) bool {
	for _, kind := range []string{model.Ready, model.Reconciling} {
		if c := meta.FindStatusCondition(a.cert.Status.Conditions, kind); c != nil && c.Reason == reason {
			return true
		}
	}
	return false
}

// stop ends an attempt for a certificate that is paused. A transaction in flight stays as
// it is; it goes on, or has timed out, when the pause is over.
func (a *attempt) stop(ctx context.Context) error {
	if a.insist() {
		if err := a.save(ctx, "insist"); err != nil {
			return err
		}
	}
	return a.report(ctx, outcome{reason: model.ReasonPaused, parked: true, message: "spec.paused is true: nothing is done for this certificate until it is false"})
}

// unmetError says what an attempt needs and does not find.
type unmetError struct{ reason, message string }

func (e *unmetError) Error() string { return e.message }

// maxMessageBytes bounds texts of others in a status.
const maxMessageBytes = 1024

func bounded(s string) string {
	if len(s) > maxMessageBytes {
		return s[:maxMessageBytes] + "…"
	}
	return s
}

// report writes the status when it changed, and tells what is news.
func (a *attempt) report(ctx context.Context, out outcome) error {
	began := a.o.now()
	for range 5 {
		before := a.cert.Status.DeepCopy()
		a.setStatus(out)
		if equality.Semantic.DeepEqual(before, &a.cert.Status) {
			break
		}
		err := a.o.Ledger.UpdateCertificateStatus(ctx, a.cert)
		if err == nil {
			a.trace(began, "report", out.reason)
			break
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return ignoreGone(err)
		}
		fresh, err := a.o.Ledger.Certificate(ctx, a.key)
		if err != nil {
			return ignoreGone(err)
		}
		if err := a.current(ctx); err != nil {
			return err
		}
		a.cert.Status, a.cert.ResourceVersion = fresh.Status, fresh.ResourceVersion
	}
	if out.fact != "" {
		a.tell(a.outcomeFact(out.fact, out))
	}
	return nil
}

// current makes sure that the record is still as this attempt knows it: whoever was
// stalled between delivering and reporting must not tell of a certificate that its
// successor has replaced. ledger.ErrConflict when it is not.
func (a *attempt) current(ctx context.Context) error {
	now, err := a.o.Ledger.Record(ctx, a.cert)
	if err == nil && now.Version() != a.rec.Version() {
		return fmt.Errorf("the record of %s is not what is reported: %w", a.key, ledger.ErrConflict)
	}
	return nil // one that cannot be read has been told of already
}

// ignoreGone: nobody misses the status of a configuration that was withdrawn meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	return err
}

// outcomeFact tells of an outcome.
func (a *attempt) outcomeFact(eventType string, out outcome) event.Event {
	data := model.AttemptFact{Reason: out.reason, Message: out.message, Attempt: a.rec.Attempt.Failed, Generation: a.cert.Generation}
	if a.rec.Flight != nil {
		data.TransactionID = a.rec.Flight.ID
	}
	if !out.next.IsZero() {
		next := metav1.NewTime(out.next)
		data.NextAttempt = &next
	}
	return model.NewEvent(eventType, a.key, data)
}

// setStatus writes into the status what the record and the outcome say.
func (a *attempt) setStatus(out outcome) {
	s := &a.cert.Status
	s.ObservedGeneration = a.cert.Generation
	s.ExtraIssuances = a.rec.Attempt.Orphans
	s.TransactionID, s.NextAttempt = "", nil
	if a.rec.Flight != nil {
		s.TransactionID = a.rec.Flight.ID
	}
	s.Attempts = a.attempts(s.Attempts, out)
	if !out.next.IsZero() {
		next := metav1.NewTime(out.next.Truncate(time.Second))
		s.NextAttempt = &next
	}
	a.setCertificate(s)
	a.setSecrets(s)
	carriedOut(a.cert, a.rec)
	a.setConditions(s, out)
}

// attempts counts failures, which the record remembers, and looks for something that
// is missing, which only the status does.
func (a *attempt) attempts(before int64, out outcome) int64 {
	if !out.missing || a.rec.Attempt.Failed > 0 {
		return a.rec.Attempt.Failed
	}
	return min(before+1, 100)
}

func (a *attempt) setCertificate(s *model.CMPCertificateStatus) {
	if a.rec.Current == nil {
		return
	}
	f := a.fact()
	s.Serial, s.Fingerprint, s.Revision = f.Serial, f.Fingerprint, f.Revision
	s.NotBefore, s.NotAfter, s.RenewalTime = &f.NotBefore, &f.NotAfter, ceil(f.RenewalTime)
	s.Differences = f.Differences
	s.RenewalDay = model.RenewalDay(s.RenewalTime.Time)
}

// ceil rounds up to whole seconds, as the API server keeps them, so that a
// certificate is due when its status says so.
func ceil(t metav1.Time) *metav1.Time {
	up := metav1.NewTime(t.Add(time.Second - 1).Truncate(time.Second))
	return &up
}

func (a *attempt) setConditions(s *model.CMPCertificateStatus, out outcome) {
	ready := metav1.Condition{Type: model.Ready, Status: metav1.ConditionFalse, Reason: out.reason, Message: out.message}
	v := view{rec: a.rec, spec: &a.cert.Spec, config: a.config, now: a.o.now()}
	switch {
	case v.usable() && !a.withheld:
		ready.Status, ready.Reason = metav1.ConditionTrue, readyReason(a.rec.Current)
		ready.Message = strings.Join(append([]string{fmt.Sprintf("certificate %s is delivered and valid until %s", s.Serial, s.NotAfter.UTC().Format(time.RFC3339))}, a.notes()...), "; ")
	case out.reason == "":
		ready.Reason, ready.Message = model.ReasonPending, "a certificate is needed"
	}
	set(&s.Conditions, ready, a.cert.Generation)
	abnormal(&s.Conditions, model.Reconciling, out.reason != "" && !out.parked, out, a.cert.Generation)
	abnormal(&s.Conditions, model.Stalled, out.parked, out, a.cert.Generation)
}

// readyReason says how a certificate came to be in use.
func readyReason(i *ledger.Issuance) string {
	if i.Adopted {
		return model.ReasonAdopted
	}
	return model.ReasonIssued
}

// abnormal keeps a condition that is there only while it is true.
func abnormal(conditions *[]metav1.Condition, kind string, holds bool, out outcome, generation int64) {
	if !holds {
		meta.RemoveStatusCondition(conditions, kind)
		return
	}
	set(conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: out.reason, Message: out.message}, generation)
}

func set(conditions *[]metav1.Condition, c metav1.Condition, generation int64) {
	c.ObservedGeneration = generation
	meta.SetStatusCondition(conditions, c)
}
