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

// begin stores a new key and a new transaction, and asks.
func (a *attempt) begin(ctx context.Context, v view) error {
	purpose := v.request()
	if err := a.authorize(ctx, purpose); err != nil {
		return a.unmet(ctx, err)
	}
	key, err := ledger.GenerateKey(a.cert.Spec.PrivateKey)
	if err != nil {
		return err
	}
	req, err := a.request(purpose, key)
	if err != nil {
		return a.unmet(ctx, &unmetError{"ConfigInvalid", err.Error()})
	}
	tx, err := cmp.Begin(a.ca.config, *req)
	if err != nil {
		return a.unmet(ctx, &unmetError{"ConfigInvalid", err.Error()})
	}
	a.rec.Flight = &ledger.Flight{Purpose: purpose, Config: a.config, ID: hex.EncodeToString(tx.ID()), Key: key, Begun: a.o.now(), Cause: model.Correlation(a.in), Signer: signedBy(a.ca.config.Credential)}
	if err := a.claim(ctx, tx); err != nil {
		return err
	}
	return a.drive(ctx, tx, false)
}

// resume goes on with the transaction in flight, wherever it stands.
func (a *attempt) resume(ctx context.Context, v view) error {
	if err := a.authorize(ctx, a.rec.Flight.Purpose); err != nil {
		return a.unmet(ctx, err)
	}
	if a.overdue() {
		a.orphan("the total timeout was over")
		return a.failed(ctx, "TransactionTimeout", fmt.Errorf("the CA did not finish within %s", a.ca.totalTimeout))
	}
	tx, err := cmp.Resume(a.ca.config, a.rec.Flight.Transaction)
	if err != nil {
		a.orphan("the stored transaction cannot be resumed: " + err.Error())
		return a.begin(ctx, v)
	}
	repeat := a.rec.Flight.NextPoll.IsZero()
	if a.rec.Lease != nil && repeat {
		a.lost(tx.Step()) // with its holder
	}
	if err := a.claim(ctx, tx); err != nil {
		return err
	}
	return a.drive(ctx, tx, repeat)
}

// lost counts a request that may have reached the CA, whose answer did not reach us.
func (a *attempt) lost(step cmp.Step) {
	if requests(step) {
		a.rec.Flight.Lost++
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

// answered: a request got its answer, perhaps not the first time it was sent. A CA that
// does not recognise it again has issued another certificate each time; nothing in
// the answer tells.
func (a *attempt) answered(step cmp.Step) {
	f := a.rec.Flight
	if !requests(step) || f.Lost == 0 {
		return
	}
	a.orphaned(f.Lost, fmt.Sprintf("the request was sent %d times until its answer came: a CA that does not know a transactionID again has issued as many certificates", f.Lost+1))
	f.Lost = 0
}

// forgotten: a CA that knows nothing of the transaction when it is asked to confirm
// again has ended it, as it does when the first confirmation arrived. What it says for
// sure, certConfirmed, package cmp takes for the yes that it is.
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
	reply, err := a.ca.client.Exchange(ctx, step.Send)
	if err == nil {
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

// exchange sends one message and reads the answer. While it waits the lease is kept
// alive; losing it ends the exchange with ledger.ErrConflict.
func (a *attempt) exchange(ctx context.Context, tx *cmp.Transaction, step cmp.Step) (cmp.Step, error) {
	began := a.o.now()
	reply, err := a.whileBeating(ctx, func(ctx context.Context) ([]byte, error) {
		return a.ca.client.Exchange(ctx, step.Send)
	})
	if err != nil {
		a.trace(began, "exchange", step.Type.String()+" → "+err.Error())
		return cmp.Step{}, err
	}
	next, err := tx.Next(reply)
	a.trace(began, "exchange", step.Type.String()+" → "+replyName(reply))
	return next, err
}

// replyName is the name of an answer's body, for people.
func replyName(reply []byte) string {
	if m, err := cmp.ParseMessage(reply); err == nil {
		return m.Type.String()
	}
	return "undecodable"
}

func (a *attempt) whileBeating(ctx context.Context, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.ca.messageTimeout)
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
	for {
		select {
		case got := <-answers:
			return got.reply, got.err
		case <-beat.C:
			a.rec.Lease.Beat++
			if err := a.o.Ledger.Save(ctx, a.rec); err != nil {
				cancel()
				<-answers
				return nil, err
			}
		}
	}
}

// wait ends the attempt until the CA wants to be asked again.
func (a *attempt) wait(ctx context.Context, tx *cmp.Transaction, step cmp.Step) error {
	a.rec.Flight.NextPoll = a.o.now().Add(step.Wait)
	a.rec.Attempt = ledger.Attempts{Orphans: a.rec.Attempt.Orphans}
	a.rec.Lease = nil
	if err := a.keep(ctx, tx, "wait"); err != nil {
		return err
	}
	out := a.outcomeOfRecord()
	out.fact = model.CertificateWaiting
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
	if err := a.deliver(ctx); err != nil {
		return err
	}
	return a.wakeDependents(ctx)
}

// refused is the one place where an error of a transaction becomes what happens next.
func (a *attempt) refused(ctx context.Context, step cmp.Step, err error, repeat bool) error {
	var peer *cmp.Error
	var unwanted *cmp.ReplyError
	var transport *cmp.TransportError
	switch {
	case errors.Is(err, ledger.ErrConflict), ctx.Err() != nil:
		return err // not ours any more, or no time left: the next delivery looks again
	case errors.As(err, &transport):
		a.unanswered(step, transport)
		return a.failed(ctx, "CAUnreachable", err)
	case errors.Is(err, cmp.ErrDeadline):
		a.orphan("the total timeout was over")
		return a.failed(ctx, "TransactionTimeout", err)
	case errors.As(err, &unwanted):
		return a.unwanted(ctx, unwanted)
	case errors.Is(err, cmp.ErrProtection):
		return a.distrusted(ctx, step, "ResponseNotAuthentic", err, repeat)
	case errors.As(err, &peer) && repeat:
		a.orphan("the CA refused to go on: " + peer.Error())
		return a.startOver(ctx)
	case errors.As(err, &peer):
		a.rec.Flight = nil
		return a.rejected(ctx, peer)
	default:
		return a.distrusted(ctx, step, "ResponseInvalid", err, repeat)
	}
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

func (a *attempt) rejected(ctx context.Context, peer *cmp.Error) error {
	if peer.Retryable() {
		return a.failed(ctx, "CAUnavailable", peer)
	}
	changed, err := a.changedMeanwhile(ctx)
	if err != nil {
		return err
	}
	if changed { // the CA was asked with what is no more
		return a.failed(ctx, "RejectedByCA", peer)
	}
	return a.park(ctx, "RejectedByCA", peer)
}

// maxRefusals is how many unwanted certificates in a row a CA may issue before it is
// left alone, and how often a spoilt answer is asked for again in the same transaction.
const maxRefusals = 3

// unwanted: the CA answered, authentically, with something else than what was asked
// for. It was told so.
func (a *attempt) unwanted(ctx context.Context, err *cmp.ReplyError) error {
	a.orphan("refused: " + err.Error())
	if at := a.rec.Attempt; at.Reason == "CertificateRefused" && at.Failed+1 >= maxRefusals {
		return a.park(ctx, "CertificateRefused", err)
	}
	return a.failed(ctx, "CertificateRefused", err)
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
	a.orphaned(max(1, a.rec.Flight.Lost), why)
	a.rec.Flight = nil
}

// orphaned counts certificates that the CA may have issued and nobody has.
func (a *attempt) orphaned(n int64, why string) {
	id := a.rec.Flight.ID
	a.rec.Attempt.Orphans += n
	e := model.NewEvent(model.IssuanceMaybeOrphan, a.key, model.OrphanFact{TransactionID: id, Reason: why})
	e.SetID(model.DerivedID(model.IssuanceMaybeOrphan, string(a.cert.UID), id, fmt.Sprint(a.rec.Attempt.Orphans)))
	a.tell(e)
}
