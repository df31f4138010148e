package cmp

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const sectionTemplate = "RFC 4211 §5"

// CertTemplate is what is asked of a certificate (RFC 4211 §5). A nil or zero
// field is absent; to ask for an empty subject, say [NullDN].
//
// To ask for a key set PublicKey. A template that was parsed has PublicKeyInfo
// instead, which is undecoded: [CertTemplate.Key] decodes it. Where both are
// set PublicKeyInfo counts.
type CertTemplate struct {
	Version       *int64
	SerialNumber  *big.Int // for revocation requests only
	SigningAlg    *AlgorithmIdentifier
	Issuer        Name
	NotBefore     time.Time // OptionalValidity, to the second
	NotAfter      time.Time
	Subject       Name
	PublicKey     crypto.PublicKey
	PublicKeyInfo []byte // DER of a SubjectPublicKeyInfo
	IssuerUID     []byte // content of the BIT STRING
	SubjectUID    []byte
	Extensions    []pkix.Extension

	emptyValidity bool // an OptionalValidity with neither time was there
}

// Key decodes the public key of t. It fails if t has none, or one of a kind
// that crypto/x509 does not know.
func (t *CertTemplate) Key() (crypto.PublicKey, error) {
	switch {
	case t.PublicKeyInfo != nil:
		key, err := x509.ParsePKIXPublicKey(t.PublicKeyInfo)
		if err != nil {
			return nil, fmt.Errorf("publicKey of a CertTemplate: %w", ExplainKey(t.PublicKeyInfo, err))
		}
		return key, nil
	case t.PublicKey != nil:
		return t.PublicKey, nil
	}
	return nil, errors.New("publicKey of a CertTemplate: absent")
}

// Extension finds the extension of a type.
func (t *CertTemplate) Extension(id []int) (pkix.Extension, bool) {
	for _, e := range t.Extensions {
		if e.Id.Equal(id) {
			return e, true
		}
	}
	return pkix.Extension{}, false
}

// settle encodes PublicKey, so that encoding t cannot fail any more.
func (t *CertTemplate) settle() error {
	if t.PublicKeyInfo != nil || t.PublicKey == nil {
		return nil
	}
	if _, _, err := kindOf(t.PublicKey); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(t.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding the publicKey of a CertTemplate: %w", err)
	}
	t.PublicKeyInfo = der
	return nil
}

func (p *parser) certTemplate(t *CertTemplate, field string) {
	template := p.enterAt(inTemplate, field)
	p.path = field
	p.templateSerial(t)
	if e, ok := p.optional(explicit(3), ".issuer"); ok {
		t.Issuer = p.name(".issuer")
		p.leave(e, ".issuer")
	}
	if e, ok := p.optional(explicit(4), ".validity"); ok {
		p.validity(t)
		p.leave(e, ".validity")
	}
	if e, ok := p.optional(explicit(5), ".subject"); ok {
		t.Subject = p.name(".subject")
		p.leave(e, ".subject")
	}
	if e, ok := p.optional(explicit(6), ".publicKey"); ok {
		t.PublicKeyInfo = p.publicKeyInfo(".publicKey")
		p.leave(e, ".publicKey")
	}
	if p.peek(implicit(7)) {
		t.IssuerUID = p.bits(implicit(7), ".issuerUID")
	}
	if p.peek(implicit(8)) {
		t.SubjectUID = p.bits(implicit(8), ".subjectUID")
	}
	if e, ok := p.optional(explicit(9), ".extensions"); ok {
		t.Extensions = p.extensionFields(".extensions")
		p.leave(e, ".extensions")
	}
	p.leave(template, field)
}

func (p *parser) templateSerial(t *CertTemplate) {
	if p.peek(implicit(0)) {
		version := p.bigInteger(implicit(0), ".version")
		p.check(version != nil && version.IsInt64(), ".version")
		if p.ok() {
			v := version.Int64()
			t.Version = &v
		}
	}
	if p.peek(implicit(1)) {
		t.SerialNumber = p.bigInteger(implicit(1), ".serialNumber")
	}
	if e, ok := p.optional(explicit(2), ".signingAlg"); ok {
		a := p.algorithmFields(".signingAlg")
		t.SigningAlg = &a
		p.leave(e, ".signingAlg")
	}
}

func (p *parser) validity(t *CertTemplate) {
	t.emptyValidity = !p.more()
	if e, ok := p.optional(explicit(0), ".notBefore"); ok {
		t.NotBefore = p.time(".notBefore")
		p.leave(e, ".notBefore")
	}
	if e, ok := p.optional(explicit(1), ".notAfter"); ok {
		t.NotAfter = p.time(".notAfter")
		p.leave(e, ".notAfter")
	}
}

// publicKeyInfo checks the structure of the fields of a SubjectPublicKeyInfo
// and gives them back under the tag of a SEQUENCE.
func (p *parser) publicKeyInfo(field string) []byte {
	content := p.left()
	p.algorithm(field)
	p.content(tag.BIT_STRING, field)
	w := writer{b: take(&p.room.octets)}
	w.primitive(tag.SEQUENCE, content)
	return w.b
}

// extensionFields reads the content of Extensions (RFC 5280 §4.2).
func (p *parser) extensionFields(field string) []pkix.Extension {
	p.check(p.more(), field)
	out := take(&p.room.extensions)
	for p.more() {
		entry := p.enter(tag.SEQUENCE, field)
		out = longer(out)
		e := &out[len(out)-1]
		e.Id = p.oid(field)
		if p.peek(tag.BOOLEAN) {
			e.Critical = p.boolean(field)
			p.check(e.Critical, field) // DER leaves the default out
		}
		e.Value = p.octets(field, MaxMessageBytes)
		p.leave(entry, field)
		p.check(len(out) <= MaxEntries, field)
	}
	return out
}

func (w *writer) extensionFields(list []pkix.Extension) {
	for i := range list {
		e := w.open(tag.SEQUENCE)
		w.oid(list[i].Id)
		if list[i].Critical {
			w.boolean(true)
		}
		w.octets(list[i].Value)
		w.close(e)
	}
}

func (w *writer) certTemplate(t *CertTemplate) {
	m := w.open(tag.SEQUENCE)
	if t.Version != nil {
		w.integerAs(implicit(0), *t.Version)
	}
	if t.SerialNumber != nil {
		w.bigInteger(implicit(1), t.SerialNumber)
	}
	if t.SigningAlg != nil {
		e := w.open(explicit(2))
		w.algorithmFields(*t.SigningAlg)
		w.close(e)
	}
	w.taggedElement(3, t.Issuer) // a CHOICE keeps its own tag (X.680 §31.2.7)
	w.validity(t)
	w.taggedElement(5, t.Subject)
	w.publicKey(t)
	if t.IssuerUID != nil {
		w.bits(implicit(7), t.IssuerUID)
	}
	if t.SubjectUID != nil {
		w.bits(implicit(8), t.SubjectUID)
	}
	if t.Extensions != nil {
		e := w.open(explicit(9))
		w.extensionFields(t.Extensions)
		w.close(e)
	}
	w.close(m)
}

func (w *writer) validity(t *CertTemplate) {
	if t.NotBefore.IsZero() && t.NotAfter.IsZero() && !t.emptyValidity {
		return
	}
	m := w.open(explicit(4))
	if !t.NotBefore.IsZero() {
		e := w.open(explicit(0))
		w.time(t.NotBefore)
		w.close(e)
	}
	if !t.NotAfter.IsZero() {
		e := w.open(explicit(1))
		w.time(t.NotAfter)
		w.close(e)
	}
	w.close(m)
}

// publicKey writes PublicKeyInfo with the implicit tag [6] in place of its own.
func (w *writer) publicKey(t *CertTemplate) {
	if t.PublicKeyInfo == nil {
		return
	}
	start := len(w.b)
	w.raw(t.PublicKeyInfo)
	w.b[start] = byte(explicit(6))
}
