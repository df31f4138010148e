package cmp

import (
	"crypto"
	"io"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const sectionPOPO = "RFC 4211 §4"

// POPType is the arm of ProofOfPossession (RFC 4211 §4), or POPAbsent.
type POPType uint8

// The kinds of proof of possession.
const (
	POPAbsent          POPType = iota
	POPRAVerified              // [0] somebody trusted has checked
	POPSignature               // [1] signature with the key
	POPKeyEncipherment         // [2] not looked into
	POPKeyAgreement            // [3] not looked into
)

// ProofOfPossession shows that the requester has the private key (RFC 4211 §4).
type ProofOfPossession struct {
	Type      POPType
	Signature POPOSigningKey // for POPSignature
	Other     []byte         // DER of the POPOPrivKey, for POPKeyEncipherment and POPKeyAgreement
}

// POPOSigningKey is a proof by signature (RFC 4211 §4.1). Input is the DER of
// the POPOSigningKeyInput where there is one, with the tag of a SEQUENCE.
type POPOSigningKey struct {
	Input     []byte
	Algorithm AlgorithmIdentifier
	Signature []byte // octets of the BIT STRING
}

func (p *parser) popo(out *ProofOfPossession) {
	p.section = inPOPO
	if e, ok := p.optional(implicit(0), "popo.raVerified"); ok {
		out.Type = POPRAVerified
		p.leave(e, "popo.raVerified")
		return
	}
	if e, ok := p.optional(explicit(1), "popo.signature"); ok {
		out.Type = POPSignature
		p.popoSigningKey(&out.Signature)
		p.leave(e, "popo.signature")
		return
	}
	if out.Other = p.taggedElement(2, "popo.keyEncipherment"); out.Other != nil {
		out.Type = POPKeyEncipherment
		return
	}
	out.Type, out.Other = POPKeyAgreement, p.taggedElement(3, "popo.keyAgreement")
	p.check(out.Other != nil, "popo")
}

func (p *parser) popoSigningKey(k *POPOSigningKey) {
	if p.peek(explicit(0)) {
		var w writer
		w.primitive(tag.SEQUENCE, p.content(explicit(0), "popo.signature.poposkInput"))
		k.Input = w.b
	}
	k.Algorithm = p.algorithm("popo.signature.algorithmIdentifier")
	k.Signature = p.bits(tag.BIT_STRING, "popo.signature.signature")
}

func (w *writer) popo(pop *ProofOfPossession) {
	switch pop.Type {
	case POPAbsent:
	case POPRAVerified:
		w.primitive(implicit(0), nil)
	case POPSignature:
		m := w.open(explicit(1))
		w.popoSigningKey(&pop.Signature)
		w.close(m)
	case POPKeyEncipherment:
		w.taggedElement(2, pop.Other)
	case POPKeyAgreement:
		w.taggedElement(3, pop.Other)
	}
}

func (w *writer) popoSigningKey(k *POPOSigningKey) {
	if k.Input != nil {
		start := len(w.b)
		w.raw(k.Input)
		w.b[start] = byte(explicit(0))
	}
	w.algorithm(k.Algorithm)
	w.bits(tag.BIT_STRING, k.Signature)
}

// Prove adds the proof of possession by signature. The template must have both
// a subject and the public key of key: then the signature is over the
// CertRequest and there is no poposkInput (RFC 4211 §4.1). hash 0 chooses the
// hash that suits the key; anything weaker than SHA-256 is refused.
func (r *CertReqMsg) Prove(rand io.Reader, key crypto.Signer, hash crypto.Hash) error {
	if err := r.CertReq.CertTemplate.settle(); err != nil {
		return err
	}
	scheme, err := signatureScheme(key.Public(), hash, false)
	if err != nil {
		return err
	}
	signature, err := scheme.sign(rand, key, r.CertReq.der())
	if err != nil {
		return err
	}
	r.POPO = ProofOfPossession{Type: POPSignature, Signature: POPOSigningKey{Algorithm: scheme.identifier, Signature: signature}}
	return nil
}

func (r *CertRequest) der() []byte {
	w := writer{b: make([]byte, 0, 1024)}
	w.certRequest(r)
	return w.b
}

// VerifyPOP checks a proof of possession by signature, for a server. It fails
// for any other kind of proof, and for none. A poposkInput must repeat the
// public key of the template, must be there if the template lacks the key or
// the subject, and must not otherwise (RFC 4211 §4.1).
func (r *CertReqMsg) VerifyPOP() error {
	t := &r.CertReq.CertTemplate
	if r.POPO.Type != POPSignature {
		return &ReplyError{Field: "popo", Section: sectionPOPO, Detail: "no proof by signature", Failure: FailBadPOP}
	}
	proof := &r.POPO.Signature
	signed, err := r.signedByPOP(proof)
	if err != nil {
		return err
	}
	key, err := t.Key()
	if err != nil {
		return &ReplyError{Field: "certTemplate.publicKey", Section: sectionPOPO, Failure: FailBadCertTemplate, Err: err}
	}
	if err := verifySignature(key, proof.Algorithm, signed, proof.Signature); err != nil {
		return &ReplyError{Field: "popo.signature", Section: sectionPOPO, Failure: FailBadPOP, Err: err}
	}
	return nil
}

func (r *CertReqMsg) signedByPOP(proof *POPOSigningKey) ([]byte, error) {
	t := &r.CertReq.CertTemplate
	complete := t.Subject != nil && t.PublicKeyInfo != nil
	switch {
	case complete != (proof.Input == nil):
		return nil, &ReplyError{Field: "popo.signature.poposkInput", Section: sectionPOPO, Failure: FailBadPOP}
	case proof.Input == nil:
		return r.CertReq.der(), nil
	}
	info := proof.inputKey()
	if info == nil || t.PublicKeyInfo != nil && string(info) != string(t.PublicKeyInfo) {
		return nil, &ReplyError{Field: "popo.signature.poposkInput.publicKey", Section: sectionPOPO, Failure: FailBadPOP}
	}
	return proof.Input, nil
}

// inputKey is the SubjectPublicKeyInfo of the poposkInput.
func (k *POPOSigningKey) inputKey() []byte {
	p := newParser(k.Input, inPOPO)
	input := p.enter(tag.SEQUENCE, "poposkInput")
	p.element("poposkInput.authInfo")
	info := p.tagged(tag.SEQUENCE, "poposkInput.publicKey")
	p.leave(input, "poposkInput")
	if !p.ok() {
		return nil
	}
	return info
}
