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

// maxRefusalTime is the most CPU time that refusing one reply may take on average.
const maxRefusalTime = 50 * time.Millisecond

// BenchmarkRefusal is what the most expensive replies cost that are refused.
func BenchmarkRefusal(b *testing.B) {
	for name, hostile := range map[string]func(*testing.B) (*scene, func(request []byte) []byte){
		"altered signature":      altered,
		"PBM, iterations":        costlyMAC(false, crypto.SHA512, DefaultMaxIterations),
		"PBMAC1, iterations":     costlyMAC(true, crypto.SHA256, DefaultMaxIterations/2),
		"candidates with RSA":    costlyCandidates,
		"a maze of certificates": maze,
	} {
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

func altered(b *testing.B) (*scene, func([]byte) []byte) {
	s := signed(b)
	return s, func(request []byte) []byte {
		reply := bytes.Clone(seal(b, s.ca.granted(b, request), s.reply))
		reply[40] ^= 1
		return reply
	}
}

// costlyMAC has parameters that are as expensive as is allowed.
func costlyMAC(pbmac1 bool, owf crypto.Hash, iterations int64) func(*testing.B) (*scene, func([]byte) []byte) {
	return func(b *testing.B) (*scene, func([]byte) []byte) {
		s := shared(b)
		return s, func(request []byte) []byte {
			p := macParameters{salt: []byte("salt"), iterations: iterations, owf: owf, mac: owf}
			encode := p.passwordBasedMac
			if pbmac1 {
				encode = p.pbmac1
			}
			alg, err := encode()
			if err != nil {
				b.Fatal(err)
			}
			m := s.ca.granted(b, request)
			m.Header.ProtectionAlg, m.Protection = alg, make([]byte, 32)
			return encoded(b, m)
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
func costlyCandidates(b *testing.B) (*scene, func([]byte) []byte) {
	s := signed(b)
	large, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		b.Fatal(err)
	}
	return s, func(request []byte) []byte {
		m := s.ca.granted(b, request)
		for range MaxExtraCerts {
			c := s.ca.issue(b, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, large.Public(), s.ca.root)
			m.ExtraCerts = append(m.ExtraCerts, c.Raw)
		}
		m.Header.Sender = DirectoryName(mustName(b, "/CN=x"))
		m.Header.ProtectionAlg, m.Protection = AlgorithmIdentifier{oidSHA512WithRSA, derNULL}, make([]byte, 512)
		return encoded(b, m)
	}
}

// maze is a message signed by several certificates of one key, whose issuers
// have all signed each other, with a costly curve, and lead nowhere.
func maze(b *testing.B) (*scene, func([]byte) []byte) {
	s := signed(b)
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	stranger := newAuthorityOf(b, "Test CA", key, newKey(b), 0)
	return s, func(request []byte) []byte {
		m := s.ca.granted(b, request)
		for range maxCandidates {
			c := stranger.issue(b, &x509.Certificate{Subject: pkix.Name{CommonName: "Test CA CMP"}, SubjectKeyId: []byte("same")}, stranger.signerKey.Public(), stranger.root)
			m.ExtraCerts = append(m.ExtraCerts, c.Raw)
		}
		for len(m.ExtraCerts) < MaxExtraCerts {
			other, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			template := &x509.Certificate{RawSubject: stranger.root.RawSubject, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: stranger.root.SubjectKeyId}
			m.ExtraCerts = append(m.ExtraCerts, stranger.issue(b, template, map[bool]crypto.PublicKey{true: key.Public(), false: other.Public()}[len(m.ExtraCerts)%2 == 0], stranger.root).Raw)
		}
		m.Header.Sender = nil
		return seal(b, m, &Signer{Key: stranger.signerKey, Certificate: parse(b, m.ExtraCerts[0])})
	}
}
