package cmp

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"
)

// Step is what to do next.
type Step struct {
	Send   []byte        // the message to send, after Wait; nil: nothing more
	Type   BodyType      // of Send
	Wait   time.Duration // the peer wants to be asked no earlier
	Within time.Duration // after Wait: the answer is of use for so long; 0: no bound but the caller's own
	Issued *Issued       // the certificate, from the reply on that brought it
	Reply  Body          // the answer to rr (*RevRep) or genm (GenMsg), once Done
	Done   bool          // the certificate is confirmed, or confirmation was waived, or the answer is there: the transaction is complete
}

// Transaction is a PKI transaction seen from the client: a state machine
// without input or output (RFC 9810 §5.3). Send what Step says, give the
// answer to Next, until Done. It is not for concurrent use.
//
// After a wait, ask Step again: its message then bears the time of sending.
type Transaction struct {
	cfg    Config
	state  state
	first  *Message // parsed from state.Request
	asked  asked
	signer *x509.Certificate   // who signed the peer's messages
	parsed []*x509.Certificate // of the peer, so that each is decoded once
	issued *Issued
	reply  Body // the answer to rr or genm

	pvno    int64  // of our last message
	send    []byte // the message Step gives
	sending BodyType
	madeAt  time.Time // when send was made

	peerKey *macKey // derived for peerAlg
	peerAlg AlgorithmIdentifier
}

// Begin starts a transaction: it makes the proof of possession and the first
// message, with a new transactionID. It does no I/O.
func Begin(cfg Config, req Request) (*Transaction, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("beginning a CMP transaction: %w", err)
	}
	t := &Transaction{cfg: cfg}
	if err := t.begin(&req); err != nil {
		return nil, fmt.Errorf("beginning a CMP transaction: %s: %w", req.Type, err)
	}
	return t, nil
}

func (t *Transaction) begin(req *Request) error {
	body, err := req.body(&t.cfg)
	if err != nil {
		return err
	}
	id, err := t.nonce()
	if err != nil {
		return err
	}
	m := &Message{Type: req.Type, Body: body}
	m.Header.PVNO = max(t.cfg.PVNO, PVNO2)
	m.Header.TransactionID = id
	m.Header.Recipient = DirectoryName(req.recipient(&t.cfg))
	m.Header.GeneralInfo = req.generalInfo(&t.cfg)
	der, err := t.finish(m)
	if err != nil {
		return err
	}
	now := t.cfg.Now().UTC()
	t.state = state{
		Version: stateVersion, Phase: phaseRequest, Request: der, Started: now, LastNonce: m.Header.SenderNonce,
	}
	if t.cfg.TotalTimeout > 0 {
		t.state.Deadline = now.Add(t.cfg.TotalTimeout)
	}
	if err := t.readRequest(); err != nil {
		return err
	}
	return t.prepare()
}

func (t *Transaction) nonce() ([]byte, error) {
	b := make([]byte, nonceBytes)
	if _, err := io.ReadFull(t.cfg.Rand, b); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	return b, nil
}

// ID is the transactionID.
func (t *Transaction) ID() []byte { return t.first.Header.TransactionID }

// message makes a later message of the transaction.
func (t *Transaction) message(bodyType BodyType, body Body) ([]byte, error) {
	m := &Message{Type: bodyType, Body: body}
	m.Header.PVNO = max(t.first.Header.PVNO, pvnoFor(body))
	m.Header.TransactionID = t.ID()
	m.Header.Recipient = t.first.Header.Recipient
	m.Header.RecipNonce = t.state.RecipNonce
	if t.first.ProtectedByMAC() {
		// MAC parameters stay the same throughout (RFC 9810 §5.1.3.1)
		m.Header.ProtectionAlg = t.first.Header.ProtectionAlg
	}
	der, err := t.finish(m)
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", bodyType, err)
	}
	t.state.LastNonce = m.Header.SenderNonce
	return der, nil
}

// finish completes the header of a message, protects and encodes it.
func (t *Transaction) finish(m *Message) ([]byte, error) {
	nonce, err := t.nonce()
	if err != nil {
		return nil, err
	}
	m.Header.SenderNonce = nonce
	m.Header.MessageTime = t.cfg.Now().UTC().Truncate(time.Second)
	if _, mac := t.cfg.Credential.(*SharedSecret); mac && t.cfg.Sender != nil {
		m.Header.Sender = DirectoryName(t.cfg.Sender)
	}
	if err := m.Protect(t.cfg.Rand, t.cfg.Credential); err != nil {
		return nil, err
	}
	t.pvno = m.Header.PVNO
	return m.Marshal()
}

// Step says what to do now. Asking again gives the same message, except that a
// pollReq is made anew once its time has come: it must bear the time of
// sending, not that of the answer that asked us to wait.
func (t *Transaction) Step() Step {
	if t.state.Phase == phaseFailed {
		return Step{}
	}
	if now := t.cfg.Now(); t.state.Polling && t.madeAt.Before(t.state.CheckAt) && !now.Before(t.state.CheckAt) {
		_ = t.prepare() // what was made before is still good, if old
	}
	return Step{
		Send: t.send, Type: t.sending, Wait: t.wait(), Within: t.within(),
		Issued: t.issued, Reply: t.reply, Done: t.state.Phase == phaseDone,
	}
}

// wait is the time left until the next poll.
func (t *Transaction) wait() time.Duration {
	if !t.state.Polling {
		return 0
	}
	return max(0, t.state.CheckAt.Sub(t.cfg.Now()))
}

// within is the time left for the answer to what is sent after the wait: until
// the deadline, and for certConf until the CA's confirmWaitTime if that is
// earlier. The last poll is at the deadline, and what it brings is confirmed
// after it, since it has been issued: there is no bound to these.
func (t *Transaction) within() time.Duration {
	if t.send == nil {
		return 0
	}
	end := t.state.Deadline
	if by := t.state.ConfirmBy; t.confirms() && !by.IsZero() && (end.IsZero() || by.Before(end)) {
		end = by
	}
	if end.IsZero() {
		return 0
	}
	sent := t.cfg.Now()
	if t.state.Polling && sent.Before(t.state.CheckAt) {
		sent = t.state.CheckAt
	}
	return max(0, end.Sub(sent))
}

// confirms tells whether the next message is a certConf.
func (t *Transaction) confirms() bool { return t.state.Phase == phaseConfirm && !t.state.Polling }

// overdue tells whether the deadline has passed.
func (t *Transaction) overdue() bool {
	return !t.state.Deadline.IsZero() && !t.cfg.Now().Before(t.state.Deadline)
}

// tooLate tells whether there is no time to send the request. A poll past the
// deadline is the last one, and a certConf is for what has been issued.
func (t *Transaction) tooLate() bool {
	return t.state.Phase == phaseRequest && !t.state.Polling && t.overdue()
}

// Exchange has Send exchanged for its answer, by [Client.Exchange] for example, and waits as long as
// the answer is of use. The error of one that would come later matches [ErrDeadline].
func (s Step) Exchange(ctx context.Context, exchange func(ctx context.Context, message []byte) ([]byte, error)) ([]byte, error) {
	if s.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Within, ErrDeadline)
		defer cancel()
	}
	answer, err := exchange(ctx, s.Send)
	if err != nil && errors.Is(context.Cause(ctx), ErrDeadline) {
		err = fmt.Errorf("%w: %w", ErrDeadline, err)
	}
	return answer, err
}

// prepare makes the message to send in the present state.
func (t *Transaction) prepare() error {
	send, sending, err := t.next()
	if err != nil {
		return err
	}
	if send, err = t.wrap(send); err != nil {
		return err
	}
	t.send, t.sending, t.madeAt = send, sending, t.cfg.Now()
	return nil
}

func (t *Transaction) next() ([]byte, BodyType, error) {
	switch {
	case t.state.Phase == phaseDone || t.state.Phase == phaseFailed:
		return nil, 0, nil
	case t.state.Polling:
		der, err := t.message(TypePollReq, PollReq{t.state.PollID})
		return der, TypePollReq, err
	case t.state.Phase == phaseConfirm:
		der, err := t.message(TypeCertConf, t.certConf())
		return der, TypeCertConf, err
	}
	t.pvno = t.first.Header.PVNO
	return t.state.Request, t.first.Type, nil
}

// certConf accepts the certificate, or says why not (RFC 9810 §5.3.18).
func (t *Transaction) certConf() CertConf {
	status := CertStatus{CertReqID: t.state.CertReqID}
	status.CertHash, status.HashAlg = CertHash(t.issued.Certificate)
	if r := t.state.Rejection; r != nil {
		status.StatusInfo = &StatusInfo{Status: StatusRejection, FailInfo: r.Failure}
		if r.Text != "" {
			status.StatusInfo.Text = []string{r.Text}
		}
	}
	return CertConf{status}
}

// Next takes the answer to the last message sent and says what to do then.
//
//   - A [SyntaxError] or [ErrProtection]: the answer cannot be believed. The
//     transaction is as before, so the message may be sent again.
//   - A certificate is taken, and its confirmation too, however late they come,
//     since it has been issued; what would only begin to wait is [ErrDeadline].
//   - Any other error: the transaction has failed, as the peer ([Error]) or this
//     side ([ReplyError], [ErrDeadline], [ErrRejected]) has it. If the Step has
//     something to Send, sending it tells the peer; its answer is of no interest.
func (t *Transaction) Next(reply []byte) (Step, error) {
	if t.state.Phase != phaseRequest && t.state.Phase != phaseConfirm {
		return Step{}, fmt.Errorf("%w: the transaction is over", ErrState)
	}
	m, err := ParseMessage(reply)
	if err != nil {
		return Step{}, err
	}
	if m, err = t.unwrap(m); err != nil {
		return Step{}, err
	}
	if t.unprotectedEnd(m) {
		t.state.Phase = phaseFailed
		return Step{Issued: t.issued}, peerError(m, false)
	}
	signer, err := t.verify(m)
	if err != nil {
		return Step{}, withPeerError(err, m)
	}
	t.accept(m, signer)
	if err := t.handle(m); err != nil {
		return t.fail(err)
	}
	if err := t.prepare(); err != nil {
		return Step{}, err
	}
	return t.Step(), nil
}

// unprotectedEnd tells whether m is an unprotected error that may end the
// transaction. Who could not read the request cannot repeat its nonce.
func (t *Transaction) unprotectedEnd(m *Message) bool {
	id := m.Header.TransactionID
	return t.cfg.UnprotectedErrors && m.Protection == nil && peerError(m, false) != nil && (id == nil || bytes.Equal(id, t.ID()))
}

// withPeerError attaches what an unbelievable message says, for people to read.
func withPeerError(err error, m *Message) error {
	var p *ProtectionError
	if said := peerError(m, false); said != nil && errors.As(err, &p) && p.Err == nil {
		p.Err = said
	}
	return err
}

// peerError is the refusal in m: an error, or a status that grants nothing.
func peerError(m *Message, verified bool) error {
	switch body := m.Body.(type) {
	case *ErrorMsg:
		e := errorFrom(m.Type, &body.Status, verified)
		e.Text = printable(body.Status.Text, body.ErrorDetails)
		if body.ErrorCode != nil {
			e.Code = *body.ErrorCode
		}
		return e
	case *CertRepMessage:
		if len(body.Response) == 1 && body.Response[0].Status.Status == StatusRejection {
			return errorFrom(m.Type, &body.Response[0].Status, verified)
		}
	case *RevRep:
		if len(body.Status) == 1 && body.Status[0].Status == StatusRejection {
			return errorFrom(m.Type, &body.Status[0], verified)
		}
	}
	return nil
}

func errorFrom(t BodyType, s *StatusInfo, verified bool) *Error {
	return &Error{Status: s.Status, Failure: s.FailInfo, Text: printable(s.Text), Body: t, Verified: verified}
}

// fail ends the transaction and, where it is we who are not content, tells the peer.
func (t *Transaction) fail(cause error) (Step, error) {
	step := Step{Issued: t.issued}
	var refused *ReplyError
	switch {
	case t.state.Rejection != nil && errors.As(cause, &refused):
		last, kind, _ := t.next() // certConf with the rejection
		step.Send, step.Type = t.wrapLast(last, kind)
		step.Issued = nil
	case t.state.Phase == phaseDone: // confirmation was waived: nobody listens any more
		step.Issued = nil
	case errors.As(cause, &refused):
		step.Send, step.Type = t.errorMessage(refused.Failure, refused.Field)
	case errors.Is(cause, ErrDeadline):
		step.Send, step.Type = t.errorMessage(0, "waited long enough")
	}
	if t.state.Phase, t.send = phaseFailed, nil; step.Send != nil {
		step.Within = courtesyTime
	}
	return step, cause
}

// errorMessage ends the transaction for the peer (RFC 9810 §5.3.21). It is a
// courtesy, so that nothing is said if it cannot be made.
func (t *Transaction) errorMessage(failure FailureInfo, text string) ([]byte, BodyType) {
	body := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, Text: []string{text}, FailInfo: failure}}
	der, err := t.message(TypeError, body)
	if err != nil {
		return nil, 0
	}
	return t.wrapLast(der, TypeError)
}

// RejectCertificate refuses what was issued, for reasons of the caller: the
// Step sends a certConf that says so, and Next then returns [ErrRejected].
// text is shown to the CA. Where confirmation was waived there is nobody to
// tell: the transaction ends, and the Step is empty.
func (t *Transaction) RejectCertificate(failure FailureInfo, text string) Step {
	if t.state.Phase != phaseConfirm || t.state.Polling {
		t.state.Phase, t.send = phaseFailed, nil
		return Step{}
	}
	t.state.Rejection = &refusal{Failure: failure, Text: truncate(text, MaxTextBytes)}
	if err := t.prepare(); err != nil {
		t.state.Phase, t.send = phaseFailed, nil
	}
	return t.Step()
}

// handle moves the state machine by an authentic message.
func (t *Transaction) handle(m *Message) error {
	switch body := m.Body.(type) {
	case *ErrorMsg:
		return t.handleError(m, body)
	case PollRep:
		return t.handlePollRep(body)
	case *CertRepMessage:
		if t.state.Phase == phaseRequest && m.Type == responseTo[t.first.Type] {
			return t.handleCertRep(m, body)
		}
	case *RevRep:
		if t.first.Type == TypeRR {
			return t.handleRevRep(m, body)
		}
	case GenMsg:
		if t.first.Type == TypeGenM && m.Type == TypeGenP {
			return t.handleGenP(m, body)
		}
	case PKIConf:
		if t.state.Phase == phaseConfirm {
			return t.confirmed()
		}
	}
	return &ReplyError{Field: "body", Section: sectionBody, Detail: m.Type.String() + " is no answer here", Failure: FailBadRequest}
}

// responseTo is the response that fits a request (RFC 9810 §5.1.2).
var responseTo = map[BodyType]BodyType{TypeIR: TypeIP, TypeCR: TypeCP, TypeP10CR: TypeCP, TypeKUR: TypeKUP}

// confirmed ends the transaction as the CA has heard our verdict.
func (t *Transaction) confirmed() error {
	t.state.Polling = false
	if t.state.Rejection != nil {
		return ErrRejected
	}
	t.state.Phase = phaseDone
	return nil
}

// answered ends a transaction that has one answer.
func (t *Transaction) answered(m *Message) error {
	der, err := m.Marshal()
	if err != nil {
		return err
	}
	t.state.Polling, t.state.Phase = false, phaseDone
	t.state.Answer, t.reply = der, m.Body
	return nil
}

func (t *Transaction) handleError(m *Message, body *ErrorMsg) error {
	// an error with status waiting delays the answer to any request (RFC 9810 §5.3.22)
	if body.Status.Status == StatusWaiting {
		return t.startPolling(-1)
	}
	// the CA has had our certConf already, and only its answer got lost
	if t.state.Phase == phaseConfirm && body.Status.FailInfo.Has(FailCertConfirmed) {
		return t.confirmed()
	}
	if t.otherVersion(m, body) && !t.overdue() {
		return t.beginAgain(m.Header.PVNO)
	}
	err := peerError(m, true)
	if t.state.Phase == phaseConfirm {
		return fmt.Errorf("a certificate was issued, but is not confirmed: %w", err)
	}
	return err
}
