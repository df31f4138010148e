package lifecycle

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// hindered ends an attempt that could not read or write what it needs in the cluster, where that is for
// somebody to put right: it is told in the status, and looked at again. Any other error is given back,
// for the event to be delivered again.
//
// What this attempt made of the record was not stored, so that the status tells of the stored one, and
// of how the attempt ended nothing but this.
func (a *attempt) hindered(ctx context.Context, err error) error {
	why := hindrance(err)
	if why == nil {
		return err
	}
	a.rec = a.stored(ctx)
	own := slices.DeleteFunc(a.facts[a.retold:], func(e event.Event) bool {
		return e.Type() == model.CertificateWaiting || e.Type() == model.CertificateFailed || e.Type() == model.CertificateParked
	})
	a.facts = a.facts[:a.retold+len(own)]
	out := a.lacking(why)
	a.o.Log.WarnContext(ctx, "hindered", "certificate", a.key.String(), "reason", why.reason, "err", out.message, "next", out.next)
	a.lookAgain(out.next)
	if untold := a.report(ctx, out); untold != nil {
		return errors.Join(err, untold)
	}
	if a.in.Type() == model.RevocationRequested {
		return err // it is nowhere but in this event
	}
	return nil
}

// hindrance is what the status says of an error; nil when somebody need not do anything about it.
func hindrance(err error) *unmetError {
	switch {
	case errors.Is(err, ledger.ErrSpoilt):
		return &unmetError{model.ReasonRecordInvalid, err.Error() + "; put it right, or delete it to have a new certificate issued"}
	case errors.Is(err, ledger.ErrNotManaged):
		return &unmetError{model.ReasonRecordInvalid, err.Error() + "; it stands where the record of the certificate should be: delete it"}
	case apierrors.IsForbidden(err):
		return &unmetError{model.ReasonForbidden, err.Error()}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return &unmetError{model.ReasonForbidden, "the API server does not take it: " + err.Error()}
	default:
		return nil
	}
}

// stored is the record as it is stored. Of one that cannot be read only that is known which the status says.
func (a *attempt) stored(ctx context.Context) *ledger.Record {
	if rec, err := a.o.Ledger.Record(ctx, a.cert); err == nil {
		return rec
	}
	rec := ledger.NewRecord(a.cert)
	rec.Attempt.Orphans = a.cert.Status.ExtraIssuances
	return rec
}

// lookAgain asks for another look. What a person asks for by an event, and the record could not be made to
// remember, is asked for again.
func (a *attempt) lookAgain(next time.Time) {
	switch d := a.demand; {
	case !d.fresh || d.noted:
		a.later(next, model.Work{Reason: model.WorkDependency})
	case d.kind == recreation:
		a.tell(model.Delay(model.NewEvent(model.RecreationRequested, a.key, model.Work{}), next))
	default:
		a.later(next, model.Work{Reason: model.WorkManual})
	}
}
