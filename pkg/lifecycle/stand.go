package lifecycle

import (
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// declared: somebody said by an event what is wanted, and may wait for the answer.
func declared(in event.Event) bool {
	switch in.Type() {
	case model.ConfigCreated, model.ConfigUpdated, model.IssuerCreated, model.IssuerUpdated:
		return true
	default:
		return false
	}
}

// stand tells how a certificate stands to whoever declared it or asks, and to all when its
// configuration is another one, unless what is told already says so. So each declaration is
// answered: by config.rejected, or by a fact with its correlation and the generation it became,
// from which on the facts about the certificate are about what was declared.
func (a *attempt) stand(was *model.CMPCertificateStatus) {
	if a.cert.DeletionTimestamp != nil || !a.awaited(was) || slices.ContainsFunc(a.facts[a.retold:], a.tellsStanding(was)) {
		return
	}
	e, reason := a.standing()
	e.SetID(model.DerivedID(e.Type(), string(a.cert.UID), a.in.ID(), reason))
	a.tell(e)
}

func (a *attempt) awaited(was *model.CMPCertificateStatus) bool {
	return declared(a.in) || a.work.Reason == model.WorkApplied || a.work.Reason == model.WorkStatus ||
		a.cert.Status.ObservedGeneration != was.ObservedGeneration
}

// tellsStanding knows the facts that say how a certificate stands. One that was issued before this
// attempt may be told again, which the history drops.
func (a *attempt) tellsStanding(was *model.CMPCertificateStatus) func(event.Event) bool {
	return func(e event.Event) bool {
		switch e.Type() {
		case model.CertificateIssued, model.CertificateRenewed, model.CertificateAdopted:
			return a.cert.Status.Revision != was.Revision
		case model.CertificateRestored, model.CertificateWaiting, model.CertificateFailed, model.CertificateParked:
			return true
		default:
			return false
		}
	}
}

// standing is the fact that says what the status says, and its reason.
func (a *attempt) standing() (event.Event, string) {
	st := &a.cert.Status
	ready := meta.FindStatusCondition(st.Conditions, model.Ready)
	if ready == nil || st.ObservedGeneration != a.cert.Generation {
		ready = &metav1.Condition{Reason: model.ReasonPending, Message: "the configuration is applied; its certificate is being seen to"}
	}
	if ready.Status == metav1.ConditionTrue && a.rec.Current != nil {
		return model.NewEvent(model.CertificateReady, a.key, a.fact()), ready.Reason
	}
	eventType := model.CertificateWaiting
	if meta.IsStatusConditionTrue(st.Conditions, model.Stalled) {
		eventType = model.CertificateParked
	}
	return model.NewEvent(eventType, a.key, model.AttemptFact{
		Reason: ready.Reason, Message: ready.Message, Attempt: a.rec.Attempt.Failed,
		TransactionID: st.TransactionID, NextAttempt: st.NextAttempt, Generation: a.cert.Generation,
	}), ready.Reason
}

// issuerStands answers the declaration of an issuer that is as it was.
func issuerStands(issuer *model.CMPIssuer, in event.Event) event.Event {
	ready := meta.FindStatusCondition(issuer.Status.Conditions, model.Ready)
	if ready == nil || issuer.Status.ObservedGeneration != issuer.Generation {
		ready = &metav1.Condition{Reason: model.ReasonPending, Message: "the configuration is applied; the issuer is being looked at"}
	}
	e := issuerFact(issuer, *ready)
	e.SetID(model.DerivedID(e.Type(), ledger.IssuerKey(issuer).String(), in.ID()))
	return e
}
