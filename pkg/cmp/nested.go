package cmp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const sectionNested = "RFC 9810 §5.1.3.5"

// Nested is the body of a nested message: messages inside a message, as a
// registration authority sends them (RFC 9810 §5.1.3.5). One level is accepted.
type Nested []*Message

func (Nested) fits(t BodyType) bool { return t == TypeNested }

func (b Nested) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	for _, inner := range b {
		w.message(inner)
	}
	w.close(m)
}

func (p *parser) nested(depth int) Body {
	list := p.enter(tag.SEQUENCE, "nested")
	p.check(depth == 0 && p.more(), "nested")
	b := Nested{}
	for p.more() {
		m := new(Message)
		m.parse(p, depth+1)
		b = append(b, m)
		p.check(len(b) <= MaxEntries, "nested")
	}
	p.leave(list, "nested")
	return b
}

// Nest wraps messages, unchanged, in a nested message with protection of its own
// (RFC 9810 §5.1.3.5): one, to vouch for it, or several, to forward them
// together. Around one, recipient, transactionID and nonces are those of the
// message, so that who forwards either of them can tell what belongs together;
// around several they are new. random nil means crypto/rand.Reader.
func Nest(random io.Reader, c Credential, at time.Time, inner ...*Message) (*Message, error) {
	if random == nil {
		random = rand.Reader
	}
	m := &Message{Type: TypeNested, Body: Nested(inner), Header: Header{PVNO: PVNO2}}
	m.Header.MessageTime = at.UTC().Truncate(time.Second)
	switch {
	case len(inner) == 0 || len(inner) > MaxEntries:
		return nil, fmt.Errorf("nesting messages: %d of them", len(inner))
	case len(inner) == 1:
		h := &inner[0].Header
		m.Header.PVNO, m.Header.Recipient = h.PVNO, h.Recipient
		m.Header.TransactionID, m.Header.SenderNonce, m.Header.RecipNonce = h.TransactionID, h.SenderNonce, h.RecipNonce
	default:
		fresh := make([]byte, 2*nonceBytes)
		if _, err := io.ReadFull(random, fresh); err != nil {
			return nil, fmt.Errorf("nesting messages: reading random bytes: %w", err)
		}
		m.Header.Recipient = inner[0].Header.Recipient
		m.Header.TransactionID, m.Header.SenderNonce = fresh[:nonceBytes:nonceBytes], fresh[nonceBytes:]
	}
	for _, i := range inner {
		if i.Type == TypeNested {
			return nil, errors.New("nesting messages: one of them is nested itself")
		}
		if err := i.valid(); err != nil {
			return nil, err
		}
	}
	return m, m.Protect(random, c)
}

// wrap puts a message of ours into a nested one, where this side is an RA.
func (t *Transaction) wrap(der []byte) ([]byte, error) {
	if t.cfg.Wrapper == nil || der == nil {
		return der, nil
	}
	inner, err := ParseMessage(der)
	if err != nil {
		return nil, err
	}
	outer, err := Nest(t.cfg.Rand, t.cfg.Wrapper, t.cfg.Now(), inner)
	if err != nil {
		return nil, err
	}
	return outer.Marshal()
}

// wrapLast wraps a message that is a courtesy: nothing is said if it cannot be.
func (t *Transaction) wrapLast(der []byte, kind BodyType) ([]byte, BodyType) {
	wrapped, err := t.wrap(der)
	if err != nil || wrapped == nil {
		return nil, 0
	}
	return wrapped, kind
}

// unwrap gives the message in a nested one, once the protection around it has
// been verified; what is inside must then pass all checks by itself. Without
// Config.WrappedBy a nested message is left as it is, and is no answer.
func (t *Transaction) unwrap(m *Message) (*Message, error) {
	inner, ok := m.Body.(Nested)
	if !ok || t.cfg.WrappedBy == nil {
		return m, nil
	}
	for _, check := range []func(*Message) error{t.checkVersion, t.checkTransactionID, t.checkProtected, t.checkWrapper, t.checkMessageTime} {
		if err := check(m); err != nil {
			return nil, fmt.Errorf("nested message: %w", err)
		}
	}
	if len(inner) != 1 {
		return nil, &ProtectionError{Check: CheckTransactionID, Section: sectionNested, Detail: fmt.Sprintf("%d messages for one transaction", len(inner))}
	}
	return inner[0], nil
}

// checkWrapper: an RA signs; it shares no secret with us.
func (t *Transaction) checkWrapper(m *Message) error {
	if m.ProtectedByMAC() {
		return &ProtectionError{Check: CheckKind, Section: sectionNested, Detail: "a MAC around a nested message"}
	}
	_, err := t.cfg.WrappedBy.Verify(m, t.cfg.Now())
	return err
}
