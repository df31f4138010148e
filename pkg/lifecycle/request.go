package lifecycle

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// request is what is asked of the CA: the configuration in the terms of CMP.
func (a *attempt) request(purpose string, key ledger.PrivateKey) (*cmp.Request, error) {
	template, err := a.template(key)
	if err != nil {
		return nil, err
	}
	req := &cmp.Request{Type: cmp.TypeIR, Template: template, Key: key.Signer()}
	if purpose == ledger.ForRenewal {
		req.Type, req.OldCert = cmp.TypeKUR, a.rec.Current.Certificate()
	}
	return req, nil
}

func (a *attempt) template(key ledger.PrivateKey) (t cmp.CertTemplate, err error) {
	spec := &a.cert.Spec
	if t.Subject, err = subjectName(spec.Subject); err != nil {
		return t, err
	}
	if t.Extensions, err = extensions(spec, t.Subject.Empty()); err != nil {
		return t, err
	}
	t.Issuer, t.PublicKey = a.ca.name, key.Signer().Public()
	if lifetime := spec.RequestedValidity(); lifetime > 0 {
		t.NotBefore = a.o.now().UTC().Truncate(time.Second)
		t.NotAfter = t.NotBefore.Add(lifetime)
	}
	return t, nil
}

// Attribute types of RFC 5280 Appendix A.1, in the order they are encoded.
func subjectName(s *model.Subject) (cmp.Name, error) {
	if s == nil {
		return cmp.NullDN(), nil
	}
	if s.DistinguishedName != "" {
		name, err := wholeName(s.DistinguishedName)
		if err != nil {
			return nil, fmt.Errorf("subject.distinguishedName: %w", err)
		}
		return name, nil
	}
	attributes := []struct {
		last  int // under id-at, 2.5.4
		value string
	}{
		{6, s.Country}, {8, s.StateOrProvince}, {7, s.Locality}, {10, s.Organization},
		{11, s.OrganizationalUnit}, {3, s.CommonName}, {5, s.SerialNumber},
	}
	var name pkix.RDNSequence
	for _, at := range attributes {
		if at.value != "" {
			name = append(name, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, at.last}, Value: at.value}})
		}
	}
	der, err := asn1.Marshal(name)
	return cmp.Name(der), err
}

// wholeName reads a distinguished name of which nothing is left out: who misspells an attribute does
// not want a certificate without it.
func wholeName(s string) (cmp.Name, error) {
	if skipped := cmp.SkippedAttributes(s); len(skipped) > 0 {
		return nil, fmt.Errorf("%s: of unknown type or without a value; correct it, or leave it out", strings.Join(skipped, ", "))
	}
	return cmp.ParseName(s)
}

func extensions(spec *model.CMPCertificateSpec, noSubject bool) ([]pkix.Extension, error) {
	usages, err := keyUsage(spec.KeyUsages)
	if err != nil {
		return nil, err
	}
	// An end entity: an empty BasicConstraints, cA being FALSE by default.
	out := []pkix.Extension{{Id: cmp.ExtensionBasicConstraints, Critical: true, Value: []byte{0x30, 0}}, usages}
	if purposes := purposes(spec); len(purposes) > 0 {
		der, err := asn1.Marshal(purposes)
		if err != nil {
			return nil, err
		}
		out = append(out, pkix.Extension{Id: cmp.ExtensionExtKeyUsage, Value: der})
	}
	if spec.SubjectAltNames != nil {
		names, err := altNames(spec.SubjectAltNames)
		if err != nil {
			return nil, err
		}
		// Critical where the subject is empty (RFC 5280 §4.2.1.6).
		out = append(out, pkix.Extension{Id: cmp.ExtensionSubjectAltName, Critical: noSubject, Value: names})
	}
	return out, nil
}

func keyUsage(usages []model.KeyUsage) (pkix.Extension, error) {
	if len(usages) == 0 {
		usages = []model.KeyUsage{"digitalSignature"}
	}
	var bits asn1.BitString
	known := model.KeyUsageNames()
	octet := byte(0)
	for _, u := range usages {
		bit := known[u]
		octet |= 0x80 >> bit
		bits.BitLength = max(bits.BitLength, bit+1) // DER: no trailing zero bits
	}
	bits.Bytes = []byte{octet}
	der, err := asn1.Marshal(bits)
	return pkix.Extension{Id: cmp.ExtensionKeyUsage, Critical: true, Value: der}, err
}

func purposes(spec *model.CMPCertificateSpec) (out []asn1.ObjectIdentifier) {
	wanted := spec.ExtendedKeyUsages
	if len(wanted) == 0 && spec.Type != model.CMPIdentity {
		wanted = []model.ExtendedKeyUsage{"serverAuth", "clientAuth"}
	}
	known := model.ExtendedKeyUsageOIDs()
	for _, u := range wanted {
		out = append(out, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, known[u]})
	}
	return out
}

// Tags of the arms of GeneralName (RFC 5280 §4.2.1.6).
const (
	rfc822Name = 1
	dNSName    = 2
	uri        = 6
	iPAddress  = 7
)

func altNames(n *model.SubjectAltNames) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		add := func(arm uint8, value []byte) {
			b.AddASN1(tag.Tag(arm).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
		}
		for _, v := range n.EmailAddresses {
			add(rfc822Name, []byte(v))
		}
		for _, v := range n.DNSNames {
			add(dNSName, []byte(v))
		}
		for _, v := range n.URIs {
			add(uri, []byte(v))
		}
		for _, v := range n.IPAddresses {
			ip := net.ParseIP(v)
			if ip == nil {
				b.SetError(fmt.Errorf("subjectAltNames.ipAddresses: %q is not an IP address", v))
				return
			}
			if v4 := ip.To4(); v4 != nil {
				ip = v4
			}
			add(iPAddress, ip)
		}
	})
	return b.Bytes()
}
