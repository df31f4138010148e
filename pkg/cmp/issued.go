package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Issued is the certificate a transaction brought, and what came with it.
type Issued struct {
	Certificate *x509.Certificate
	// Chain leads from the certificate's issuer upward; a trust anchor at its
	// end is left out. Without roots to check against it is what could be found.
	Chain       []*x509.Certificate
	CAPubs      []*x509.Certificate // from a response protected by MAC: candidates for trust (RFC 9810 §5.3.2)
	Anchors     []*x509.Certificate // learnt from the ip, where Trust.AnchorInIP allows it
	Status      Status              // accepted, grantedWithMods or one of the warnings
	Text        []string            // what the CA says about it, made printable
	Differences []Difference        // between what was asked for and what was granted
	ConfirmBy   time.Time           // the CA's confirmWaitTime; zero: none given
}

// Difference is one thing in a certificate that is not as asked for.
type Difference struct {
	Field     string // subject, issuer, notBefore, notAfter, or the name or OID of an extension
	Requested string
	Granted   string
}

// String is "field: requested x, granted y".
func (d Difference) String() string {
	return fmt.Sprintf("%s: requested %q, granted %q", d.Field, d.Requested, d.Granted)
}

const sectionIssued = "RFC 9483 §4.1.1"

// notBeforeSkew is how far in the future a new certificate may begin.
const notBeforeSkew = 5 * time.Minute

// acceptable makes the checks no policy can turn off.
func (a *asked) acceptable(c *x509.Certificate, now time.Time) *ReplyError {
	refuse := func(field, detail string) *ReplyError {
		return &ReplyError{Field: field, Section: sectionIssued, Detail: detail, Failure: FailIncorrectData}
	}
	switch {
	case !a.sameKey(c):
		return refuse("certificate.subjectPublicKeyInfo", "not the key asked for")
	case now.After(c.NotAfter):
		return refuse("certificate.validity.notAfter", "expired")
	case c.NotBefore.After(now.Add(notBeforeSkew)) && !c.NotBefore.Equal(a.template.NotBefore):
		return refuse("certificate.validity.notBefore", "in the future")
	case c.IsCA && !a.wantsCA:
		return refuse("certificate.basicConstraints", "a CA certificate, which was not asked for")
	}
	return nil
}

func (a *asked) sameKey(c *x509.Certificate) bool {
	if bytes.Equal(a.template.PublicKeyInfo, c.RawSubjectPublicKeyInfo) {
		return true
	}
	key, err := a.template.Key()
	return err == nil && c.PublicKey != nil && equalKeys(key, c.PublicKey)
}

// differences lists what is not as asked for.
func (a *asked) differences(c *x509.Certificate) []Difference {
	t := &a.template
	var out []Difference
	add := func(same bool, field, requested, granted string) {
		if !same {
			out = append(out, Difference{Field: field, Requested: requested, Granted: granted})
		}
	}
	subject, issuer := Name(c.RawSubject), Name(c.RawIssuer)
	add(t.Subject.Empty() || t.Subject.Equal(subject), "subject", t.Subject.String(), subject.String())
	add(t.Issuer.Empty() || t.Issuer.Equal(issuer), "issuer", t.Issuer.String(), issuer.String())
	add(sameTime(t.NotBefore, c.NotBefore), "notBefore", timeText(t.NotBefore), timeText(c.NotBefore))
	add(sameTime(t.NotAfter, c.NotAfter), "notAfter", timeText(t.NotAfter), timeText(c.NotAfter))
	for _, want := range t.Extensions {
		got, _ := findExtension(c.Extensions, want.Id)
		add(sameExtension(want, got), extensionName(want.Id), extensionText(want), extensionText(got))
	}
	if got, ok := findExtension(c.Extensions, ExtensionSubjectAltName); ok {
		_, wanted := findExtension(t.Extensions, ExtensionSubjectAltName)
		add(wanted, extensionName(ExtensionSubjectAltName), "", extensionText(got))
	}
	return out
}

// sameTime compares to the second; nothing was asked for if requested is zero.
func sameTime(requested, granted time.Time) bool {
	return requested.IsZero() || requested.Truncate(time.Second).Equal(granted)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func findExtension(list []pkix.Extension, id asn1.ObjectIdentifier) (pkix.Extension, bool) {
	for _, e := range list {
		if e.Id.Equal(id) {
			return e, true
		}
	}
	return pkix.Extension{}, false
}

// sameExtension compares values, those that are sets regardless of order.
func sameExtension(want, got pkix.Extension) bool {
	if bytes.Equal(want.Value, got.Value) {
		return true
	}
	if !want.Id.Equal(ExtensionSubjectAltName) && !want.Id.Equal(ExtensionExtKeyUsage) {
		return false
	}
	a, b := elements(want.Value), elements(got.Value)
	slices.Sort(a)
	slices.Sort(b)
	return a != nil && slices.Equal(a, b)
}

// elements are the elements of a SEQUENCE, in DER; nil if it is none, or has more than maxElements.
func elements(der []byte) []string {
	in := cryptobyte.String(der)
	var list cryptobyte.String
	if !in.ReadASN1(&list, tag.SEQUENCE) || !in.Empty() {
		return nil
	}
	out := []string{}
	for !list.Empty() {
		var e cryptobyte.String
		var t tag.Tag
		if len(out) == maxElements || !list.ReadAnyASN1Element(&e, &t) {
			return nil
		}
		out = append(out, string(e))
	}
	return out
}

func extensionName(id asn1.ObjectIdentifier) string {
	switch {
	case id.Equal(ExtensionSubjectAltName):
		return "subjectAltName"
	case id.Equal(ExtensionKeyUsage):
		return "keyUsage"
	case id.Equal(ExtensionExtKeyUsage):
		return "extendedKeyUsage"
	case id.Equal(ExtensionBasicConstraints):
		return "basicConstraints"
	}
	return id.String()
}

// extensionText shows an extension: names as people write them, the rest in hexadecimal.
func extensionText(e pkix.Extension) string {
	ders := elements(e.Value)
	if !e.Id.Equal(ExtensionSubjectAltName) || ders == nil {
		return hex.EncodeToString(e.Value[:min(len(e.Value), MaxTextBytes)])
	}
	names := make([]string, len(ders))
	for i, der := range ders {
		names[i] = altNameText(der)
	}
	return truncate(strings.Join(names, ","), MaxTextBytes)
}

func altNameText(der string) string {
	in := cryptobyte.String(der)
	var content cryptobyte.String
	var t tag.Tag
	in.ReadAnyASN1(&content, &t)
	text := strings.Join(printable([]string{string(content)}), "")
	switch t {
	case implicit(1):
		return "email:" + text
	case implicit(2):
		return "DNS:" + text
	case implicit(6):
		return "URI:" + text
	case implicit(7):
		return "IP:" + net.IP(content).String()
	}
	return hex.EncodeToString([]byte(der))
}

// verifyIssued checks that a new certificate leads to an anchor and gives what lies between.
func (f *pathfinder) verifyIssued(c *x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if now.Before(c.NotBefore) { // within notBeforeSkew, or as requested
		now = c.NotBefore
	}
	leaf := *c
	leaf.UnhandledCriticalExtensions = nil // they are for those who use it
	path, err := f.verify(&leaf, now)
	if err != nil {
		return nil, err
	}
	if len(path) < 2 {
		return nil, nil
	}
	return path[1 : len(path)-1], nil
}

// gatherChain finds issuer after issuer among what is at hand, as far as it gets.
func gatherChain(c *x509.Certificate, others ...[]*x509.Certificate) []*x509.Certificate {
	all := slices.Concat(others...)
	var chain []*x509.Certificate
	for len(chain) < MaxChain && !selfIssued(c) {
		issuer := findIssuer(c, all)
		if issuer == nil || slices.ContainsFunc(chain, issuer.Equal) {
			break
		}
		chain = append(chain, issuer)
		c = issuer
	}
	return chain
}

func findIssuer(c *x509.Certificate, all []*x509.Certificate) *x509.Certificate {
	tried := 0
	for _, issuer := range all {
		if !Name(issuer.RawSubject).Equal(c.RawIssuer) || !fitsKID(issuer, c.AuthorityKeyId) {
			continue
		}
		if issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			return issuer
		}
		if tried++; tried >= maxCandidates {
			break
		}
	}
	return nil
}

// CertHash is the certHash of a certConf, and the hashAlg it must come with,
// nil for none: the hash of the certificate's signature algorithm; for Ed25519
// SHA-512 (RFC 9481 §3.3); where that says none, SHA-256 by name (RFC 9810 §5.3.18).
func CertHash(c *x509.Certificate) ([]byte, *AlgorithmIdentifier) {
	var named *AlgorithmIdentifier
	hash, ok := signatureHashes[c.SignatureAlgorithm]
	if !ok {
		hash, ok = pssHash(c)
	}
	if !ok {
		hash, named = crypto.SHA256, &AlgorithmIdentifier{Algorithm: oidSHA256}
	}
	h := hash.New()
	h.Write(c.Raw)
	return h.Sum(nil), named
}

var signatureHashes = map[x509.SignatureAlgorithm]crypto.Hash{
	x509.SHA1WithRSA: crypto.SHA1, x509.ECDSAWithSHA1: crypto.SHA1,
	x509.SHA256WithRSA: crypto.SHA256, x509.SHA256WithRSAPSS: crypto.SHA256, x509.ECDSAWithSHA256: crypto.SHA256,
	x509.SHA384WithRSA: crypto.SHA384, x509.SHA384WithRSAPSS: crypto.SHA384, x509.ECDSAWithSHA384: crypto.SHA384,
	x509.SHA512WithRSA: crypto.SHA512, x509.SHA512WithRSAPSS: crypto.SHA512, x509.ECDSAWithSHA512: crypto.SHA512,
	x509.PureEd25519: crypto.SHA512,
}

// pssHash is the hash of RSASSA-PSS with parameters crypto/x509 does not name.
func pssHash(c *x509.Certificate) (crypto.Hash, bool) {
	p := newParser(c.Raw, inAlgorithm)
	p.enter(tag.SEQUENCE, "Certificate")
	p.tagged(tag.SEQUENCE, "tbsCertificate")
	a := p.algorithm("signatureAlgorithm")
	if !p.ok() || !a.Algorithm.Equal(oidRSASSAPSS) {
		return 0, false
	}
	hash, _, _, err := pssFields(a.Parameters)
	return hash, err == nil
}
