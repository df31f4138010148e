package cmp

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// Among namesakes so many are tried, and no more: a peer must not choose how many
// signatures we verify.
func TestSignersTried(t *testing.T) {
	for others, want := range map[int]string{maxCandidates - 1: "ok", maxCandidates: "signature"} {
		s := signed(t)
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		for range others {
			namesake := &x509.Certificate{RawSubject: s.ca.signer.RawSubject, SubjectKeyId: s.ca.signer.SubjectKeyId}
			m.ExtraCerts = append(m.ExtraCerts, s.ca.issue(t, namesake, newKey(t).Public(), s.ca.root).Raw)
		}
		m.ExtraCerts = append(m.ExtraCerts, s.ca.signer.Raw)
		if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != want {
			t.Errorf("after %d others: %v, want %q", others, err, want)
		}
	}
}

func TestIssuersTried(t *testing.T) {
	ca := newAuthority(t, "CA")
	leaf := ca.issue(t, &x509.Certificate{}, newKey(t).Public(), ca.root)
	for others, want := range map[int]bool{maxCandidates - 1: true, maxCandidates: false} {
		var all []*x509.Certificate
		for range others {
			namesake := *newAuthority(t, "CA").root
			namesake.SubjectKeyId = ca.root.SubjectKeyId
			all = append(all, &namesake)
		}
		if got := findIssuer(leaf, append(all, ca.root)); (got != nil) != want {
			t.Errorf("after %d others it is found: %t, want %t", others, got != nil, want)
		}
	}
}

func TestAnchorsTried(t *testing.T) {
	var roots []*x509.Certificate
	for range maxCandidates + 1 {
		roots = append(roots, newAuthority(t, "CA").root)
	}
	if got := len(selfSigned(roots)); got != maxCandidates {
		t.Errorf("%d anchors, want %d", got, maxCandidates)
	}
}

// A certificate of version 1 does not say that it is a CA's, and is no anchor by
// itself (3GPP TS 33.310).
func TestNoAnchorOfVersion1(t *testing.T) {
	ca := newAuthority(t, "CA")
	type tbsCertificate struct {
		SerialNumber       *big.Int
		SignatureAlgorithm asn1.RawValue
		Issuer             asn1.RawValue
		Validity           []time.Time
		Subject            asn1.RawValue
		PublicKey          asn1.RawValue
	}
	var algorithm writer
	algorithm.algorithm(AlgorithmIdentifier{Algorithm: oidECDSAWithSHA256})
	raw := func(der []byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }
	tbs, err := asn1.Marshal(tbsCertificate{
		big.NewInt(1), raw(algorithm.b), raw(ca.root.RawIssuer), []time.Time{epoch.Add(-time.Hour), epoch.AddDate(1, 0, 0)},
		raw(ca.root.RawSubject), raw(ca.root.RawSubjectPublicKeyInfo),
	})
	if err != nil {
		t.Fatal(err)
	}
	scheme, err := signatureScheme(ca.rootKey.Public(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := scheme.sign(rand.Reader, ca.rootKey, tbs)
	if err != nil {
		t.Fatal(err)
	}
	var w writer
	m := w.open(0x30)
	w.raw(tbs)
	w.raw(algorithm.b)
	w.bits(3, signature)
	w.close(m)
	old := parse(t, w.b)
	if old.Version != 1 || old.CheckSignatureFrom(old) != nil || !bytes.Equal(old.RawIssuer, old.RawSubject) {
		t.Fatalf("version %d, %v: not what is to be tried", old.Version, old.CheckSignatureFrom(old))
	}
	if got := selfSigned([]*x509.Certificate{old, ca.root}); len(got) != 1 || !got[0].Equal(ca.root) {
		t.Errorf("%d anchors, want the CA's alone", len(got))
	}
}

// However long is polled, so many nonces of the peer are remembered.
func TestNoncesRemembered(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	step := s.next(t, tr, s.ca.waiting(t, tr.Step().Send))
	for range 2 * maxSeenNonces {
		step = s.next(t, tr, s.ca.pollRep(t, step.Send, 1))
	}
	if got := len(tr.state.Seen); got != maxSeenNonces {
		t.Errorf("%d nonces, want %d", got, maxSeenNonces)
	}
	again := s.ca.pollRep(t, step.Send, 1)
	again.Header.SenderNonce = tr.state.Seen[0]
	if _, err := tr.Next(seal(t, again, s.reply)); outcome(err) != "senderNonce" {
		t.Errorf("a nonce that was used before: %v", err)
	}
}
