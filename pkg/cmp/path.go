package cmp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"sync"
	"time"
)

// maxPathChecks bounds the signatures verified to find the way up from the
// certificates that come with one message. crypto/x509 has a bound too, but one
// that many certificates of one name and costly keys turn into seconds.
const maxPathChecks = 12

// pathfinder looks among certificates at hand for the issuers of others. What it
// finds is for crypto/x509 to verify: it only leaves out what leads nowhere.
type pathfinder struct {
	cache         *PathCache
	roots, others []*x509.Certificate
	checks        int // signatures that may still be verified
}

func newPathfinder(cache *PathCache, roots []*x509.Certificate, others ...[]*x509.Certificate) *pathfinder {
	return &pathfinder{cache: cache, roots: roots, others: slices.Concat(others...), checks: maxPathChecks}
}

// verify verifies the path of c up to a root, at a time, and gives the shortest,
// or one that begins with what the cache has.
func (f *pathfinder) verify(c *x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	if path := f.cache.find(c, f.roots, at); path != nil {
		return path, nil
	}
	if path := f.extend(c, at); path != nil {
		return path, nil
	}
	between, _ := f.climb(c, nil)
	path, err := shortestPath(c, f.roots, between, at)
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(path)-1; i++ {
		f.cache.add(path[i:])
	}
	return path, nil
}

// extend continues the known path of c's issuer, if there is one, down to c.
func (f *pathfinder) extend(c *x509.Certificate, at time.Time) []*x509.Certificate {
	for _, issuer := range issuersOf(c, f.others) {
		above := f.cache.find(issuer, f.roots, at)
		if above == nil {
			continue
		}
		if !extensible(above) || constrains(c) {
			return nil
		}
		path, err := shortestPath(c, above[:1], nil, at)
		if err != nil {
			return nil
		}
		return append(path, above[1:]...)
	}
	return nil
}

func shortestPath(c *x509.Certificate, roots, between []*x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	chains, err := c.Verify(x509.VerifyOptions{
		Roots:         poolOf(roots),
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

// PathCache remembers verified certification paths of those who sign a peer's
// messages and certificates. A path holds for whom its root is an anchor, as
// long as all its certificates are valid; what is below it is verified each
// time. The zero value is ready, and may be shared by transactions, also of
// different trust, at once.
type PathCache struct {
	mu    sync.Mutex
	paths [][]*x509.Certificate
}

// maxPaths bounds the paths remembered.
const maxPaths = 32

// find is a known path of c, up to the first of roots, that is valid at a time; or nil.
func (p *PathCache) find(c *x509.Certificate, roots []*x509.Certificate, at time.Time) []*x509.Certificate {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, path := range p.paths {
		if !path[0].Equal(c) {
			continue
		}
		end := slices.IndexFunc(path, func(c *x509.Certificate) bool { return slices.ContainsFunc(roots, c.Equal) })
		if end >= 0 && validPath(path[:end+1], at) {
			return slices.Clone(path[:end+1])
		}
	}
	return nil
}

// add remembers a path that has been verified; the oldest makes room.
func (p *PathCache) add(path []*x509.Certificate) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	same := func(old []*x509.Certificate) bool { return slices.EqualFunc(old, path, (*x509.Certificate).Equal) }
	p.paths = slices.DeleteFunc(p.paths, same)
	if len(p.paths) == maxPaths {
		p.paths = slices.Delete(p.paths, 0, 1)
	}
	p.paths = append(p.paths, slices.Clone(path))
}

func validPath(path []*x509.Certificate, at time.Time) bool {
	return !slices.ContainsFunc(path, func(c *x509.Certificate) bool { return at.Before(c.NotBefore) || at.After(c.NotAfter) })
}

// extensible tells whether nothing along a verified path could forbid one more
// certificate below it: not the path's length (RFC 5280 §4.2.1.9), nor
// constraints on names and policies, which are left to a verification of the whole.
func extensible(path []*x509.Certificate) bool {
	if !path[0].BasicConstraintsValid || !path[0].IsCA || len(path) > MaxChain {
		return false
	}
	for i, c := range path {
		if c.BasicConstraintsValid && c.MaxPathLen >= 0 && c.MaxPathLen < i || constrains(c) {
			return false
		}
	}
	return true
}

// constrains tells whether c has one of the extensions that speak of other
// certificates of a path (RFC 5280 §4.2.1.10, §4.2.1.11, §4.2.1.14).
func constrains(c *x509.Certificate) bool {
	return slices.ContainsFunc([]asn1.ObjectIdentifier{oidNameConstraints, oidPolicyConstraints, oidInhibitAnyPolicy},
		func(id asn1.ObjectIdentifier) bool { return hasExtension(c, id) })
}
