package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Check 3: against a CA of which this project wrote no line of the protocol: an
// identity by shared secret, a certificate by the identity's signature, a renewal with a
// new key by kur.
func TestOpenSSLCA(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartOpenSSL(t)
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("web", "subjectAltNames: {dnsNames: [web.example.com], ipAddresses: [192.0.2.1]}", "subject: {commonName: web}", "validity: 1h"))
	w.WaitReady(t, rig.Patience, "web")

	identity := rig.Pair(t, w.Secret(t, rig.SecretName(rig.IdentityName)))
	first := w.Secret(t, rig.SecretName("web"))
	before := rig.Pair(t, first)
	rig.OpenSSLVerify(t, first, ca.Roots)
	wantLine(t, ca, map[string]string{"body": "ir", "subject": identity.Subject.String(), "protection": "mac", "status": "accepted"})
	wantLine(t, ca, map[string]string{"body": "ir", "subject": "CN=web", "protection": "signature", "sender": identity.Subject.String(), "status": "accepted"})

	manual := rig.Event(t, model.RenewalRequested, w.Key("web"), "{reason: manual}")
	bus.Publish(t, model.Renew, w.Key("web"), manual)
	waitRevision(t, w, "web", 2)
	second := w.Secret(t, rig.SecretName("web"))
	after := rig.Pair(t, second)
	rig.OpenSSLVerify(t, second, ca.Roots)
	wantLine(t, ca, map[string]string{
		"body": "kur", "subject": "CN=web", "protection": "signature", "answer": "kup", "status": "accepted",
		"oldcert": upperHex(before.SerialNumber.Bytes()), "serial": upperHex(after.SerialNumber.Bytes()),
	})
	wantLine(t, ca, map[string]string{"body": "certConf", "answer": "pkiconf", "confirmed": upperHex(after.SerialNumber.Bytes())})
	if slices.Equal(before.RawSubjectPublicKeyInfo, after.RawSubjectPublicKeyInfo) {
		t.Error("the renewed certificate has the key of the former one")
	}
	if got, want := after.DNSNames, before.DNSNames; !slices.Equal(got, want) {
		t.Errorf("DNS names after renewal %q, want %q", got, want)
	}
	fact := bus.WaitFact(t, rig.Patience, model.CertificateRenewed, w.Key("web"))
	if got := rig.Data[model.CertificateFact](t, fact); got.Fingerprint != rig.Fingerprint(after) || got.Revision != 2 {
		t.Errorf("certificate.renewed tells of fingerprint %s revision %d, want %s revision 2", got.Fingerprint, got.Revision, rig.Fingerprint(after))
	}
}

// Renewal before expiry: nobody asks for it, the scan finds what is due.
func TestRenewalBeforeExpiry(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartOpenSSL(t)
	bus := rig.StartAll(t, w).Bus(t)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("brief", "validity: 60s", "renewBefore: 40s"))
	w.WaitReady(t, rig.Patience, "brief")
	before := rig.Pair(t, w.Secret(t, rig.SecretName("brief")))
	waitRevision(t, w, "brief", 2)
	renewed := time.Now()
	after := rig.Pair(t, w.Secret(t, rig.SecretName("brief")))

	due := before.NotBefore.Add(20 * time.Second)
	if late := renewed.Sub(due); late < 0 || renewed.After(before.NotAfter) {
		t.Errorf("renewed %s after it was due at %s, want after that and before its end at %s", late, due, before.NotAfter)
	} else {
		t.Logf("renewed %.1f s after it was due", late.Seconds())
	}
	if slices.Equal(before.RawSubjectPublicKeyInfo, after.RawSubjectPublicKeyInfo) {
		t.Error("the renewed certificate has the key of the former one")
	}
	bus.WaitFact(t, rig.Patience, model.CertificateExpiring, w.Key("brief"))
	bus.WaitFact(t, rig.Patience, model.CertificateRenewed, w.Key("brief"))
	wantLine(t, ca, map[string]string{"body": "kur", "subject": "CN=brief", "answer": "kup", "status": "accepted"})
}

func waitRevision(t *testing.T, w *rig.World, name string, revision int64) {
	t.Helper()
	w.WaitFor(t, rig.Patience, name, func(c *model.CMPCertificate) error {
		if c.Status.Revision < revision {
			return fmt.Errorf("revision %d, want %d", c.Status.Revision, revision)
		}
		return nil
	})
}

// wantLine looks for a message in the CA's log that has all the attributes given.
func wantLine(t *testing.T, ca *rig.OpenSSL, want map[string]string) {
	t.Helper()
	rig.Eventually(t, 10*time.Second, fmt.Sprintf("the CA's log has a line with %v", want), func() error {
		if !slices.ContainsFunc(ca.Lines(t), func(line map[string]string) bool { return has(line, want) }) {
			return errors.New("it has none")
		}
		return nil
	})
}

func has(line, want map[string]string) bool {
	for key, value := range want {
		if line[key] != value {
			return false
		}
	}
	return true
}

func upperHex(b []byte) string { return strings.ToUpper(fmt.Sprintf("%x", b)) }
