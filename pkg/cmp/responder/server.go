package responder

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// Server is a certification authority that speaks CMP. It is an [http.Handler].
type Server struct {
	cfg Config
	ca  *authority

	mu        sync.Mutex // guards what follows
	behaviour Behaviour
	ledger    *ledger

	foreignOnce sync.Once // for Behaviour
	foreignCA   *authority
	foreignErr  error
}

// New opens the CA in Config.Dir, or makes one. The errors say which field or
// file is wrong.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configuration of the CA: %w", err)
	}
	cfg.setDefaults()
	s := &Server{cfg: cfg, behaviour: cfg.Behaviour}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("opening the CA: %w", err)
	}
	return s, nil
}

func (s *Server) open() (err error) {
	var dir *os.Root
	if s.cfg.Dir == "" {
		s.ca, err = newAuthority(&s.cfg)
	} else if dir, err = openDir(s.cfg.Dir); err == nil {
		s.ca, err = openAuthority(&s.cfg, dir)
	}
	if err != nil {
		return err
	}
	s.ledger, err = openLedger(&s.cfg, dir)
	return err
}

// CACertificate is the root, to be trusted by who verifies certificates and answers.
func (s *Server) CACertificate() *x509.Certificate { return s.ca.root }

// IssuingCertificate is what signs certificates and answers: the root, or with
// Config.Intermediate the CA under it.
func (s *Server) IssuingCertificate() *x509.Certificate { return s.ca.issuing }

// Event is a message that was answered.
type Event struct {
	Time          time.Time     // when it came
	Took          time.Duration // until the answer was ready
	TransactionID string        // hexadecimal
	Received      cmp.BodyType
	Peer          string // who protected it: "mac:REFERENCE", "signature:SERIAL SUBJECT", or empty
	Answer        cmp.BodyType
	Status        cmp.Status // of the answer; accepted for those without one
	Failure       cmp.FailureInfo
	Text          string    // of the status
	Issuance      *Issuance // the certificate it was about, as it stands now; do not change it
	Undecodable   bool      // it was no PKIMessage: Received means nothing
}

// exchange is a message on its way to an answer.
type exchange struct {
	now       time.Time
	nonce     []byte // senderNonce of the answer
	req       *cmp.Message
	peer      peer
	known     bool // peer is authenticated
	behaviour Behaviour
	record    *record // the transaction, if there is one
	issued    *Issuance
}

// answer is the content of a message to send.
type answer struct {
	kind cmp.BodyType
	body cmp.Body
	info []cmp.InfoTypeAndValue
}

// Respond answers one message, whatever carried it. The answer to bytes that
// are no PKIMessage is an error message; err reports them, with a reason for
// the operator, and that the CA itself failed.
func (s *Server) Respond(der []byte) (reply []byte, err error) {
	reply, _, err = s.respond(der)
	return reply, err
}

func (s *Server) respond(der []byte) ([]byte, cmp.BodyType, error) {
	nonce, err := s.newNonce()
	if err != nil {
		return nil, cmp.TypeError, err
	}
	x := &exchange{now: s.cfg.Now(), nonce: nonce, behaviour: s.behaves()}
	var a answer
	m, problem := cmp.ParseMessage(der)
	if problem != nil {
		x.req = &cmp.Message{}
		a = errorAnswer(malformed(cmp.FailBadDataFormat, "%s", problem.Error()))
	} else {
		x.req = m
		if m.Type == cmp.TypeNested {
			return s.respondNested(x)
		}
		a, problem = s.answer(x)
	}
	reply, err := s.seal(x, &a)
	if err != nil {
		return nil, a.kind, fmt.Errorf("answering %s: %w", x.req.Type, err)
	}
	s.report(x, &a, problem)
	return reply, a.kind, problem
}

// answer decides. The error is for the operator: the answer tells the client.
func (s *Server) answer(x *exchange) (answer, error) {
	a, err := s.handle(x)
	if err == nil {
		return a, nil
	}
	r := refusalOf(err)
	if r.failure != cmp.FailSystemFailure {
		err = nil
	}
	if certReqID, ok := x.certReqID(); ok && !r.body {
		return x.certRep(certReqID, r.status(), nil), err
	}
	return errorAnswer(r), err
}

func (s *Server) handle(x *exchange) (answer, error) {
	if err := s.checkHeader(x); err != nil {
		return answer{}, err
	}
	peer, err := s.authenticate(x.req, x.now)
	if err != nil {
		return answer{}, err
	}
	x.peer, x.known = peer, true
	switch x.req.Type {
	case cmp.TypeIR, cmp.TypeCR, cmp.TypeKUR, cmp.TypeP10CR:
		return s.certRequest(x)
	case cmp.TypeCertConf, cmp.TypePollReq, cmp.TypeError:
		return s.continued(x)
	case cmp.TypeRR:
		return s.revocation(x)
	case cmp.TypeGenM:
		return s.general(x)
	default:
		return answer{}, malformed(cmp.FailBadRequest, "%s is not supported", x.req.Type)
	}
}

func (s *Server) checkHeader(x *exchange) error {
	h := &x.req.Header
	_, named := h.Sender.Name()
	skew := h.MessageTime.Sub(x.now).Abs()
	switch {
	case h.PVNO != cmp.PVNO2 && h.PVNO != cmp.PVNO3:
		return malformed(cmp.FailUnsupportedVersion, "pvno must be 2 or 3")
	case len(h.TransactionID) == 0 || len(h.TransactionID) > maxIDBytes:
		return malformed(cmp.FailBadDataFormat, "a transactionID of 1 to %d bytes is needed", maxIDBytes)
	case len(h.SenderNonce) == 0:
		return malformed(cmp.FailBadSenderNonce, "a senderNonce is needed")
	case !named:
		return malformed(cmp.FailBadDataFormat, "sender must be a directoryName (RFC 9483 §3.1)")
	case s.cfg.MessageTimeTolerance > 0 && !h.MessageTime.IsZero() && skew > s.cfg.MessageTimeTolerance:
		return malformed(cmp.FailBadTime, "messageTime is off by %s", skew.Truncate(time.Second))
	}
	return nil
}

func (x *exchange) certReqID() (int64, bool) {
	switch x.req.Type {
	case cmp.TypeIR, cmp.TypeCR, cmp.TypeKUR:
		return firstCertReqID, true
	case cmp.TypeP10CR:
		return p10CertReqID, true
	case cmp.TypePollReq:
		if x.record != nil {
			return x.record.ReqID, true
		}
	default:
	}
	return 0, false
}

// certRep is the answer to a request for a certificate, also after polling.
func (x *exchange) certRep(reqID int64, status cmp.StatusInfo, certificate []byte) answer {
	response := cmp.CertResponse{CertReqID: reqID, Status: status}
	if certificate != nil {
		response.Certified = &cmp.CertifiedKeyPair{Certificate: certificate}
	}
	request := x.req.Type
	if x.record != nil {
		request = x.record.Request
	}
	return answer{kind: responseTo(request), body: &cmp.CertRepMessage{Response: []cmp.CertResponse{response}}}
}

func responseTo(request cmp.BodyType) cmp.BodyType {
	switch request {
	case cmp.TypeIR:
		return cmp.TypeIP
	case cmp.TypeKUR:
		return cmp.TypeKUP
	default:
		return cmp.TypeCP
	}
}

func errorAnswer(r *refusal) answer {
	return answer{kind: cmp.TypeError, body: &cmp.ErrorMsg{Status: r.status()}}
}

// status is the PKIStatusInfo of an answer, accepted where it has none.
func (a *answer) status() cmp.StatusInfo {
	switch b := a.body.(type) {
	case *cmp.CertRepMessage:
		return b.Response[0].Status
	case *cmp.RevRep:
		return b.Status[0]
	case *cmp.ErrorMsg:
		return b.Status
	}
	return cmp.StatusInfo{}
}

// report tells the log and Config.OnMessage.
func (s *Server) report(x *exchange, a *answer, problem error) {
	status := a.status()
	e := Event{
		Time: x.now, Took: s.cfg.Now().Sub(x.now), TransactionID: hex.EncodeToString(x.req.Header.TransactionID),
		Received: x.req.Type, Peer: x.peer.Name, Answer: a.kind,
		Status: status.Status, Failure: status.FailInfo, Issuance: x.issued,
		Undecodable: x.req.Body == nil,
	}
	if len(status.Text) > 0 {
		e.Text = status.Text[0]
	}
	s.log(&e, problem)
	if s.cfg.OnMessage != nil {
		s.cfg.OnMessage(e)
	}
}

func (s *Server) log(e *Event, problem error) {
	args := []any{
		"transactionID", e.TransactionID, "received", e.Received.String(), "peer", e.Peer,
		"answer", e.Answer.String(), "status", e.Status.String(), "took", e.Took,
	}
	if e.Undecodable {
		args[3] = "undecodable"
	}
	if e.Failure != 0 || e.Text != "" {
		args = append(args, "failInfo", e.Failure.String(), "text", e.Text)
	}
	if e.Issuance != nil {
		args = append(args, "serial", e.Issuance.Serial, "subject", e.Issuance.Subject)
	}
	if problem != nil && !e.Undecodable {
		s.cfg.Log.Error("CMP message", append(args, "err", problem)...)
		return
	}
	s.cfg.Log.Info("CMP message", args...)
}

// newNonce is 128 random bits (RFC 9810 §5.1.1).
func (s *Server) newNonce() ([]byte, error) {
	const nonceBytes = 16
	n := make([]byte, nonceBytes)
	if _, err := io.ReadFull(s.cfg.Rand, n); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	return n, nil
}
