package cmp

import (
	"fmt"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// BodyType is the tag of an arm of PKIBody (RFC 9810 §5.1.2).
type BodyType uint8

// The arms of PKIBody.
const (
	TypeIR       BodyType = 0  // CertReqMessages: initialization request
	TypeIP       BodyType = 1  // CertRepMessage: its response
	TypeCR       BodyType = 2  // CertReqMessages: certification request
	TypeCP       BodyType = 3  // CertRepMessage: its response
	TypeP10CR    BodyType = 4  // P10CR: PKCS #10 certification request
	TypePOPDecC  BodyType = 5  // Opaque: POPDecKeyChallContent
	TypePOPDecR  BodyType = 6  // Opaque: POPDecKeyRespContent
	TypeKUR      BodyType = 7  // CertReqMessages: key update request
	TypeKUP      BodyType = 8  // CertRepMessage: its response
	TypeKRR      BodyType = 9  // CertReqMessages: key recovery request
	TypeKRP      BodyType = 10 // Opaque: KeyRecRepContent
	TypeRR       BodyType = 11 // RevReq: revocation request
	TypeRP       BodyType = 12 // RevRep: its response
	TypeCCR      BodyType = 13 // CertReqMessages: cross-certification request
	TypeCCP      BodyType = 14 // CertRepMessage: its response
	TypeCKUAnn   BodyType = 15 // Opaque: CAKeyUpdContent
	TypeCAnn     BodyType = 16 // Opaque: CertAnnContent
	TypeRAnn     BodyType = 17 // Opaque: RevAnnContent
	TypeCRLAnn   BodyType = 18 // Opaque: CRLAnnContent
	TypePKIConf  BodyType = 19 // PKIConf: confirmation
	TypeNested   BodyType = 20 // Nested: messages in a message
	TypeGenM     BodyType = 21 // GenMsg: general message
	TypeGenP     BodyType = 22 // GenMsg: its response
	TypeError    BodyType = 23 // ErrorMsg: error
	TypeCertConf BodyType = 24 // CertConf: certificate confirmation
	TypePollReq  BodyType = 25 // PollReq: polling request
	TypePollRep  BodyType = 26 // PollRep: its response
)

var bodyNames = [...]string{
	"ir", "ip", "cr", "cp", "p10cr", "popdecc", "popdecr", "kur", "kup", "krr", "krp", "rr", "rp", "ccr", "ccp",
	"ckuann", "cann", "rann", "crlann", "pkiconf", "nested", "genm", "genp", "error", "certConf", "pollReq", "pollRep",
}

// String is the RFC's name of t.
func (t BodyType) String() string {
	if int(t) >= len(bodyNames) {
		return fmt.Sprintf("PKIBody(%d)", uint8(t))
	}
	return bodyNames[t]
}

// Body is the content of an arm of PKIBody: [CertReqMessages], [CertRepMessage],
// [P10CR], [RevReq], [RevRep], [CertConf], [PKIConf], [PollReq], [PollRep],
// [GenMsg], [ErrorMsg], [Nested] or, for the arms this package does not look
// into, [Opaque].
type Body interface {
	fits(t BodyType) bool // whether this Go type is the content of arm t
}

// body writes the content of an arm.
func (w *writer) body(b Body) {
	switch b := b.(type) { // not a method of Body: w would then live on the heap
	case CertReqMessages:
		b.append(w)
	case *CertRepMessage:
		b.append(w)
	case P10CR:
		b.append(w)
	case RevReq:
		b.append(w)
	case *RevRep:
		b.append(w)
	case CertConf:
		b.append(w)
	case PKIConf:
		b.append(w)
	case PollReq:
		b.append(w)
	case PollRep:
		b.append(w)
	case GenMsg:
		b.append(w)
	case *ErrorMsg:
		b.append(w)
	case Nested:
		b.append(w)
	case Opaque:
		b.append(w)
	}
}

const sectionBody = "RFC 9810 §5.1.2"

// body reads the CHOICE PKIBody.
func (p *parser) body(depth int) (BodyType, Body) {
	p.section = inBody
	if !p.more() || p.der[p.at]&0xe0 != 0xa0 || int(p.der[p.at]&0x1f) >= len(bodyNames) {
		p.fail("body")
		return 0, nil
	}
	t := BodyType(p.der[p.at] & 0x1f)
	body := p.enter(explicit(uint8(t)), "body")
	b := p.arm(t, depth)
	p.leave(body, "body")
	return t, b
}

func (p *parser) arm(t BodyType, depth int) Body {
	switch t {
	case TypeIR, TypeCR, TypeKUR, TypeKRR, TypeCCR:
		return p.certReqMessages()
	case TypeIP, TypeCP, TypeKUP, TypeCCP:
		return p.certRepMessage()
	case TypeP10CR:
		return P10CR(p.tagged(tag.SEQUENCE, "p10cr"))
	case TypeRR:
		return p.revReq()
	case TypeRP:
		return p.revRep()
	case TypePKIConf:
		p.null("pkiconf")
		return PKIConf{}
	case TypeNested:
		return p.nested(depth)
	case TypeGenM, TypeGenP:
		p.section = inGeneral
		return GenMsg(p.infos(t.String(), 0))
	case TypeError:
		return p.errorMsg()
	case TypeCertConf:
		return p.certConf()
	case TypePollReq:
		return p.pollReq()
	case TypePollRep:
		return p.pollRep()
	default:
		return Opaque(p.element("body"))
	}
}

// Opaque is the DER of the content of an arm this package does not look into:
// challenges for decryption keys, key recovery and announcements.
type Opaque []byte

func (Opaque) fits(t BodyType) bool {
	switch t {
	case TypePOPDecC, TypePOPDecR, TypeKRP, TypeCKUAnn, TypeCAnn, TypeRAnn, TypeCRLAnn:
		return true
	default:
		return false
	}
}

func (b Opaque) append(w *writer) { w.raw(b) }

// P10CR is the DER of a PKCS #10 CertificationRequest (RFC 9810 §5.3.3, RFC 2986).
type P10CR []byte

func (P10CR) fits(t BodyType) bool { return t == TypeP10CR }

func (b P10CR) append(w *writer) { w.raw(b) }

// PKIConf is the NULL of a pkiconf (RFC 9810 §5.3.17).
type PKIConf struct{}

func (PKIConf) fits(t BodyType) bool { return t == TypePKIConf }

func (PKIConf) append(w *writer) { w.null() }

// ErrorMsg is an ErrorMsgContent (RFC 9810 §5.3.21).
type ErrorMsg struct {
	Status       StatusInfo
	ErrorCode    *int64
	ErrorDetails []string
}

const sectionError = "RFC 9810 §5.3.21"

func (*ErrorMsg) fits(t BodyType) bool { return t == TypeError }

func (b *ErrorMsg) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	w.statusInfo(&b.Status)
	if b.ErrorCode != nil {
		w.integer(*b.ErrorCode)
	}
	if b.ErrorDetails != nil {
		w.utf8Strings(b.ErrorDetails)
	}
	w.close(m)
}

func (p *parser) errorMsg() Body {
	content := p.enterAt(inError, "error")
	b := new(ErrorMsg)
	p.statusInfo(&b.Status, "error.pKIStatusInfo")
	if p.peek(tag.INTEGER) {
		code := p.integer("error.errorCode")
		b.ErrorCode = &code
	}
	if p.more() {
		b.ErrorDetails = p.utf8Strings("error.errorDetails")
	}
	p.leave(content, "error")
	return b
}
