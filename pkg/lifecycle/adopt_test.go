package lifecycle_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// root signs certificates that the CA has nothing to do with.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newRoot(t testing.TB, name string) root {
	t.Helper()
	key, err := ledger.GenerateKey(model.PrivateKey{})
	if err != nil {
		t.Fatal(err)
	}
	r := root{key: key.Signer()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
	}
	r.cert = create(t, template, template, key.Signer().Public(), key.Signer())
	return r
}

func create(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// pair is a key and a certificate as [certificate] describes it, signed by a root, with changes.
func (c root) pair(t testing.TB, name string, change func(*x509.Certificate)) map[string][]byte {
	t.Helper()
	key, err := ledger.GenerateKey(model.PrivateKey{})
	if err != nil {
		t.Fatal(err)
	}
	instance, err := url.Parse("urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6")
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}},
		DNSNames: []string{name + ".example.com"}, IPAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")}, URIs: []*url.URL{instance},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(23 * time.Hour),
	}
	if change != nil {
		change(template)
	}
	text, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"tls.key": text, "tls.crt": ledger.EncodeCertificates(create(t, template, c.cert, key.Signer().Public(), c.key))}
}

func (r *rig) tlsSecret(name string, data map[string][]byte) {
	r.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS, Data: data}
	if _, err := r.secrets.Create(r.t.Context(), s, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// What is in the output is tracked as it is, byte for byte and without the CA; its first renewal
// is a key update that it signs itself, and follows the configuration.
func TestAdoption(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	donor := certificate("web", 24*time.Hour)
	donor.SubjectAltNames.DNSNames = append(donor.SubjectAltNames.DNSNames, "old.example.com")
	donor.Output.SecretName = "donor-tls"
	r.declare(model.ConfigCreated, "donor", donor)
	spec := certificate("web", 24*time.Hour)
	spec.Origin = "MANUAL"
	r.declare(model.ConfigCreated, "web", spec)
	r.wantReason("web", model.ReasonAdoptionImpossible)
	found := r.get("donor-tls").Data
	found["tls.crt"] = append([]byte("# from the vendor\n"), found["tls.crt"]...)
	r.secret("web-tls", found) // of type Opaque, as people make them
	r.wait()
	r.wantReady("web", true)
	r.wantReason("web", model.ReasonAdopted)
	r.wantIssuances("web", 1) // the donor's
	r.wantTold(model.CertificateAdopted, 1)
	for k, v := range found {
		if !bytes.Equal(r.get("web-tls").Data[k], v) {
			t.Errorf("%s was changed", k)
		}
	}
	if got := strings.Join(r.status("web").Differences, "\n"); !strings.Contains(got, "old.example.com") {
		t.Errorf("got differences %q, want the name that is too many", got)
	}
	r.send(r.ref(model.RefUpdate, "web-tls"))
	r.tick("sweep")
	r.wantTold(model.SecretModified, 0)

	r.advance(17 * time.Hour)
	r.send(model.NewEvent(model.CertificateExpiring, r.key("web"), nil))
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	issued := r.ca.Issued()
	last := issued[len(issued)-1]
	if last.Request != cmp.TypeKUR || !strings.Contains(last.Authenticated, "CN=web") {
		t.Errorf("got %s authenticated by %s, want a kur signed by what was adopted", last.Request, last.Authenticated)
	}
	if st := r.status("web"); st.Revision != 2 || condition(st, model.Ready).Reason != model.ReasonIssued {
		t.Errorf("got revision %d, %+v", st.Revision, st.Conditions)
	}
}

// What another CA has issued ours cannot update, whoever signs the request for it and whether it
// believes that signer or not: the first renewal becomes an initial request through the identity.
func TestAdoptedFromAnotherCA(t *testing.T) {
	believed, stranger := newRoot(t, "another CA"), newRoot(t, "stranger")
	r := newRig(t, func(c *responder.Config) { c.ClientCAs = []*x509.Certificate{believed.cert} })
	r.ready()
	for name, vendor := range map[string]root{"web": believed, "api": stranger} {
		for _, signer := range []string{model.SignedByCurrentCertificate, model.SignedByIdentity} {
			name := name + "-" + strings.ToLower(signer)
			issuer := r.issuer()
			issuer.Renewal.SignedBy = signer
			r.declare(model.IssuerUpdated, "ca", issuer)
			r.tlsSecret(name+"-tls", vendor.pair(t, name, nil))
			spec := certificate(name, 24*time.Hour)
			spec.Origin = model.OriginAdopt
			r.declare(model.ConfigCreated, name, spec)
			r.wantReason(name, model.ReasonAdopted)
			r.send(model.NewEvent(model.RenewalRequested, r.key(name), model.Work{Reason: model.WorkManual}))
			r.wantReason(name, model.ReasonIssued)
			r.wantIssuances(name, 1)
			issued := r.ca.Issued()
			if last := issued[len(issued)-1]; last.Request != cmp.TypeIR || !strings.Contains(last.Authenticated, "CN=identity") {
				t.Errorf("%s: got %s by %s, want an ir by the identity", name, last.Request, last.Authenticated)
			}
		}
	}
	r.wantTold(model.CertificateParked, 0)
}

// trust makes the issuer trust a root beside the CA's own.
func (r *rig) trust(other root) {
	r.t.Helper()
	r.edit("ca-trust", func(s *corev1.Secret) {
		s.Data["ca.crt"] = append(ledger.EncodeCertificates(other.cert), ledger.EncodeCertificates(r.ca.CACertificate())...)
	})
	r.declare(model.IssuerUpdated, "ca", r.issuer())
}
