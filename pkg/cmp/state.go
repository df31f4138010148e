package cmp

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// phase is how far a transaction has come.
type phase string

const (
	phaseRequest phase = "request" // the request is, or may have been, sent
	phaseConfirm phase = "confirm" // a certificate is there; certConf is, or may have been, sent
	phaseDone    phase = "done"
	phaseFailed  phase = "failed"
)

// stateVersion is the version of the stored form. It changes where an older
// program would misunderstand the newer form, or cannot be understood; a field
// whose absence has a meaning does not change it.
const stateVersion = 1

// maxStateBytes bounds what Resume reads, in bytes.
const maxStateBytes = 4 * MaxMessageBytes

// state is everything about a transaction that must outlive a process. It
// holds no key and no secret: the first message is kept as it was sent, so that
// it can be sent again without them.
type state struct {
	Version    int       `json:"version"`
	Phase      phase     `json:"phase"`
	Request    []byte    `json:"request"`              // the first message
	Started    time.Time `json:"started"`              // when it was made
	Deadline   time.Time `json:"deadline,omitzero"`    // of the whole transaction
	LastNonce  []byte    `json:"lastNonce,omitempty"`  // senderNonce of our last message
	RecipNonce []byte    `json:"recipNonce,omitempty"` // senderNonce of the peer's last accepted message
	Seen       [][]byte  `json:"seen,omitempty"`       // senderNonces of the peer
	Negotiated bool      `json:"negotiated,omitempty"` // the pvno is the one the peer has asked for

	Polling bool      `json:"polling,omitempty"`
	PollID  int64     `json:"pollId,omitempty"` // certReqId to ask about
	Polls   int       `json:"polls,omitempty"`
	CheckAt time.Time `json:"checkAt,omitzero"` // do not poll before

	DelayedNonce []byte `json:"delayedNonce,omitempty"` // senderNonce of the message whose answer is polled for

	Signer      []byte    `json:"signer,omitempty"`      // certificate that signed the peer's messages so far
	Untrusted   [][]byte  `json:"untrusted,omitempty"`   // certificates from the peer's verified messages
	CAPubs      [][]byte  `json:"caPubs,omitempty"`      // only from messages verified by MAC
	Anchors     [][]byte  `json:"anchors,omitempty"`     // roots that came with the ip and lead to its signer
	Certificate []byte    `json:"certificate,omitempty"` // what was issued
	Chain       [][]byte  `json:"chain,omitempty"`       // its issuers, as verified or found
	CertReqID   int64     `json:"certReqId,omitempty"`
	Status      Status    `json:"status,omitempty"`
	Text        []string  `json:"text,omitempty"`
	ConfirmBy   time.Time `json:"confirmBy,omitzero"`
	Answer      []byte    `json:"answer,omitempty"`    // the message that answered rr or genm
	Rejection   *refusal  `json:"rejection,omitempty"` // why we refuse it
}

// refusal is what a certConf says about a certificate we do not want.
type refusal struct {
	Failure FailureInfo `json:"failInfo"`
	Text    string      `json:"text"`
}

// MarshalBinary gives the state of t, from which [Resume] continues. It holds
// no private key and no secret, but what it holds must not be altered by
// others. Call it after [Begin], before the first message is sent, and after
// every Next.
func (t *Transaction) MarshalBinary() ([]byte, error) {
	b, err := json.Marshal(&t.state)
	if err != nil {
		return nil, fmt.Errorf("storing a CMP transaction: %w", err)
	}
	return b, nil
}

// Resume continues a transaction where [Transaction.MarshalBinary] stored it,
// in another process if need be. Its Step gives the very same first message
// again, or a fresh pollReq, or a fresh certConf. cfg should be that of Begin;
// its credential must be of the same kind.
func Resume(cfg Config, stored []byte) (*Transaction, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("resuming a CMP transaction: %w", err)
	}
	t := &Transaction{cfg: cfg}
	if err := t.load(stored); err != nil {
		return nil, fmt.Errorf("resuming a CMP transaction: %w: %w", ErrState, err)
	}
	if err := t.prepare(); err != nil {
		return nil, fmt.Errorf("resuming a CMP transaction: %w", err)
	}
	return t, nil
}

func (t *Transaction) load(stored []byte) error {
	if len(stored) > maxStateBytes {
		return errors.New("too long")
	}
	if err := json.Unmarshal(stored, &t.state); err != nil {
		return err
	}
	if t.state.Version != stateVersion {
		return fmt.Errorf("version %d, not %d", t.state.Version, stateVersion)
	}
	if err := t.readRequest(); err != nil {
		return err
	}
	return t.readCertificates()
}

// readRequest takes from the first message what later ones must repeat.
func (t *Transaction) readRequest() error {
	m, err := ParseMessage(t.state.Request)
	if err != nil {
		return err
	}
	if len(m.Header.TransactionID) == 0 || len(m.Header.SenderNonce) == 0 {
		return errors.New("the first message has no transactionID, or no senderNonce")
	}
	if _, mac := t.cfg.Credential.(*SharedSecret); mac != m.ProtectedByMAC() {
		// the same technique throughout (RFC 9483 §3.2)
		return errors.New("the credential is not of the kind that protected the first message")
	}
	t.first = m
	t.asked, err = askedIn(m)
	return err
}

func (t *Transaction) readCertificates() error {
	if t.state.Signer != nil {
		c, err := x509.ParseCertificate(t.state.Signer)
		if err != nil {
			return err
		}
		t.signer = c
	}
	switch t.state.Phase {
	case phaseRequest, phaseFailed:
		return nil
	case phaseConfirm, phaseDone:
		if t.state.Answer != nil {
			return t.readAnswer()
		}
		c, err := x509.ParseCertificate(t.state.Certificate)
		if err != nil {
			return err
		}
		t.issued = t.describe(c)
		return nil
	}
	return fmt.Errorf("unknown phase %q", t.state.Phase)
}

func (t *Transaction) readAnswer() error {
	m, err := ParseMessage(t.state.Answer)
	if err != nil {
		return err
	}
	if m.Type != TypeRP && m.Type != TypeGenP || t.state.Phase != phaseDone {
		return fmt.Errorf("%s is no answer", m.Type)
	}
	t.reply = m.Body
	return nil
}

// String does not show anything secret.
func (t *Transaction) String() string {
	return fmt.Sprintf("Transaction{%s %x, %s}", t.first.Type, t.ID(), t.state.Phase)
}

// Format does not show anything secret, whatever the verb.
func (t *Transaction) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }
