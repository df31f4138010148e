package cmp

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"
)

// maxPathChecks bounds the signatures verified to find the way up from the
// certificates that come with one message. crypto/x509 has a bound too, but one
// that many certificates of one name and costly keys turn into seconds.
const maxPathChecks = 12

// pathfinder looks among certificates at hand for the issuers of others. What it
// finds is for crypto/x509 to verify: it only leaves out what leads nowhere.
type pathfinder struct {
	roots, others []*x509.Certificate
	checks        int // signatures that may still be verified
}

func newPathfinder(roots []*x509.Certificate, others ...[]*x509.Certificate) *pathfinder {
	return &pathfinder{roots: roots, others: slices.Concat(others...), checks: maxPathChecks}
}

// verify verifies the path of c up to a root, at a time, and gives the shortest.
func (f *pathfinder) verify(c *x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	between, _ := f.climb(c, nil)
	chains, err := c.Verify(x509.VerifyOptions{
		Roots:         poolOf(f.roots),
		Intermediates: poolOf(between),
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, err
	}
	return slices.MinFunc(chains, func(a, b []*x509.Certificate) int { return len(a) - len(b) }), nil
}

// climb finds the certificates between c and a root, above those it has climbed
// already. Signatures are verified only where there is a choice.
func (f *pathfinder) climb(c *x509.Certificate, below []*x509.Certificate) ([]*x509.Certificate, bool) {
	if slices.ContainsFunc(f.roots, c.Equal) {
		return below, true
	}
	roots, parents := issuersOf(c, f.roots), issuersOf(c, f.others)
	parents = slices.DeleteFunc(parents, func(p *x509.Certificate) bool { return p.Equal(c) || slices.ContainsFunc(below, p.Equal) })
	choice := len(roots)+len(parents) > 1
	for _, root := range roots {
		if !choice || f.signed(c, root) {
			return below, true
		}
	}
	if len(below) >= MaxChain {
		return nil, false
	}
	for _, p := range parents {
		if !choice {
			f.checks--
		} else if !f.signed(c, p) {
			continue
		}
		if path, ok := f.climb(p, append(slices.Clip(below), p)); ok {
			return path, true
		}
	}
	return nil, false
}

// signed tells whether parent has signed c, unless too much has been tried.
func (f *pathfinder) signed(c, parent *x509.Certificate) bool {
	f.checks--
	return f.checks >= 0 && c.CheckSignatureFrom(parent) == nil
}

// issuersOf are the certificates that may have signed c, by their name; those
// with the key identifier c tells come first, since it need not be right.
func issuersOf(c *x509.Certificate, list []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	for _, issuer := range list {
		switch {
		case !bytes.Equal(issuer.RawSubject, c.RawIssuer):
		case fitsKID(issuer, c.AuthorityKeyId):
			out = slices.Insert(out, 0, issuer)
		default:
			out = append(out, issuer)
		}
	}
	return out
}
