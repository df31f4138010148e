package cmpcmd

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/certloop/certloop/pkg/cmp"
)

// chainOf finds issuer after issuer of a certificate among others, as far as it
// gets; a self-signed root is the last.
func chainOf(c *x509.Certificate, others ...[]*x509.Certificate) []*x509.Certificate {
	all := slices.Concat(others...)
	var chain []*x509.Certificate
	for len(chain) < cmp.MaxChain && !selfIssued(c) {
		i := slices.IndexFunc(all, func(issuer *x509.Certificate) bool { return issued(issuer, c) })
		if i < 0 || slices.ContainsFunc(chain, all[i].Equal) {
			break
		}
		c = all[i]
		chain = append(chain, c)
	}
	return chain
}

func issued(issuer, c *x509.Certificate) bool {
	return bytes.Equal(issuer.RawSubject, c.RawIssuer) && issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// withoutRoot drops a self-signed end.
func withoutRoot(chain []*x509.Certificate) []*x509.Certificate {
	if n := len(chain); n > 0 && selfIssued(chain[n-1]) {
		return chain[:n-1]
	}
	return chain
}

// leadsTo checks that a path leads from c to one of roots.
func leadsTo(c *x509.Certificate, roots []*x509.Certificate, others ...[]*x509.Certificate) error {
	anchors, untrusted := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		anchors.AddCert(root)
	}
	for _, other := range slices.Concat(others...) {
		untrusted.AddCert(other)
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: anchors, Intermediates: untrusted, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("-own_trusted: the chain of -cert: %w", err)
	}
	return nil
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

var errNoKeyMatch = errors.New("-key is not the key of -cert")
