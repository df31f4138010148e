package cmp

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	sectionGeneral       = "RFC 9810 §5.3.19"
	sectionCACerts       = "RFC 9810 §5.3.19.14"
	sectionRootUpdate    = "RFC 9810 §5.3.19.15"
	sectionCertReqTempl  = "RFC 9810 §5.3.19.16"
	sectionCRLs          = "RFC 9810 §5.3.19.17"
	detailNotTheCertAuth = "not signed by the key it must be signed by"
	detailNotTheName     = "not with the subject of the old root"
	detailNotValid       = "not valid now"
)

// GenMsg is the body of genm and genp (RFC 9810 §5.3.19, §5.3.20).
type GenMsg []InfoTypeAndValue

func (GenMsg) fits(t BodyType) bool { return t == TypeGenM || t == TypeGenP }

func (b GenMsg) append(w *writer) { w.infos(b) }

// Info finds the first element of a type; ok is false where there is none.
func (b GenMsg) Info(infoType asn1.ObjectIdentifier) (value []byte, ok bool) {
	return (&Header{GeneralInfo: b}).Info(infoType)
}

// answerTo is the type of info that answers another; the others answer themselves.
func answerTo(asked asn1.ObjectIdentifier) asn1.ObjectIdentifier {
	switch {
	case asked.Equal(InfoRootCACert):
		return InfoRootCAKeyUpdate
	case asked.Equal(InfoCRLStatusList):
		return InfoCRLs
	}
	return asked
}

// handleGenP takes the answer to our one info: of the type that answers it, or
// nothing at all, if the CA has nothing (RFC 9483 §4.3).
func (t *Transaction) handleGenP(m *Message, body GenMsg) error {
	asked, ok := t.first.Body.(GenMsg)
	if !ok || len(asked) != 1 || len(body) > 1 {
		return &ReplyError{Field: "genp", Section: sectionGeneral, Detail: fmt.Sprintf("%d entries", len(body)), Failure: FailBadDataFormat}
	}
	if len(body) == 1 && !body[0].Type.Equal(answerTo(asked[0].Type)) && !body[0].Type.Equal(asked[0].Type) {
		return &ReplyError{Field: "genp.infoType", Section: sectionGeneral, Detail: body[0].Type.String(), Failure: FailBadRequest}
	}
	return t.answered(m)
}

// Ask sends a genm with one info and returns what the CA says to it; see
// [GenMsg.CACerts] and its siblings for what can be in it.
func (c *Client) Ask(ctx context.Context, cfg Config, info InfoTypeAndValue) (GenMsg, error) {
	reply, err := c.ask(ctx, cfg, Request{Type: TypeGenM, Info: info})
	if err != nil {
		return nil, err
	}
	return reply.(GenMsg), nil
}

// value returns the value of an info. nil: the CA has none.
func (b GenMsg) value(infoType asn1.ObjectIdentifier, in section) (parser, bool) {
	value, ok := b.Info(infoType)
	return newParser(value, in), ok && value != nil
}

// CACerts are the certificates in an answer to [InfoCACerts]. None is an
// answer too. They are as trustworthy as who sent them, and no anchors by themselves.
// One that cannot be decoded is an error, since a list without it is not what the CA says.
func (b GenMsg) CACerts() ([]*x509.Certificate, error) {
	p, ok := b.value(InfoCACerts, inCACerts)
	if !ok {
		return nil, nil
	}
	ders := p.certificates("caCerts")
	p.done("caCerts")
	if err := p.err(); err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := parseCertificate(der)
		if err != nil {
			return nil, &ReplyError{Field: fmt.Sprintf("caCerts[%d]", i), Section: sectionCACerts, Err: err}
		}
		certs[i] = c
	}
	return certs, nil
}

// CRLStatusList asks for the revocation list of an issuer, if there is one after
// thisUpdate, that of the list at hand; zero: there is none. All tags of CRLStatus
// are explicit (RFC 9810 §5.3.19.17).
func CRLStatusList(issuer Name, thisUpdate time.Time) InfoTypeAndValue {
	var w writer
	list := w.open(tag.SEQUENCE)
	status := w.open(tag.SEQUENCE)
	source := w.open(explicit(1))
	names := w.open(tag.SEQUENCE)
	w.raw(DirectoryName(issuer))
	w.close(names)
	w.close(source)
	if !thisUpdate.IsZero() {
		w.time(thisUpdate)
	}
	w.close(status)
	w.close(list)
	return InfoTypeAndValue{Type: InfoCRLStatusList, Value: w.b}
}

// CRLs are the revocation lists in an answer to [InfoCRLStatusList] or
// [InfoCurrentCRL]. Their signatures have not been verified.
func (b GenMsg) CRLs() ([]*x509.RevocationList, error) {
	p, ok := b.value(InfoCRLs, inCRLs)
	var ders [][]byte
	if ok {
		ders = p.certificates("crls")
	} else if p, ok = b.value(InfoCurrentCRL, inGeneral); ok {
		ders = [][]byte{p.tagged(tag.SEQUENCE, "currentCRL")}
	} else {
		return nil, nil
	}
	p.done("crls")
	if err := p.err(); err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for _, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, &ReplyError{Field: "crls", Section: sectionCRLs, Err: err}
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// RootCAKeyUpdate is a new root that its predecessor vouches for.
type RootCAKeyUpdate struct {
	NewWithNew *x509.Certificate
	NewWithOld *x509.Certificate
	OldWithNew *x509.Certificate // nil if absent
}

// RootCAKeyUpdate is the answer to [InfoRootCACert] about the root old; nil:
// there is no newer one. It holds only if the old key has signed newWithOld,
// the new one newWithNew and oldWithNew, the two certificates of the new key
// have the same key, and all have the subject of old and are valid now: otherwise
// anybody could slip in a root of his own.
func (b GenMsg) RootCAKeyUpdate(old *x509.Certificate, now time.Time) (*RootCAKeyUpdate, error) {
	p, ok := b.value(InfoRootCAKeyUpdate, inRootUpdate)
	if !ok {
		return nil, nil
	}
	update := p.enter(tag.SEQUENCE, "rootCaKeyUpdate")
	newWithNew := p.tagged(tag.SEQUENCE, "rootCaKeyUpdate.newWithNew")
	newWithOld := p.taggedElement(0, "rootCaKeyUpdate.newWithOld")
	oldWithNew := p.taggedElement(1, "rootCaKeyUpdate.oldWithNew")
	p.leave(update, "rootCaKeyUpdate")
	p.done("rootCaKeyUpdate")
	if err := p.err(); err != nil {
		return nil, err
	}
	var u RootCAKeyUpdate
	err := errors.Join(
		parseInto(&u.NewWithNew, newWithNew, "newWithNew"), parseInto(&u.NewWithOld, newWithOld, "newWithOld"),
		parseInto(&u.OldWithNew, oldWithNew, "oldWithNew"),
	)
	if err != nil {
		return nil, err
	}
	return &u, u.verify(old, now)
}

// parseInto decodes a certificate that may be absent.
func parseInto(c **x509.Certificate, der []byte, field string) (err error) {
	if der == nil {
		return nil
	}
	if *c, err = parseCertificate(der); err == nil && oversized((*c).PublicKey) {
		err = errors.New("oversized key")
	}
	if err != nil {
		return &ReplyError{Field: "rootCaKeyUpdate." + field, Section: sectionRootUpdate, Err: err}
	}
	return nil
}

func (u *RootCAKeyUpdate) verify(old *x509.Certificate, now time.Time) error {
	refuse := func(field, detail string) error {
		return &ReplyError{Field: "rootCaKeyUpdate." + field, Section: sectionRootUpdate, Detail: detail, Failure: FailIncorrectData}
	}
	valid := func(c *x509.Certificate) bool { return !now.Before(c.NotBefore) && !now.After(c.NotAfter) }
	named := func(c *x509.Certificate) bool { return Name(c.RawSubject).Equal(old.RawSubject) }
	switch {
	case u.NewWithOld == nil:
		return refuse("newWithOld", "absent, so that nothing links the new root to the old")
	case !named(u.NewWithNew) || !selfIssued(u.NewWithNew):
		return refuse("newWithNew", "not a root with the subject of the old one")
	case u.NewWithNew.CheckSignatureFrom(u.NewWithNew) != nil:
		return refuse("newWithNew", detailNotTheCertAuth)
	case !valid(u.NewWithNew):
		return refuse("newWithNew", detailNotValid)
	case !named(u.NewWithOld):
		return refuse("newWithOld", detailNotTheName)
	case u.NewWithOld.CheckSignatureFrom(old) != nil:
		return refuse("newWithOld", detailNotTheCertAuth)
	case !sameKey(u.NewWithOld, u.NewWithNew):
		return refuse("newWithOld", "of another key than newWithNew")
	case !valid(u.NewWithOld):
		return refuse("newWithOld", detailNotValid)
	case u.OldWithNew == nil:
		return nil
	case !named(u.OldWithNew):
		return refuse("oldWithNew", detailNotTheName)
	case !sameKey(u.OldWithNew, old) || u.OldWithNew.CheckSignatureFrom(u.NewWithNew) != nil:
		return refuse("oldWithNew", detailNotTheCertAuth)
	case !valid(u.OldWithNew):
		return refuse("oldWithNew", detailNotValid)
	}
	return nil
}

// RequestTemplate is what a CA wants requests to look like.
type RequestTemplate struct {
	Template   CertTemplate
	Algorithms []AlgorithmIdentifier // of keys; empty: any
	RSABits    []int64               // lengths of RSA keys, in bits; empty: any
}

// RequestTemplate is the answer to [InfoCertReqTemplate]; nil: the CA has no
// wishes. The template has no public key, by definition.
func (b GenMsg) RequestTemplate() (*RequestTemplate, error) {
	p, ok := b.value(InfoCertReqTemplate, inCertReqTemplate)
	if !ok {
		return nil, nil
	}
	content := p.enter(tag.SEQUENCE, "certReqTemplate")
	out := new(RequestTemplate)
	p.certTemplate(&out.Template, "certReqTemplate.certTemplate")
	p.check(out.Template.PublicKeyInfo == nil, "certReqTemplate.certTemplate.publicKey")
	if p.more() {
		p.keySpec(out)
	}
	p.leave(content, "certReqTemplate")
	p.done("certReqTemplate")
	if err := p.err(); err != nil {
		return nil, err
	}
	return out, nil
}

func (p *parser) keySpec(out *RequestTemplate) {
	const field = "certReqTemplate.keySpec"
	for _, control := range p.attributes(field) {
		q := newParser(control.Value, p.section)
		switch {
		case control.Type.Equal(oidAlgID):
			out.Algorithms = append(out.Algorithms, q.algorithm(field))
		case control.Type.Equal(oidRSAKeyLen):
			out.RSABits = append(out.RSABits, q.integer(field))
		default:
			q.fail(field)
		}
		q.done(field)
		p.check(q.ok(), field)
	}
}
