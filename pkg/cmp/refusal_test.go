package cmp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"
)

// maxRefusalTime is the most CPU time that refusing one reply may take: on a slow machine
// too, for those of TestCorruptions, which take a millisecond.
const maxRefusalTime = 50 * time.Millisecond

// costly are the most expensive replies that are refused.
var costly = map[string]func(testing.TB) (*scene, func(request []byte) []byte){
	"altered signature":      altered,
	"PBM, iterations":        costlyMAC(false, crypto.SHA512, DefaultMaxIterations),
	"PBMAC1, iterations":     costlyMAC(true, crypto.SHA256, DefaultMaxIterations/2),
	"candidates with RSA":    costlyCandidates,
	"a maze of certificates": maze,
}

// No limit is missing that keeps them within what a slow machine needs; how much they
// take is for BenchmarkRefusal to say.
func TestCostlyRefusals(t *testing.T) {
	for name, hostile := range costly {
		t.Run(name, func(t *testing.T) {
			s, answer := hostile(t)
			tr := s.begin(t)
			step, err := boundedBy(t, 10*maxRefusalTime, tr, answer(tr.Step().Send))
			if err == nil || step.Issued != nil {
				t.Errorf("accepted: %+v", step)
			}
		})
	}
}

// BenchmarkRefusal is what the most expensive replies cost that are refused.
func BenchmarkRefusal(b *testing.B) {
	for name, hostile := range costly {
		b.Run(name, func(b *testing.B) {
			s, answer := hostile(b)
			tr := s.begin(b)
			stored, err := tr.MarshalBinary()
			if err != nil {
				b.Fatal(err)
			}
			reply := answer(tr.Step().Send)
			start, n := cpuTime(b), 0
			for b.Loop() {
				tr, err := Resume(s.cfg, stored)
				if err != nil {
					b.Fatal(err)
				}
				if step, err := tr.Next(reply); err == nil || step.Issued != nil {
					b.Fatalf("accepted: %+v", step)
				}
				n++
			}
			took := time.Duration((cpuTime(b) - start) / int64(n))
			b.ReportMetric(float64(took)/1e6, "cpu-ms/op")
			if took > maxRefusalTime {
				b.Errorf("takes %s of CPU time, want at most %s", took, maxRefusalTime)
			}
		})
	}
}

func altered(tb testing.TB) (*scene, func([]byte) []byte) {
	s := signed(tb)
	return s, func(request []byte) []byte {
		reply := bytes.Clone(seal(tb, s.ca.granted(tb, request), s.reply))
		reply[40] ^= 1
		return reply
	}
}

// costlyMAC has parameters that are as expensive as is allowed.
func costlyMAC(pbmac1 bool, owf crypto.Hash, iterations int64) func(testing.TB) (*scene, func([]byte) []byte) {
	return func(tb testing.TB) (*scene, func([]byte) []byte) {
		s := shared(tb)
		return s, func(request []byte) []byte {
			p := macParameters{salt: []byte("salt"), iterations: iterations, owf: owf, mac: owf}
			encode := p.passwordBasedMac
			if pbmac1 {
				encode = p.pbmac1
			}
			alg, err := encode()
			if err != nil {
				tb.Fatal(err)
			}
			m := s.ca.granted(tb, request)
			m.Header.ProtectionAlg, m.Protection = alg, make([]byte, 32)
			return encoded(tb, m)
		}
	}
}

func encoded(t testing.TB, m *Message) []byte {
	t.Helper()
	der, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// costlyCandidates are many certificates of the sender's name with large keys.
func costlyCandidates(tb testing.TB) (*scene, func([]byte) []byte) {
	s := signed(tb)
	large, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		tb.Fatal(err)
	}
	return s, func(request []byte) []byte {
		m := s.ca.granted(tb, request)
		for range MaxExtraCerts {
			c := s.ca.issue(tb, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, large.Public(), s.ca.root)
			m.ExtraCerts = append(m.ExtraCerts, c.Raw)
		}
		m.Header.Sender = DirectoryName(mustName(tb, "/CN=x"))
		m.Header.ProtectionAlg, m.Protection = AlgorithmIdentifier{oidSHA512WithRSA, derNULL}, make([]byte, 512)
		return encoded(tb, m)
	}
}

// maze is a message signed by several certificates of one key, whose issuers
// have all signed each other, with a costly curve, and lead nowhere.
func maze(tb testing.TB) (*scene, func([]byte) []byte) {
	s := signed(tb)
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	stranger := newAuthorityOf(tb, "Test CA", key, newKey(tb), 0)
	return s, func(request []byte) []byte {
		m := s.ca.granted(tb, request)
		for range maxCandidates {
			c := stranger.issue(tb, &x509.Certificate{Subject: pkix.Name{CommonName: "Test CA CMP"}, SubjectKeyId: []byte("same")}, stranger.signerKey.Public(), stranger.root)
			m.ExtraCerts = append(m.ExtraCerts, c.Raw)
		}
		for len(m.ExtraCerts) < MaxExtraCerts {
			other, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
			if err != nil {
				tb.Fatal(err)
			}
			template := &x509.Certificate{RawSubject: stranger.root.RawSubject, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: stranger.root.SubjectKeyId}
			m.ExtraCerts = append(m.ExtraCerts, stranger.issue(tb, template, map[bool]crypto.PublicKey{true: key.Public(), false: other.Public()}[len(m.ExtraCerts)%2 == 0], stranger.root).Raw)
		}
		m.Header.Sender = nil
		return seal(tb, m, &Signer{Key: stranger.signerKey, Certificate: parse(tb, m.ExtraCerts[0])})
	}
}
