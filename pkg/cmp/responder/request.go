package responder

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// refusal is a reason not to do what a message asks, to be told its sender.
type refusal struct {
	failure cmp.FailureInfo
	text    string
	body    bool // goes into an error message even where the answer has a place for a status
}

func (r *refusal) Error() string { return fmt.Sprintf("%s: %s", r.failure, r.text) }

func refuse(failure cmp.FailureInfo, format string, args ...any) *refusal {
	return &refusal{failure: failure, text: fmt.Sprintf(format, args...)}
}

// malformed is a refusal of a message, rather than of what it asks.
func malformed(failure cmp.FailureInfo, format string, args ...any) *refusal {
	r := refuse(failure, format, args...)
	r.body = true
	return r
}

// refusalOf finds the reason in an error; what is none is our own failure.
func refusalOf(err error) *refusal {
	var r *refusal
	var reply *cmp.ReplyError
	switch {
	case errors.As(err, &r):
		return r
	case errors.As(err, &reply):
		return refuse(reply.Failure, "%s", reply.Error())
	}
	return malformed(cmp.FailSystemFailure, "the CA failed")
}

func (r *refusal) status() cmp.StatusInfo {
	return cmp.StatusInfo{Status: cmp.StatusRejection, Text: texts(r.text), FailInfo: r.failure}
}

// texts is a PKIFreeText, nil if empty.
func texts(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// Extensions a requester determines, and those it may mention without effect.
var (
	grantedExtensions    = []asn1.ObjectIdentifier{cmp.ExtensionKeyUsage, cmp.ExtensionSubjectAltName, cmp.ExtensionPolicies, cmp.ExtensionExtKeyUsage}
	determinedExtensions = []asn1.ObjectIdentifier{cmp.ExtensionBasicConstraints, cmp.ExtensionSubjectKeyID, cmp.ExtensionAuthorityKeyID}
)

const (
	minRSABits     = 2048
	maxRSABits     = 8192
	p10CertReqID   = -1 // of answers to p10cr (RFC 9483 §4.1.4)
	firstCertReqID = 0  // of the only request in ir, cr and kur (RFC 9483 §4.1.1)
)

// wish is what a request asks for, once everything has been checked that needs
// no state. Absent fields are the CA's choice.
type wish struct {
	reqID      int64
	key        crypto.PublicKey
	subject    cmp.Name
	notBefore  time.Time
	notAfter   time.Time
	extensions []pkix.Extension
	old        *cmp.CertID // kur: what to update
	modified   bool        // something was asked for that is not granted
}

// readWish checks a request with its proof of possession.
func readWish(req *cmp.Message) (*wish, error) {
	w, err := requested(req)
	if err != nil {
		return nil, err
	}
	if err := checkKey(w.key); err != nil {
		return nil, err
	}
	if err := w.filterExtensions(); err != nil {
		return nil, err
	}
	return w, nil
}

func requested(req *cmp.Message) (*wish, error) {
	switch body := req.Body.(type) {
	case cmp.P10CR:
		return fromCSR(body)
	case cmp.CertReqMessages:
		if len(body) != 1 || body[0].CertReq.CertReqID != firstCertReqID {
			return nil, malformed(cmp.FailBadRequest, "exactly one request with certReqId 0 is supported (RFC 9483 §4.1.1)")
		}
		return fromTemplate(&body[0], req.Type == cmp.TypeKUR)
	default:
		return nil, malformed(cmp.FailBadRequest, "no certification request in %s", req.Type)
	}
}

func fromTemplate(r *cmp.CertReqMsg, update bool) (*wish, error) {
	t := &r.CertReq.CertTemplate
	if wantsKey(t) {
		return nil, refuse(cmp.FailBadCertTemplate, "there is no publicKey: the CA is to make the key (RFC 9483 §4.1.6), "+
			"but a key that more than its owner has known proves nothing: make one and send its public part")
	}
	key, err := t.Key()
	if err != nil {
		return nil, refuse(cmp.FailBadAlg|cmp.FailBadCertTemplate, "%s", err.Error())
	}
	if err := r.VerifyPOP(); err != nil {
		return nil, err
	}
	w := &wish{
		reqID: r.CertReq.CertReqID, key: key, subject: t.Subject,
		notBefore: t.NotBefore, notAfter: t.NotAfter, extensions: t.Extensions,
	}
	if !update {
		return w, nil
	}
	id, ok := r.CertReq.OldCertID()
	if !ok {
		return nil, refuse(cmp.FailAddInfoNotAvailable, "kur without oldCertID (RFC 9483 §4.1.3)")
	}
	w.old = &id
	return w, nil
}

// wantsKey tells whether a template asks for a key made by the CA: publicKey is
// absent, or without bits (RFC 9483 §4.1.6).
func wantsKey(t *cmp.CertTemplate) bool {
	if t.PublicKeyInfo == nil {
		return t.PublicKey == nil
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	_, err := asn1.Unmarshal(t.PublicKeyInfo, &info)
	return err == nil && info.Key.BitLength == 0
}

func fromCSR(der []byte) (*wish, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if explained := cmp.ExplainKey(der, err); err != nil && !errors.Is(err, explained) {
		return nil, refuse(cmp.FailBadAlg, "%s", explained.Error())
	}
	if err != nil {
		return nil, refuse(cmp.FailBadDataFormat, "unreadable PKCS #10 request: %s", err.Error())
	}
	// a key of unknown type is no reason to speak of a wrong signature
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(cmp.FailBadPOP, "the signature of the PKCS #10 request is wrong")
	}
	return &wish{reqID: p10CertReqID, key: csr.PublicKey, subject: csr.RawSubject, extensions: csr.Extensions}, nil
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return refuse(cmp.FailBadAlg, "an RSA key of %d bits is not between %d and %d", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case nil:
		return refuse(cmp.FailBadAlg, "the type of the public key is not known: use RSA, P-256, P-384, P-521 or Ed25519")
	default:
		return refuse(cmp.FailBadAlg, "keys of type %T are not certified", key)
	}
	return nil
}

// filterExtensions keeps what a requester determines.
func (w *wish) filterExtensions() error {
	kept := make([]pkix.Extension, 0, len(w.extensions))
	seen := map[string]bool{}
	for _, e := range w.extensions {
		if seen[e.Id.String()] {
			return refuse(cmp.FailBadCertTemplate, "extension %s is there twice", e.Id)
		}
		seen[e.Id.String()] = true
		if asksForCA(e) {
			return refuse(cmp.FailBadCertTemplate, "this CA certifies end entities only")
		}
		switch {
		case among(grantedExtensions, e.Id):
			kept = append(kept, e)
		case among(determinedExtensions, e.Id):
		case e.Critical:
			return refuse(cmp.FailUnacceptedExtension, "critical extension %s is not supported", e.Id)
		default:
			w.modified = true
		}
	}
	w.extensions = kept
	return nil
}

func among(list []asn1.ObjectIdentifier, id asn1.ObjectIdentifier) bool {
	for _, known := range list {
		if known.Equal(id) {
			return true
		}
	}
	return false
}

// asksForCA tells whether an extension is for those who sign certificates or CRLs.
func asksForCA(e pkix.Extension) bool {
	switch {
	case e.Id.Equal(cmp.ExtensionBasicConstraints):
		var bc struct {
			IsCA       bool `asn1:"optional"`
			MaxPathLen int  `asn1:"optional,default:-1"`
		}
		rest, err := asn1.Unmarshal(e.Value, &bc)
		return err != nil || len(rest) != 0 || bc.IsCA
	case e.Id.Equal(cmp.ExtensionKeyUsage):
		var usage asn1.BitString
		rest, err := asn1.Unmarshal(e.Value, &usage)
		const keyCertSign, cRLSign = 5, 6
		return err != nil || len(rest) != 0 || usage.At(keyCertSign) == 1 || usage.At(cRLSign) == 1
	}
	return false
}

func (w *wish) has(id asn1.ObjectIdentifier) bool {
	for _, e := range w.extensions {
		if e.Id.Equal(id) {
			return true
		}
	}
	return false
}

// template is the certificate to sign: what was asked for within what is granted.
func (w *wish) template(cfg *Config, a *authority, now time.Time) (*x509.Certificate, error) {
	if w.subject == nil {
		w.subject = cmp.NullDN()
	}
	if w.subject.Empty() && !w.has(cmp.ExtensionSubjectAltName) {
		return nil, refuse(cmp.FailBadCertTemplate, "neither a subject nor a subjectAltName is asked for")
	}
	notBefore, notAfter, err := w.lifetime(cfg, a, now)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial(cfg.Rand)
	if err != nil {
		return nil, err
	}
	keyID, err := subjectKeyID(w.key)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, RawSubject: w.subject, SubjectKeyId: keyID,
		NotBefore: notBefore, NotAfter: notAfter,
		BasicConstraintsValid: true,
		CRLDistributionPoints: cfg.CRLDistributionPoints,
		ExtraExtensions:       w.criticalSAN(),
	}, nil
}

// subjectKeyID is method 1 of RFC 7093 §2: the leftmost 160 bits of the SHA-256
// of the subjectPublicKey.
func subjectKeyID(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(info.Key.RightAlign())
	return sum[:20], nil
}

// criticalSAN are the extensions, with subjectAltName critical where it is the
// only name (RFC 5280 §4.1.2.6).
func (w *wish) criticalSAN() []pkix.Extension {
	if !w.subject.Empty() {
		return w.extensions
	}
	out := append([]pkix.Extension(nil), w.extensions...)
	for i := range out {
		out[i].Critical = out[i].Critical || out[i].Id.Equal(cmp.ExtensionSubjectAltName)
	}
	return out
}

// lifetime is the validity asked for, cut at the longest granted and at the
// issuer's own end.
func (w *wish) lifetime(cfg *Config, a *authority, now time.Time) (from, to time.Time, err error) {
	from, to = now.UTC().Truncate(time.Second), now.Add(cfg.Validity).UTC().Truncate(time.Second)
	if !w.notBefore.IsZero() {
		from = w.notBefore
	}
	if a.issuing.NotAfter.Before(to) {
		to = a.issuing.NotAfter
	}
	switch {
	case w.notAfter.IsZero():
	case w.notAfter.After(to):
		w.modified = true
	default:
		to = w.notAfter
	}
	if !from.Before(to) || !now.Before(to) {
		return from, to, refuse(cmp.FailBadCertTemplate, "the validity asked for is empty or over")
	}
	return from, to, nil
}
