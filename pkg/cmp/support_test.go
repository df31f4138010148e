package cmp

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestRevocation(t *testing.T) {
	for name, test := range map[string]struct {
		rp   func(s *scene, what CertID) *RevRep
		want string
	}{
		"accepted":        {func(*scene, CertID) *RevRep { return &RevRep{Status: []StatusInfo{{}}} }, "ok"},
		"accepted, named": {func(_ *scene, id CertID) *RevRep { return &RevRep{Status: []StatusInfo{{}}, RevCerts: []CertID{id}} }, "ok"},
		"already revoked": {func(*scene, CertID) *RevRep {
			return &RevRep{Status: []StatusInfo{{Status: StatusRevocationNotification}}}
		}, "ok"},
		"rejection": {func(*scene, CertID) *RevRep {
			return &RevRep{Status: []StatusInfo{{Status: StatusRejection, FailInfo: FailCertRevoked}}}
		}, "peer"},
		"another certificate": {func(_ *scene, id CertID) *RevRep {
			return &RevRep{Status: []StatusInfo{{}}, RevCerts: []CertID{{Issuer: id.Issuer, SerialNumber: big.NewInt(-1)}}}
		}, "rp.revCerts"},
		"another issuer": {func(_ *scene, id CertID) *RevRep {
			return &RevRep{Status: []StatusInfo{{}}, RevCerts: []CertID{{Issuer: DirectoryName(nil), SerialNumber: id.SerialNumber}}}
		}, "rp.revCerts"},
		"two answers": {func(*scene, CertID) *RevRep { return &RevRep{Status: []StatusInfo{{}, {}}} }, "rp.status"},
		"odd status":  {func(*scene, CertID) *RevRep { return &RevRep{Status: []StatusInfo{{Status: StatusKeyUpdateWarning}}} }, "rp.status"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			own := s.cfg.Credential.(*Signer).Certificate
			s.req = Request{Type: TypeRR, Revocation: &Revocation{Certificate: own, Reason: ReasonSuperseded}}
			tr := s.begin(t)
			tr = s.resumed(t, tr)
			details := mustParse(t, tr.Step().Send).Body.(RevReq)[0]
			if reason := details.CRLEntryDetails[0]; !reason.Id.Equal(ExtensionCRLReason) || !bytes.Equal(reason.Value, []byte{10, 1, 4}) {
				t.Errorf("reason %+v", reason)
			}
			id := CertID{Issuer: DirectoryName(details.CertDetails.Issuer), SerialNumber: details.CertDetails.SerialNumber}
			_, err := tr.Next(seal(t, s.ca.answer(t, tr.Step().Send, TypeRP, test.rp(s, id)), s.reply))
			if got := outcome(err); got != test.want {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
			if step := s.resumed(t, tr).Step(); step.Done != (test.want == "ok") || step.Done != (step.Reply != nil) {
				t.Errorf("resumed: %+v", step)
			}
		})
	}
	t.Run("waiting", func(t *testing.T) {
		s := signed(t)
		s.req = Request{Type: TypeRR, Revocation: &Revocation{Issuer: mustName(t, "/CN=x"), SerialNumber: big.NewInt(1)}}
		tr := s.begin(t)
		step := s.next(t, tr, s.ca.answer(t, tr.Step().Send, TypeRP, &RevRep{Status: []StatusInfo{{Status: StatusWaiting}}}))
		if step.Type != TypePollReq || step.Done {
			t.Fatalf("not polled for: %+v", step)
		}
		if step = s.next(t, tr, s.ca.answer(t, step.Send, TypeRP, &RevRep{Status: []StatusInfo{{}}})); !step.Done {
			t.Errorf("not done: %+v", step)
		}
	})
	t.Run("refused without protection", func(t *testing.T) {
		s := signed(t)
		s.req = Request{Type: TypeRR, Revocation: &Revocation{Issuer: mustName(t, "/CN=x"), SerialNumber: big.NewInt(1)}}
		tr := s.begin(t)
		refusal := &RevRep{Status: []StatusInfo{{Status: StatusRejection, FailInfo: FailCertRevoked}}}
		var peer *Error
		_, err := tr.Next(encoded(t, s.ca.answer(t, tr.Step().Send, TypeRP, refusal)))
		if outcome(err) == "ok" || !errors.As(err, &peer) || peer.Verified || tr.Step().Send == nil {
			t.Errorf("%v, want the refusal, unverified, and the transaction as it was", err)
		}
	})
	for name, what := range map[string]*Revocation{
		"nothing": nil, "no certificate": {}, "reason 7": {Issuer: mustName(t, "/CN=x"), SerialNumber: big.NewInt(1), Reason: 7},
		"reason 11": {Issuer: mustName(t, "/CN=x"), SerialNumber: big.NewInt(1), Reason: 11},
	} {
		if _, err := Begin(signed(t).cfg, Request{Type: TypeRR, Revocation: what}); err == nil {
			t.Errorf("%s is asked for", name)
		}
	}
}

// TestRevocationByRequest: the certificate is named by the key and the subject of
// the request it was issued for, and any serial number may come back.
func TestRevocationByRequest(t *testing.T) {
	s := signed(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "web"}}, s.cfg.Credential.(*Signer).Key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	s.req = Request{Type: TypeRR, Revocation: &Revocation{Request: csr, Reason: ReasonSuperseded}}
	tr := s.resumed(t, s.begin(t))
	details := mustParse(t, tr.Step().Send).Body.(RevReq)[0].CertDetails
	if !bytes.Equal(details.PublicKeyInfo, csr.RawSubjectPublicKeyInfo) || !bytes.Equal(details.Subject, csr.RawSubject) || details.SerialNumber != nil {
		t.Errorf("certDetails %+v, want key and subject of the request only", details)
	}
	id := CertID{Issuer: DirectoryName(csr.RawSubject), SerialNumber: big.NewInt(5)}
	reply := &RevRep{Status: []StatusInfo{{}}, RevCerts: []CertID{id}}
	if _, err := tr.Next(seal(t, s.ca.answer(t, tr.Step().Send, TypeRP, reply), s.reply)); err != nil {
		t.Errorf("the answer is refused: %v", err)
	}
}

// general asks for one info and gets an answer.
func general(t *testing.T, ask InfoTypeAndValue, answer GenMsg) (Step, error) {
	t.Helper()
	s := signed(t)
	s.req = Request{Type: TypeGenM, Info: ask}
	tr := s.begin(t)
	return tr.Next(seal(t, s.ca.answer(t, tr.Step().Send, TypeGenP, answer), s.reply))
}

func TestGeneralMessages(t *testing.T) {
	caCerts := InfoTypeAndValue{Type: InfoCACerts}
	for name, test := range map[string]struct {
		ask    InfoTypeAndValue
		answer GenMsg
		want   string
	}{
		"nothing":              {caCerts, GenMsg{}, "ok"},
		"no value":             {caCerts, GenMsg{caCerts}, "ok"},
		"another type":         {caCerts, GenMsg{{Type: InfoCRLs}}, "genp.infoType"},
		"two":                  {caCerts, GenMsg{caCerts, caCerts}, "genp"},
		"update of a root":     {InfoTypeAndValue{Type: InfoRootCACert}, GenMsg{{Type: InfoRootCAKeyUpdate}}, "ok"},
		"list for a status":    {InfoTypeAndValue{Type: InfoCRLStatusList}, GenMsg{{Type: InfoCRLs}}, "ok"},
		"certificates instead": {InfoTypeAndValue{Type: InfoRootCACert}, GenMsg{caCerts}, "genp.infoType"},
	} {
		t.Run(name, func(t *testing.T) {
			step, err := general(t, test.ask, test.answer)
			if got := outcome(err); got != test.want || step.Done != (err == nil) {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// A genm is a question, and no answer to one.
func TestQuestionIsNoAnswer(t *testing.T) {
	s := signed(t)
	s.req = Request{Type: TypeGenM, Info: InfoTypeAndValue{Type: InfoCACerts}}
	tr := s.begin(t)
	m := s.ca.answer(t, tr.Step().Send, TypeGenM, GenMsg{{Type: InfoCACerts}})
	if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != "body" {
		t.Errorf("%v, want that it is no answer", err)
	}
}

// TestCRLStatusList compares with what Bouncy Castle 1.72 encodes.
func TestCRLStatusList(t *testing.T) {
	issuer := mustName(t, "/CN=x")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, got := range map[string]InfoTypeAndValue{
		"30163014a1123010a40e300c310a300806035504030c0178":                               CRLStatusList(issuer, time.Time{}),
		"30253023a1123010a40e300c310a300806035504030c0178170d3236303130323033303430355a": CRLStatusList(issuer, at),
	} {
		if !got.Type.Equal(InfoCRLStatusList) || hex.EncodeToString(got.Value) != want {
			t.Errorf("%x, want %s", got.Value, want)
		}
	}
}

func TestCACertsAndCRLs(t *testing.T) {
	ca := newAuthority(t, "CA")
	var w writer
	w.certificates([][]byte{ca.root.Raw, ca.signer.Raw})
	certs, err := GenMsg{{Type: InfoCACerts, Value: w.b}}.CACerts()
	if err != nil || len(certs) != 2 || !certs[0].Equal(ca.root) {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
	if _, err := (GenMsg{{Type: InfoCACerts, Value: []byte{4, 0}}}).CACerts(); outcome(err) != "caCerts" {
		t.Errorf("rubbish: %v", err)
	}
	w = writer{}
	w.certificates([][]byte{ca.root.Raw, onSecp256k1(t)["CERTIFICATE"]})
	if certs, err = (GenMsg{{Type: InfoCACerts, Value: w.b}}).CACerts(); outcome(err) != "caCerts[1]" || !strings.Contains(err.Error(), "secp256k1") || certs != nil {
		t.Errorf("one that cannot be read: %d certificates, %v", len(certs), err)
	}
	issuer := *ca.root
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: epoch, NextUpdate: epoch.AddDate(0, 0, 1)}, &issuer, ca.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	var lists, rubbish writer
	lists.certificates([][]byte{crl})
	rubbish.certificates([][]byte{{0x30, 0}})
	for name, b := range map[string]GenMsg{
		"no list": {{Type: InfoCRLs, Value: []byte{4, 0}}}, "no CRL in it": {{Type: InfoCRLs, Value: rubbish.b}}, "no CRL": {{Type: InfoCurrentCRL, Value: []byte{0x30, 0}}},
		"something behind": {{Type: InfoCurrentCRL, Value: append(bytes.Clone(crl), 5, 0)}},
	} {
		if got, err := b.CRLs(); outcome(err) != "crls" || got != nil {
			t.Errorf("%s: %d lists, %v", name, len(got), err)
		}
	}
	if certs, err := (GenMsg{{Type: InfoCRLs}}).CACerts(); certs != nil || err != nil {
		t.Errorf("no caCerts: %v, %v", certs, err)
	}
	for name, b := range map[string]GenMsg{"crls": {{Type: InfoCRLs, Value: lists.b}}, "currentCRL": {{Type: InfoCurrentCRL, Value: crl}}} {
		if got, err := b.CRLs(); err != nil || len(got) != 1 || got[0].Number.Int64() != 1 {
			t.Errorf("%s: %d lists, %v", name, len(got), err)
		}
	}
	if got, err := (GenMsg{}).CRLs(); got != nil || err != nil {
		t.Errorf("nothing is %v, %v", got, err)
	}
}

// A new root is believed only if the old one vouches for it in every way.
func TestPitfall24RootCAKeyUpdate(t *testing.T) {
	old, fresh, stranger := newAuthority(t, "Root"), newAuthority(t, "Root"), newAuthority(t, "Root")
	cross := func(signer *authority, parent *x509.Certificate, of *authority) *x509.Certificate {
		template := &x509.Certificate{Subject: pkix.Name{Organization: []string{"certloop"}, CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true}
		return signer.issue(t, template, of.rootKey.Public(), parent)
	}
	subject := old.root.Subject
	like := func(signer *authority, parent *x509.Certificate, of *authority, template x509.Certificate) *x509.Certificate {
		template.IsCA, template.BasicConstraintsValid = true, true
		return signer.issue(t, &template, of.rootKey.Public(), parent)
	}
	other := pkix.Name{CommonName: "Another"}
	expired := x509.Certificate{Subject: subject, NotBefore: epoch.AddDate(-3, 0, 0), NotAfter: epoch.AddDate(-2, 0, 0)}
	future := x509.Certificate{Subject: subject, NotBefore: epoch.AddDate(1, 0, 0), NotAfter: epoch.AddDate(2, 0, 0)}
	newWithOld, oldWithNew := cross(old, old.root, fresh), cross(fresh, fresh.root, old)
	forged := like(stranger, stranger.root, fresh, x509.Certificate{Subject: subject}) // says it is self-signed
	for name, test := range map[string]struct {
		newWithNew, newWithOld, oldWithNew *x509.Certificate
		want                               string
	}{
		"all three":                     {fresh.root, newWithOld, oldWithNew, "ok"},
		"without oldWithNew":            {fresh.root, newWithOld, nil, "ok"},
		"without newWithOld":            {fresh.root, nil, oldWithNew, "rootCaKeyUpdate.newWithOld"},
		"another new root":              {stranger.root, newWithOld, nil, "rootCaKeyUpdate.newWithOld"},
		"vouched for by a stranger":     {fresh.root, cross(stranger, stranger.root, fresh), nil, "rootCaKeyUpdate.newWithOld"},
		"old vouched for by a stranger": {fresh.root, newWithOld, cross(stranger, stranger.root, old), "rootCaKeyUpdate.oldWithNew"},
		"another old":                   {fresh.root, newWithOld, cross(fresh, fresh.root, stranger), "rootCaKeyUpdate.oldWithNew"},
		"another name":                  {newAuthority(t, "Other").root, newWithOld, nil, "rootCaKeyUpdate.newWithNew"},
		"not a root":                    {fresh.signer, newWithOld, nil, "rootCaKeyUpdate.newWithNew"},
		"new signed by a stranger":      {forged, newWithOld, nil, "rootCaKeyUpdate.newWithNew"},
		"new expired":                   {like(fresh, &expired, fresh, expired), newWithOld, nil, "rootCaKeyUpdate.newWithNew"},
		"new not yet valid":             {like(fresh, &future, fresh, future), newWithOld, nil, "rootCaKeyUpdate.newWithNew"},
		"newWithOld of another name":    {fresh.root, like(old, old.root, fresh, x509.Certificate{Subject: other}), nil, "rootCaKeyUpdate.newWithOld"},
		"newWithOld expired":            {fresh.root, like(old, old.root, fresh, expired), nil, "rootCaKeyUpdate.newWithOld"},
		"newWithOld not yet valid":      {fresh.root, like(old, old.root, fresh, future), nil, "rootCaKeyUpdate.newWithOld"},
		"oldWithNew of another name":    {fresh.root, newWithOld, like(fresh, fresh.root, old, x509.Certificate{Subject: other}), "rootCaKeyUpdate.oldWithNew"},
		"new on another curve":          {&x509.Certificate{Raw: onSecp256k1(t)["CERTIFICATE"]}, newWithOld, nil, "rootCaKeyUpdate.newWithNew"},
		"oldWithNew expired":            {fresh.root, newWithOld, like(fresh, fresh.root, old, expired), "rootCaKeyUpdate.oldWithNew"},
	} {
		t.Run(name, func(t *testing.T) {
			var w writer
			m := w.open(0x30)
			w.raw(test.newWithNew.Raw)
			for n, c := range []*x509.Certificate{test.newWithOld, test.oldWithNew} {
				if c != nil {
					w.taggedElement(uint8(n), c.Raw)
				}
			}
			w.close(m)
			_, err := GenMsg{{Type: InfoRootCAKeyUpdate, Value: w.b}}.RootCAKeyUpdate(old.root, epoch)
			if got := outcome(err); got != test.want {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
		})
	}
	huge := stranger.issue(t, &x509.Certificate{}, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), MaxRSABits), E: 65537}, stranger.root)
	var large writer
	m := large.open(0x30)
	large.raw(huge.Raw)
	large.close(m)
	if _, err := (GenMsg{{Type: InfoRootCAKeyUpdate, Value: large.b}}).RootCAKeyUpdate(old.root, epoch); err == nil || !strings.Contains(err.Error(), "oversized key") {
		t.Errorf("a key too large to verify with: %v", err)
	}
	if u, err := (GenMsg{{Type: InfoRootCAKeyUpdate}}).RootCAKeyUpdate(old.root, epoch); u != nil || err != nil {
		t.Errorf("nothing new is %v, %v", u, err)
	}
	if _, err := (GenMsg{{Type: InfoRootCAKeyUpdate, Value: []byte{0x30, 0}}}).RootCAKeyUpdate(old.root, time.Time{}); outcome(err) != "rootCaKeyUpdate.newWithNew" {
		t.Errorf("rubbish: %v", err)
	}
}

func TestRequestTemplate(t *testing.T) {
	encode := func(template CertTemplate, controls []AttributeTypeAndValue) GenMsg {
		var w writer
		m := w.open(0x30)
		w.certTemplate(&template)
		if controls != nil {
			w.attributes(controls)
		}
		w.close(m)
		return GenMsg{{Type: InfoCertReqTemplate, Value: w.b}}
	}
	subject := CertTemplate{Subject: mustName(t, "/O=certloop")}
	got, err := encode(subject, []AttributeTypeAndValue{{Type: oidRSAKeyLen, Value: []byte{2, 2, 8, 0}}, {Type: oidAlgID, Value: []byte{0x30, 3, 6, 1, 42}}}).RequestTemplate()
	if err != nil || len(got.RSABits) != 1 || got.RSABits[0] != 2048 || len(got.Algorithms) != 1 || !got.Template.Subject.Equal(subject.Subject) {
		t.Errorf("%+v, %v", got, err)
	}
	withKey := CertTemplate{PublicKeyInfo: []byte{0x30, 9, 0x30, 3, 6, 1, 42, 3, 2, 0, 1}}
	if _, err := encode(withKey, nil).RequestTemplate(); outcome(err) != "certReqTemplate.certTemplate.publicKey" {
		t.Errorf("with a key: %v", err)
	}
	if _, err := encode(subject, []AttributeTypeAndValue{{Type: oidRegToken, Value: []byte{5, 0}}}).RequestTemplate(); outcome(err) != "certReqTemplate.keySpec" {
		t.Errorf("with another control: %v", err)
	}
}

func TestOpenSSLMockSupport(t *testing.T) {
	t.Parallel()
	m := mockServer(t, newKey(t))
	client := &Client{URL: m.url}
	status, err := client.Revoke(t.Context(), m.config(m.device), Revocation{Certificate: m.device.Certificate, Reason: ReasonKeyCompromise})
	if err != nil || status.Status != StatusAccepted {
		t.Errorf("revocation: %+v, %v", status, err)
	}
	_, err = client.Revoke(t.Context(), m.config(m.device), Revocation{Certificate: m.ca.signer})
	if outcome(err) != "peer" || !strings.Contains(err.Error(), "rejection") {
		t.Errorf("revocation of another's certificate: %v", err)
	}
	answer, err := client.Ask(t.Context(), m.config(m.device), InfoTypeAndValue{Type: InfoCACerts})
	if err != nil || len(answer) > 1 {
		t.Errorf("caCerts: %+v, %v", answer, err)
	}
}

// The secrets in controls come through, and are in no text.
func TestTokenControls(t *testing.T) {
	s := signed(t)
	s.req.Controls = []AttributeTypeAndValue{RegTokenControl("tøken"), AuthenticatorControl("mother's name")}
	req := mustParse(t, s.begin(t).Step().Send).Body.(CertReqMessages)[0].CertReq
	token, hasToken := req.RegToken()
	secret, hasSecret := req.Authenticator()
	if token != "tøken" || secret != "mother's name" || !hasToken || !hasSecret {
		t.Errorf("%q %t, %q %t", token, hasToken, secret, hasSecret)
	}
	if want := []byte("\x0c\x06t\xc3\xb8ken"); !bytes.Equal(req.Controls[0].Value, want) {
		t.Errorf("regToken %x, want %x", req.Controls[0].Value, want)
	}
	for name, value := range map[string][]byte{"absent": nil, "another type": {4, 0}, "not UTF-8": {12, 1, 0xff}, "trailing": {12, 0, 0}} {
		bad := CertRequest{Controls: []AttributeTypeAndValue{{Type: oidRegToken, Value: value}}}
		if value == nil {
			bad.Controls = nil
		}
		if _, ok := bad.RegToken(); ok {
			t.Errorf("%s is a regToken", name)
		}
	}
}

// A path may have so many certificates between an end entity and its root, and no more.
func TestPathsAreBounded(t *testing.T) {
	ca := newAuthority(t, "CA")
	for between, want := range map[int]bool{MaxChain: true, MaxChain + 1: false} {
		chain := []*x509.Certificate{ca.root}
		for i := range between {
			template := &x509.Certificate{Subject: pkix.Name{CommonName: fmt.Sprint("CA ", i)}, IsCA: true, BasicConstraintsValid: true}
			chain = append(chain, ca.issue(t, template, ca.rootKey.Public(), chain[i]))
		}
		leaf := ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}}, newKey(t).Public(), chain[between])
		if _, err := newPathfinder(nil, chain[:1], chain[1:]).verifyIssued(leaf, epoch); (err == nil) != want {
			t.Errorf("%d certificates between: %v, want it to be a path: %t", between, err, want)
		}
	}
}

// Certificates of one name that have signed each other are a maze; the way
// through is found, and looking for one that is not there ends soon.
func TestPathThroughNamesakes(t *testing.T) {
	ca, stranger := newAuthority(t, "CA"), newAuthority(t, "CA")
	upper := func(a *authority, parent *x509.Certificate) *x509.Certificate {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: "Issuing"}, IsCA: true, BasicConstraintsValid: true}
		return a.issue(t, template, a.rootKey.Public(), parent)
	}
	good, bad := upper(ca, ca.root), upper(stranger, stranger.root)
	leaf := ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, AuthorityKeyId: []byte("wrong")}, newKey(t).Public(), good)
	chain, err := newPathfinder(nil, []*x509.Certificate{ca.root}, []*x509.Certificate{bad, bad, leaf, stranger.root, good}).verifyIssued(leaf, epoch)
	if err != nil || len(chain) != 1 || !chain[0].Equal(good) {
		t.Errorf("%d certificates, %v", len(chain), err)
	}
	finder := newPathfinder(nil, []*x509.Certificate{ca.root}, []*x509.Certificate{bad, good})
	finder.checks = 0
	if _, err := finder.verify(leaf, epoch); err == nil {
		t.Error("found without looking")
	}
	if path, err := newPathfinder(nil, []*x509.Certificate{ca.root}).verify(ca.root, epoch); err != nil || len(path) != 1 {
		t.Errorf("the root itself: %d, %v", len(path), err)
	}
}
