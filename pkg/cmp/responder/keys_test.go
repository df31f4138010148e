package responder

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

// TestKeysOfCAs: CAs with every type of key issue, protect, confirm by the hash
// that goes with their signature, sign CRLs and announce a root, under an
// intermediate CA as well.
func TestKeysOfCAs(t *testing.T) {
	type kind struct {
		KeyType
		pss  bool
		want x509.SignatureAlgorithm
	}
	kinds := []kind{
		{P256, false, x509.ECDSAWithSHA256},
		{P384, false, x509.ECDSAWithSHA384},
		{P521, false, x509.ECDSAWithSHA512},
		{RSA2048, false, x509.SHA256WithRSA},
		{RSA2048, true, x509.SHA256WithRSAPSS},
		{RSA4096, true, x509.SHA256WithRSAPSS},
		{Ed25519, false, x509.PureEd25519},
	}
	for _, k := range kinds {
		large := k.KeyType == RSA4096 // a key takes a second
		for _, intermediate := range []bool{false, true} {
			title := string(k.KeyType)
			if k.pss {
				title += " PSS"
			}
			if intermediate {
				title += ", intermediate"
			}
			if intermediate && (large || k.pss) {
				continue
			}
			t.Run(title, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, Config{KeyType: k.KeyType, PSS: k.pss, Intermediate: intermediate, Successor: !large})
				l.lives(k.want)
			})
		}
	}
}

// lives takes a CA through everything it signs.
func (l *lab) lives(want x509.SignatureAlgorithm) {
	l.Helper()
	cert, key := l.identity()
	if cert.SignatureAlgorithm != want {
		l.Errorf("certificate signed with %s, want %s", cert.SignatureAlgorithm, want)
	}
	cfg := l.signedBy(cert, key)
	cfg.SameProtection = true
	renewed := l.enrol(cfg, cmp.Request{Type: cmp.TypeKUR, OldCert: cert, Key: newKey(l)}).Certificate
	if !l.last().Confirmed {
		l.Error("the renewal was not confirmed")
	}
	rr := cmp.RevReq{{CertDetails: cmp.CertTemplate{Issuer: renewed.RawIssuer, SerialNumber: renewed.SerialNumber}}}
	l.parsed(l.message(cmp.TypeRR, rr, nil))
	infos, ok := l.parsed(l.messageBy(cmp.TypeGenM, cmp.GenMsg{{Type: cmp.InfoCurrentCRL}, {Type: cmp.InfoRootCACert, Value: l.ca.CACertificate().Raw}}, nil, cfg.Credential)).Body.(cmp.GenMsg)
	if !ok {
		l.Fatal("genm is not answered")
	}
	lists, err := infos.CRLs()
	if err != nil || len(lists) != 1 || lists[0].CheckSignatureFrom(l.ca.IssuingCertificate()) != nil || lists[0].SignatureAlgorithm != want {
		l.Fatalf("CRLs %v, %v, want one signed with %s", lists, err, want)
	}
	if entries := lists[0].RevokedCertificateEntries; len(entries) != 1 || entries[0].SerialNumber.Cmp(renewed.SerialNumber) != 0 {
		l.Errorf("%d entries in the CRL, want the renewed certificate", len(entries))
	}
	update, err := infos.RootCAKeyUpdate(l.ca.CACertificate(), l.Now())
	if !l.cfg.Successor && update == nil {
		return
	}
	if err != nil || update == nil || update.OldWithNew == nil || update.NewWithNew.Equal(l.ca.CACertificate()) {
		l.Errorf("successor %+v, %v, want a complete one", update, err)
	}
}

func TestKeyTypeIsKept(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, Config{Dir: dir, KeyType: Ed25519, Successor: true})
	root := l.ca.CACertificate()
	before := l.announced()
	l.cfg.KeyType = RSA2048
	l.open()
	if !l.ca.CACertificate().Equal(root) || l.ca.IssuingCertificate().PublicKeyAlgorithm != x509.Ed25519 {
		t.Error("the CA in the directory was not kept")
	}
	if after := l.announced(); before == nil || !after.NewWithNew.Equal(before.NewWithNew) {
		t.Error("the successor was not kept")
	}
	if keys, err := filepath.Glob(filepath.Join(dir, "*.key")); err != nil || len(keys) != 1 {
		t.Errorf("keys %v, %v, want that of the CA alone", keys, err)
	}
}

// announced asks for the successor of the root.
func (l *lab) announced() *cmp.RootCAKeyUpdate {
	l.Helper()
	m := l.parsed(l.message(cmp.TypeGenM, cmp.GenMsg{{Type: cmp.InfoRootCACert, Value: l.ca.CACertificate().Raw}}, nil))
	update, err := m.Body.(cmp.GenMsg).RootCAKeyUpdate(l.ca.CACertificate(), l.Now())
	if err != nil {
		l.Fatal(err)
	}
	return update
}

// TestNoSuccessor: a root that is not ours, or has none, gets an absent value.
func TestNoSuccessor(t *testing.T) {
	l := newLab(t, Config{Successor: true})
	other := newLab(t, Config{})
	for _, ask := range []struct {
		*lab
		root *x509.Certificate
	}{{l, other.ca.CACertificate()}, {other, other.ca.CACertificate()}} {
		m := ask.parsed(ask.message(cmp.TypeGenM, cmp.GenMsg{{Type: cmp.InfoRootCACert, Value: ask.root.Raw}}, nil))
		if update, err := m.Body.(cmp.GenMsg).RootCAKeyUpdate(ask.root, l.Now()); update != nil || err != nil {
			t.Errorf("got %v, %v, want nothing", update, err)
		}
	}
}

func TestUnknownKeyTypes(t *testing.T) {
	for kind, want := range map[KeyType]string{
		"secp256k1": "crypto/x509 has neither keys nor certificates of it: use P-256",
		"DSA":       "use one of [P-256 P-384 P-521 RSA-2048 RSA-3072 RSA-4096 Ed25519]",
	} {
		_, err := New(Config{KeyType: kind})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that says %q", kind, err, want)
		}
	}
}

// read gives the DER of a PEM file of the client's tests.
func read(t *testing.T, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%v is no PEM", path)
	}
	return block.Bytes
}

// TestSecp256k1: wherever such a key comes from, the refusal says what it is and what to use.
func TestSecp256k1(t *testing.T) {
	l := newLab(t, Config{})
	csr := read(t, "testdata", "secp256k1.csr")
	var parsed struct {
		Info struct {
			Version int
			Subject asn1.RawValue
			Key     asn1.RawValue
			Rest    asn1.RawValue `asn1:"optional"`
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(csr, &parsed); err != nil {
		t.Fatal(err)
	}
	template := cmp.CertReqMessages{{CertReq: cmp.CertRequest{CertTemplate: cmp.CertTemplate{Subject: name(t, "a"), PublicKeyInfo: parsed.Info.Key.FullBytes}}}}
	foreign := func(m *cmp.Message) {
		m.Header.ProtectionAlg = cmp.AlgorithmIdentifier{Algorithm: []int{1, 2, 840, 10045, 4, 3, 2}}
		m.Protection, m.ExtraCerts = []byte("signature"), [][]byte{read(t, "testdata", "secp256k1.crt")}
	}
	for where, der := range map[string][]byte{
		"PKCS #10": l.message(cmp.TypeP10CR, cmp.P10CR(csr), nil),
		"template": l.message(cmp.TypeIR, template, nil),
		"signer":   l.messageBy(cmp.TypeGenM, cmp.GenMsg{{Type: cmp.InfoCACerts}}, foreign, nil),
	} {
		status := (&answer{body: l.parsed(der).Body}).status()
		if text := strings.Join(status.Text, " "); status.Status != cmp.StatusRejection || !strings.Contains(text, "the key is on the curve secp256k1") || !strings.Contains(text, "use P-256 in its place") {
			t.Errorf("%s: got %s (%s) %q, want to be told about the curve", where, status.Status, status.FailInfo, text)
		}
	}
}

// TestKeysOfTheCA: a template without a key is refused, and why.
func TestKeysOfTheCA(t *testing.T) {
	l := newLab(t, Config{})
	noBits := []byte{0x30, 0x18, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 1, 0}
	for name, info := range map[string][]byte{"absent": nil, "without bits": noBits} {
		body := cmp.CertReqMessages{{CertReq: cmp.CertRequest{CertTemplate: cmp.CertTemplate{Subject: cmp.Name(l.ca.CACertificate().RawSubject), PublicKeyInfo: info}}}}
		m := l.parsed(l.message(cmp.TypeIR, body, nil))
		l.refusedWith(m, cmp.FailBadCertTemplate)
		if text := (&answer{body: m.Body}).status().Text; len(text) != 1 || !strings.Contains(text[0], "RFC 9483 §4.1.6") {
			t.Errorf("publicKey %s: %q does not say why", name, text)
		}
	}
	l.wantIssued(0)
}

// TestOtherReasons: reasons are in the CRL, hold can be ended, and certificates
// can be named by key and subject.
func TestOtherReasons(t *testing.T) {
	l := newLab(t, Config{})
	key := newKey(t)
	cert := l.enrol(l.client(), request(cmp.TypeIR, name(t, "a"), key)).Certificate
	twin := l.enrol(l.client(), request(cmp.TypeIR, name(t, "b"), key)).Certificate
	named := cmp.CertTemplate{Issuer: cert.RawIssuer, SerialNumber: cert.SerialNumber}
	byKey := cmp.CertTemplate{PublicKeyInfo: cert.RawSubjectPublicKeyInfo}
	bySubject := cmp.CertTemplate{PublicKeyInfo: twin.RawSubjectPublicKeyInfo, Subject: twin.RawSubject}
	unknown := cmp.CertTemplate{PublicKeyInfo: l.ca.CACertificate().RawSubjectPublicKeyInfo}
	for _, step := range []struct {
		name   string
		what   cmp.CertTemplate
		code   byte
		want   cmp.FailureInfo
		listed map[string]int // reason codes by serial number
	}{
		{"off hold without hold", named, 8, cmp.FailBadRequest, map[string]int{}},
		{"hold", named, 6, 0, map[string]int{cert.SerialNumber.String(): 6}},
		{"hold again", named, 6, 0, map[string]int{cert.SerialNumber.String(): 6}},
		{"off hold", named, 8, 0, map[string]int{}},
		{"a key of two", byKey, 1, cmp.FailBadCertID, map[string]int{}},
		{"a key of nobody", unknown, 1, cmp.FailBadCertID, map[string]int{}},
		{"by key and subject", bySubject, 4, 0, map[string]int{twin.SerialNumber.String(): 4}},
		{"the other one, then", byKey, 6, 0, map[string]int{twin.SerialNumber.String(): 4, cert.SerialNumber.String(): 6}},
		{"worse than hold", named, 1, 0, map[string]int{twin.SerialNumber.String(): 4, cert.SerialNumber.String(): 1}},
		{"off what is no hold", named, 8, cmp.FailBadRequest, map[string]int{twin.SerialNumber.String(): 4, cert.SerialNumber.String(): 1}},
		{"twice", named, 5, cmp.FailCertRevoked, map[string]int{twin.SerialNumber.String(): 4, cert.SerialNumber.String(): 1}},
	} {
		t.Run(step.name, func(t *testing.T) {
			l.TB = t
			body := cmp.RevReq{{CertDetails: step.what, CRLEntryDetails: []pkix.Extension{dnsName(t, "x")}}}
			body[0].CRLEntryDetails[0].Id, body[0].CRLEntryDetails[0].Value = cmp.ExtensionCRLReason, []byte{10, 1, step.code}
			m := l.parsed(l.message(cmp.TypeRR, body, nil))
			if status := (&answer{body: m.Body}).status(); status.FailInfo != step.want {
				t.Errorf("got %s (%s) %q, want (%s)", status.Status, status.FailInfo, status.Text, step.want)
			}
			l.wantListed(step.listed)
		})
	}
}

// wantListed compares the CRL with reason codes by serial number.
func (l *lab) wantListed(want map[string]int) {
	l.Helper()
	der, err := l.ca.crl(l.Now())
	if err != nil {
		l.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		l.Fatal(err)
	}
	if len(list.RevokedCertificateEntries) != len(want) {
		l.Errorf("%d entries in the CRL, want %d", len(list.RevokedCertificateEntries), len(want))
	}
	for _, e := range list.RevokedCertificateEntries {
		if code, ok := want[e.SerialNumber.String()]; !ok || code != e.ReasonCode {
			l.Errorf("serial number %s is in the CRL with reason %d, want %d (%t)", e.SerialNumber, e.ReasonCode, code, ok)
		}
	}
}
