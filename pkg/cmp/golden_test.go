package cmp

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden is a recorded message and what is known about it.
type golden struct {
	name   string
	facts  map[string]string
	der    []byte
	parsed *Message
	signer *x509.Certificate
}

// goldens reads testdata/*.txt: lines of "fact: value", then the message in PEM,
// and who signed it if it does not say so itself.
func goldens(t testing.TB) []golden {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d recorded messages, %v", len(files), err)
	}
	var out []golden
	for _, file := range files {
		out = append(out, readGolden(t, file))
	}
	return out
}

func readGolden(t testing.TB, file string) golden {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(text), "\n\n")
	g := golden{name: strings.TrimSuffix(filepath.Base(file), ".txt"), facts: map[string]string{}}
	for line := range strings.Lines(head) {
		fact, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		g.facts[fact] = value
	}
	block, rest := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s: no PEM", file)
	}
	g.der = block.Bytes
	g.parsed, err = ParseMessage(g.der)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(g.parsed.ExtraCerts) > 0 {
		g.signer = parse(t, g.parsed.ExtraCerts[0])
	} else if block, _ := pem.Decode(rest); block != nil {
		g.signer = parse(t, block.Bytes)
	}
	return g
}

// forget makes a parsed message encode from its fields alone.
func forget(m *Message) {
	m.received = nil
	switch body := m.Body.(type) {
	case CertReqMessages:
		for i := range body {
			body[i].CertReq.received = nil
		}
	case Nested:
		for _, inner := range body {
			forget(inner)
		}
	}
}

func TestGoldenMessages(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			if got, want := g.parsed.Type.String(), g.facts["type"]; got != want {
				t.Errorf("body is %s, want %s", got, want)
			}
			checkProtection(t, &g)
			checkPOP(t, &g)
			for _, fields := range []string{"as received", "from the fields"} {
				got, err := g.parsed.Marshal()
				if err != nil || !bytes.Equal(got, g.der) {
					t.Errorf("marshalled %s (%v):\n got %x\nwant %x", fields, err, got, g.der)
				}
				forget(g.parsed)
			}
		})
	}
}

func checkProtection(t *testing.T, g *golden) {
	t.Helper()
	switch {
	case g.facts["secret"] != "":
		secret := &SharedSecret{Reference: []byte("ref"), Secret: []byte(g.facts["secret"]), AllowSHA1: true}
		if err := g.parsed.VerifyMAC(secret, 0); err != nil {
			t.Error(err)
		}
		secret.Secret = []byte("Secret")
		if err := g.parsed.VerifyMAC(secret, 0); err == nil {
			t.Error("verifies with another secret")
		}
	case g.facts["signed"] != "":
		if err := g.parsed.VerifySignature(g.signer); err != nil {
			t.Error(err)
		}
		g.parsed.Protection[8] ^= 1
		if err := g.parsed.VerifySignature(g.signer); err == nil {
			t.Error("verifies with another signature")
		}
		g.parsed.Protection[8] ^= 1
	case g.parsed.Protection != nil:
		t.Error("has a protection nobody told of")
	}
}

func checkPOP(t *testing.T, g *golden) {
	t.Helper()
	body, ok := g.parsed.Body.(CertReqMessages)
	if !ok {
		return
	}
	err := body[0].VerifyPOP()
	if want := g.facts["popo"] == ""; (err == nil) != want {
		t.Errorf("proof of possession: %v, want it to verify: %t", err, want)
	}
}

func TestTruncatedMessages(t *testing.T) {
	for _, g := range goldens(t) {
		for n := range g.der {
			if _, err := ParseMessage(g.der[:n:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are a message", g.name, n, len(g.der))
			}
		}
		if _, err := ParseMessage(append(bytes.Clone(g.der), 0)); err == nil {
			t.Errorf("%s: a byte too many is accepted", g.name)
		}
	}
}

func TestGoldenDetails(t *testing.T) {
	byName := map[string]*Message{}
	for _, g := range goldens(t) {
		byName[g.name] = g.parsed
	}
	t.Run("certificate template", func(t *testing.T) {
		template := &byName["openssl-ir-mac"].Body.(CertReqMessages)[0].CertReq.CertTemplate
		if want := mustName(t, "/C=DE/O=certloop/OU=a+OU=b/CN=device"); !bytes.Equal(template.Subject, want) {
			t.Errorf("subject %x, want %x", template.Subject, want)
		}
		if got, want := template.NotAfter.Sub(template.NotBefore).Hours()/24, 30.0; got != want {
			t.Errorf("validity of %v days, want %v", got, want)
		}
		if san, _ := template.Extension(ExtensionSubjectAltName); extensionText(san) != "DNS:device.example,IP:192.0.2.1" {
			t.Errorf("subjectAltName %q", extensionText(san))
		}
	})
	t.Run("oldCertID", func(t *testing.T) {
		kur := byName["openssl-kur"]
		id, ok := kur.Body.(CertReqMessages)[0].CertReq.OldCertID()
		device := parse(t, kur.ExtraCerts[0])
		issuer, _ := id.Issuer.Name()
		if !ok || !issuer.Equal(device.RawIssuer) || id.SerialNumber.Cmp(device.SerialNumber) != 0 {
			t.Errorf("oldCertID %s %s, want %s %s", issuer, id.SerialNumber, device.Issuer, device.SerialNumber)
		}
	})
	t.Run("revocation", func(t *testing.T) {
		details := byName["openssl-rr"].Body.(RevReq)[0]
		if details.CertDetails.SerialNumber == nil || len(details.CRLEntryDetails) != 1 || !details.CRLEntryDetails[0].Id.Equal(ExtensionCRLReason) {
			t.Errorf("details %+v", details)
		}
	})
	t.Run("error", func(t *testing.T) {
		body := byName["openssl-error"].Body.(*ErrorMsg)
		if got, want := body.Status.FailInfo, FailBadRequest; got != want || body.ErrorCode == nil || len(body.ErrorDetails) == 0 {
			t.Errorf("failInfo %s of %+v, want %s", got, body, want)
		}
		rejection := byName["openssl-cp-rejection"].Body.(*CertRepMessage).Response[0].Status
		if got, want := rejection.FailInfo, FailUnsupportedVersion|FailDuplicateCertReq; got != want {
			t.Errorf("failInfo %s, want %s", got, want)
		}
	})
	t.Run("polling", func(t *testing.T) {
		if got := byName["openssl-cp-waiting"].Body.(*CertRepMessage).Response[0].Status.Status; got != StatusWaiting {
			t.Errorf("status %s, want waiting", got)
		}
		if got := byName["openssl-pollrep"].Body.(PollRep); len(got) != 1 || got[0].CheckAfter != 1 {
			t.Errorf("pollRep %+v, want checkAfter 1", got)
		}
	})
}
