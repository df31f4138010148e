package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// odd is a kind of key, and how an authority signs certificates with it.
type odd struct {
	newKey func() (crypto.Signer, error)
	signs  x509.SignatureAlgorithm
	pss    bool
	hash   crypto.Hash // of messages
}

func rsa4096() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 4096) }

func onCurve(c elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(c, rand.Reader) }
}

// Whole enrolments in which everything is done with one kind of key: the CA's
// certificates and messages, ours, and the new certificate.
func TestKeysAndProtections(t *testing.T) {
	t.Parallel()
	reused, err := rsa4096() // making one takes a second
	if err != nil {
		t.Fatal(err)
	}
	same := func() (crypto.Signer, error) { return reused, nil }
	edwards := func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err }
	for name, kind := range map[string]odd{
		"RSA-4096":             {newKey: same},
		"RSA-4096 and SHA-512": {newKey: same, signs: x509.SHA512WithRSA, hash: crypto.SHA512},
		"RSA-4096 PSS":         {newKey: same, signs: x509.SHA256WithRSAPSS, pss: true},
		"RSA-4096 PSS SHA-384": {newKey: same, signs: x509.SHA384WithRSAPSS, pss: true, hash: crypto.SHA384},
		"Ed25519":              {newKey: edwards},
		"P-384":                {newKey: onCurve(elliptic.P384())},
		"P-521":                {newKey: onCurve(elliptic.P521())},
		"P-521 and SHA-256":    {newKey: onCurve(elliptic.P521()), signs: x509.ECDSAWithSHA256, hash: crypto.SHA256},
	} {
		for _, asking := range []BodyType{TypeIR, TypeP10CR} {
			t.Run(name+"/"+asking.String(), func(t *testing.T) { kind.enrol(t, asking) })
		}
	}
}

func (o odd) enrol(t *testing.T, asking BodyType) {
	key := func() crypto.Signer {
		key, err := o.newKey()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	s := signed(t)
	s.ca = newAuthorityOf(t, "Odd", key(), key(), o.signs)
	own := key()
	identity := s.ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "device"}}, own.Public(), s.ca.root)
	s.cfg.Credential = &Signer{Key: own, Certificate: identity, PSS: o.pss, Hash: o.hash}
	s.cfg.Trust.Roots = []*x509.Certificate{s.ca.root}
	s.reply = &Signer{Key: s.ca.signerKey, Certificate: s.ca.signer, PSS: o.pss, Hash: o.hash}
	s.req.Key, s.req.Hash = key(), o.hash
	s.asking(t, asking)
	tr := s.begin(t)
	step := tr.Step()
	if _, err := (&Trust{Roots: s.cfg.Trust.Roots}).Verify(mustParse(t, step.Send), epoch); err != nil {
		t.Errorf("our own message: %v", err)
	}
	step = s.next(t, tr, s.ca.granted(t, step.Send))
	if step = s.next(t, tr, s.ca.confirmed(t, step.Send)); !step.Done || !equalKeys(step.Issued.Certificate.PublicKey, s.req.Key.Public()) {
		t.Errorf("%+v", step)
	}
}

// onSecp256k1 reads the recorded key, request and certificate on that curve.
func onSecp256k1(t testing.TB) map[string][]byte {
	t.Helper()
	rest, err := os.ReadFile(filepath.Join("testdata", "secp256k1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		out[block.Type] = block.Bytes
	}
	if len(out) != 3 {
		t.Fatalf("%d things recorded, want 3", len(out))
	}
	return out
}

// A Koblitz curve for want of which Go's elliptic package does not know secp256k1.
func koblitzKey() *ecdsa.PrivateKey {
	curve := &elliptic.CurveParams{Name: "secp256k1", BitSize: 256}
	return &ecdsa.PrivateKey{PublicKey: ecdsa.PublicKey{Curve: curve, X: big.NewInt(1), Y: big.NewInt(2)}, D: big.NewInt(1)} //nolint:staticcheck // no other way to make a key of it
}

// secp256k1 is refused wherever it turns up, with the reason and what to use instead.
func TestSecp256k1(t *testing.T) {
	der := onSecp256k1(t)
	begin := func(change func(*scene)) error {
		s := signed(t)
		change(s)
		_, err := Begin(s.cfg, s.req)
		return err
	}
	answer := func(spoil func(*scene, *Message)) error {
		s := signed(t)
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		spoil(s, m)
		_, err := tr.Next(seal(t, m, s.reply))
		return err
	}
	for name, err := range map[string]error{
		"key": begin(func(s *scene) { s.req.Key = koblitzKey() }),
		"key of the signer": begin(func(s *scene) {
			key := koblitzKey()
			s.cfg.Credential = &Signer{Key: key, Certificate: &x509.Certificate{PublicKey: key.Public()}}
		}),
		"template": begin(func(s *scene) { s.req.Template.PublicKeyInfo = der["PUBLIC KEY"] }),
		"request":  begin(func(s *scene) { s.req.Type, s.req.CSR = TypeP10CR, der["CERTIFICATE REQUEST"] }),
		"certificate": answer(func(_ *scene, m *Message) {
			m.Body.(*CertRepMessage).Response[0].Certified.Certificate = der["CERTIFICATE"]
		}),
		"signer of an answer": answer(func(s *scene, m *Message) {
			m.ExtraCerts = [][]byte{der["CERTIFICATE"]}
			s.reply = &Signer{Key: s.ca.signerKey, Certificate: s.ca.signer}
			m.Header.Sender = DirectoryName(mustName(t, "/CN=web"))
		}),
	} {
		if err == nil || !strings.Contains(err.Error(), "secp256k1") || !strings.Contains(err.Error(), "use P-256") || !strings.Contains(err.Error(), "crypto/x509 has neither") {
			t.Errorf("%s: error %v, want one that says why and what to use instead", name, err)
		}
	}
	if err := unknownCurve(&ecdsa.PublicKey{}); !strings.Contains(err.Error(), "P-256") {
		t.Errorf("no curve: %v", err)
	}
}
