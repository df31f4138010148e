package cmp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Whatever checkAfter says, we neither poll without pause nor sleep for ever.
func TestPitfall22CheckAfter(t *testing.T) {
	const week = 7 * 24 * 3600
	for name, test := range map[string]struct {
		checkAfter int64
		change     func(*Config)
		want       time.Duration
	}{
		"as asked":                {90, nil, 90 * time.Second},
		"0":                       {0, nil, MinCheckAfter},
		"a week":                  {week, nil, DefaultMaxCheckAfter},
		"a week, allowed":         {week, func(c *Config) { c.MaxCheckAfter = 30 * 24 * time.Hour }, week * time.Second},
		"for ever":                {1<<63 - 1, nil, DefaultMaxCheckAfter},
		"longer than we have":     {600, func(c *Config) { c.TotalTimeout = 100 * time.Second }, 100 * time.Second},
		"a clamp below the least": {600, func(c *Config) { c.MaxCheckAfter = time.Millisecond }, MinCheckAfter},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			if test.change != nil {
				test.change(&s.cfg)
			}
			tr := s.begin(t)
			step := s.next(t, tr, s.ca.waiting(t, tr.Step().Send))
			if got := s.next(t, tr, s.ca.pollRep(t, step.Send, test.checkAfter)).Wait; got != test.want {
				t.Errorf("wait %s, want %s", got, test.want)
			}
		})
	}
}

// The last poll is at the deadline; after that the CA is told that we give up.
func TestPollingEnds(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"total timeout":   func(c *Config) { c.TotalTimeout = 150 * time.Second },
		"number of polls": func(c *Config) { c.MaxPolls = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			s.cfg.MessageTimeTolerance = -1
			change(&s.cfg)
			tr := s.begin(t)
			step := s.next(t, tr, s.ca.waiting(t, tr.Step().Send))
			for range 2 {
				step = s.next(t, tr, s.ca.pollRep(t, step.Send, 100))
				s.clock.advance(step.Wait)
				step = tr.Step()
			}
			last, err := tr.Next(seal(t, s.ca.pollRep(t, step.Send, 100), s.reply))
			if !errors.Is(err, ErrDeadline) || last.Type != TypeError || mustParse(t, last.Send).Type != TypeError {
				t.Errorf("%+v, %v, want ErrDeadline and an error for the CA", last, err)
			}
			if again := tr.Step(); again.Send != nil || again.Done {
				t.Errorf("afterwards %+v", again)
			}
		})
	}
}

// Any answer may be delayed, that to certConf too (RFC 9810 §5.3.22).
func TestDelayedConfirmation(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
	delayed := &ErrorMsg{Status: StatusInfo{Status: StatusWaiting}}
	step = s.next(t, tr, s.ca.answer(t, step.Send, TypeError, delayed))
	if poll, ok := mustParse(t, step.Send).Body.(PollReq); !ok || poll[0] != -1 || step.Issued == nil {
		t.Fatalf("after an error with status waiting: %+v", step)
	}
	tr = s.resumed(t, tr)
	step = s.next(t, tr, s.ca.pollRep(t, tr.Step().Send, 1))
	if step = s.next(t, tr, s.ca.confirmed(t, step.Send)); !step.Done {
		t.Errorf("after pkiConf: %+v", step)
	}
}

// A poll that waited long to be sent bears the time of sending.
func TestPollIsFreshWhenSent(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	step := s.next(t, tr, s.ca.waiting(t, tr.Step().Send))
	step = s.next(t, tr, s.ca.pollRep(t, step.Send, 3600))
	s.clock.advance(step.Wait)
	if got, want := mustParse(t, tr.Step().Send).Header.MessageTime, s.clock.Now(); !got.Equal(want) {
		t.Errorf("messageTime %s, want %s", got, want)
	}
}

func TestConfirmation(t *testing.T) {
	implicit := []InfoTypeAndValue{{Type: InfoImplicitConfirm, Value: derNULL}}
	t.Run("implicit", func(t *testing.T) {
		s := signed(t)
		s.cfg.ImplicitConfirm = true
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		m.Header.GeneralInfo = implicit
		if step := s.next(t, tr, m); !step.Done || step.Send != nil || step.Issued == nil {
			t.Errorf("%+v", step)
		}
	})
	t.Run("implicit, not granted", func(t *testing.T) {
		s := signed(t)
		s.cfg.ImplicitConfirm = true
		tr := s.begin(t)
		if step := s.next(t, tr, s.ca.granted(t, tr.Step().Send)); step.Done || step.Type != TypeCertConf {
			t.Errorf("%+v", step)
		}
	})
	t.Run("implicit, not asked for", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		m.Header.GeneralInfo = implicit
		if step := s.next(t, tr, m); step.Done || step.Type != TypeCertConf {
			t.Errorf("%+v", step)
		}
	})
	t.Run("the answer was lost", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		again := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, FailInfo: FailCertConfirmed}}
		if step = s.next(t, tr, s.ca.answer(t, step.Send, TypeError, again)); !step.Done || step.Issued == nil {
			t.Errorf("certConfirmed means %+v", step)
		}
	})
	t.Run("refused", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		no := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, FailInfo: FailBadCertID}}
		step, err := tr.Next(seal(t, s.ca.answer(t, step.Send, TypeError, no), s.reply))
		var peer *Error
		if !errors.As(err, &peer) || !peer.Verified || step.Issued == nil || step.Done || !strings.Contains(err.Error(), "not confirmed") {
			t.Errorf("%+v, %v", step, err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		var w writer
		w.generalizedTime(epoch.Add(time.Minute))
		m.Header.GeneralInfo = []InfoTypeAndValue{{Type: InfoConfirmWaitTime, Value: w.b}}
		if step := s.next(t, tr, m); !step.Issued.ConfirmBy.Equal(epoch.Add(time.Minute)) {
			t.Errorf("confirm by %s", step.Issued.ConfirmBy)
		}
	})
}

func TestRejectCertificate(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	s.next(t, tr, s.ca.granted(t, tr.Step().Send))
	tr.RejectCertificate(FailIncorrectData, "not for us")
	tr = s.resumed(t, tr)
	step := tr.Step()
	conf := mustParse(t, step.Send).Body.(CertConf)
	if got := conf[0].StatusInfo; got == nil || got.Status != StatusRejection || got.FailInfo != FailIncorrectData || got.Text[0] != "not for us" {
		t.Errorf("certConf says %+v", got)
	}
	step, err := tr.Next(seal(t, s.ca.confirmed(t, step.Send), s.reply))
	if !errors.Is(err, ErrRejected) || step.Done || tr.Step().Done {
		t.Errorf("%+v, %v, want ErrRejected", step, err)
	}
}

// Where there is nothing to refuse, or nobody to tell, a refusal ends the transaction.
func TestRejectNothing(t *testing.T) {
	s := signed(t)
	s.cfg.ImplicitConfirm = true
	waived := s.begin(t)
	m := s.ca.granted(t, waived.Step().Send)
	m.Header.GeneralInfo = []InfoTypeAndValue{{Type: InfoImplicitConfirm, Value: derNULL}}
	if step := s.next(t, waived, m); !step.Done {
		t.Fatalf("not done: %+v", step)
	}
	for name, tr := range map[string]*Transaction{"nothing issued": s.begin(t), "confirmation waived": waived} {
		if step := tr.RejectCertificate(FailIncorrectData, "not for us"); step.Send != nil || step.Done || step.Issued != nil {
			t.Errorf("%s: %+v", name, step)
		}
		if _, err := tr.Next(nil); !errors.Is(err, ErrState) {
			t.Errorf("%s: goes on with %v", name, err)
		}
		if _, err := new(Client).Run(t.Context(), tr); !errors.Is(err, ErrState) {
			t.Errorf("%s: runs on with %v", name, err)
		}
	}
}

// A certificate that is of no use and needs no confirmation is refused all the same; there is nobody to tell.
func TestRefusedWithoutConfirmation(t *testing.T) {
	s := signed(t)
	s.cfg.ImplicitConfirm = true
	tr := s.begin(t)
	m := s.ca.granted(t, tr.Step().Send)
	m.Header.GeneralInfo = []InfoTypeAndValue{{Type: InfoImplicitConfirm, Value: derNULL}}
	bodies["another key"].spoil(t, s, m)
	step, err := tr.Next(seal(t, m, s.reply))
	if outcome(err) != "certificate.subjectPublicKeyInfo" || step.Send != nil || step.Issued != nil || step.Done || tr.Step().Done {
		t.Errorf("%+v, %v", step, err)
	}
}

// A CA certificate is taken by who asks for one, and by nobody else.
func TestCACertificate(t *testing.T) {
	for name, test := range map[string]struct {
		constraints []byte
		want        string
	}{
		"asked for":     {[]byte{0x30, 3, 1, 1, 0xff}, "ok"},
		"not asked for": {[]byte{0x30, 0}, "certificate.basicConstraints"},
	} {
		s := signed(t)
		s.req.Template.Extensions = []pkix.Extension{{Id: ExtensionBasicConstraints, Critical: true, Value: test.constraints}}
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		reissued(x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})(t, s, m)
		if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != test.want {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// The recipient is the first of the names that are known for the CA.
func TestRecipient(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*scene)
		want   string
	}{
		"configured":       {func(s *scene) { s.cfg.Recipient, s.req.Template.Issuer = mustName(t, "/CN=a"), mustName(t, "/CN=b") }, "CN=a"},
		"the issuer asked": {func(s *scene) { s.req.Template.Issuer = mustName(t, "/CN=b") }, "CN=b"},
		"of what is revoked": {func(s *scene) {
			s.req = Request{Type: TypeRR, Revocation: &Revocation{Issuer: mustName(t, "/CN=c"), SerialNumber: big.NewInt(1)}}
		}, "CN=c"},
		"unknown": {func(s *scene) { *s = *shared(t) }, "/"},
	} {
		s := signed(t)
		test.change(s)
		got, _ := mustParse(t, s.begin(t).Step().Send).Header.Recipient.Name()
		if got.String() != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// A certificate we refuse is refused by certConf, with the reason.
func TestRefusalIsToldToTheCA(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	m := s.ca.granted(t, tr.Step().Send)
	setCertificate(m, s.ca.issue(t, &x509.Certificate{}, newKey(t).Public(), s.ca.root))
	step, err := tr.Next(seal(t, m, s.reply))
	conf, ok := mustParse(t, step.Send).Body.(CertConf)
	if err == nil || !ok || conf[0].StatusInfo.Status != StatusRejection || conf[0].StatusInfo.FailInfo != FailIncorrectData {
		t.Errorf("%+v, %v", conf, err)
	}
}

// Names and purposes are compared as sets, unless there are too many of them, or something else than
// them: then octet for octet, so that nothing is left out of the comparison.
func TestSameExtension(t *testing.T) {
	names := func(n, first int) []byte {
		var w writer
		m := w.open(0x30)
		for i := range n {
			w.primitive(implicit(2), fmt.Appendf(nil, "%d.example", (i+first)%n))
		}
		w.close(m)
		return w.b
	}
	for name, test := range map[string]struct {
		id        asn1.ObjectIdentifier
		want, got []byte
		same      bool
	}{
		"the same":                   {ExtensionSubjectAltName, names(3, 0), names(3, 0), true},
		"in another order":           {ExtensionSubjectAltName, names(maxElements, 0), names(maxElements, 1), true},
		"one fewer":                  {ExtensionSubjectAltName, names(3, 0), names(2, 0), false},
		"too many, the same":         {ExtensionSubjectAltName, names(maxElements+1, 0), names(maxElements+1, 0), true},
		"too many, in another order": {ExtensionSubjectAltName, names(maxElements+1, 0), names(maxElements+1, 1), false},
		"too many on one side":       {ExtensionExtKeyUsage, names(maxElements, 0), names(maxElements+1, 0), false},
		"something behind":           {ExtensionSubjectAltName, names(3, 0), append(names(3, 1), 5, 0), false},
		"cut off":                    {ExtensionSubjectAltName, []byte{0x30, 4, 0x82, 1, 'a', 0x82}, []byte{0x30, 3, 0x82, 1, 'a'}, false},
		"both are none":              {ExtensionSubjectAltName, []byte{4, 0}, []byte{4, 1, 0}, false},
		"no set":                     {ExtensionKeyUsage, names(3, 0), names(3, 1), false},
	} {
		if got := sameExtension(pkix.Extension{Id: test.id, Value: test.want}, pkix.Extension{Id: test.id, Value: test.got}); got != test.same {
			t.Errorf("%s: %t", name, got)
		}
	}
	if got := extensionText(pkix.Extension{Id: ExtensionSubjectAltName, Value: names(maxElements+1, 0)}); !strings.HasPrefix(got, "3082") {
		t.Errorf("too many names are shown as %.20q", got)
	}
}

func TestDifferences(t *testing.T) {
	san := func(names ...string) pkix.Extension {
		var w writer
		m := w.open(0x30)
		for _, name := range names {
			w.primitive(implicit(2), []byte(name))
		}
		w.close(m)
		return pkix.Extension{Id: ExtensionSubjectAltName, Value: w.b}
	}
	subject := func(t *testing.T) Name { return mustName(t, "/O=certloop/CN=web") }
	for name, test := range map[string]struct {
		asked, granted func(*testing.T, *CertTemplate)
		want           string
	}{
		"none": {func(*testing.T, *CertTemplate) {}, func(*testing.T, *CertTemplate) {}, ""},
		"subject": {func(*testing.T, *CertTemplate) {}, func(t *testing.T, c *CertTemplate) { c.Subject = mustName(t, "/CN=web2") },
			`subject: requested "CN=web,O=certloop", granted "CN=web2"`},
		"subject in other string types": {func(*testing.T, *CertTemplate) {}, func(t *testing.T, c *CertTemplate) { c.Subject = mustName(t, "/O=CERTLOOP/CN=web") }, ""},
		"subjectAltName": {func(_ *testing.T, c *CertTemplate) { c.Extensions = []pkix.Extension{san("a", "b")} },
			func(_ *testing.T, c *CertTemplate) { c.Extensions = []pkix.Extension{san("a")} },
			`subjectAltName: requested "DNS:a,DNS:b", granted "DNS:a"`},
		"order of subjectAltName": {func(_ *testing.T, c *CertTemplate) { c.Extensions = []pkix.Extension{san("a", "b")} },
			func(_ *testing.T, c *CertTemplate) { c.Extensions = []pkix.Extension{san("b", "a")} }, ""},
		"subjectAltName nobody asked for": {func(*testing.T, *CertTemplate) {},
			func(_ *testing.T, c *CertTemplate) { c.Extensions = []pkix.Extension{san("a")} }, `subjectAltName: requested "", granted "DNS:a"`},
		"validity": {func(_ *testing.T, c *CertTemplate) { c.NotAfter = epoch.AddDate(5, 0, 0) }, func(*testing.T, *CertTemplate) {},
			`notAfter: requested "2031-11-21T12:00:00Z", granted "2027-11-21T12:00:00Z"`},
		"keyUsage": {func(_ *testing.T, c *CertTemplate) {
			c.Extensions = []pkix.Extension{{Id: ExtensionKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0x80}}}
		}, func(_ *testing.T, c *CertTemplate) { c.Extensions = nil }, `keyUsage: requested "03020780", granted ""`},
	} {
		t.Run(name, func(t *testing.T) {
			for policy, mind := range map[DifferencePolicy]bool{ReportDifferences: false, RejectUnannounced: true, RejectDifferences: true} {
				s := signed(t)
				s.cfg.Differences = policy
				s.req.Template.Subject = subject(t)
				test.asked(t, &s.req.Template)
				tr := s.begin(t)
				m := s.ca.granted(t, tr.Step().Send)
				granted := mustParse(t, tr.Step().Send).Body.(CertReqMessages)[0].CertReq.CertTemplate
				test.granted(t, &granted)
				setCertificate(m, s.ca.leaf(t, &granted))
				step, err := tr.Next(seal(t, m, s.reply))
				if refused := err != nil; refused != (mind && test.want != "") {
					t.Fatalf("policy %d: %v", policy, err)
				}
				if err == nil && joined(step.Issued.Differences) != test.want {
					t.Errorf("differences %q, want %q", joined(step.Issued.Differences), test.want)
				}
				if err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %q lacks %q", err, test.want)
				}
			}
		})
	}
}

func joined(list []Difference) string {
	texts := make([]string, len(list))
	for i, d := range list {
		texts[i] = d.String()
	}
	return strings.Join(texts, "; ")
}

// extraCerts and caPubs come in any order, with certificates that have nothing to do with ours.
func TestChain(t *testing.T) {
	for name, test := range map[string]struct {
		newScene func(testing.TB) *scene
		roots    bool
		caPubs   bool
		want     []string
	}{
		"to the root":            {signed, true, false, []string{"Issuing 2", "Issuing 1"}},
		"by MAC, without roots":  {shared, false, false, []string{"Issuing 2", "Issuing 1", "Test CA"}},
		"by MAC, root in caPubs": {shared, false, true, []string{"Issuing 2", "Issuing 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.newScene(t)
			if !test.roots {
				s.cfg.Trust.Roots = nil
			}
			tr := s.begin(t)
			m := s.ca.granted(t, tr.Step().Send)
			body := m.Body.(*CertRepMessage)
			one := &x509.Certificate{Subject: pkix.Name{CommonName: "Issuing 1"}, IsCA: true, BasicConstraintsValid: true}
			first := s.ca.issue(t, one, s.ca.rootKey.Public(), s.ca.root)
			two := &x509.Certificate{Subject: pkix.Name{CommonName: "Issuing 2"}, IsCA: true, BasicConstraintsValid: true}
			second := s.ca.issue(t, two, s.ca.rootKey.Public(), first)
			setCertificate(m, s.ca.issue(t, &x509.Certificate{RawSubject: s.req.Template.Subject}, s.req.Key.Public(), second))
			stranger := newAuthority(t, "Stranger")
			m.ExtraCerts = [][]byte{stranger.root.Raw, s.ca.root.Raw, {0x30, 0}, s.ca.signer.Raw, first.Raw, stranger.signer.Raw, second.Raw}
			if test.caPubs {
				body.CAPubs = [][]byte{stranger.root.Raw, s.ca.root.Raw}
			}
			step := s.next(t, tr, m)
			for _, issued := range []*Issued{step.Issued, s.resumed(t, tr).Step().Issued} {
				var got []string
				for _, c := range issued.Chain {
					got = append(got, c.Subject.CommonName)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("chain %q, want %q", got, test.want)
				}
			}
		})
	}
}

// caPubs are believed from whom the secret is shared with, and nobody else.
func TestCAPubsOnlyByMAC(t *testing.T) {
	for name, test := range map[string]struct {
		newScene func(testing.TB) *scene
		signs    bool
		want     int
	}{
		"by MAC": {shared, false, 1}, "signed": {signed, true, 0}, "signed, asked by MAC": {shared, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.newScene(t)
			if test.signs {
				s.reply = s.ca.credential()
			}
			tr := s.begin(t)
			m := s.ca.granted(t, tr.Step().Send)
			m.Body.(*CertRepMessage).CAPubs = [][]byte{newAuthority(t, "Another").root.Raw}
			step := s.next(t, tr, m)
			for _, issued := range []*Issued{step.Issued, s.resumed(t, tr).Step().Issued} {
				if got := len(issued.CAPubs); got != test.want {
					t.Errorf("%d caPubs, want %d", got, test.want)
				}
			}
		})
	}
}

// A certificate may begin in the future where that was asked for.
func TestNotBeforeAsRequested(t *testing.T) {
	for name, test := range map[string]struct {
		asked, granted time.Time
		want           string
	}{
		"as asked":         {epoch.AddDate(0, 1, 0), epoch.AddDate(0, 1, 0), "ok"},
		"later than asked": {epoch.AddDate(0, 1, 0), epoch.AddDate(0, 2, 0), "certificate.validity.notBefore"},
		"not asked for":    {time.Time{}, epoch.AddDate(0, 1, 0), "certificate.validity.notBefore"},
		"a little skew":    {time.Time{}, epoch.Add(notBeforeSkew), "ok"},
	} {
		s := signed(t)
		s.req.Template.NotBefore = test.asked
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		reissued(x509.Certificate{NotBefore: test.granted, NotAfter: epoch.AddDate(1, 0, 0)})(t, s, m)
		if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != test.want {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// A MAC request may be answered by signature, unless that is forbidden.
func TestPitfall02SignedAnswerToMAC(t *testing.T) {
	for _, strict := range []bool{false, true} {
		s := shared(t)
		s.cfg.SameProtection = strict
		s.reply = s.ca.credential()
		tr := s.begin(t)
		_, err := tr.Next(seal(t, s.ca.granted(t, tr.Step().Send), s.reply))
		if got, want := outcome(err), map[bool]string{false: "ok", true: string(CheckKind)}[strict]; got != want {
			t.Errorf("SameProtection %t: %q, want %q", strict, got, want)
		}
	}
}

// The signer found once is known later, when messages come without extraCerts and senderKID.
func TestPitfall09ExtraCertsOnlyOnce(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	s.next(t, tr, s.ca.granted(t, tr.Step().Send))
	tr = s.resumed(t, tr)
	step := tr.Step()
	m := s.ca.confirmed(t, step.Send)
	m.Header.Sender = DirectoryName(s.ca.signer.RawSubject)
	m.Header.ProtectionAlg = AlgorithmIdentifier{Algorithm: oidECDSAWithSHA256}
	scheme, err := signatureScheme(s.ca.signerKey.Public(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if m.Protection, err = scheme.sign(rand.Reader, s.ca.signerKey, m.protectedPart()); err != nil {
		t.Fatal(err)
	}
	der, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if step, err = tr.Next(der); err != nil || !step.Done {
		t.Errorf("%+v, %v", step, err)
	}
}

// Who has signed the first answer signs all of them: nobody else below the root
// can speak for the CA later on, in this process or in another.
func TestOneSignerForATransaction(t *testing.T) {
	for name, test := range map[string]struct {
		other func(*testing.T, *scene) Credential
		want  string
	}{
		"the same":                     {func(_ *testing.T, s *scene) Credential { return s.reply }, "ok"},
		"somebody else below the root": {func(t *testing.T, s *scene) Credential { return s.ca.identity(t, "web workload") }, "signer"},
		"the root":                     {func(_ *testing.T, s *scene) Credential { return &Signer{Key: s.ca.rootKey, Certificate: s.ca.root} }, "signer"},
		"the same key, renewed": {func(t *testing.T, s *scene) Credential {
			return s.renewed(t, s.ca.signer.RawSubject, s.ca.signerKey)
		}, "ok"},
		"the same name, another key": {func(t *testing.T, s *scene) Credential {
			return s.renewed(t, s.ca.signer.RawSubject, newKey(t))
		}, "signer"},
		"another name, the same key": {func(t *testing.T, s *scene) Credential {
			return s.renewed(t, mustName(t, "/CN=another"), s.ca.signerKey)
		}, "signer"},
		"renewed by a stranger": {func(t *testing.T, s *scene) Credential {
			stranger := newAuthority(t, "Test CA")
			c := stranger.issue(t, &x509.Certificate{RawSubject: s.ca.signer.RawSubject, NotBefore: epoch}, s.ca.signerKey.Public(), stranger.root)
			return &Signer{Key: s.ca.signerKey, Certificate: c}
		}, "signer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			s.cfg.Trust.IgnoreKeyUsage = true // so that the root could sign, but for this rule
			tr := s.begin(t)
			s.next(t, tr, s.ca.granted(t, tr.Step().Send))
			for _, tr := range []*Transaction{s.resumed(t, tr), tr} {
				_, err := tr.Next(seal(t, s.ca.confirmed(t, tr.Step().Send), test.other(t, s)))
				if got := outcome(err); got != test.want {
					t.Errorf("%q (%v), want %q", got, err, test.want)
				}
			}
		})
	}
}

// renewed is a certificate of the CA for a signer of its messages.
func (s *scene) renewed(t *testing.T, subject Name, key crypto.Signer) Credential {
	t.Helper()
	return &Signer{Key: key, Certificate: s.ca.issue(t, &x509.Certificate{RawSubject: subject}, key.Public(), s.ca.root)}
}

// Who may sign must be valid when the message comes: pinned, known from the
// transaction, or new.
func TestSignerIsValidNow(t *testing.T) {
	for name, pinned := range map[string]bool{"by a root": false, "pinned": true} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			short := &x509.Certificate{RawSubject: s.ca.signer.RawSubject, NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(time.Minute)}
			s.ca.signer = s.ca.issue(t, short, s.ca.signerKey.Public(), s.ca.root)
			s.reply = s.ca.credential()
			if pinned {
				s.cfg.Trust = Trust{ServerCertificate: s.ca.signer, IssuedRoots: s.cfg.Trust.Roots}
			}
			late, tr := s.begin(t), s.begin(t)
			s.next(t, tr, s.ca.granted(t, tr.Step().Send))
			s.clock.advance(2 * time.Minute)
			for tr, m := range map[*Transaction]*Message{late: s.ca.granted(t, late.Step().Send), tr: s.ca.confirmed(t, tr.Step().Send)} {
				if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != "signer" || !strings.Contains(err.Error(), "not valid now") {
					t.Errorf("%s: %v, want that the signer is not valid now", m.Type, err)
				}
			}
		})
	}
}

// Who is expected to sign binds who signs, and not the sender of what is protected by MAC, which some
// CAs put their own name into, or the reference.
func TestExpectedSigner(t *testing.T) {
	for name, test := range map[string]struct {
		scene    func(testing.TB) *scene
		sender   string
		another  bool // signs
		expected string
		want     string
	}{
		"an attribute more":              {signed, "", false, "/O=certloop/CN=Test CA CMP", "signer"},
		"by the name it has":             {signed, "", false, "/CN=test ca  cmp", "ok"},
		"another one":                    {signed, "", true, "/CN=Test CA CMP", "signer"},
		"a MAC, and another sender":      {shared, "/CN=ref", false, "/CN=Test CA CMP", "ok"},
		"a signature for a MAC":          {shared, "", false, "/CN=Test CA CMP", "ok"},
		"another's signature for a MAC":  {shared, "", true, "/CN=Test CA CMP", "signer"},
		"anybody's, when none is wanted": {signed, "", true, "", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.scene(t)
			if test.expected != "" {
				s.cfg.Trust.ExpectedSigner = mustName(t, test.expected)
			}
			switch {
			case test.another:
				s.reply = s.ca.identity(t, "web")
			case test.sender == "":
				s.reply = s.ca.credential()
			}
			tr := s.begin(t)
			m := s.ca.granted(t, tr.Step().Send)
			if test.sender != "" {
				m.Header.Sender = DirectoryName(mustName(t, test.sender))
			}
			if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != test.want {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestTrustSwitches(t *testing.T) {
	for name, test := range map[string]struct {
		template x509.Certificate
		trust    func(*Trust)
		want     string
	}{
		"keyUsage":           {x509.Certificate{KeyUsage: x509.KeyUsageCertSign}, func(*Trust) {}, "signer"},
		"keyUsage ignored":   {x509.Certificate{KeyUsage: x509.KeyUsageCertSign}, func(t *Trust) { t.IgnoreKeyUsage = true }, "ok"},
		"no cmcCA":           {x509.Certificate{}, func(t *Trust) { t.RequireCMCUsage = true }, "signer"},
		"cmcCA":              {x509.Certificate{UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidCMCCA}}, func(t *Trust) { t.RequireCMCUsage = true }, "ok"},
		"unexpected sender":  {x509.Certificate{}, func(t *Trust) { t.ExpectedSender = NullDN() }, "sender"},
		"another one pinned": {x509.Certificate{}, func(t *Trust) { t.Roots, t.ServerCertificate = nil, t.Roots[0] }, "signer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			test.trust(&s.cfg.Trust)
			s.signAs(t, test.template)
			tr := s.begin(t)
			_, err := tr.Next(seal(t, s.ca.granted(t, tr.Step().Send), s.reply))
			if got := outcome(err); got != test.want {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
		})
	}
}

func TestBeginRefuses(t *testing.T) {
	s := signed(t)
	other := elliptic.P224()
	weak, err := ecdsa.GenerateKey(other, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	expired := s.ca.issue(t, &x509.Certificate{NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.Add(-time.Second)}, newKey(t).Public(), s.ca.root)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pss := &Signer{Key: rsaKey, Certificate: s.ca.issue(t, &x509.Certificate{}, rsaKey.Public(), s.ca.root), PSS: true, Hash: crypto.SHA1}
	for name, test := range map[string]struct {
		change func(*Config, *Request)
		want   string
	}{
		"no credential":    {func(c *Config, _ *Request) { c.Credential = nil }, "no credential"},
		"nothing to trust": {func(c *Config, _ *Request) { c.Trust = Trust{} }, "to trust"},
		"roots and a pin":  {func(c *Config, _ *Request) { c.Trust.ServerCertificate = s.ca.signer }, "exclude each other"},
		"a pin and an anchor in the ip": {func(c *Config, _ *Request) {
			c.Trust = Trust{ServerCertificate: s.ca.signer, AnchorInIP: true}
		}, "exclude each other"},
		"no reference": {func(c *Config, _ *Request) { c.Credential = &SharedSecret{Secret: []byte("s")} }, "reference value"},
		"reference too long": {func(c *Config, _ *Request) {
			c.Credential = &SharedSecret{Reference: make([]byte, MaxNonceBytes+1), Secret: []byte("s")}
		}, "reference value"},
		"MAC with MD5": {func(c *Config, _ *Request) {
			c.Credential = &SharedSecret{Reference: []byte("r"), Secret: []byte("s"), MAC: crypto.MD5}
		}, "not both known"},
		"no key to sign with": {func(c *Config, _ *Request) { c.Credential = &Signer{Certificate: s.ca.signer} }, "needs a key and its certificate"},
		"PSS with SHA-1":      {func(c *Config, _ *Request) { c.Credential = pss }, "not among SHA-256"},
		"nothing to ask":      {func(_ *Config, r *Request) { *r = Request{Type: TypeGenM} }, "nothing to ask for"},
		"another's key":       {func(c *Config, _ *Request) { c.Credential = &Signer{Key: newKey(t), Certificate: s.ca.signer} }, "not that of the certificate"},
		"empty secret":        {func(c *Config, _ *Request) { c.Credential = &SharedSecret{Reference: []byte("r")} }, "empty"},
		"too few iterations": {func(c *Config, _ *Request) {
			c.Credential = &SharedSecret{Reference: []byte("r"), Secret: []byte("s"), Iterations: 99}
		}, "iterationCount"},
		"HMAC with SHA-1": {func(c *Config, _ *Request) {
			c.Credential = &SharedSecret{Reference: []byte("r"), Secret: []byte("s"), MAC: crypto.SHA1}
		}, "SHA-1"},
		"no key":             {func(_ *Config, r *Request) { r.Key = nil }, "missing"},
		"key of another":     {func(_ *Config, r *Request) { r.Template.PublicKey = newKey(t).Public() }, "not that of the template"},
		"odd curve":          {func(_ *Config, r *Request) { r.Key = weak }, "use P-256, P-384 or P-521"},
		"SHA-1 in POP":       {func(_ *Config, r *Request) { r.Hash = crypto.SHA1 }, "SHA-1"},
		"no subject":         {func(_ *Config, r *Request) { r.Template.Subject = nil }, "neither a subject nor a subjectAltName"},
		"kur of nothing":     {func(_ *Config, r *Request) { r.Type = TypeKUR }, "needs the certificate"},
		"kur of the expired": {func(_ *Config, r *Request) { r.Type, r.OldCert = TypeKUR, expired }, "expired"},
		"p10cr of nothing":   {func(_ *Config, r *Request) { r.Type = TypeP10CR }, "PKCS #10"},
		"not a request":      {func(_ *Config, r *Request) { r.Type = TypeIP }, "not a request"},
		"no randomness":      {func(c *Config, _ *Request) { c.Rand = strings.NewReader("") }, "random"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, req := s.cfg, s.req
			test.change(&cfg, &req)
			if _, err := Begin(cfg, req); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// What the first message looks like in detail (RFC 9483 §3.1).
func TestFirstMessage(t *testing.T) {
	t.Run("signed", func(t *testing.T) {
		s := signed(t)
		s.cfg.ImplicitConfirm = true
		s.req.Profile = "web"
		own := s.cfg.Credential.(*Signer)
		own.Chain = []*x509.Certificate{s.ca.signer, s.ca.root, s.ca.signer}
		m := mustParse(t, s.begin(t).Step().Send)
		sender, _ := m.Header.Sender.Name()
		if !sender.Equal(own.Certificate.RawSubject) || !bytes.Equal(m.Header.SenderKID, own.Certificate.SubjectKeyId) {
			t.Errorf("sender %s, senderKID %x", sender, m.Header.SenderKID)
		}
		recipient, _ := m.Header.Recipient.Name()
		if !recipient.Equal(s.ca.root.RawSubject) || m.Header.RecipKID != nil || m.Header.RecipNonce != nil {
			t.Errorf("recipient %s", recipient)
		}
		if len(m.Header.TransactionID) != 16 || len(m.Header.SenderNonce) != 16 || !m.Header.MessageTime.Equal(epoch) || m.Header.PVNO != 2 {
			t.Errorf("header %+v", m.Header)
		}
		if len(m.ExtraCerts) != 2 || !bytes.Equal(m.ExtraCerts[0], own.Certificate.Raw) || !bytes.Equal(m.ExtraCerts[1], s.ca.signer.Raw) {
			t.Errorf("%d extraCerts, want the signer's and the intermediate, without root and repetition", len(m.ExtraCerts))
		}
		profile, _ := m.Header.Info(InfoCertProfile)
		if _, ok := m.Header.Info(InfoImplicitConfirm); !ok || !bytes.Equal(profile, []byte("\x30\x05\x0c\x03web")) {
			t.Errorf("generalInfo %+v", m.Header.GeneralInfo)
		}
	})
	t.Run("by MAC", func(t *testing.T) {
		m := mustParse(t, shared(t).begin(t).Step().Send)
		sender, _ := m.Header.Sender.Name()
		if sender.String() != "CN=ref" || string(m.Header.SenderKID) != "ref" || m.ExtraCerts != nil {
			t.Errorf("sender %s, senderKID %q, %d extraCerts", sender, m.Header.SenderKID, len(m.ExtraCerts))
		}
	})
	t.Run("NULL-DN as subject", func(t *testing.T) {
		s := signed(t)
		s.req.Template = CertTemplate{Extensions: []pkix.Extension{{Id: ExtensionSubjectAltName, Value: []byte("\x30\x03\x82\x01a")}}}
		template := mustParse(t, s.begin(t).Step().Send).Body.(CertReqMessages)[0].CertReq.CertTemplate
		if !bytes.Equal(template.Subject, NullDN()) || !template.Extensions[0].Critical || s.req.Template.Extensions[0].Critical {
			t.Errorf("template %+v", template)
		}
	})
}

// The parameters of the MAC stay the same in a transaction, and differ between transactions.
func TestMACParameters(t *testing.T) {
	s := shared(t)
	tr := s.begin(t)
	first := mustParse(t, tr.Step().Send)
	step := s.next(t, s.resumed(t, tr), s.ca.granted(t, tr.Step().Send))
	if second := mustParse(t, step.Send); !sameAlgorithm(first.Header.ProtectionAlg, second.Header.ProtectionAlg) {
		t.Error("other parameters in certConf")
	}
	if other := mustParse(t, s.begin(t).Step().Send); sameAlgorithm(first.Header.ProtectionAlg, other.Header.ProtectionAlg) {
		t.Error("the same salt in another transaction")
	}
}

// Every kind of protection, in both directions.
func TestProtectionKinds(t *testing.T) {
	ca := newAuthority(t, "CA")
	signer := func(key crypto.Signer, hash crypto.Hash, pss bool) Credential {
		c := ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, key.Public(), ca.root)
		return &Signer{Key: key, Certificate: c, Hash: hash, PSS: pss}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]Credential{"Ed25519": signer(edKey, 0, false)}
	for _, hash := range []crypto.Hash{0, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		kinds[fmt.Sprintf("RSA %d", hash)] = signer(rsaKey, hash, false)
		kinds[fmt.Sprintf("PSS %d", hash)] = signer(rsaKey, hash, true)
		kinds[fmt.Sprintf("PBM %d", hash)] = &SharedSecret{Reference: []byte("r"), Secret: []byte("s"), MAC: hash, OWF: hash}
		kinds[fmt.Sprintf("PBMAC1 %d", hash)] = &SharedSecret{Reference: []byte("r"), Secret: []byte("s"), MAC: hash, OWF: hash, PBMAC1: true}
		for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			kinds[fmt.Sprintf("%s %d", curve.Params().Name, hash)] = signer(key, hash, false)
		}
	}
	kinds["PBMAC1 SHA-1"] = &SharedSecret{Reference: []byte("r"), Secret: []byte("s"), OWF: crypto.SHA1, PBMAC1: true, AllowSHA1: true}
	for name, credential := range kinds {
		t.Run(name, func(t *testing.T) {
			der := seal(t, &Message{Header: Header{PVNO: 2}, Type: TypePKIConf, Body: PKIConf{}}, credential)
			verify := func(m *Message) error {
				if secret, ok := credential.(*SharedSecret); ok {
					return m.VerifyMAC(secret, 0)
				}
				_, err := (&Trust{Roots: []*x509.Certificate{ca.root}}).Verify(m, epoch)
				return err
			}
			if err := verify(mustParse(t, der)); err != nil {
				t.Error(err)
			}
			m := mustParse(t, der)
			forget(m)
			m.Header.PVNO = 3
			if err := verify(m); !errors.Is(err, ErrProtection) {
				t.Errorf("altered, but %v", err)
			}
		})
	}
}

// certHash is made with the hash of the certificate's own signature (RFC 9810 §5.3.18).
func TestCertHash(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for algorithm, test := range map[x509.SignatureAlgorithm]struct {
		key crypto.Signer
		len int
	}{
		x509.SHA256WithRSA: {rsaKey, 32}, x509.SHA384WithRSA: {rsaKey, 48}, x509.SHA512WithRSA: {rsaKey, 64},
		x509.SHA256WithRSAPSS: {rsaKey, 32}, x509.SHA384WithRSAPSS: {rsaKey, 48}, x509.PureEd25519: {edKey, 64},
		x509.ECDSAWithSHA384: {newKey(t), 48},
	} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), SignatureAlgorithm: algorithm}
		der, err := x509.CreateCertificate(rand.Reader, template, template, test.key.Public(), test.key)
		if err != nil {
			t.Fatal(err)
		}
		if hash, named := CertHash(parse(t, der)); len(hash) != test.len || named != nil {
			t.Errorf("%s: %d bytes, hashAlg %v, want %d and none", algorithm, len(hash), named, test.len)
		}
	}
	unknown := *parse(t, newAuthority(t, "x").root.Raw)
	unknown.SignatureAlgorithm = x509.UnknownSignatureAlgorithm
	hash, named := CertHash(&unknown)
	if len(hash) != 32 || named == nil || !named.Algorithm.Equal(oidSHA256) {
		t.Errorf("unknown algorithm: %x, %v", hash, named)
	}
	if got := pvnoFor(CertConf{{HashAlg: named}}); got != PVNO3 {
		t.Errorf("pvno %d with hashAlg, want 3", got)
	}
}

func TestFailures(t *testing.T) {
	if got := len(failureNames); got != 27 {
		t.Fatalf("%d names, want 27", got)
	}
	classes := map[string]Class{
		"badTime": ClassRetryable, "timeNotAvailable": ClassRetryable, "transactionIdInUse": ClassRetryable,
		"systemUnavail": ClassRetryable, "systemFailure": ClassRetryable,
		"badMessageCheck": ClassSecurity, "wrongIntegrity": ClassSecurity, "badRecipientNonce": ClassSecurity,
		"badSenderNonce": ClassSecurity, "badPOP": ClassSecurity, "signerNotTrusted": ClassSecurity, "notAuthorized": ClassSecurity,
	} // all others are permanent
	for bit, name := range failureNames {
		f := FailureInfo(1) << bit
		if f.Class() != classes[name] {
			t.Errorf("%s is %s, want %s", name, f.Class(), classes[name])
		}
		failureIsSurfaced(t, f)
		if f.String() != name {
			t.Errorf("bit %d is %q, want %q", bit, f, name)
		}
		err := &Error{Status: StatusRejection, Failure: f, Body: TypeIP, Verified: true}
		if !strings.Contains(err.Error(), name) || err.Retryable() != (f.Class() == ClassRetryable) {
			t.Errorf("%s: %v, %s, retryable %t", name, err, f.Class(), err.Retryable())
		}
	}
	for f, want := range map[FailureInfo]Class{
		0: ClassPermanent, FailSystemUnavail: ClassRetryable, FailSystemUnavail | FailBadAlg: ClassPermanent,
		FailBadAlg | FailBadPOP: ClassSecurity, FailTransactionIDInUse: ClassRetryable, 1 << 30: ClassPermanent,
	} {
		if got := f.Class(); got != want {
			t.Errorf("%s is %s, want %s", f, got, want)
		}
	}
}

// failureIsSurfaced sends a rejection with one bit, and looks for it in what the caller gets.
func failureIsSurfaced(t *testing.T, f FailureInfo) {
	t.Helper()
	s := signed(t)
	tr := s.begin(t)
	body := &CertRepMessage{Response: []CertResponse{{Status: StatusInfo{Status: StatusRejection, FailInfo: f, Text: []string{"no\x1b[2J"}}}}}
	_, err := tr.Next(seal(t, s.ca.answer(t, tr.Step().Send, TypeIP, body), s.reply))
	var peer *Error
	if !errors.As(err, &peer) || peer.Failure != f || !strings.Contains(err.Error(), f.String()) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%s comes out as %v", f, err)
	}
}

// Texts of a peer cannot do harm in a terminal or a log.
func TestTextsAreMadePrintable(t *testing.T) {
	hostile := "a\x1b[31mb\r\nc\u202ed\xff" + strings.Repeat("ä", 10_000)
	got := strings.Join(printable([]string{hostile}, []string{"more"}), "")
	if strings.ContainsAny(got, "\x1b\r\n\u202e") || !utf8.ValidString(got) || len(got) > MaxTextBytes || !strings.HasPrefix(got, "a [31mb  c d") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// No way of printing anything shows a key or a secret.
func TestNothingPrintsSecrets(t *testing.T) {
	key := newKey(t)
	ca := newAuthority(t, "CA")
	secret := &SharedSecret{Reference: []byte("ref"), Secret: []byte("xyzzy-secret")}
	signer := &Signer{Key: key, Certificate: ca.issue(t, &x509.Certificate{}, key.Public(), ca.root)}
	cfg := Config{Credential: secret, Trust: Trust{Roots: []*x509.Certificate{ca.root}}, Now: (&clock{epoch}).Now}
	req := Request{Key: key, Template: CertTemplate{Subject: mustName(t, "/CN=x")}}
	tr, err := Begin(cfg, req)
	if err != nil {
		t.Fatal(err)
	}
	state, err := tr.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{string(state)}
	for _, v := range []any{secret, *secret, signer, *signer, req, &req, cfg, &cfg, tr} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		encoded, _ := json.Marshal(v)
		shown = append(shown, log.String(), string(encoded))
	}
	scalarDecimal := new(big.Int).SetBytes(scalar).String()
	for _, text := range shown {
		for _, hidden := range []string{"xyzzy-secret", fmt.Sprintf("%x", "xyzzy-secret"), fmt.Sprintf("%d", []byte("xyzzy-secret")),
			scalarDecimal, fmt.Sprintf("%x", scalar), string(scalar)} {
			if strings.Contains(text, hidden) {
				t.Errorf("%q shows %q", text, hidden)
			}
		}
	}
}

// A root may come with a signed ip only where that is allowed, and only if it
// vouches for both the signer and the new certificate.
func TestAnchorInIP(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*testing.T, *scene, *Message)
		off   bool
		kind  BodyType
		want  string
	}{
		"good":            {want: "ok"},
		"not allowed":     {off: true, want: "signer"},
		"not for cp":      {kind: TypeCR, want: "signer"},
		"without root":    {spoil: func(_ *testing.T, s *scene, m *Message) { m.ExtraCerts = [][]byte{s.ca.signer.Raw} }, want: "signer"},
		"a stranger's":    {spoil: func(t *testing.T, s *scene, m *Message) { m.ExtraCerts[1] = newAuthority(t, "Test CA").root.Raw }, want: "signer"},
		"not self-signed": {spoil: func(_ *testing.T, s *scene, m *Message) { m.ExtraCerts[1] = s.ca.signer.Raw }, want: "signer"},
		"another issuer": {spoil: func(t *testing.T, s *scene, m *Message) {
			stranger := newAuthority(t, "Stranger")
			setCertificate(m, stranger.issue(t, &x509.Certificate{RawSubject: s.req.Template.Subject}, s.req.Key.Public(), stranger.root))
			m.ExtraCerts = append(m.ExtraCerts, stranger.root.Raw)
		}, want: "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			s.cfg.Trust = Trust{AnchorInIP: !test.off}
			if test.off {
				s.cfg.Trust.Roots = []*x509.Certificate{newAuthority(t, "Other").root}
			}
			s.req.Type = test.kind
			tr := s.begin(t)
			m := s.ca.granted(t, tr.Step().Send)
			m.ExtraCerts = [][]byte{s.ca.signer.Raw, s.ca.root.Raw}
			if test.spoil != nil {
				test.spoil(t, s, m)
			}
			step, err := tr.Next(seal(t, m, s.reply))
			if got := outcome(err); got != test.want {
				t.Fatalf("%q (%v), want %q", got, err, test.want)
			}
			if err == nil && (len(step.Issued.Anchors) != 1 || !step.Issued.Anchors[0].Equal(s.ca.root)) {
				t.Errorf("anchors %v", step.Issued.Anchors)
			}
		})
	}
}

// However long the caller takes over sending, the answer is to what it was given.
func TestStepIsStable(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
	s.clock.advance(4 * time.Minute)
	if again := tr.Step(); !bytes.Equal(again.Send, step.Send) {
		t.Error("another certConf")
	}
	if step = s.next(t, tr, s.ca.confirmed(t, step.Send)); !step.Done {
		t.Errorf("after pkiConf: %+v", step)
	}
}
