package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/test/e2e/rig"
)

// granted is what a configuration can say about a certificate.
type granted struct {
	Subject                   string
	DNS, IPs, URIs, Emails    []string
	KeyUsage                  x509.KeyUsage
	ExtKeyUsage               []x509.ExtKeyUsage
	Lifetime                  time.Duration
	Key                       string
	IsCA, SubjectAltNameFatal bool
}

func grantedBy(tb testing.TB, c *x509.Certificate) granted {
	tb.Helper()
	g := granted{
		Subject: c.Subject.String(), DNS: c.DNSNames, Emails: c.EmailAddresses,
		KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage, Lifetime: c.NotAfter.Sub(c.NotBefore), IsCA: c.IsCA,
	}
	for _, ip := range c.IPAddresses {
		g.IPs = append(g.IPs, ip.String())
	}
	for _, u := range c.URIs {
		g.URIs = append(g.URIs, u.String())
	}
	for _, e := range c.Extensions {
		g.SubjectAltNameFatal = g.SubjectAltNameFatal || e.Id.String() == "2.5.29.17" && e.Critical
	}
	switch key := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		g.Key = key.Curve.Params().Name
	case *rsa.PublicKey:
		g.Key = "RSA " + map[int]string{2048: "2048", 3072: "3072"}[key.N.BitLen()]
	default:
		tb.Errorf("public key of type %T", key)
	}
	return g
}

var (
	p256 = elliptic.P256().Params().Name
	p384 = elliptic.P384().Params().Name

	serverAndClient = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

// Check 2: the Secret holds what was configured, and openssl agrees.
func TestSecretHoldsWhatWasConfigured(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{Intermediate: true})
	rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	tests := []struct {
		name   string
		fields []string
		want   granted
	}{
		{"all-names", []string{
			"subject: {country: DE, organization: Example, commonName: all.example.com}",
			"subjectAltNames: {dnsNames: [all.example.com, '*.all.example.com'], ipAddresses: [192.0.2.7, '2001:db8::7'], uris: ['spiffe://example.com/all', 'urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6'], emailAddresses: [ops@example.com]}",
			"keyUsages: [digitalSignature, keyAgreement]", "extendedKeyUsages: [serverAuth]", "validity: 48h",
		}, granted{
			Subject: "CN=all.example.com,O=Example,C=DE",
			DNS:     []string{"all.example.com", "*.all.example.com"}, IPs: []string{"192.0.2.7", "2001:db8::7"},
			URIs: []string{"spiffe://example.com/all", "urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6"}, Emails: []string{"ops@example.com"},
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			Lifetime: 48 * time.Hour, Key: p256,
		}},
		{"no-subject", []string{"subjectAltNames: {dnsNames: [only.example.com]}", "validity: 1h"}, granted{
			DNS: []string{"only.example.com"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: serverAndClient,
			Lifetime: time.Hour, Key: p256, SubjectAltNameFatal: true,
		}},
		{"rsa", []string{"privateKey: {algorithm: RSA}", "keyUsages: [digitalSignature, keyEncipherment]", "validity: 1h"}, granted{
			Subject: "CN=rsa", KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: serverAndClient,
			Lifetime: time.Hour, Key: "RSA 2048",
		}},
		{"p384", []string{"privateKey: {algorithm: ECDSA, size: 384}", "validity: 1h"}, granted{
			Subject: "CN=p384", KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: serverAndClient, Lifetime: time.Hour, Key: p384,
		}},
	}
	for _, test := range tests {
		w.Apply(t, rig.EndEntity(test.name, test.fields...))
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.WaitReady(t, rig.Patience, test.name)
			secret := w.Secret(t, rig.SecretName(test.name))
			rig.OpenSSLVerify(t, secret, ca.Roots)
			cert := rig.Pair(t, secret)
			if d := diff.Diff(grantedBy(t, cert), test.want); d != "" {
				t.Errorf("certificate (-got +want):\n%s", d)
			}
			if got := string(secret.Data["ca.crt"]); got != string(ca.Roots) {
				t.Errorf("ca.crt is\n%swant the root\n%s", got, ca.Roots)
			}
			chain := rig.Certificates(t, secret.Data["tls.crt"])
			if len(chain) != 2 || !chain[1].Equal(ca.IssuingCertificate()) {
				t.Errorf("tls.crt holds %d certificates, want the end entity's and the issuing CA's", len(chain))
			}
		})
	}
	t.Run("identity", func(t *testing.T) {
		secret := w.Secret(t, rig.SecretName(rig.IdentityName))
		rig.OpenSSLVerify(t, secret, ca.Roots)
		got := grantedBy(t, rig.Pair(t, secret))
		if got.KeyUsage != x509.KeyUsageDigitalSignature || len(got.ExtKeyUsage) != 0 {
			t.Errorf("usages %d %v, want digitalSignature alone", got.KeyUsage, got.ExtKeyUsage)
		}
	})
	if got := slices.IndexFunc(ca.Issued(), func(i responder.Issuance) bool { return !i.Confirmed || i.Revoked }); got >= 0 {
		t.Errorf("the CA holds a certificate that was not confirmed: %+v", ca.Issued()[got])
	}
}
