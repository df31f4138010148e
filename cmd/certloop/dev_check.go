package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// delivered is a certificate as a workload finds it.
type delivered struct {
	cert   *model.CMPCertificate
	secret *corev1.Secret
	chain  []*x509.Certificate
}

func (g *delivered) leaf() *x509.Certificate { return g.chain[0] }

func (g *delivered) String() string {
	return fmt.Sprintf("Secret %s: %s, valid for %s", g.secret.Name, names(g.leaf()), duration.HumanDuration(time.Until(g.leaf().NotAfter)))
}

func names(cert *x509.Certificate) string {
	switch n := len(altNames(cert)); n {
	case 0:
		return cert.Subject.String()
	case 1:
		return cert.Subject.String() + ", 1 alternative name"
	default:
		return fmt.Sprintf("%s, %d alternative names", cert.Subject, n)
	}
}

// awaitReady waits until a certificate is ready, and checks what the Secret holds.
func (d *demo) awaitReady(ctx context.Context, name string) (*delivered, error) {
	last := "nothing was heard of it"
	var cert *model.CMPCertificate
	err := until(ctx, func() (ok bool, err error) {
		if cert, err = d.store.Certificate(ctx, d.key(name)); err != nil {
			return false, ignoreAbsent(err)
		}
		ready := readyOf(cert)
		last = ready.Reason + ": " + ready.Message
		return current(cert), nil
	})
	if err != nil {
		return nil, because(err, last)
	}
	return d.inspect(ctx, cert)
}

// current: the status says that a certificate for this configuration is delivered and
// has not ended.
func current(c *model.CMPCertificate) bool {
	return c.Status.ObservedGeneration == c.Generation && meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready) &&
		c.Status.NotAfter != nil && time.Now().Before(c.Status.NotAfter.Time)
}

// inspect reads the Secret and checks it against the CA and the status: key and
// certificate belong together, the chain ends in the CA, and it is what the status says.
func (d *demo) inspect(ctx context.Context, cert *model.CMPCertificate) (*delivered, error) {
	secret, err := d.store.Secret(ctx, d.key(cert.Spec.Output.SecretName))
	if err != nil {
		return nil, err
	}
	g := &delivered{cert: cert, secret: secret}
	if g.chain, err = ledger.ParseCertificates(secret.Data[corev1.TLSCertKey]); err != nil {
		return nil, fmt.Errorf("%s of Secret %s: %w", corev1.TLSCertKey, secret.Name, err)
	}
	key, err := ledger.ParseKey(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("%s of Secret %s: %w", corev1.TLSPrivateKeyKey, secret.Name, err)
	}
	if !key.Fits(g.leaf()) {
		return nil, fmt.Errorf("key and certificate of Secret %s do not belong together", secret.Name)
	}
	if err := verify(g.chain, d.ca.CACertificate()); err != nil {
		return nil, fmt.Errorf("certificate of Secret %s: %w", secret.Name, err)
	}
	if serial := ledger.SerialHex(g.leaf().SerialNumber.Bytes()); serial != cert.Status.Serial {
		return nil, fmt.Errorf("the Secret %s holds serial number %s, the status says %s", secret.Name, serial, cert.Status.Serial)
	}
	return g, nil
}

func verify(chain []*x509.Certificate, root *x509.Certificate) error {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// satisfies compares the certificate with the configuration.
func (g *delivered) satisfies(want *model.CMPCertificate) error {
	leaf := g.leaf()
	if got := leaf.Subject.CommonName; got != want.Spec.Subject.CommonName {
		return fmt.Errorf("the common name is %q, %q was asked for", got, want.Spec.Subject.CommonName)
	}
	sans := want.Spec.SubjectAltNames
	if sans == nil {
		sans = &model.SubjectAltNames{}
	}
	wanted := slices.Concat(sans.DNSNames, addresses(sans.IPAddresses), sans.URIs)
	if got := altNames(leaf); !slices.Equal(got, wanted) {
		return fmt.Errorf("the alternative names are %q, %q were asked for", got, wanted)
	}
	return nil
}

func altNames(c *x509.Certificate) []string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return all
}

func addresses(texts []string) (all []string) {
	for _, text := range texts {
		all = append(all, net.ParseIP(text).String())
	}
	return all
}

// compare tells whether one certificate is the renewal of another: by key update, in
// time, and with another key.
func compare(before, after *delivered, asked []string) (string, error) {
	const update = "kur → kup"
	old, renewed := before.leaf(), after.leaf()
	switch {
	case !slices.Contains(asked, update):
		return "", fmt.Errorf("it was not renewed by a key update: the exchanges with the CA were %q", asked)
	case bytes.Equal(old.RawSubjectPublicKeyInfo, renewed.RawSubjectPublicKeyInfo):
		return "", errors.New("the key is the same")
	case bytes.Equal(before.secret.Data[corev1.TLSPrivateKeyKey], after.secret.Data[corev1.TLSPrivateKeyKey]):
		return "", errors.New("the private key in the Secret is the same")
	case !time.Now().Before(old.NotAfter):
		return "", errors.New("the former certificate had ended by then")
	}
	return fmt.Sprintf("Secret %s holds a new key and certificate, %s before the former one ends", after.secret.Name, left(old.NotAfter)), nil
}

// until looks again and again until something is met.
func until(ctx context.Context, met func() (bool, error)) error {
	for {
		ok, err := met()
		if ok || err != nil {
			return err
		}
		if !wait(ctx, lookEvery) {
			return ctx.Err()
		}
	}
}

// because adds what was last seen to the error of waiting in vain.
func because(err error, last string) error {
	if err == nil {
		return nil
	}
	return &inVain{err, last}
}

// inVain is waiting that came to nothing.
type inVain struct {
	err  error
	last string
}

func (e *inVain) Error() string { return e.last }
func (e *inVain) Unwrap() error { return e.err }

func ignoreAbsent(err error) error {
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	return err
}

func left(t time.Time) time.Duration { return max(0, time.Until(t).Round(time.Second)) }

func sinceMillis(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
