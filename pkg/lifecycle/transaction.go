package lifecycle

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// begin makes a new transaction, for a key update or an initial request.
func (a *attempt) begin(ctx context.Context, v view) error { return a.beginFor(ctx, v.request()) }

// beginFor stores a new key and a new transaction, and asks.
func (a *attempt) beginFor(ctx context.Context, purpose string) error {
	if err := a.authorize(ctx, purpose); err != nil {
		return a.unmet(ctx, err)
	}
	if err := a.ca.spare(a.cert); err != nil {
		return a.unmet(ctx, err)
	}
	if a.held() {
		return a.hold(ctx)
	}
	key, err := ledger.GenerateKey(a.cert.Spec.PrivateKey)
	if err != nil {
		return err
	}
	req, err := a.request(purpose, key)
	if err != nil {
		return a.unmet(ctx, unaskable(err))
	}
	tx, err := cmp.Begin(a.ca.config, *req)
	if err != nil {
		return a.unmet(ctx, unaskable(err))
	}
	a.rec.Flight = &ledger.Flight{Purpose: purpose, Config: a.config, ID: hex.EncodeToString(tx.ID()), Key: key, Begun: a.o.now(), Cause: a.cause(), Signer: signedBy(a.ca.config.Credential)}
	if a.rec.Attempt.Parked != "" { // that is over: something has changed
		a.rec.Attempt = a.lasting()
	}
	a.insist()
	if err := a.claim(ctx, tx); err != nil {
		return err
	}
	return a.drive(ctx, tx, false)
}

// unaskable says why there is no request: the configuration is wrong, unless err blames the issuer.
func unaskable(err error) error {
	if why, ok := asUnmet(err); ok {
		return why
	}
	return &unmetError{model.ReasonConfigInvalid, err.Error()}
}

// cause is what the certificate will have been issued for.
func (a *attempt) cause() string {
	if a.demand.kind != "" {
		return a.demand.id
	}
	return model.Correlation(a.in)
}

// insist makes the record remember what a person asked for. It tells whether that is
// something which would be lost otherwise.
func (a *attempt) insist() bool {
	if !a.demand.fresh {
		return false
	}
	a.rec.Attempt.Insisted = a.demand.String()
	return !a.demand.noted
}

// lasting is what of the attempts so far outlasts an answer of the CA that is no certificate.
func (a *attempt) lasting() ledger.Attempts {
	at := a.rec.Attempt
	return ledger.Attempts{Orphans: at.Orphans, Refused: at.Refused, Insisted: at.Insisted}
}

// resume goes on with the transaction in flight, wherever it stands.
func (a *attempt) resume(ctx context.Context, v view) error {
	repeat := a.rec.Flight.NextPoll.IsZero()
	if a.rec.Lease != nil && repeat && a.rec.Flight.Chain == nil {
		account{a.rec}.lost() // with its holder
	}
	if err := a.authorize(ctx, a.rec.Flight.Purpose); err != nil {
		return a.unmet(ctx, err)
	}
	if a.held() {
		return a.hold(ctx)
	}
	if a.overdue() {
		a.orphan("the total timeout was over")
		return a.failed(ctx, model.ReasonTransactionTimeout, fmt.Errorf("the CA did not finish within %s", a.ca.totalTimeout))
	}
	tx, err := cmp.Resume(a.ca.config, a.rec.Flight.Transaction)
	if err != nil {
		a.orphan("the stored transaction cannot be resumed: " + err.Error())
		return a.begin(ctx, v)
	}
	if err := a.claim(ctx, tx); err != nil {
		return err
	}
	return a.drive(ctx, tx, repeat)
}

// lost counts a request that may have reached the CA, whose answer did not reach us.
func (a *attempt) lost(step cmp.Step) {
	if requests(step) {
		account{a.rec}.lost()
	}
}

// requests tells whether a step asks for a certificate, so that a CA may issue one for it.
func requests(step cmp.Step) bool { return step.Type == cmp.TypeIR || step.Type == cmp.TypeKUR }

func (a *attempt) overdue() bool {
	f := a.rec.Flight
	return f.Chain == nil && a.o.now().Sub(f.Begun) > a.ca.totalTimeout
}

func (a *attempt) claim(ctx context.Context, tx *cmp.Transaction) error {
	a.rec.Claim(a.o.Holder)
	return a.keep(ctx, tx, "claim")
}

// keep stores the transaction as it is now.
func (a *attempt) keep(ctx context.Context, tx *cmp.Transaction, step string) error {
	state, err := tx.MarshalBinary()
	if err != nil {
		return err
	}
	a.rec.Flight.Transaction = state
	return a.save(ctx, step)
}

// drive exchanges messages until the transaction is done, must wait, or fails.
// repeat says that the first message may have been sent before.
func (a *attempt) drive(ctx context.Context, tx *cmp.Transaction, repeat bool) error {
	step := tx.Step()
	for first := true; !step.Done; first = false {
		if err := a.stage(ctx, tx, step); err != nil {
			return err
		}
		if step.Wait > 0 && !first {
			return a.wait(ctx, tx, step)
		}
		next, err := a.exchange(ctx, tx, step)
		switch {
		case err == nil && a.useless(next.Issued):
			a.sayGoodbye(ctx, tx.RejectCertificate(cmp.FailBadCertTemplate, "it is valid for less than "+leastValidity.String()))
			return a.unwanted(ctx, fmt.Errorf("the certificate ends at %s, in less than %s", next.Issued.Certificate.NotAfter.UTC().Format(time.RFC3339), leastValidity))
		case err == nil:
			a.answered(step)
			step, repeat = next, false
		case repeat && step.Type == cmp.TypeCertConf && forgotten(err):
			step = cmp.Step{Done: true, Issued: step.Issued}
		default:
			a.sayGoodbye(ctx, next)
			return a.refused(ctx, step, err, repeat)
		}
	}
	return a.finish(ctx, step)
}

// leastValidity is how long a certificate must be good for to be of any use: one that is due
// again before it is delivered would have the next one issued at once, and so on.
const leastValidity = 5 * time.Second

func (a *attempt) useless(issued *cmp.Issued) bool {
	return issued != nil && a.rec.Flight.Chain == nil && issued.Certificate.NotAfter.Sub(a.o.now()) < leastValidity
}

// answered: a request got its answer, perhaps not the first time it was sent. A CA that
// does not recognise it again has issued another certificate each time; nothing in
// the answer tells.
func (a *attempt) answered(step cmp.Step) {
	if !requests(step) {
		return
	}
	if n := (account{a.rec}).answered(); n > 0 {
		a.orphaned(a.rec.Flight.ID, fmt.Sprintf("the request was sent %d times until its answer came: a CA that does not know a transactionID again has issued as many certificates", n+1))
	}
}

// forgotten: the CA knows nothing of the transaction. When it is asked to confirm again, it has
// ended it, as it does when the first confirmation arrived; what it says for sure,
// certConfirmed, package cmp takes for the yes that it is. When it is polled, it has lost it.
func forgotten(err error) bool {
	var peer *cmp.Error
	return errors.As(err, &peer) && peer.Verified && peer.Failure&(cmp.FailBadRequest|cmp.FailTransactionIDInUse) != 0
}

// sayGoodbye sends what a failed transaction still has to say to the CA: that we do
// not want its certificate. A courtesy, so that its answer is of no interest.
func (a *attempt) sayGoodbye(ctx context.Context, step cmp.Step) {
	if step.Send == nil {
		return
	}
	began := a.o.now()
	if reply, err := a.ask(ctx, step); err == nil {
		a.trace(began, "exchange", step.Type.String()+" → "+replyName(reply))
	}
}

// stage stores a certificate before it is confirmed, so that whatever happens next it
// is not lost.
func (a *attempt) stage(ctx context.Context, tx *cmp.Transaction, step cmp.Step) error {
	if step.Issued == nil || a.rec.Flight.Chain != nil {
		return nil
	}
	a.accept(step.Issued)
	a.rec.Flight.NextPoll = time.Time{}
	return a.keep(ctx, tx, "stage")
}

func (a *attempt) accept(issued *cmp.Issued) {
	chain, difference := a.ca.chainOf(issued)
	a.rec.Flight.Chain, a.rec.Flight.Differences = chain, a.ca.tolerated(issued)
	if difference != "" {
		a.rec.Flight.Differences = append(a.rec.Flight.Differences, difference)
	}
}

// ask sends one message and waits for the answer while that is of use. Meanwhile the lease is
// kept alive; losing it ends the exchange with ledger.ErrConflict.
func (a *attempt) ask(ctx context.Context, step cmp.Step) ([]byte, error) {
	return a.whileBeating(ctx, func(ctx context.Context) ([]byte, error) {
		return step.Exchange(ctx, a.ca.client.Exchange)
	})
}

// exchange sends one message and reads the answer.
func (a *attempt) exchange(ctx context.Context, tx *cmp.Transaction, step cmp.Step) (cmp.Step, error) {
	began := a.o.now()
	reply, err := a.ask(ctx, step)
	if err != nil {
		a.trace(began, "exchange", step.Type.String()+" → "+err.Error())
		return cmp.Step{}, err
	}
	next, err := tx.Next(reply)
	a.answer = a.answer || authentic(err)
	a.trace(began, "exchange", step.Type.String()+" → "+replyName(reply))
	return next, err
}

// authentic: what came is from the CA, whatever it says.
func authentic(err error) bool {
	if peer, ok := errors.AsType[*cmp.Error](err); ok {
		return peer.Verified
	}
	_, malformed := errors.AsType[*cmp.SyntaxError](err)
	return !malformed && !errors.Is(err, cmp.ErrProtection)
}

// replyName is the name of an answer's body, for people.
func replyName(reply []byte) string {
	if m, err := cmp.ParseMessage(reply); err == nil {
		return m.Type.String()
	}
	return "undecodable"
}

func (a *attempt) whileBeating(ctx context.Context, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	limit, cut := a.ca.patience(ctx)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		reply []byte
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		reply, err := ask(ctx)
		answers <- answer{reply, err}
	}()
	beat := time.NewTicker(a.o.lease() / 3)
	defer beat.Stop()
	for missed := false; ; {
		select {
		case got := <-answers:
			if cut && errors.Is(ctx.Err(), context.DeadlineExceeded) && got.err != nil {
				got.err = fmt.Errorf("%w: the time of one handler is over, and spec.messageTimeout is %s: raise CERTLOOP_HANDLER_TIMEOUT, or lower that", got.err, a.ca.messageTimeout)
			}
			return got.reply, got.err
		case <-beat.C:
			err := a.beat(ctx)
			if ctx.Err() == nil && (errors.Is(err, ledger.ErrConflict) || err != nil && missed) {
				cancel()
				<-answers
				return nil, &unkeptError{err}
			}
			missed = err != nil
		}
	}
}

// beat keeps the lease alive. One that is missed, of three in a lease time, does not cost it.
func (a *attempt) beat(ctx context.Context) error {
	a.rec.Lease.Beat++
	return a.o.Ledger.Save(ctx, a.rec)
}

// unkeptError says that the lease could not be kept alive while the CA was asked, which is not
// the CA's doing.
type unkeptError struct{ error }

func (e *unkeptError) Unwrap() error { return e.error }

// reserve is what is left of a handler's time, when it asks a CA, to keep and tell how that ended.
const reserve = 5 * time.Second

// patience is how long to wait for an answer: messageTimeout, or less where the time of the handler is
// over sooner, which cut tells. So a CA that is slower than that is an outage like any other.
func (ca *authority) patience(ctx context.Context) (limit time.Duration, cut bool) {
	end, ok := ctx.Deadline()
	if !ok {
		return ca.messageTimeout, false
	}
	left := time.Until(end)
	if left -= min(reserve, left/4); left < ca.messageTimeout {
		return left, true
	}
	return ca.messageTimeout, false
}

// wait ends the attempt until the CA wants to be asked again.
func (a *attempt) wait(ctx context.Context, tx *cmp.Transaction, step cmp.Step) error {
	a.rec.Flight.NextPoll = a.o.now().Add(step.Wait)
	a.rec.Attempt = a.lasting()
	a.rec.Lease = nil
	out := a.outcomeOfRecord()
	a.tellKept(a.outcomeFact(model.CertificateWaiting, out))
	if err := a.keep(ctx, tx, "wait"); err != nil {
		return err
	}
	a.later(out.next, model.Work{Reason: model.WorkPoll})
	return a.report(ctx, out)
}

// finish makes the certificate the one in use, delivers it and tells.
func (a *attempt) finish(ctx context.Context, step cmp.Step) error {
	if a.rec.Flight.Chain == nil {
		a.accept(step.Issued) // implicitly confirmed: stored by the promotion itself
	}
	a.rec.Promote(a.ca.anchors(a.rec.Flight.Chain), a.o.now())
	if err := a.save(ctx, "promote"); err != nil {
		return err
	}
	a.promoted = true
	if err := a.deliver(ctx); err != nil {
		return err
	}
	a.goOn()
	return a.wakeDependents(ctx)
}

// goOn: what a person asked for while this certificate was on its way is still to be done.
func (a *attempt) goOn() {
	switch d := a.demand; {
	case d.kind == "" || d.doneIn(a.rec):
	case d.kind == recreation:
		a.tell(model.NewEvent(model.RecreationRequested, a.key, model.Work{}))
	default:
		a.tell(model.NewEvent(model.RenewalRequested, a.key, model.Work{Reason: model.WorkManual}))
	}
}

// refused is the one place where an error of a transaction becomes what happens next.
func (a *attempt) refused(ctx context.Context, step cmp.Step, err error, repeat bool) error {
	var peer *cmp.Error
	var unwanted *cmp.ReplyError
	var transport *cmp.TransportError
	var unkept *unkeptError
	switch {
	case errors.As(err, &unkept), ctx.Err() != nil:
		return err // perhaps not ours any more, or no time left: the next delivery looks again
	case errors.As(err, &transport) && !a.outOfTime(err, transport):
		a.unanswered(step, transport)
		return a.outage(ctx, err)
	case errors.Is(err, cmp.ErrDeadline):
		a.orphan("the total timeout was over")
		return a.failed(ctx, model.ReasonTransactionTimeout, err)
	case errors.As(err, &unwanted):
		return a.unwanted(ctx, unwanted)
	case errors.Is(err, cmp.ErrProtection):
		return a.distrusted(ctx, step, model.ReasonResponseNotAuthentic, err, repeat)
	case errors.As(err, &peer) && repeat:
		a.orphan("the CA refused to go on: " + peer.Error())
		return a.startOver(ctx)
	case errors.As(err, &peer) && step.Type == cmp.TypePollReq && forgotten(err):
		a.orphan("the CA knows nothing of the transaction any more: " + peer.Error())
		return a.failed(ctx, model.ReasonCAUnavailable, peer)
	case errors.As(err, &peer):
		return a.rejected(ctx, peer)
	default:
		return a.distrusted(ctx, step, model.ReasonResponseInvalid, err, repeat)
	}
}

// outOfTime: the total timeout ended the wait for an answer, which is no outage. A certificate that
// is there can be confirmed later nevertheless.
func (a *attempt) outOfTime(err error, transport *cmp.TransportError) bool {
	return errors.Is(err, cmp.ErrDeadline) && transport.Sent && a.rec.Flight.Chain == nil
}

// unanswered: a request that the CA cannot have seen is forgotten, so that the next
// attempt begins afresh; one that it may have acted on is remembered as such.
func (a *attempt) unanswered(step cmp.Step, err *cmp.TransportError) {
	switch {
	case !err.Sent && requests(step) && a.rec.Flight.Lost == 0:
		a.rec.Flight = nil
	case err.Sent && err.StatusCode == 0:
		a.lost(step)
	}
}

// startOver begins a new transaction at once, after one that was interrupted.
func (a *attempt) startOver(ctx context.Context) error {
	v, err := a.view(ctx)
	if err != nil {
		return err
	}
	return a.begin(ctx, v)
}

// rejected: the CA refuses what was asked for, and has issued nothing for it.
func (a *attempt) rejected(ctx context.Context, peer *cmp.Error) error {
	f := *a.rec.Flight
	if n := (account{a.rec}).refused(); n > 0 {
		a.orphaned(f.ID, "the CA refused the request when it was sent again: "+peer.Error())
	}
	switch {
	case f.Purpose == ledger.ForRenewal && a.notUpdatable(peer):
		return a.beginFor(ctx, ledger.ForEnrollment)
	case peer.Retryable():
		return a.failed(ctx, model.ReasonCAUnavailable, peer)
	case a.fixed():
		return a.failed(ctx, model.ReasonRejectedByCA, peer)
	}
	changed, err := a.changedMeanwhile(ctx)
	if err != nil {
		return err
	}
	if changed { // the CA was asked with what is no more
		return a.failed(ctx, model.ReasonRejectedByCA, peer)
	}
	return a.park(ctx, model.ReasonRejectedByCA, peer)
}

// notUpdatable: the CA does not take a key update because of the certificate to be updated,
// which it does not know, has revoked or does not trust any more. An initial request does not need it.
func (a *attempt) notUpdatable(peer *cmp.Error) bool {
	about := cmp.FailBadCertID | cmp.FailCertRevoked
	if a.cert.Spec.Type == model.CMPIdentity || a.ca.issuer.Spec.Renewal.SignedBy != model.SignedByIdentity {
		about |= cmp.FailSignerNotTrusted
	}
	return peer.Verified && peer.Failure&about != 0
}

// maxRefusals is how many unwanted certificates in a row a CA may issue before it is
// left alone, and how often a spoilt answer is asked for again in the same transaction.
const maxRefusals = 3

// unwanted: the CA answered, authentically, with something else than what was asked
// for. It was told so.
func (a *attempt) unwanted(ctx context.Context, err error) error {
	id := a.rec.Flight.ID
	account{a.rec}.unwanted()
	a.orphaned(id, "refused: "+err.Error())
	at := &a.rec.Attempt
	if at.Refused++; at.Refused >= maxRefusals {
		return a.park(ctx, model.ReasonCertificateRefused, err)
	}
	return a.failed(ctx, model.ReasonCertificateRefused, err)
}

// distrusted: the answer is not CMP or not authentic. Nothing of it is used, and the
// transaction stays as it was: whoever can spoil an answer must not be able to end it.
// Only when asking again has not helped is it given up.
func (a *attempt) distrusted(ctx context.Context, step cmp.Step, reason string, err error, repeat bool) error {
	a.lost(step)
	if repeat && a.rec.Attempt.Failed >= maxRefusals {
		a.orphan("no answer could be believed: " + err.Error())
	}
	return a.failed(ctx, reason, err)
}

// orphan gives up the transaction in flight. The CA may have issued a certificate
// that nobody has: that is counted and told, never silent.
func (a *attempt) orphan(why string) {
	id := a.rec.Flight.ID
	account{a.rec}.abandoned()
	a.orphaned(id, why)
}

// orphaned tells that the CA may have issued certificates in a transaction that nobody has.
func (a *attempt) orphaned(id, why string) {
	e := model.NewEvent(model.IssuanceMaybeOrphan, a.key, model.OrphanFact{TransactionID: id, Reason: bounded(why)})
	e.SetID(model.DerivedID(model.IssuanceMaybeOrphan, string(a.cert.UID), id, fmt.Sprint(a.rec.Attempt.Orphans)))
	a.tellKept(e)
}
