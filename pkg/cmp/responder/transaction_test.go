package responder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// certificateIn is the certificate an answer brings, or nil.
func certificateIn(m *cmp.Message) []byte {
	b, ok := m.Body.(*cmp.CertRepMessage)
	if !ok || b.Response[0].Certified == nil {
		return nil
	}
	return b.Response[0].Certified.Certificate
}

func TestTheSameRequestGetsTheSameCertificate(t *testing.T) {
	l := newLab(t, Config{})
	body := certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t))
	id := random(t)
	withID := func(m *cmp.Message) { m.Header.TransactionID = id }
	der := l.message(cmp.TypeIR, body, withID)
	first := l.parsed(der)
	for _, again := range [][]byte{der, der, l.message(cmp.TypeIR, body, withID)} {
		if got := certificateIn(l.parsed(again)); got == nil || !bytes.Equal(got, certificateIn(first)) {
			t.Error("the same request again brings another certificate, or none")
		}
	}
	l.wantIssued(1)

	confirm := l.reply(first, cmp.TypeCertConf, accepting(first), nil)
	for range 3 {
		if m := l.parsed(confirm); m.Type != cmp.TypePKIConf {
			t.Errorf("certConf: got %s, want pkiconf", m.Type)
		}
	}
	if got := certificateIn(l.parsed(der)); !bytes.Equal(got, certificateIn(first)) {
		t.Error("the same request after confirmation brings another certificate, or none")
	}
	l.wantIssued(1)

	other := certRequest(t, cmp.CertTemplate{Subject: name(t, "b")}, newKey(t))
	l.refusedWith(l.parsed(l.message(cmp.TypeIR, other, withID)), cmp.FailTransactionIDInUse)
	l.refusedWith(l.parsed(l.message(cmp.TypeCR, body, withID)), cmp.FailTransactionIDInUse)
	somebody := &cmp.SharedSecret{Reference: []byte("other"), Secret: []byte("another secret")}
	l.refusedWith(l.parsed(l.messageBy(cmp.TypeIR, body, withID, somebody)), cmp.FailTransactionIDInUse)
	l.wantIssued(1)
}

// accepting is the certConf for what an answer brings.
func accepting(m *cmp.Message) cmp.CertConf {
	hash := sha256.Sum256(certificateIn(m))
	return cmp.CertConf{{CertHash: hash[:], CertReqID: m.Body.(*cmp.CertRepMessage).Response[0].CertReqID}}
}

func TestConfirmation(t *testing.T) {
	sha512OID := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	const granted = cmp.FailureInfo(0)
	cases := []struct {
		name      string
		body      func(ip *cmp.Message) cmp.CertConf
		change    func(*cmp.Message)
		behaviour Behaviour
		want      cmp.FailureInfo
		confirmed bool
		revoked   bool
	}{
		{name: "accepted", confirmed: true},
		{name: "accepted in words", confirmed: true, body: func(ip *cmp.Message) cmp.CertConf {
			c := accepting(ip)
			c[0].StatusInfo = &cmp.StatusInfo{Status: cmp.StatusAccepted}
			return c
		}},
		{name: "rejected", revoked: true, body: func(ip *cmp.Message) cmp.CertConf {
			c := accepting(ip)
			c[0].StatusInfo = &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailBadCertTemplate}
			return c
		}},
		{name: "rejected by saying nothing", revoked: true, body: func(*cmp.Message) cmp.CertConf { return cmp.CertConf{} }},
		{name: "hashAlg", confirmed: true, change: func(m *cmp.Message) { m.Header.PVNO = cmp.PVNO3 }, body: func(ip *cmp.Message) cmp.CertConf {
			hash := sha512.Sum512(certificateIn(ip))
			return cmp.CertConf{{CertHash: hash[:], HashAlg: &cmp.AlgorithmIdentifier{Algorithm: sha512OID}}}
		}},
		{name: "hashAlg under pvno 2", want: cmp.FailBadRequest, body: func(ip *cmp.Message) cmp.CertConf {
			hash := sha512.Sum512(certificateIn(ip))
			return cmp.CertConf{{CertHash: hash[:], HashAlg: &cmp.AlgorithmIdentifier{Algorithm: sha512OID}}}
		}},
		{name: "unknown hashAlg", want: cmp.FailBadAlg, change: func(m *cmp.Message) { m.Header.PVNO = cmp.PVNO3 }, body: func(ip *cmp.Message) cmp.CertConf {
			c := accepting(ip)
			c[0].HashAlg = &cmp.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 3}}
			return c
		}},
		{name: "wrong hash", want: cmp.FailBadCertID, body: func(ip *cmp.Message) cmp.CertConf {
			c := accepting(ip)
			c[0].CertHash[0] ^= 1
			return c
		}},
		{name: "wrong certReqId", want: cmp.FailBadRequest, body: func(ip *cmp.Message) cmp.CertConf {
			c := accepting(ip)
			c[0].CertReqID = 1
			return c
		}},
		{name: "two", want: cmp.FailBadRequest, body: func(ip *cmp.Message) cmp.CertConf { return append(accepting(ip), accepting(ip)...) }},
		{name: "wrong recipNonce", want: cmp.FailBadRecipientNonce, change: func(m *cmp.Message) { m.Header.RecipNonce = random(t) }},
		{name: "no recipNonce", want: cmp.FailBadRecipientNonce, change: func(m *cmp.Message) { m.Header.RecipNonce = nil }},
		{name: "unknown transactionID", want: cmp.FailBadRequest, change: func(m *cmp.Message) { m.Header.TransactionID = random(t) }},
		{name: "refused", want: cmp.FailBadRequest, behaviour: Behaviour{RefuseCertConf: true}},
		{name: "implicitly confirmed", want: cmp.FailCertConfirmed, confirmed: true, behaviour: Behaviour{GrantImplicitConfirm: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, Config{Behaviour: c.behaviour})
			ip := l.parsed(l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil))
			body := accepting(ip)
			if c.body != nil {
				body = c.body(ip)
			}
			m := l.parsed(l.reply(ip, cmp.TypeCertConf, body, c.change))
			if c.want != granted {
				l.refusedWith(m, c.want)
			} else if m.Type != cmp.TypePKIConf {
				t.Errorf("got %s, want pkiconf", m.Type)
			}
			if got := l.last(); got.Confirmed != c.confirmed || got.Revoked != c.revoked {
				t.Errorf("got confirmed %t, revoked %t; want %t, %t", got.Confirmed, got.Revoked, c.confirmed, c.revoked)
			}
		})
	}
}

func TestOnlyTheRequesterMayConfirm(t *testing.T) {
	l := newLab(t, Config{})
	ip := l.parsed(l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil))
	cert, key := l.identity()
	change := func(m *cmp.Message) {
		m.Header.TransactionID, m.Header.RecipNonce = ip.Header.TransactionID, ip.Header.SenderNonce
	}
	for _, somebody := range []cmp.Credential{
		&cmp.SharedSecret{Reference: []byte("other"), Secret: []byte("another secret")},
		&cmp.Signer{Key: key, Certificate: cert},
	} {
		l.refusedWith(l.parsed(l.messageBy(cmp.TypeCertConf, accepting(ip), change, somebody)), cmp.FailWrongIntegrity)
	}
	if l.ca.Issued()[0].Confirmed {
		t.Error("somebody else has confirmed the certificate")
	}
}

func TestAContradictionIsRefused(t *testing.T) {
	l := newLab(t, Config{})
	ip := l.parsed(l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil))
	l.parsed(l.reply(ip, cmp.TypeCertConf, accepting(ip), nil))
	l.refusedWith(l.parsed(l.reply(ip, cmp.TypeCertConf, cmp.CertConf{}, nil)), cmp.FailCertConfirmed)
	if got := l.last(); !got.Confirmed || got.Revoked {
		t.Errorf("got confirmed %t, revoked %t; want true, false", got.Confirmed, got.Revoked)
	}
}

// lossy answers as the CA does, but loses the answers it is told to.
type lossy struct {
	*lab
	lose map[int]bool // by number of the message
	n    int
}

// drive sends each message until an answer arrives, as a client does that
// stores its state before sending, and resumes from the stored state each time.
func (l *lossy) drive(cfg cmp.Config, tx *cmp.Transaction) error {
	for range 50 {
		stored, err := tx.MarshalBinary()
		if err != nil {
			return err
		}
		if tx, err = cmp.Resume(cfg, stored); err != nil {
			return err
		}
		step := tx.Step()
		l.Advance(step.Wait)
		reply := l.ask(step.Send)
		if l.n++; l.lose[l.n] {
			continue
		}
		next, err := tx.Next(reply)
		if err != nil || next.Done {
			return err
		}
	}
	return errors.New("the transaction does not end")
}

func TestLostAnswers(t *testing.T) {
	behaviours := map[string]Behaviour{
		"direct": {}, "polling": {Wait: 3, CheckAfter: time.Second}, "waiting for pkiConf": {WaitConfirm: 2},
	}
	for kind, behaviour := range behaviours {
		for lost := 1; lost <= 8; lost++ {
			for times := 1; times <= 3; times++ {
				t.Run(fmt.Sprintf("%s, answer %d lost %d times", kind, lost, times), func(t *testing.T) {
					l := &lossy{lab: newLab(t, Config{Dir: t.TempDir(), Behaviour: behaviour}), lose: map[int]bool{}}
					for i := range times {
						l.lose[lost+i] = true
					}
					tx := l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
					if err := l.drive(l.client(), tx); err != nil {
						t.Fatal(err)
					}
					if got := countConfirmed(l.ca.Issued()); got != 1 {
						t.Errorf("confirmed certificates: got %d, want 1", got)
					}
					l.wantIssued(1)
					l.wantOpen(0)
				})
			}
		}
	}
}

func TestARestartInEveryGap(t *testing.T) {
	for _, behaviour := range []Behaviour{{}, {Wait: 2}, {WaitConfirm: 2}} {
		for _, intermediate := range []bool{false, true} {
			l := newLab(t, Config{Dir: t.TempDir(), Intermediate: intermediate, Behaviour: behaviour})
			root := l.ca.CACertificate()
			key := newKey(t)
			tx := l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), key))
			for {
				l.open()
				step, err := l.step(tx)
				if err != nil {
					t.Fatal(err)
				}
				if step.Done {
					break
				}
			}
			l.open()
			if !l.ca.CACertificate().Equal(root) {
				t.Error("the CA has changed")
			}
			cert := tx.Step().Issued.Certificate
			l.enrol(l.signedBy(cert, key), cmp.Request{Type: cmp.TypeKUR, OldCert: cert, Key: newKey(t)})
			before := l.ca.Issued()
			l.open()
			if got := l.ca.Issued(); !reflect.DeepEqual(got, before) {
				t.Errorf("the ledger changed over a restart:\n got %v\nwant %v", got, before)
			}
			l.wantIssued(2)
		}
	}
}

func TestUnconfirmedCertificatesAreRevoked(t *testing.T) {
	l := newLab(t, Config{ConfirmWait: time.Minute, Dir: t.TempDir()})
	key := newKey(t)
	tx := l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), key))
	first := tx.Step().Send
	step, err := l.step(tx)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := step.Issued.ConfirmBy, l.Now().Add(time.Minute); !got.Equal(want) {
		t.Errorf("confirmWaitTime: got %s, want %s", got, want)
	}
	l.wantOpen(1)
	l.Advance(59 * time.Second)
	l.wantOpen(1)
	l.Advance(time.Second)
	l.wantOpen(0)
	if got := l.last(); !got.Revoked || got.Confirmed || got.Reason != "not confirmed in time" {
		t.Errorf("got revoked %t, confirmed %t, %q", got.Revoked, got.Confirmed, got.Reason)
	}
	l.open() // it is stored
	if !l.last().Revoked {
		t.Error("a restart makes the certificate good again")
	}
	l.refusedWith(l.parsed(tx.Step().Send), cmp.FailCertRevoked)
	l.refusedWith(l.parsed(first), cmp.FailCertRevoked)
	l.refusedWith(l.parsed(l.messageBy(cmp.TypeCR, certRequest(t, cmp.CertTemplate{Subject: name(t, "b")}, newKey(t)), nil,
		&cmp.Signer{Key: key, Certificate: step.Issued.Certificate})), cmp.FailSignerNotTrusted|cmp.FailCertRevoked)
}

func TestWaitingTransactionsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, Config{PollWait: time.Hour, Dir: dir, Behaviour: Behaviour{Wait: -1}})
	tx := l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
	for range 3 {
		if _, err := l.step(tx); err != nil {
			t.Fatal(err)
		}
	}
	l.wantOpen(1)
	l.Advance(time.Hour)
	l.wantOpen(0)
	l.refusedWith(l.parsed(tx.Step().Send), cmp.FailBadRequest)
	if left, err := os.ReadDir(filepath.Join(dir, transactionsDir)); err != nil || len(left) != 0 {
		t.Errorf("files of forgotten transactions: got %d, %v; want none", len(left), err)
	}
	l.wantIssued(0)
}

func TestWaitingForEverCanBeEnded(t *testing.T) {
	l := newLab(t, Config{Behaviour: Behaviour{Wait: -1}})
	tx := l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
	for range 5 {
		if step, err := l.step(tx); err != nil || step.Issued != nil {
			t.Fatalf("got %v, %v; want to wait", step.Issued, err)
		}
	}
	l.ca.Wait(0, 0)
	if _, err := l.finish(tx); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTransactionsAreBounded(t *testing.T) {
	l := newLab(t, Config{MaxOpen: 3, ConfirmWait: time.Minute})
	for i := range 5 {
		m := l.parsed(l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil))
		if i < 3 && certificateIn(m) == nil {
			t.Errorf("request %d: got %s without a certificate", i, m.Type)
		}
		if i >= 3 {
			l.refusedWith(m, cmp.FailSystemUnavail)
		}
	}
	l.wantOpen(3)
	l.wantIssued(3)
	l.Advance(time.Hour)
	l.enrol(l.client(), request(cmp.TypeIR, name(t, "b"), newKey(t)))
}

func TestTheLedgerIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, Config{MaxIssued: 3, Dir: dir})
	for i := range 5 {
		l.enrol(l.client(), request(cmp.TypeIR, name(t, fmt.Sprint(i)), newKey(t)))
	}
	l.wantIssued(3)
	if got := l.ca.Issued()[0].Subject; got != "CN=2" {
		t.Errorf("the oldest left is %s, want CN=2", got)
	}
	l.open()
	l.wantIssued(3)
}

func TestTheClientGivesUp(t *testing.T) {
	giveUp := &cmp.ErrorMsg{Status: cmp.StatusInfo{Status: cmp.StatusRejection}}
	for _, wait := range []int{0, 1} {
		l := newLab(t, Config{Behaviour: Behaviour{Wait: wait}})
		ip := l.parsed(l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil))
		if m := l.parsed(l.reply(ip, cmp.TypeError, giveUp, nil)); m.Type != cmp.TypePKIConf {
			t.Errorf("error: got %s, want pkiconf", m.Type)
		}
		l.wantOpen(0)
		if issued := l.ca.Issued(); wait == 0 && !issued[0].Revoked {
			t.Error("the certificate nobody wants is not revoked")
		}
	}
}

func TestPollReqMustFit(t *testing.T) {
	l := newLab(t, Config{Behaviour: Behaviour{Wait: 2}})
	body := certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t))
	ip := l.parsed(l.message(cmp.TypeIR, body, nil))
	l.refusedWith(l.parsed(l.reply(ip, cmp.TypePollReq, cmp.PollReq{1}, nil)), cmp.FailBadRequest)
	l.refusedWith(l.parsed(l.reply(ip, cmp.TypePollReq, cmp.PollReq{0, 0}, nil)), cmp.FailBadRequest)
	l.refusedWith(l.parsed(l.reply(ip, cmp.TypeCertConf, cmp.CertConf{}, nil)), cmp.FailBadRequest)
	m := l.parsed(l.reply(ip, cmp.TypePollReq, cmp.PollReq{0}, nil))
	if m.Type != cmp.TypePollRep {
		t.Errorf("got %s, want pollRep", m.Type)
	}
	l.wantIssued(0)
}

func TestConcurrentClients(t *testing.T) {
	const clients, each = 8, 10
	l := newLab(t, Config{Dir: t.TempDir()})
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for i := range each {
				tx, err := cmp.Begin(l.client(), request(cmp.TypeIR, name(t, fmt.Sprint(i)), newKey(t)))
				for err == nil && !tx.Step().Done {
					var reply []byte
					if reply, err = l.ca.Respond(tx.Step().Send); err == nil {
						_, err = tx.Next(reply)
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if got := countConfirmed(l.ca.Issued()); got != clients*each {
		t.Errorf("confirmed: got %d, want %d", got, clients*each)
	}
}

func TestTheSameRequestAtOnce(t *testing.T) {
	l := newLab(t, Config{})
	der := l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil)
	replies := make([][]byte, 16)
	var group sync.WaitGroup
	for i := range replies {
		group.Go(func() { replies[i], _ = l.ca.Respond(der) })
	}
	group.Wait()
	want := l.last().Certificate
	for _, reply := range replies {
		m, err := cmp.ParseMessage(reply)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(certificateIn(m), want) {
			t.Error("one of the same requests got another certificate")
		}
	}
	l.wantIssued(1)
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	l := newLab(t, Config{Dir: dir})
	l.enrol(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %s lets others in", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamagedDirectoriesAreNotOpened(t *testing.T) {
	cases := map[string]func(dir string) (path string, content string){
		"no key": func(dir string) (string, string) {
			if err := os.Remove(filepath.Join(dir, rootKeyFile)); err != nil {
				t.Fatal(err)
			}
			return "", ""
		},
		"another key": func(dir string) (string, string) {
			other := newLab(t, Config{Dir: t.TempDir()})
			text, err := os.ReadFile(filepath.Join(other.cfg.Dir, rootKeyFile))
			if err != nil {
				t.Fatal(err)
			}
			return rootKeyFile, string(text)
		},
		"no PEM": func(string) (string, string) { return rootCertFile, "hello" },
		"no certificate": func(string) (string, string) {
			return rootCertFile, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
		},
		"no JSON":      func(string) (string, string) { return filepath.Join(transactionsDir, "00.json"), "{" },
		"another name": func(string) (string, string) { return filepath.Join(transactionsDir, "00.json"), `{"state":"waiting"}` },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Config{Dir: t.TempDir()})
			if path, content := damage(l.cfg.Dir); path != "" {
				if err := os.WriteFile(filepath.Join(l.cfg.Dir, path), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := New(l.cfg); err == nil {
				t.Error("it was opened")
			} else if !strings.Contains(err.Error(), l.cfg.Dir) && !strings.Contains(err.Error(), "00.json") {
				t.Errorf("the error does not say where: %v", err)
			}
		})
	}
}

func TestEventsTellTheStory(t *testing.T) {
	var got []string
	var id string
	l := newLab(t, Config{OnMessage: func(e Event) {
		id = e.TransactionID
		line := fmt.Sprintf("%s %s→%s %s", e.Peer, e.Received, e.Answer, e.Status)
		if e.Issuance != nil {
			line += fmt.Sprintf(" %s %t", e.Issuance.Subject, e.Issuance.Confirmed)
		}
		got = append(got, line)
	}, Behaviour: Behaviour{Wait: 2}})
	tx := l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
	if _, err := l.finish(tx); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mac:1234 ir→ip waiting", "mac:1234 pollReq→pollRep accepted", "mac:1234 pollReq→ip accepted CN=a false", "mac:1234 certConf→pkiconf accepted CN=a true",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events:\n got %q\nwant %q", got, want)
	}
	if id != hex.EncodeToString(tx.ID()) {
		t.Errorf("transactionID: got %s, want %x", id, tx.ID())
	}
}

func TestStartAndClose(t *testing.T) {
	ca, err := Start(Config{SharedSecrets: map[string]string{testReference: testSecret}}, "")
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(ca.URL, "http://"), "/.well-known/cmp")
	for range 3 {
		client := &cmp.Client{URL: ca.URL}
		cfg := cmp.Config{Credential: &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret)}}
		if _, err := client.Do(context.WithoutCancel(t.Context()), cfg, request(cmp.TypeIR, name(t, "a"), newKey(t))); err != nil {
			t.Error(err)
		}
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
		if ca, err = ca.Start(address); err != nil {
			t.Fatal(err)
		}
	}
	if err := ca.Close(); err != nil {
		t.Error(err)
	}
	if got := len(ca.Issued()); got != 3 {
		t.Errorf("issued: got %d, want 3", got)
	}
}
