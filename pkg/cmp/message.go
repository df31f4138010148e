package cmp

import (
	"fmt"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const sectionMessage = "RFC 9810 §5.1"

// Message is a PKIMessage (RFC 9810 §5.1), for clients and servers alike.
//
// A message that was parsed shares memory with its bytes and remembers them:
// protection is verified over the header and body as they came, not as they
// would be encoded again. Do not change a parsed message; build a new one.
type Message struct {
	Header     Header
	Type       BodyType
	Body       Body
	Protection []byte   // the octets of the BIT STRING; nil if absent
	ExtraCerts [][]byte // DER of each; nil if absent

	received []byte // header and body, one after the other, as they came
}

// ParseMessage decodes exactly one PKIMessage. It accepts one encoding only,
// DER, so that [Message.Marshal] gives der back byte for byte. Certificates,
// keys and the values of extensions and infos are left undecoded. The errors
// are of type [SyntaxError].
func ParseMessage(der []byte) (*Message, error) { return parseMessage(der, 0) }

// parseMessage decodes a message that lies depth levels deep in others.
func parseMessage(der []byte, depth int) (*Message, error) {
	if len(der) > MaxMessageBytes {
		return nil, &SyntaxError{Field: "PKIMessage (too long)", Section: sectionMessage}
	}
	p := newParser(der, inMessage)
	m := p.newMessage()
	m.parse(&p, depth)
	p.done("PKIMessage")
	if err := p.err(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Message) parse(p *parser, depth int) {
	message := p.enter(tag.SEQUENCE, "PKIMessage")
	start := p.at
	m.Header.parse(p)
	m.Type, m.Body = p.body(depth)
	m.received = p.der[start:p.at:p.at]
	p.section = inMessage
	if e, ok := p.optional(explicit(0), "protection"); ok {
		m.Protection = p.bits(tag.BIT_STRING, "protection")
		p.leave(e, "protection")
	}
	if e, ok := p.optional(explicit(1), "extraCerts"); ok {
		m.ExtraCerts = p.certificates("extraCerts")
		p.leave(e, "extraCerts")
	}
	p.leave(message, "PKIMessage")
}

// certificates reads SEQUENCE SIZE (1..MAX) OF CMPCertificate without decoding them.
func (p *parser) certificates(field string) [][]byte {
	list := p.enter(tag.SEQUENCE, field)
	p.check(p.more(), field)
	certs := take(&p.room.certs)
	for p.more() {
		certs = append(certs, p.tagged(tag.SEQUENCE, field))
		p.check(len(certs) <= MaxExtraCerts, field)
	}
	p.leave(list, field)
	return certs
}

func (w *writer) certificates(certs [][]byte) {
	m := w.open(tag.SEQUENCE)
	for _, der := range certs {
		w.raw(der)
	}
	w.close(m)
}

// Marshal encodes m. It fails if Body does not fit Type.
func (m *Message) Marshal() ([]byte, error) {
	return m.AppendDER(make([]byte, 0, 2048))
}

// AppendDER appends the encoding of m to buf and returns the result. It fails
// if Body does not fit Type.
func (m *Message) AppendDER(buf []byte) ([]byte, error) {
	if err := m.valid(); err != nil {
		return nil, err
	}
	w := writer{b: buf}
	w.message(m)
	return w.b, nil
}

func (m *Message) valid() error {
	if m.Body == nil || !m.Body.fits(m.Type) {
		return fmt.Errorf("encoding a PKIMessage: a body of Go type %T cannot be %s", m.Body, m.Type)
	}
	if b, ok := m.Body.(CertReqMessages); ok {
		for i := range b {
			if err := b[i].CertReq.CertTemplate.settle(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) message(m *Message) {
	e := w.open(tag.SEQUENCE)
	w.headerAndBody(m)
	if m.Protection != nil {
		p := w.open(explicit(0))
		w.bits(tag.BIT_STRING, m.Protection)
		w.close(p)
	}
	if m.ExtraCerts != nil {
		x := w.open(explicit(1))
		w.certificates(m.ExtraCerts)
		w.close(x)
	}
	w.close(e)
}

func (w *writer) headerAndBody(m *Message) {
	if m.received != nil {
		w.raw(m.received)
		return
	}
	w.header(&m.Header)
	e := w.open(explicit(uint8(m.Type)))
	w.body(m.Body)
	w.close(e)
}

// protectedPart is what protection covers: DER(SEQUENCE{header, body}), as
// received where it was received (RFC 9810 §5.1.3).
func (m *Message) protectedPart() []byte {
	w := writer{b: make([]byte, 0, 2048)}
	e := w.open(tag.SEQUENCE)
	w.headerAndBody(m)
	w.close(e)
	return w.b
}
