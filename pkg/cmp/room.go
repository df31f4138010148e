package cmp

import (
	"crypto/x509/pkix"
)

// room is memory for what is found in a message. It is allocated together with
// the Message, so that an ordinary message costs one allocation rather than one
// for each list. Each list is given out once; what does not fit is allocated.
type room struct {
	certs      [3][]byte
	infos      [2]InfoTypeAndValue
	extensions []pkix.Extension
	octets     []byte
	messages   []CertReqMsg
	answer     *CertRepMessage
}

// requestRoom is room for a request for one certificate with a key on a curve of up to 256 bits.
type requestRoom struct {
	Message
	fault
	room
	message    [1]CertReqMsg
	extensions [3]pkix.Extension
	octets     [96]byte
}

// answerRoom is room for an answer with one certificate.
type answerRoom struct {
	Message
	fault
	room
	answer    CertRepMessage
	responses [1]CertResponse
}

// plainRoom is room for the other messages.
type plainRoom struct {
	Message
	fault
	room
}

// newRoom makes a Message and the fault of its parsers, with room for what its body, judging by the tag, will hold.
func newRoom(der []byte) (*Message, *fault) {
	switch bodyTag(der) {
	case TypeIR, TypeCR, TypeKUR:
		r := new(requestRoom)
		r.room.extensions, r.room.octets, r.messages = r.extensions[:0], r.octets[:0], r.message[:0]
		r.fault.room = &r.room
		return &r.Message, &r.fault
	case TypeIP, TypeCP, TypeKUP:
		r := new(answerRoom)
		r.room.answer, r.answer.Response = &r.answer, r.responses[:0]
		r.fault.room = &r.room
		return &r.Message, &r.fault
	default:
		r := new(plainRoom)
		r.fault.room = &r.room
		return &r.Message, &r.fault
	}
}

// bodyTag looks ahead for the tag of the body; it may be anything if der is no message.
func bodyTag(der []byte) BodyType {
	message, _, _ := split(der)
	_, header, _ := split(message)
	if body := message[len(header):]; len(body) > 0 {
		return BodyType(body[0] & 0x1f)
	}
	return TypePKIConf
}

// The lists below are for one use: a second one must not share the memory of the first.

func (r *room) certificateList() [][]byte {
	if r == nil || r.certs[0] != nil {
		return nil
	}
	return r.certs[:0]
}

func (r *room) infoList() []InfoTypeAndValue {
	if r == nil || r.infos[0].Type != nil {
		return []InfoTypeAndValue{}
	}
	return r.infos[:0]
}

func (r *room) extensionList() []pkix.Extension {
	if r == nil {
		return nil
	}
	list := r.extensions
	r.extensions = nil
	return list
}

func (r *room) bytes(n int) []byte {
	if r == nil || cap(r.octets) < n {
		return make([]byte, 0, n)
	}
	b := r.octets
	r.octets = nil
	return b
}

func (r *room) requests() CertReqMessages {
	if r == nil || r.messages == nil {
		return CertReqMessages{}
	}
	list := r.messages
	r.messages = nil
	return list
}

func (r *room) response() *CertRepMessage {
	if r == nil || r.answer == nil {
		return new(CertRepMessage)
	}
	answer := r.answer
	r.answer = nil
	return answer
}
