package cmp

import (
	"crypto/x509/pkix"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// room is memory that was allocated together with a Message for what is found in
// it, so that an ordinary message costs one allocation rather than one for each
// list. take gives a part of it out; a list that gets longer than that moves.
type room struct {
	certs      [][]byte
	infos      []InfoTypeAndValue
	requests   []CertReqMsg
	extensions []pkix.Extension
	octets     []byte
	answer     *CertRepMessage
}

// take empties a part of a room: a second list must not share the memory of the first.
func take[T any](part *[]T) []T {
	list := *part
	*part = nil
	return list
}

// longer is list with one more element, which is zero.
func longer[T any](list []T) []T {
	if n := len(list); n < cap(list) {
		return list[:n+1]
	}
	var zero T
	return append(list, zero)
}

// plainRoom is a Message with room for what most have.
type plainRoom struct {
	Message
	certs [2][]byte
	infos [1]InfoTypeAndValue
}

// requestRoom has room for a request for one certificate with a key on a curve of up to 256 bits.
type requestRoom struct {
	plainRoom
	requests   [1]CertReqMsg
	extensions [3]pkix.Extension
	octets     [96]byte
}

// answerRoom has room for an answer with one certificate.
type answerRoom struct {
	plainRoom
	answer    CertRepMessage
	responses [1]CertResponse
}

// newMessage makes a Message with room for what its body, judging by the tag, will hold.
func (p *parser) newMessage() *Message {
	var m *plainRoom
	switch p.bodyTag() {
	case TypeIR, TypeCR, TypeKUR:
		r := new(requestRoom)
		p.room.requests, p.room.extensions, p.room.octets = r.requests[:0], r.extensions[:0], r.octets[:0]
		m = &r.plainRoom
	case TypeIP, TypeCP, TypeKUP:
		r := new(answerRoom)
		p.room.answer, r.answer.Response = &r.answer, r.responses[:0]
		m = &r.plainRoom
	default:
		m = new(plainRoom)
	}
	p.room.certs, p.room.infos = m.certs[:0], m.infos[:0]
	return &m.Message
}

// newResponse is room for the body of an answer.
func (p *parser) newResponse() *CertRepMessage {
	if p.room.answer == nil {
		return new(CertRepMessage)
	}
	answer := p.room.answer
	p.room.answer = nil
	return answer
}

// bodyTag looks ahead for the tag of the body; it may be anything if there is no message.
func (p *parser) bodyTag() BodyType {
	t := TypePKIConf
	message := p.enter(tag.SEQUENCE, "PKIMessage")
	p.tagged(tag.SEQUENCE, "header")
	if p.more() {
		t = BodyType(p.der[p.at] & 0x1f)
	}
	p.at, p.end, p.fault = 0, message.end, fault{}
	return t
}
