package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"testing"
	"time"
)

// hierarchies are certificates from a root down to who issues for others, each
// with one thing that crypto/x509 looks at.
func hierarchies() map[string][]x509.Certificate {
	ca := func(change func(*x509.Certificate)) x509.Certificate {
		c := x509.Certificate{IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
		if change != nil {
			change(&c)
		}
		return c
	}
	plain := ca(nil)
	names := ca(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"good.example"} })
	none := ca(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	one := ca(func(c *x509.Certificate) { c.MaxPathLen = 1 })
	policy := ca(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidPolicyConstraints, Critical: true, Value: []byte{0x30, 3, 0x80, 1, 0}}}
	})
	short := ca(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = epoch.Add(-time.Hour), epoch.Add(time.Hour) })
	strange := ca(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	})
	server := ca(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.KeyUsage = false, 0, x509.KeyUsageDigitalSignature })
	return map[string][]x509.Certificate{
		"plain": {plain, plain}, "deep": {plain, plain, plain}, "names in the root": {names, plain}, "names below": {plain, names},
		"root's length 0": {none, plain}, "root's length 1": {one, plain, plain}, "length 0 below": {plain, none},
		"policy in the root": {policy, plain}, "policy below": {plain, policy}, "short root": {short, plain}, "short below": {plain, short},
		"unknown critical extension": {plain, strange}, "not a CA": {plain, server},
	}
}

// build issues a hierarchy; the root comes last.
func build(t *testing.T, ca *authority, templates []x509.Certificate) []*x509.Certificate {
	t.Helper()
	var path []*x509.Certificate
	for i := range templates {
		c := templates[i]
		c.Subject, c.SubjectKeyId = pkix.Name{CommonName: fmt.Sprint("CA ", i)}, []byte{1, byte(i)}
		parent := &c
		if i > 0 {
			parent = path[0]
		}
		path = append([]*x509.Certificate{ca.issue(t, &c, ca.rootKey.Public(), parent)}, path...)
	}
	return path
}

// What is remembered of an issuer's path changes no verdict on what is below it,
// nor on what a namesake of the issuer has signed.
func TestKnownPathsChangeNoVerdict(t *testing.T) {
	ca, namesake := newAuthority(t, "CA"), newAuthority(t, "CA")
	verdicts := map[bool]int{}
	for name, templates := range hierarchies() {
		path, twin := build(t, ca, templates), build(t, namesake, templates)
		root := path[len(path)-1]
		anchors := [][]*x509.Certificate{{root}, {namesake.root}, {root, path[0]}}
		certificates := append(below(t, ca, path[0]), below(t, namesake, twin[0])...)
		for _, c := range append(certificates, path[0]) {
			for _, roots := range anchors {
				for _, later := range []time.Duration{0, 2 * time.Hour} {
					verdicts[sameVerdict(t, name, path, c, roots, epoch.Add(later))]++
				}
			}
		}
	}
	if verdicts[true] < 100 || verdicts[false] < 100 {
		t.Errorf("not much was tried: %v", verdicts)
	}
}

// below are certificates with something that a path may have an opinion on.
func below(t *testing.T, ca *authority, issuer *x509.Certificate) []*x509.Certificate {
	t.Helper()
	strange := []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	explicit := []pkix.Extension{
		{Id: oidPolicyConstraints, Critical: true, Value: []byte{0x30, 3, 0x80, 1, 0}},
		{Id: ExtensionPolicies, Value: []byte{0x30, 6, 0x30, 4, 6, 2, 0x2a, 3}},
	}
	var list []*x509.Certificate
	for _, c := range []x509.Certificate{
		{}, {DNSNames: []string{"a.good.example"}}, {DNSNames: []string{"bad.example"}}, {IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1},
		{NotBefore: epoch.Add(time.Minute), NotAfter: epoch.Add(48 * time.Hour)}, {ExtraExtensions: strange}, {ExtraExtensions: explicit},
	} {
		c.Subject = pkix.Name{CommonName: "leaf"}
		list = append(list, ca.issue(t, &c, newKey(t).Public(), issuer))
	}
	return list
}

// sameVerdict tells whether c is accepted, and compares with and without what was known before.
func sameVerdict(t *testing.T, name string, path []*x509.Certificate, c *x509.Certificate, roots []*x509.Certificate, at time.Time) bool {
	t.Helper()
	known := new(PathCache)
	if own, err := newPathfinder(known, path[len(path)-1:], path).verify(path[0], epoch); err == nil {
		known.add(own) // as of one who signed a message
	}
	chain, want := newPathfinder(nil, roots, path).verifyIssued(c, at)
	for _, when := range []string{"first", "again"} {
		got, err := newPathfinder(known, roots, path).verifyIssued(c, at)
		if (err == nil) != (want == nil) || len(got) != len(chain) {
			t.Errorf("%s, %v: %d certificates and %v %s, with nothing known %d and %v", name, c.ExtraExtensions, len(got), err, when, len(chain), want)
		}
	}
	return want == nil
}

// A signer may not have a critical extension that nobody knows; a new certificate
// may, and having been accepted as one does not make it a signer.
func TestKnownPathsHoldNoNewCertificates(t *testing.T) {
	ca := newAuthority(t, "CA")
	path := build(t, ca, hierarchies()["plain"])
	strange := x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}}
	c := ca.issue(t, &strange, newKey(t).Public(), path[0])
	finder := newPathfinder(new(PathCache), path[1:], path[:1])
	if _, err := finder.verifyIssued(c, epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := finder.verify(c, epoch); err == nil {
		t.Error("it may sign")
	}
	if len(finder.cache.paths) != 1 {
		t.Errorf("%d paths are known, want that of the issuer", len(finder.cache.paths))
	}
}

// However many sign, memory is bounded, and the latest are known.
func TestKnownPathsAreBounded(t *testing.T) {
	ca, known := newAuthority(t, "CA"), new(PathCache)
	for i := range 2 * maxPaths {
		c := ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: fmt.Sprint(i)}}, newKey(t).Public(), ca.root)
		known.add([]*x509.Certificate{c, ca.root})
		known.add([]*x509.Certificate{c, ca.root})
		if known.find(c, []*x509.Certificate{ca.root}, epoch) == nil {
			t.Errorf("%d is not known", i)
		}
	}
	if len(known.paths) != maxPaths {
		t.Errorf("%d paths, want %d", len(known.paths), maxPaths)
	}
}

// A transaction verifies the path of who answers once, and a later one not at all.
func TestKnownPathsAreShared(t *testing.T) {
	s := signed(t)
	s.cfg.Trust.Paths = new(PathCache)
	for range 2 {
		tx := s.begin(t)
		if _, err := tx.Next(seal(t, s.ca.granted(t, tx.Step().Send), s.ca.credential())); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.cfg.Trust.Paths.paths) != 1 {
		t.Errorf("%d paths are known, want that of the signer", len(s.cfg.Trust.Paths.paths))
	}
}
