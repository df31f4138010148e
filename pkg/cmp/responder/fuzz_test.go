package responder

import (
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

// FuzzRespond sends what it is given, and the same with good protection. Nonces
// and signatures make coverage differ from run to run, so that minimizing takes
// for ever: run it with -fuzzminimizetime=10x.
func FuzzRespond(f *testing.F) {
	l := newLab(f, Config{MaxOpen: 10, MaxIssued: 10})
	body := certRequest(f, cmp.CertTemplate{Subject: name(f, "a")}, newKey(f))
	ir := l.message(cmp.TypeIR, body, nil)
	ip := l.parsed(ir)
	cert, key := l.identity()
	for _, der := range [][]byte{
		ir,
		l.messageBy(cmp.TypeCR, body, nil, &cmp.Signer{Key: key, Certificate: cert}),
		l.reply(ip, cmp.TypeCertConf, accepting(ip), nil),
		l.reply(ip, cmp.TypePollReq, cmp.PollReq{0}, nil),
		l.message(cmp.TypeRR, revocation(cert.RawIssuer, cert.SerialNumber), nil),
		l.message(cmp.TypeGenM, cmp.GenMsg{{Type: cmp.InfoCurrentCRL}}, nil),
		l.message(cmp.TypeP10CR, cmp.P10CR{0x30, 0}, nil),
	} {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, der := range [][]byte{der, protectedAnew(der)} {
			reply, _ := l.ca.Respond(der)
			if _, err := cmp.ParseMessage(reply); err != nil {
				t.Errorf("the answer is no PKIMessage: %v", err)
			}
		}
		if got := len(l.ca.Issued()); got > 10 {
			t.Errorf("%d certificates remembered, the bound is 10", got)
		}
	})
}

// protectedAnew is a message with a MAC that is right, if it is a message at all.
func protectedAnew(der []byte) []byte {
	m, err := cmp.ParseMessage(der)
	if err != nil {
		return nil
	}
	m.Header.ProtectionAlg = cmp.AlgorithmIdentifier{}
	if err := m.Protect(nil, &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret), Iterations: cmp.MinIterations}); err != nil {
		return nil
	}
	der, _ = m.Marshal()
	return der
}
