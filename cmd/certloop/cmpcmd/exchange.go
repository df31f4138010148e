package cmpcmd

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// exchange drives one transaction, over HTTP or by files.
type exchange struct {
	*plan
	log         *reporter
	show        func(direction string, der []byte)
	transaction *cmp.Transaction
	nonces      *nonces

	*sequences
	newID    bool
	only     string // file for the first request; nothing is sent
	confirms bool   // false: -disable_confirm
	keep     int    // -keep_alive

	answered *cmp.Message // the last message believed
	outcome  outcome
}

// outcome is what an exchange brought.
type outcome struct {
	issued     *cmp.Issued
	answer     *cmp.Message        // the last answer, but for pollRep, pkiconf and what came after it
	signer     *x509.Certificate   // who signed it; nil: nobody
	extraCerts []*x509.Certificate // of all answers
	saved      bool                // -reqout_only has done its work
}

// sequences are the files of messages. Repetitions go on where the one before has stopped.
type sequences struct{ reqin, reqout, rspin, rspout files }

func (r *run) newExchange(p *plan) *exchange {
	return &exchange{
		plan: p, log: r.log, show: r.showMessage, nonces: &nonces{random: rand.Reader}, sequences: r.sequences,
		newID: r.has("reqin_new_tid"), only: r.values["reqout_only"], confirms: !r.has("disable_confirm"),
		keep: r.number("keep_alive", keepIfKept),
	}
}

// run makes the first message and goes on until there is nothing more to say.
func (x *exchange) run(ctx context.Context) (*outcome, error) {
	if x.rspin.more() {
		x.reqin = nil
		x.config.MessageTimeTolerance = -1 // what is on file may be old
	}
	if err := x.foresee(); err != nil {
		return &x.outcome, err
	}
	cfg := x.config
	cfg.Rand = x.nonces
	var err error
	if x.transaction, err = cmp.Begin(cfg, x.request); err != nil {
		return &x.outcome, err
	}
	return &x.outcome, x.drive(ctx)
}

func (x *exchange) drive(ctx context.Context) error {
	step := x.transaction.Step()
	for !step.Done {
		if step.Type == cmp.TypeCertConf && !x.confirms {
			x.log.warn("the certificate is not confirmed, because of -disable_confirm")
			break
		}
		next, err := x.advance(ctx, step)
		if err != nil || x.outcome.saved {
			return err
		}
		step = next
	}
	x.outcome.issued = step.Issued
	return nil
}

// advance sends one message and takes its answer.
func (x *exchange) advance(ctx context.Context, step cmp.Step) (cmp.Step, error) {
	var err error
	if step.Wait > 0 && !x.rspin.more() {
		if step, err = x.wait(ctx, step); err != nil {
			return step, err
		}
	}
	answer, err := x.passInTime(ctx, step)
	if err != nil || x.outcome.saved {
		return step, err
	}
	if err := x.foreseeNext(); err != nil {
		return step, err
	}
	next, err := x.transaction.Next(answer)
	if m, fault := cmp.ParseMessage(answer); fault == nil && believed(err) {
		x.note(m)
	}
	if err == nil {
		return next, nil
	}
	err = fmt.Errorf("answer to %s: %w", step.Type, err)
	x.courtesy(ctx, next)
	return next, err
}

// believed tells whether an answer was authentic, whatever became of it.
func believed(err error) bool {
	var syntax *cmp.SyntaxError
	var refusal *cmp.Error
	unverified := errors.As(err, &refusal) && !refusal.Verified
	return !errors.Is(err, cmp.ErrProtection) && !errors.As(err, &syntax) && !unverified
}

// wait waits as long as the server has asked for; the message is then made anew.
func (x *exchange) wait(ctx context.Context, step cmp.Step) (cmp.Step, error) {
	x.log.info("the server wants to be asked again in %s", step.Wait.Round(time.Second))
	timer := time.NewTimer(step.Wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return step, fmt.Errorf("waiting to send %s: %w", step.Type, ctx.Err())
	case <-timer.C:
		return x.transaction.Step(), nil
	}
}

// passInTime is pass for as long as the answer is of use.
func (x *exchange) passInTime(ctx context.Context, step cmp.Step) ([]byte, error) {
	return step.Exchange(ctx, func(ctx context.Context, _ []byte) ([]byte, error) { return x.pass(ctx, step) })
}

// pass passes our message on and gives the answer, with all the files there may be in between.
func (x *exchange) pass(ctx context.Context, step cmp.Step) ([]byte, error) {
	ours, err := x.shape.apply(step.Send, x.nonces.random)
	if err != nil {
		return nil, err
	}
	if x.only != "" {
		x.outcome.saved = true
		x.show("request", ours)
		return nil, writeFile("reqout_only", x.only, ours)
	}
	if err := x.save("reqout", &x.reqout, ours); err != nil {
		return nil, err
	}
	answer, err := x.ask(ctx, step.Type, ours)
	if err != nil {
		return nil, err
	}
	x.show("answer", answer)
	return answer, x.save("rspout", &x.rspout, answer)
}

// ask takes the next answer on file, else sends our message, or the one on file in its place.
func (x *exchange) ask(ctx context.Context, kind cmp.BodyType, ours []byte) ([]byte, error) {
	if x.rspin.more() {
		x.show("request", ours)
		path := x.rspin.take()
		x.log.info("taking the answer to %s from %s", kind, path)
		_, der, err := message(path)
		if err != nil {
			return nil, fmt.Errorf("-rspin: %w", err)
		}
		return der, nil
	}
	if x.reqin.more() {
		path := x.reqin.take()
		x.log.info("sending %s in place of our %s", path, kind)
		var err error
		if ours, err = x.renewed(path); err != nil {
			return nil, err
		}
	}
	if x.client == nil {
		return nil, errors.New("-server is missing, or -rspin has too few files")
	}
	x.show("request", ours)
	x.log.info("sending %s", strings.ToUpper(kind.String()))
	answer, err := x.send(ctx, kind, ours)
	if err != nil {
		return nil, err
	}
	if m, err := cmp.ParseMessage(answer); err == nil {
		x.log.info("received %s", strings.ToUpper(m.Type.String()))
	}
	return answer, nil
}

// note remembers what an authentic answer brought.
func (x *exchange) note(m *cmp.Message) {
	x.answered = m
	for _, der := range m.ExtraCerts {
		if c, err := x509.ParseCertificate(der); err == nil {
			x.outcome.extraCerts = append(x.outcome.extraCerts, c)
		}
	}
	if m.Type == cmp.TypePollRep || m.Type == cmp.TypePKIConf || m.Type == cmp.TypeError && x.outcome.answer != nil {
		return
	}
	var known []*x509.Certificate // later answers need not bring the certificate again (RFC 9483 §3.3)
	if x.outcome.signer != nil {
		known = append(known, x.outcome.signer)
	}
	x.outcome.answer, x.outcome.signer = m, nil
	if !m.ProtectedByMAC() {
		x.outcome.signer, _ = x.config.Trust.Verify(m, x.config.Now(), known...)
	}
}

// courtesy tells the server that the transaction has failed, if there is something to tell.
func (x *exchange) courtesy(ctx context.Context, last cmp.Step) {
	if last.Send == nil || x.client == nil || !x.confirms && last.Type == cmp.TypeCertConf {
		return
	}
	if _, err := x.passInTime(ctx, last); err != nil {
		x.log.debug("telling the server of the failure: %v", err)
	}
}

// save writes a message to the next file of a sequence, if there is one left.
func (x *exchange) save(option string, to *files, der []byte) error {
	if !to.more() {
		return nil
	}
	return writeFile(option, to.take(), der)
}
