package cmpcmd

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"

	"github.com/certloop/certloop/pkg/cmp"
)

func (v *view) body(m *cmp.Message) {
	switch body := m.Body.(type) {
	case cmp.CertReqMessages:
		for i := range body {
			v.request(&body[i])
		}
	case *cmp.CertRepMessage:
		for i := range body.Response {
			v.response(&body.Response[i])
		}
		v.certificates("caPubs", body.CAPubs)
	case cmp.P10CR:
		v.p10cr(body)
	case cmp.RevReq:
		v.revocations(body)
	case *cmp.RevRep:
		v.revoked(body)
	case cmp.CertConf:
		v.confirmations(body)
	case cmp.PollReq:
		for _, id := range body {
			v.under("certReqId %d", id)
		}
	case cmp.PollRep:
		for _, e := range body {
			u := v.under("certReqId %d", e.CertReqID)
			u.line("checkAfter", "%d s", e.CheckAfter)
			for _, text := range e.Reason {
				u.line("reason", "%q", text)
			}
		}
	default:
		v.otherBody(m)
	}
}

func (v *view) otherBody(m *cmp.Message) {
	switch body := m.Body.(type) {
	case cmp.GenMsg:
		v.general(body)
	case *cmp.ErrorMsg:
		v.status(&body.Status)
		if body.ErrorCode != nil {
			v.line("errorCode", "%d", *body.ErrorCode)
		}
		for _, text := range body.ErrorDetails {
			v.line("errorDetails", "%q", text)
		}
	case cmp.Nested:
		for _, inner := range body {
			u := v.under("PKIMessage %s", inner.Type)
			u.header(&inner.Header)
			u.body(inner)
		}
	case cmp.Opaque:
		v.line("content", "%d bytes, not looked into", len(body))
	}
}

// general shows infos, and what is in those with certificates and templates.
func (v *view) general(body cmp.GenMsg) {
	v.infos("info", body)
	certs, err := body.CACerts()
	if err != nil {
		v.line("caCerts", "%v", err)
	}
	for _, c := range certs {
		v.certificates("caCert", [][]byte{c.Raw})
	}
	if t, err := body.RequestTemplate(); err == nil && t != nil {
		u := v.under("certTemplate")
		u.template(&t.Template)
		for _, a := range t.Algorithms {
			u.line("key", "%s", algorithmText(a))
		}
		for _, bits := range t.RSABits {
			u.line("key", "RSA %d bits", bits)
		}
	}
	if lists, err := body.CRLs(); err == nil {
		for _, list := range lists {
			v.line("CRL", "issued by %s, %s to %s, %d entries", cmp.Name(list.RawIssuer), timeText(list.ThisUpdate),
				timeText(list.NextUpdate), len(list.RevokedCertificateEntries))
		}
	}
}

func (v *view) request(r *cmp.CertReqMsg) {
	u := v.under("certReqId %d", r.CertReq.CertReqID)
	u.template(&r.CertReq.CertTemplate)
	if old, ok := r.CertReq.OldCertID(); ok {
		u.line("oldCertID", "serial %s, issuer %s", old.SerialNumber.Text(16), generalName(old.Issuer))
	}
	for _, control := range r.CertReq.Controls {
		if name := controlName(control.Type); name != "oldCertID" {
			u.line("control", "%s, not shown", name) // it may be a secret
		}
	}
	u.line("proof of possession", "%s", proofText(&r.POPO))
}

// controlNames are the controls of RFC 4211 §6 by the last arc of their OIDs.
var controlNames = map[int]string{
	1: "regToken", 2: "authenticator", 3: "pkiPublicationInfo", 4: "pkiArchiveOptions", 5: "oldCertID", 6: "protocolEncrKey",
}

func controlName(id asn1.ObjectIdentifier) string {
	for arc, name := range controlNames {
		if id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, arc}) {
			return name
		}
	}
	return id.String()
}

func proofText(p *cmp.ProofOfPossession) string {
	switch p.Type {
	case cmp.POPAbsent:
		return "none"
	case cmp.POPRAVerified:
		return "raVerified"
	case cmp.POPSignature:
		return "signature with " + algorithmText(p.Signature.Algorithm)
	case cmp.POPKeyEncipherment:
		return "keyEncipherment"
	case cmp.POPKeyAgreement:
		return "keyAgreement"
	}
	return "unknown"
}

func (v *view) template(t *cmp.CertTemplate) {
	if t.SerialNumber != nil {
		v.line("serialNumber", "%s", t.SerialNumber.Text(16))
	}
	if t.Issuer != nil {
		v.line("issuer", "%s", t.Issuer)
	}
	if !t.NotBefore.IsZero() || !t.NotAfter.IsZero() {
		v.line("validity", "%s to %s", timeText(t.NotBefore), timeText(t.NotAfter))
	}
	if t.Subject != nil {
		v.line("subject", "%s", t.Subject)
	}
	if t.PublicKeyInfo != nil {
		key, err := t.Key()
		v.line("publicKey", "%s", keyText(key, err))
	}
	v.extensions(t.Extensions)
}

func (v *view) extensions(list []pkix.Extension) {
	for _, x := range list {
		critical := ""
		if x.Critical {
			critical = "critical, "
		}
		v.line(extensionName(x.Id), "%s%s", critical, extensionText(x))
	}
}

func (v *view) response(r *cmp.CertResponse) {
	u := v.under("certReqId %d", r.CertReqID)
	u.status(&r.Status)
	if r.Certified == nil {
		return
	}
	if r.Certified.Certificate != nil {
		u.certificates("certificate", [][]byte{r.Certified.Certificate})
	}
	if r.Certified.Encrypted != nil {
		u.line("encryptedCert", "%d bytes", len(r.Certified.Encrypted))
	}
	if r.Certified.PrivateKey != nil {
		u.line("privateKey", "%d bytes, encrypted", len(r.Certified.PrivateKey))
	}
}

func (v *view) status(s *cmp.StatusInfo) {
	v.line("status", "%s", s.Status)
	for _, text := range s.Text {
		v.line("statusString", "%q", text)
	}
	if s.FailInfo != 0 {
		v.line("failInfo", "%s", s.FailInfo)
	}
}

func (v *view) p10cr(der []byte) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		v.line("PKCS #10 request", "%d bytes that cannot be read", len(der))
		return
	}
	v.line("subject", "%s", cmp.Name(csr.RawSubject))
	v.line("publicKey", "%s", keyText(csr.PublicKey, nil))
	v.extensions(csr.Extensions)
}

func (v *view) revocations(body cmp.RevReq) {
	for i := range body {
		u := v.under("revocation")
		u.template(&body[i].CertDetails)
		for _, x := range body[i].CRLEntryDetails {
			var reason asn1.Enumerated
			if _, err := asn1.Unmarshal(x.Value, &reason); err == nil {
				u.line("reasonCode", "%d", reason)
				continue
			}
			u.extensions([]pkix.Extension{x})
		}
	}
}

func (v *view) revoked(body *cmp.RevRep) {
	for i := range body.Status {
		v.status(&body.Status[i])
	}
	for _, id := range body.RevCerts {
		v.line("revCert", "serial %s, issuer %s", id.SerialNumber.Text(16), generalName(id.Issuer))
	}
	if body.CRLs != nil {
		v.line("crls", "%d", len(body.CRLs))
	}
}

func (v *view) confirmations(body cmp.CertConf) {
	for _, c := range body {
		u := v.under("certReqId %d", c.CertReqID)
		u.octets("certHash", c.CertHash)
		if c.HashAlg != nil {
			u.line("hashAlg", "%s", algorithmText(*c.HashAlg))
		}
		if c.StatusInfo != nil {
			u.status(c.StatusInfo)
		} else {
			u.line("status", "accepted, by default")
		}
	}
}

func (v *view) certificates(name string, ders [][]byte) {
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			v.line(name, "%d bytes that cannot be read", len(der))
			continue
		}
		v.line(name, "%s, issued by %s, serial %s, %s to %s, %s", cmp.Name(c.RawSubject), cmp.Name(c.RawIssuer),
			c.SerialNumber.Text(16), timeText(c.NotBefore), timeText(c.NotAfter), keyText(c.PublicKey, nil))
	}
}
