package interop

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// ca is a server our client talks to.
type ca struct {
	client *cmp.Client
	root   *x509.Certificate
	sha1   bool // it uses HMAC-SHA1, whatever we do

	mu         sync.Mutex
	identities map[string]*cmp.Signer // by type of key
}

func newCA(url string, root *x509.Certificate) *ca {
	return &ca{client: &cmp.Client{URL: url, Timeout: limit}, root: root, identities: map[string]*cmp.Signer{}}
}

func startIssuingCA(t testing.TB, name string, args ...string) *ca {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(secretValue+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url, certificate := startCA(t, name, append(args, "-dir", filepath.Join(dir, "state"), "-ref", reference, "-secret", "file:"+secret)...)
	root, err := readCertificate(certificate)
	if err != nil {
		t.Fatal(err)
	}
	return newCA(url, root)
}

func (c *ca) config(credential cmp.Credential) cmp.Config {
	if secret, ok := credential.(*cmp.SharedSecret); ok && c.sha1 {
		secret.AllowSHA1 = true
	}
	return cmp.Config{Credential: credential, Trust: cmp.Trust{Roots: []*x509.Certificate{c.root}}, TotalTimeout: limit}
}

// bySecret is the config of somebody who has no certificate yet.
func (c *ca) bySecret() cmp.Config {
	return c.config(&cmp.SharedSecret{Reference: []byte(reference), Secret: []byte(secretValue)})
}

// identity is a certificate to sign requests with, made once for each type of key.
func (c *ca) identity(ctx context.Context) func(key string) (*cmp.Signer, error) {
	return func(kind string) (*cmp.Signer, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if id := c.identities[kind]; id != nil {
			return id, nil
		}
		id, err := c.enrol(ctx, kind, "identity "+kind)
		if err == nil {
			c.identities[kind] = id
		}
		return id, err
	}
}

// enrol obtains a certificate for a new key by shared secret.
func (c *ca) enrol(ctx context.Context, kind, commonName string) (*cmp.Signer, error) {
	key, err := generateShared(kind)
	if err != nil {
		return nil, err
	}
	subject, err := cmp.NameOf(pkix.Name{CommonName: commonName})
	if err != nil {
		return nil, err
	}
	issued, err := c.client.Do(ctx, c.bySecret(), cmp.Request{Type: cmp.TypeIR, Key: key, Template: cmp.CertTemplate{Subject: subject}})
	if err != nil {
		return nil, err
	}
	return &cmp.Signer{Key: key, Certificate: issued.Certificate}, nil
}

// wish is what the cells ask for: the same subject, names and usages for each key.
type wish struct {
	key crypto.Signer
	csr *x509.CertificateRequest
}

// What the certificates of the cells are to say.
var (
	wishSubject = pkix.Name{Country: []string{"DE"}, Organization: []string{"shop"}, CommonName: "wéb"}
	wishDNS     = []string{"web.shop.svc", "*.web.example"}
	wishIPs     = []net.IP{net.IPv4(10, 0, 0, 1).To4(), net.ParseIP("2001:db8::1")}
	wishURIs    = []*url.URL{{Scheme: "spiffe", Host: "shop", Path: "/web"}}
	wishUsage   = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
	wishFor     = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

// wishes has a wish for each type of key. The keys certify nobody yet, so that every cell may ask for one of them.
type wishes map[string]*wish

func newWishes(t testing.TB) wishes {
	t.Helper()
	all := wishes{}
	for _, kind := range newKeys {
		w, err := newWish(mustGenerate(t, kind))
		if err != nil {
			t.Fatal(err)
		}
		all[kind] = w
	}
	return all
}

// newWish makes a PKCS #10 request, which also serves as the source of the template's parts.
func newWish(key crypto.Signer) (*wish, error) {
	usages := []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 3, 0x88}},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 20, 6, 8, 43, 6, 1, 5, 5, 7, 3, 1, 6, 8, 43, 6, 1, 5, 5, 7, 3, 2}},
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: wishSubject, DNSNames: wishDNS, IPAddresses: wishIPs, URIs: wishURIs, ExtraExtensions: usages,
	}, key)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	return &wish{key: key, csr: csr}, err
}

// request asks for the wish in one of the four ways; old is for a kur only.
func (w *wish) request(kind cmp.BodyType, old *x509.Certificate) cmp.Request {
	if kind == cmp.TypeP10CR {
		return cmp.Request{Type: kind, CSR: w.csr.Raw}
	}
	r := cmp.Request{Type: kind, Key: w.key, Template: cmp.CertTemplate{Subject: w.csr.RawSubject, Extensions: w.csr.Extensions}}
	if kind == cmp.TypeKUR {
		r.OldCert, r.Template.Subject = old, old.RawSubject
	}
	return r
}

// check looks at a certificate with the eyes of who will use it.
func (w *wish) check(cert, root *x509.Certificate, subject []byte) error {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSName: wishDNS[0]})
	own, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case err != nil:
		return fmt.Errorf("the certificate does not verify: %w", err)
	case !ok || !own.Equal(w.key.Public()):
		return errors.New("the certificate is for another key")
	case !cmp.Name(cert.RawSubject).Equal(subject):
		return fmt.Errorf("subject: got %s, want %s", cert.Subject, cmp.Name(subject))
	case !slices.Equal(cert.DNSNames, wishDNS), !slices.EqualFunc(cert.IPAddresses, wishIPs, net.IP.Equal),
		len(cert.URIs) != 1 || cert.URIs[0].String() != wishURIs[0].String():
		return fmt.Errorf("subjectAltName: got %v %v %v, want %v %v %v", cert.DNSNames, cert.IPAddresses, cert.URIs, wishDNS, wishIPs, wishURIs)
	case cert.KeyUsage != wishUsage || !slices.Equal(cert.ExtKeyUsage, wishFor):
		return fmt.Errorf("usages: got %b %v, want %b %v", cert.KeyUsage, cert.ExtKeyUsage, wishUsage, wishFor)
	case cert.IsCA:
		return errors.New("the certificate is one of a CA")
	}
	return nil
}

// attempt is one operation of our client under one protection.
type attempt struct {
	ca         *ca
	credential cmp.Credential
	wish       *wish             // to ask for
	old        *x509.Certificate // to update
}

func (a *attempt) config() cmp.Config {
	cfg := a.ca.config(a.credential)
	cfg.Differences = cmp.RejectDifferences
	return cfg
}

// request obtains a certificate and checks it.
func (a *attempt) request(ctx context.Context, kind cmp.BodyType) error {
	issued, err := a.ca.client.Do(ctx, a.config(), a.wish.request(kind, a.old))
	if err != nil {
		return err
	}
	if kind == cmp.TypeKUR {
		return a.wish.check(issued.Certificate, a.ca.root, a.old.RawSubject)
	}
	return a.wish.check(issued.Certificate, a.ca.root, a.wish.csr.RawSubject)
}

// inSteps obtains a certificate and wants that to take messages of these types.
func (a *attempt) inSteps(ctx context.Context, cfg cmp.Config, want ...cmp.BodyType) error {
	issued, sent, err := a.drive(ctx, cfg, a.wish.request(want[0], nil), nil)
	if err != nil {
		return err
	}
	if !slices.Equal(sent, want) {
		return fmt.Errorf("sent %v, want %v", sent, want)
	}
	return a.wish.check(issued.Certificate, a.ca.root, a.wish.csr.RawSubject)
}

// drive runs a transaction message by message and tells which it sent. An
// instead may put another message in the place of a certConf.
func (a *attempt) drive(ctx context.Context, cfg cmp.Config, request cmp.Request, instead func(*cmp.Transaction) cmp.Step) (*cmp.Issued, []cmp.BodyType, error) {
	transaction, err := cmp.Begin(cfg, request)
	if err != nil {
		return nil, nil, err
	}
	var sent []cmp.BodyType
	step := transaction.Step()
	for !step.Done {
		if instead != nil && step.Type == cmp.TypeCertConf {
			step = instead(transaction)
		}
		if err := pause(ctx, step.Wait); err != nil {
			return step.Issued, sent, err
		}
		step = transaction.Step() // bears the time of sending
		sent = append(sent, step.Type)
		reply, err := a.ca.client.Exchange(ctx, step.Send)
		if err != nil {
			return step.Issued, sent, err
		}
		issued := step.Issued
		if step, err = transaction.Next(reply); err != nil {
			return issued, sent, err
		}
	}
	return step.Issued, sent, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// reject refuses a certificate in certConf, after which it must be good for nothing.
func (a *attempt) reject(ctx context.Context) error {
	issued, _, err := a.drive(ctx, a.config(), a.wish.request(cmp.TypeCR, nil), func(t *cmp.Transaction) cmp.Step {
		return t.RejectCertificate(cmp.FailBadCertTemplate, "not wanted")
	})
	if !errors.Is(err, cmp.ErrRejected) || issued == nil {
		return fmt.Errorf("certConf with a rejection: got %w, want ErrRejected", orNothing(err))
	}
	return a.useless(ctx, &cmp.Signer{Key: a.wish.key, Certificate: issued.Certificate})
}

// revoke revokes a certificate.
func (a *attempt) revoke(ctx context.Context, what cmp.Revocation) error {
	status, err := a.ca.client.Revoke(ctx, a.config(), what)
	if err == nil && status.Status != cmp.StatusAccepted {
		return fmt.Errorf("status %s, want accepted", status.Status)
	}
	return err
}

// useless makes sure that requests signed with a revoked certificate are refused.
func (a *attempt) useless(ctx context.Context, victim *cmp.Signer) error {
	signed := attempt{ca: a.ca, credential: victim, wish: a.wish}
	err := signed.request(ctx, cmp.TypeCR)
	var refused *cmp.Error
	if !errors.As(err, &refused) || !refused.Verified {
		return fmt.Errorf("a request signed with the revoked certificate: got %w, want an authentic refusal", orNothing(err))
	}
	return nil
}

func orNothing(err error) error {
	if err == nil {
		return errors.New("what was asked for")
	}
	return err
}
