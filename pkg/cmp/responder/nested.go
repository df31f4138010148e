package responder

import (
	"fmt"

	"github.com/certloop/certloop/pkg/cmp"
)

// respondNested answers a message that a registration authority has put into
// one of its own, and wraps the answer the same way (RFC 9810 §5.1.3.5).
func (s *Server) respondNested(x *exchange) ([]byte, cmp.BodyType, error) {
	inner, err := s.unwrap(x)
	if err != nil {
		a := errorAnswer(refusalOf(err))
		reply, err := s.seal(x, &a)
		s.report(x, &a, nil)
		return reply, a.kind, err
	}
	der, err := inner.Marshal()
	if err != nil {
		return nil, cmp.TypeNested, fmt.Errorf("unwrapping a nested message: %w", err)
	}
	reply, kind, problem := s.respond(der)
	answer, err := cmp.ParseMessage(reply)
	if err != nil { // by Behaviour
		return reply, kind, problem
	}
	outer, err := cmp.Nest(s.cfg.Rand, s.ca.signer(), x.now, answer)
	if err != nil {
		return nil, kind, err
	}
	reply, err = outer.Marshal()
	if err != nil {
		return nil, kind, err
	}
	return reply, kind, problem
}

// unwrap verifies what is around a message: one signature that may sign requests.
func (s *Server) unwrap(x *exchange) (*cmp.Message, error) {
	if err := s.checkHeader(x); err != nil {
		return nil, err
	}
	if x.req.ProtectedByMAC() {
		return nil, malformed(cmp.FailWrongIntegrity, "a nested message must be signed: a registration authority shares no secret with a CA")
	}
	inner, ok := x.req.Body.(cmp.Nested)
	if !ok || len(inner) != 1 {
		return nil, malformed(cmp.FailBadRequest, "a nested message must have one message inside")
	}
	var err error
	x.peer, err = s.authenticate(x.req, x.now)
	x.known = err == nil
	return inner[0], err
}
