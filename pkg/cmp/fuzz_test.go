package cmp

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// seeds are the recorded messages of every peer; a fuzz target that lacks one fails.
func seeds(f *testing.F) []golden {
	f.Helper()
	all := goldens(f)
	for _, peer := range []string{"openssl-", "opensslca-", "bouncycastle-"} {
		if !slices.ContainsFunc(all, func(g golden) bool { return strings.HasPrefix(g.name, peer) }) {
			f.Fatalf("no seeds %s*", peer)
		}
	}
	return all
}

// own are messages of ours, both ways.
func own(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	for _, s := range []*scene{signed(f), shared(f)} {
		tr := s.begin(f)
		reply := seal(f, s.ca.granted(f, tr.Step().Send), s.reply)
		step, err := tr.Next(reply)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, s.begin(f).Step().Send, reply, step.Send)
	}
	return out
}

// maxSlack is what a message may cost besides a multiple of its length, in
// bytes: lists have up to MaxEntries elements, the largest of half a kilobyte.
const maxSlack = 128 << 10

// spends fails if run allocates more than sixteen times the length of an input, and slack.
func spends(t *testing.T, length, slack int, run func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > uint64(16*length+slack) {
		t.Fatalf("%d bytes allocated for an input of %d", spent, length)
	}
}

// Whatever parses is encoded the same again, from its fields alone.
func FuzzParseMessage(f *testing.F) {
	for _, g := range seeds(f) {
		f.Add(g.der)
	}
	for _, der := range own(f) {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var m *Message
		var err error
		slack := maxSlack
		if p := newParser(der, inMessage); p.bodyTag() == TypeNested {
			slack *= MaxEntries
		}
		spends(t, len(der), slack, func() { m, err = ParseMessage(der) })
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Field == "" || syntax.Section == "" {
				t.Fatalf("error %v of type %T", err, err)
			}
			return
		}
		forget(m)
		again, err := m.Marshal()
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("encoded again (%v):\n got %x\nwant %x", err, again, der)
		}
		_ = m.VerifyMAC(&SharedSecret{Secret: []byte("secret"), AllowSHA1: true}, 2000)
		if body, ok := m.Body.(CertReqMessages); ok {
			_ = body[0].VerifyPOP()
		}
	})
}

// No reply makes a transaction panic, or gives a certificate without being
// authentic: the fuzzer does not know the secret.
func FuzzTransaction(f *testing.F) {
	s := shared(f)
	s.cfg.UnprotectedErrors = true
	s.cfg.MaxIterations = 2000
	tr := s.begin(f)
	stored, err := tr.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	granted := s.ca.granted(f, tr.Step().Send)
	f.Add(seal(f, granted, newAuthority(f, "Stranger").credential()))
	for _, g := range seeds(f) {
		f.Add(rewritten(f, g.der, &granted.Header))
		f.Add(g.der)
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		tr, err := Resume(s.cfg, stored)
		if err != nil {
			t.Fatal(err)
		}
		step, err := tr.Next(reply)
		if step.Issued != nil || step.Done || err == nil {
			t.Fatalf("accepted: %+v, %v", step, err)
		}
		var peer *Error
		if errors.As(err, &peer) && peer.Verified {
			t.Fatalf("verified: %v", err)
		}
	})
}

// rewritten is a recorded message with another header, so that it gets past the first checks.
func rewritten(f *testing.F, der []byte, h *Header) []byte {
	f.Helper()
	m := mustParse(f, der)
	forget(m)
	m.Header.TransactionID, m.Header.RecipNonce, m.Header.SenderNonce = h.TransactionID, h.RecipNonce, h.SenderNonce
	m.Header.MessageTime = h.MessageTime
	out, err := m.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	return out
}

// What Resume takes, it can go on with and store again.
func FuzzResume(f *testing.F) {
	s := shared(f)
	s.cfg.MaxIterations = 2000
	tr := s.begin(f)
	for _, m := range []*Message{s.ca.waiting(f, tr.Step().Send), nil} {
		stored, err := tr.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored)
		if m != nil {
			s.next(f, tr, m)
		}
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		tr, err := Resume(s.cfg, stored)
		if err != nil {
			return
		}
		_ = tr.Step()
		_ = tr.String()
		again, err := tr.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Resume(s.cfg, again); err != nil {
			t.Fatalf("stored again, but not resumed: %v", err)
		}
	})
}

// What ParseName makes is a Name, and its text means the same name.
func FuzzParseName(f *testing.F) {
	names, err := os.ReadFile(filepath.Join("testdata", "names"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for line := range bytes.Lines(names) {
		f.Add(string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text)
		if err != nil {
			return
		}
		p := newParser(n, inName)
		p.name("name")
		if p.done("name"); !p.ok() {
			t.Fatalf("%q gives %x", text, n)
		}
		if len(n.String()) > maxNameText {
			return // escapes have made it longer than what ParseName reads
		}
		again, err := ParseName(n.String())
		if err != nil || !again.Equal(n) {
			t.Fatalf("%q is %q, which is %x (%v), want %x", text, n, again, err, n)
		}
	})
}

// Parameters of a MAC cost no more than their bounds allow.
func FuzzMACParameters(f *testing.F) {
	for _, g := range seeds(f) {
		if isMAC(g.parsed.Header.ProtectionAlg) {
			f.Add(false, g.parsed.Header.ProtectionAlg.Parameters)
		}
	}
	p := macParameters{salt: []byte("salt"), iterations: 1000, owf: 5, mac: 5}
	pbmac1, err := p.pbmac1()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, pbmac1.Parameters)
	f.Add(true, asBouncyCastle(pbmac1.Parameters))
	secret := &SharedSecret{Secret: []byte("secret"), AllowSHA1: true}
	f.Fuzz(func(t *testing.T, pbmac1 bool, parameters []byte) {
		a := AlgorithmIdentifier{Algorithm: oidPasswordBasedMac, Parameters: parameters}
		if pbmac1 {
			a.Algorithm = oidPBMAC1
		}
		start := time.Now()
		spends(t, len(parameters), maxSlack, func() {
			if key, err := secret.derive(a, 2000); err == nil {
				key.mac([]byte("part"))
			}
		})
		if took := time.Since(start); took > 5*time.Second {
			t.Fatalf("took %s", took)
		}
	})
}
