package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// Request is what one transaction asks for. It prints without the key.
type Request struct {
	Type     BodyType     // TypeIR, TypeCR, TypeKUR, TypeP10CR, TypeRR or TypeGenM
	Template CertTemplate // for TypeIR, TypeCR and TypeKUR
	Key      crypto.Signer
	Hash     crypto.Hash // of the proof of possession; 0 chooses what suits the key
	OldCert  *x509.Certificate
	CSR      []byte // DER of the PKCS #10 request, for TypeP10CR

	Revocation *Revocation      // for TypeRR
	Info       InfoTypeAndValue // for TypeGenM

	RAVerified  bool                    // claim raVerified in place of a proof; Key is then not needed (RFC 4211 §4)
	Profile     string                  // certProfile (RFC 9810 §5.1.1.4); empty: none
	Controls    []AttributeTypeAndValue // on top of oldCertID
	GeneralInfo []InfoTypeAndValue      // on top of implicitConfirm and certProfile
}

// String does not show the key.
func (r Request) String() string {
	return fmt.Sprintf("Request{Type: %s, Subject: %q, Key: %s}", r.Type, r.Template.Subject, redacted)
}

// Format does not show the key, whatever the verb.
func (r Request) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue implements [slog.LogValuer] without the key.
func (r Request) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalJSON does not show the key: a Request is not for storing.
func (r Request) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// body builds the body of the first message.
func (r *Request) body(cfg *Config) (Body, error) {
	switch r.Type {
	case TypeIR, TypeCR, TypeKUR:
		return r.certReqMessages(cfg)
	case TypeP10CR:
		return r.p10cr()
	case TypeRR:
		if r.Revocation == nil {
			return nil, errors.New("nothing to revoke")
		}
		return r.Revocation.body()
	case TypeGenM:
		if len(r.Info.Type) == 0 {
			return nil, errors.New("nothing to ask for")
		}
		return GenMsg{r.Info}, nil
	default:
		return nil, fmt.Errorf("%s is not a request this package makes", r.Type)
	}
}

// certReqMessages builds the one CertReqMsg, with certReqId 0 (RFC 9483 §4.1.1).
func (r *Request) certReqMessages(cfg *Config) (Body, error) {
	template, err := r.template(cfg)
	if err != nil {
		return nil, err
	}
	msg := CertReqMsg{CertReq: CertRequest{CertTemplate: template, Controls: slices.Clone(r.Controls)}}
	if r.Type == TypeKUR {
		// oldCertID says which certificate is updated (RFC 9483 §4.1.3)
		old := CertID{Issuer: DirectoryName(r.OldCert.RawIssuer), SerialNumber: r.OldCert.SerialNumber}
		msg.CertReq.Controls = append(msg.CertReq.Controls, OldCertIDControl(old))
	}
	if r.RAVerified {
		msg.POPO.Type = POPRAVerified
		return CertReqMessages{msg}, msg.CertReq.CertTemplate.settle()
	}
	if err := msg.Prove(cfg.Rand, r.Key, r.Hash); err != nil {
		return nil, fmt.Errorf("proof of possession: %w", err)
	}
	return CertReqMessages{msg}, nil
}

// template completes the template as the RFCs want it.
func (r *Request) template(cfg *Config) (CertTemplate, error) {
	t := r.Template
	if err := r.checkKey(&t); err != nil {
		return t, err
	}
	if r.Type == TypeKUR {
		if err := r.checkOldCert(cfg); err != nil {
			return t, err
		}
		if t.Subject == nil {
			t.Subject = r.OldCert.RawSubject
		}
	}
	// version, serialNumber, signingAlg and unique identifiers are the CA's to
	// choose (RFC 4211 §5)
	t.Version, t.SerialNumber, t.SigningAlg, t.IssuerUID, t.SubjectUID = nil, nil, nil, nil, nil
	return t, t.checkSubject()
}

func (r *Request) checkKey(t *CertTemplate) error {
	if r.Key == nil && !r.RAVerified {
		return errors.New("the key to prove possession of is missing")
	}
	if t.PublicKey == nil && t.PublicKeyInfo == nil && r.Key != nil {
		t.PublicKey = r.Key.Public()
	}
	key, err := t.Key()
	if err != nil {
		return err
	}
	if r.Key != nil && !equalKeys(key, r.Key.Public()) {
		return errors.New("the key to prove possession of is not that of the template")
	}
	return t.settle()
}

func equalKeys(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

func (r *Request) checkOldCert(cfg *Config) error {
	if r.OldCert == nil {
		return errors.New("a kur needs the certificate to update")
	}
	if cfg.Now().After(r.OldCert.NotAfter) {
		return errors.New("a kur cannot update a certificate that has expired (RFC 9483 §4.1.3)")
	}
	return nil
}

// checkSubject makes an absent subject the NULL-DN: there must then be a
// subjectAltName, and it must be critical (RFC 5280 §4.2.1.6).
func (t *CertTemplate) checkSubject() error {
	if !t.Subject.Empty() {
		return nil
	}
	t.Subject = NullDN()
	t.Extensions = slices.Clone(t.Extensions)
	for i := range t.Extensions {
		if t.Extensions[i].Id.Equal(ExtensionSubjectAltName) {
			t.Extensions[i].Critical = true
			return nil
		}
	}
	return errors.New("neither a subject nor a subjectAltName is asked for")
}

// p10cr takes the CSR as it is, once its own signature has been verified.
func (r *Request) p10cr() (Body, error) {
	csr, err := parseCSR(r.CSR)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("PKCS #10 request: %w", err)
	}
	return P10CR(r.CSR), nil
}

// generalInfo is that of the first message.
func (r *Request) generalInfo(cfg *Config) []InfoTypeAndValue {
	var infos []InfoTypeAndValue
	if cfg.ImplicitConfirm && r.Type != TypeRR && r.Type != TypeGenM {
		infos = append(infos, InfoTypeAndValue{Type: InfoImplicitConfirm, Value: derNULL})
	}
	if r.Profile != "" {
		var w writer
		w.utf8Strings([]string{r.Profile})
		infos = append(infos, InfoTypeAndValue{Type: InfoCertProfile, Value: w.b})
	}
	return append(infos, r.GeneralInfo...)
}

// recipient is the first of the names known for the CA (RFC 9483 §3.1).
func (r *Request) recipient(cfg *Config) Name {
	switch {
	case cfg.Recipient != nil:
		return cfg.Recipient
	case cfg.Trust.ServerCertificate != nil:
		return cfg.Trust.ServerCertificate.RawSubject
	case r.Template.Issuer != nil:
		return r.Template.Issuer
	case r.OldCert != nil:
		return r.OldCert.RawIssuer
	case r.Revocation != nil && r.Revocation.Certificate != nil:
		return r.Revocation.Certificate.RawIssuer
	case r.Revocation != nil && r.Revocation.Issuer != nil:
		return r.Revocation.Issuer
	}
	if s, ok := cfg.Credential.(*Signer); ok && s.Certificate != nil {
		return s.Certificate.RawIssuer
	}
	return NullDN()
}

// asked is the request a transaction made, as its first message has it.
type asked struct {
	template CertTemplate
	wantsCA  bool
}

// askedIn reads the request back from the first message.
func askedIn(m *Message) (asked, error) {
	switch body := m.Body.(type) {
	case P10CR:
		return askedInCSR(body)
	case GenMsg:
		return asked{}, nil
	case RevReq:
		if len(body) != 1 || body[0].CertDetails.SerialNumber == nil && body[0].CertDetails.PublicKeyInfo == nil {
			return asked{}, errors.New("rr does not name one certificate")
		}
		return asked{template: body[0].CertDetails}, nil
	}
	msg, err := m.certReqMsg()
	if err != nil {
		return asked{}, err
	}
	a := asked{template: msg.CertReq.CertTemplate}
	a.wantsCA = isCA(a.template.Extensions)
	return a, nil
}

func askedInCSR(der []byte) (asked, error) {
	csr, err := parseCSR(der)
	if err != nil {
		return asked{}, err
	}
	t := CertTemplate{Subject: csr.RawSubject, PublicKeyInfo: csr.RawSubjectPublicKeyInfo, Extensions: csr.Extensions}
	return asked{template: t, wantsCA: isCA(t.Extensions)}, nil
}

// isCA tells whether basicConstraints with cA TRUE is among extensions.
func isCA(extensions []pkix.Extension) bool {
	for _, e := range extensions {
		if e.Id.Equal(ExtensionBasicConstraints) {
			return bytes.HasPrefix(e.Value, []byte{0x30}) && bytes.Contains(e.Value, []byte{1, 1, 0xff})
		}
	}
	return false
}
