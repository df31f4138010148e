package cmpcmd

import (
	"crypto"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/certloop/certloop/pkg/cmp"
)

// commands are the values of -cmd.
var commands = map[string]cmp.BodyType{
	"ir": cmp.TypeIR, "cr": cmp.TypeCR, "kur": cmp.TypeKUR, "p10cr": cmp.TypeP10CR, "rr": cmp.TypeRR, "genm": cmp.TypeGenM,
}

// request is the request of -cmd.
func (b *builder) request() (cmp.Request, error) {
	req := cmp.Request{Type: commands[b.values["cmd"]], Profile: b.values["profile"]}
	var err error
	if req.GeneralInfo, err = generalInfo(b.values["geninfo"]); err != nil {
		return req, err
	}
	switch req.Type {
	case cmp.TypeP10CR:
		err = b.p10cr(&req)
	case cmp.TypeRR:
		err = b.revocation(&req)
	case cmp.TypeGenM:
		req.Info, err = b.info()
	default:
		err = b.enrolment(&req)
	}
	return req, err
}

func (b *builder) p10cr(req *cmp.Request) error {
	if b.csr == nil {
		return errors.New("-cmd p10cr needs -csr")
	}
	req.CSR = b.csr.Raw
	return nil
}

// revocation is by -issuer and -serial, by -oldcert, or by -csr, in that order.
func (b *builder) revocation(req *cmp.Request) error {
	what := &cmp.Revocation{Certificate: b.old, Reason: cmp.Reason(max(b.number("revreason", -1), 0))}
	req.Revocation = what
	switch {
	case b.has("issuer") != b.has("serial"):
		return errors.New("-cmd rr needs both -issuer and -serial, or neither")
	case b.has("serial"):
		if b.old != nil || b.csr != nil {
			b.log.warn("-oldcert and -csr have no effect with -issuer and -serial")
		}
		what.Certificate = nil
		serial, ok := new(big.Int).SetString(b.values["serial"], 0)
		if !ok || strings.HasPrefix(b.values["serial"], "0") && !strings.HasPrefix(strings.ToLower(b.values["serial"]), "0x") && b.values["serial"] != "0" {
			return fmt.Errorf("-serial %.80q is not a number, decimal or 0x…", b.values["serial"])
		}
		what.SerialNumber = serial
		var err error
		what.Issuer, err = b.name("issuer")
		return err
	case b.old != nil:
		if b.csr != nil {
			b.log.warn("-csr has no effect with -oldcert")
		}
		return nil
	case b.csr != nil:
		b.log.info("the certificate is named by key and subject of -csr, which not every server accepts (RFC 9483 §4.2)")
		what.Request = b.csr
		return nil
	}
	return errors.New("-cmd rr needs -oldcert, or -issuer and -serial, or -csr")
}

// enrolment is ir, cr and kur.
func (b *builder) enrolment(req *cmp.Request) error {
	if !b.has("certout") && !b.has("reqout_only") {
		return errors.New("-certout is missing: there is nowhere to save the certificate")
	}
	hash, err := b.digest()
	if err != nil {
		return err
	}
	if hash != crypto.SHA1 { // a shared secret may have it, a signature may not
		req.Hash = hash
	}
	if req.Type == cmp.TypeKUR {
		if req.OldCert = b.reference(); req.OldCert == nil {
			return errors.New("-cmd kur needs -oldcert, or -cert")
		}
	}
	if err := b.chooseKey(req); err != nil {
		return err
	}
	return b.template(&req.Template, req.Type)
}

// chooseKey takes the key of -newkey, else that of -csr, -key or the reference
// certificate. Those with a public key only do without a proof of possession.
func (b *builder) chooseKey(req *cmp.Request) error {
	proof := b.number("popo", 1) == 1
	req.RAVerified = !proof
	switch {
	case b.has("newkey"):
		return b.newKey(req, proof)
	case b.csr != nil && proof:
		return errors.New("-newkey is missing: -csr has the public key only, and a proof of possession needs the private one")
	case b.csr != nil:
		req.Template.PublicKeyInfo = b.csr.RawSubjectPublicKeyInfo
	case b.key != nil:
		req.Key = b.key
	case b.has("key"):
		var err error
		req.Key, err = b.privateKey("key")
		return err
	case !proof && b.reference() != nil:
		req.Template.PublicKeyInfo = b.reference().RawSubjectPublicKeyInfo
	default:
		return errors.New("-newkey is missing: there is no key to certify")
	}
	return nil
}

func (b *builder) newKey(req *cmp.Request, proof bool) (err error) {
	req.Key, err = b.privateKey("newkey")
	if err == nil || !errors.Is(err, errNoPrivateKey) {
		return err
	}
	req.Key = nil
	if req.Template.PublicKey, err = publicKey(b.values["newkey"]); err != nil {
		return fmt.Errorf("-newkey: %w", err)
	}
	if proof {
		return errors.New("-newkey has a public key: a proof of possession needs the private one, or -popo 0 or -1")
	}
	return nil
}

// template is what is asked of the certificate.
func (b *builder) template(t *cmp.CertTemplate, request cmp.BodyType) (err error) {
	if t.Extensions, err = b.extensions(); err != nil {
		return err
	}
	if t.Issuer, err = b.name("issuer"); err != nil {
		return err
	}
	if t.Issuer == nil && b.reference() != nil {
		t.Issuer = b.reference().RawIssuer
	}
	if t.Issuer.Empty() { // the NULL-DN asks for none
		t.Issuer = nil
	}
	if days := b.number("days", 0); days > 0 {
		t.NotBefore = b.now().UTC()
		t.NotAfter = t.NotBefore.AddDate(0, 0, days)
	}
	t.Subject, err = b.subject(request)
	return err
}

// subject is -subject, that of -csr, or that of the reference certificate, the
// last for ir and cr only where no names are asked for otherwise.
func (b *builder) subject(request cmp.BodyType) (cmp.Name, error) {
	name, err := b.name("subject")
	switch {
	case name != nil || err != nil:
		return name, err
	case b.csr != nil:
		return b.csr.RawSubject, nil
	case b.reference() != nil && (request == cmp.TypeKUR || !b.namesAsked()):
		return b.reference().RawSubject, nil
	}
	return nil, nil
}

// namesAsked tells whether -sans or -reqexts ask for a subjectAltName.
func (b *builder) namesAsked() bool {
	asked, err := b.sectionExtensions("reqexts")
	return b.has("sans") || err == nil && hasExtension(asked, oidSubjectAltName)
}

// extensions are those of -csr, replaced and completed by the other options.
func (b *builder) extensions() ([]pkix.Extension, error) {
	var out []pkix.Extension
	if b.csr != nil {
		out = append(out, b.csr.Extensions...)
	}
	fromReqexts, err := b.sectionExtensions("reqexts")
	if err != nil {
		return nil, err
	}
	fromPolicies, err := b.sectionExtensions("policies")
	if err != nil {
		return nil, err
	}
	out = merge(merge(out, fromReqexts), fromPolicies)
	if b.has("sans") && hasExtension(fromReqexts, oidSubjectAltName) {
		return nil, errors.New("-sans and -reqexts both ask for a subjectAltName")
	}
	if out, err = b.altNames(out); err != nil {
		return nil, err
	}
	return b.policies(out)
}

// altNames adds the names of -sans, or by default those of the reference certificate.
func (b *builder) altNames(out []pkix.Extension) ([]pkix.Extension, error) {
	if b.has("sans") {
		x, err := plainAltNames(b.list("sans"))
		if err != nil {
			return nil, fmt.Errorf("-sans: %w", err)
		}
		return merge(out, []pkix.Extension{x}), nil
	}
	reference := b.reference()
	if b.has("san_nodefault") || reference == nil || hasExtension(out, oidSubjectAltName) {
		return out, nil
	}
	for _, x := range reference.Extensions {
		if x.Id.Equal(oidSubjectAltName) {
			out = append(out, pkix.Extension{Id: x.Id, Value: x.Value}) // a missing subject makes it critical
		}
	}
	return out, nil
}

func (b *builder) policies(out []pkix.Extension) ([]pkix.Extension, error) {
	if !b.has("policy_oids") {
		return out, nil
	}
	if b.has("policies") {
		return nil, errors.New("-policies and -policy_oids exclude each other")
	}
	value, err := encodePolicies(nil, b.list("policy_oids"))
	if err != nil {
		return nil, fmt.Errorf("-policy_oids: %w", err)
	}
	return merge(out, []pkix.Extension{{Id: oidPolicies, Critical: b.has("policy_oids_critical"), Value: value}}), nil
}

// generalInfo reads OID:int:N and OID:str:TEXT, separated by commas.
func generalInfo(text string) ([]cmp.InfoTypeAndValue, error) {
	var out []cmp.InfoTypeAndValue
	for _, item := range splitValues(text) {
		info, err := infoValue(item)
		if err != nil {
			return nil, fmt.Errorf("-geninfo: %.40q: %w", item, err)
		}
		out = append(out, info)
	}
	return out, nil
}

func infoValue(item string) (cmp.InfoTypeAndValue, error) {
	parts := strings.SplitN(item, ":", 3)
	if len(parts) < 3 {
		return cmp.InfoTypeAndValue{}, errors.New("not OID:int:N or OID:str:TEXT")
	}
	id, err := parseOID(parts[0])
	if err != nil {
		return cmp.InfoTypeAndValue{}, err
	}
	var value any
	switch strings.ToLower(parts[1]) {
	case "int":
		value, err = strconv.ParseInt(parts[2], 10, 64)
	case "str":
		value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(parts[2])}
	default:
		err = errors.New("neither int nor str")
	}
	if err != nil {
		return cmp.InfoTypeAndValue{}, err
	}
	der, err := asn1.Marshal(value)
	return cmp.InfoTypeAndValue{Type: id, Value: der}, err
}
