package cmpcmd

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certloop/certloop/pkg/cmp"
)

// infoTypes are the values of -infotype: the names of id-it OIDs (RFC 9810 §5.3.19).
var infoTypes = map[string]int{
	"caProtEncCert": 1, "signKeyPairTypes": 2, "encKeyPairTypes": 3, "preferredSymmAlg": 4, "caKeyUpdateInfo": 5, "currentCRL": 6,
	"unsupportedOIDs": 7, "keyPairParamReq": 10, "keyPairParamRep": 11, "revPassphrase": 12, "implicitConfirm": 13,
	"confirmWaitTime": 14, "origPKIMessage": 15, "suppLangTags": 16, "caCerts": 17, "rootCaKeyUpdate": 18, "certReqTemplate": 19,
	"rootCaCert": 20, "certProfile": 21, "crlStatusList": 22, "crls": 23,
}

func infoOID(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, n} }

// infoName is the name of an id-it OID, or the OID.
func infoName(id asn1.ObjectIdentifier) string {
	for name, n := range infoTypes {
		if infoOID(n).Equal(id) {
			return name
		}
	}
	return id.String()
}

// info is what to ask for with genm.
func (b *builder) info() (cmp.InfoTypeAndValue, error) {
	name := b.values["infotype"]
	n, known := infoTypes[name]
	switch {
	case name == "":
		return cmp.InfoTypeAndValue{}, errors.New("-infotype is missing: a genm that asks for nothing is not supported (RFC 9483 §4.3)")
	case !known:
		return cmp.InfoTypeAndValue{}, fmt.Errorf("-infotype %.40s is unknown", name)
	}
	if err := b.requireFor(name); err != nil {
		return cmp.InfoTypeAndValue{}, err
	}
	info := cmp.InfoTypeAndValue{Type: infoOID(n)}
	var err error
	switch name {
	case "rootCaCert":
		var old *x509.Certificate
		if old, _, err = b.certificateOf("oldwithold"); err == nil {
			info.Value = old.Raw
		}
	case "crlStatusList":
		info, err = b.crlStatusList()
	}
	return info, err
}

// requireFor wants the files that an infotype writes or reads.
func (b *builder) requireFor(infotype string) error {
	needed := map[string]string{
		"caCerts": "cacertsout", "rootCaCert": "newwithnew oldwithold", "certReqTemplate": "template", "crlStatusList": "crlout",
	}
	for option := range strings.FieldsSeq(needed[infotype]) {
		if !b.has(option) {
			return fmt.Errorf("-infotype %s needs -%s", infotype, option)
		}
	}
	if infotype == "crlStatusList" && !b.has("oldcrl") && !b.has("crlcert") {
		return errors.New("-infotype crlStatusList needs -oldcrl or -crlcert")
	}
	return nil
}

// crlStatusList asks for the CRL of the issuer of -crlcert or -oldcrl, if it is
// newer than -oldcrl.
func (b *builder) crlStatusList() (info cmp.InfoTypeAndValue, err error) {
	var issuer []byte
	var thisUpdate time.Time
	if b.has("oldcrl") {
		list, err := revocationList(b.values["oldcrl"])
		if err != nil {
			return info, fmt.Errorf("-oldcrl: %w", err)
		}
		issuer, thisUpdate = list.RawIssuer, list.ThisUpdate
	}
	cert, _, err := b.certificateOf("crlcert")
	if err != nil {
		return info, err
	}
	if cert != nil {
		issuer = cert.RawIssuer
	}
	return cmp.CRLStatusList(issuer, thisUpdate), nil
}

// saveGeneral saves what an answer to genm brings.
func (r *run) saveGeneral(p *plan, answer cmp.GenMsg) error {
	switch r.values["infotype"] {
	case "caCerts":
		certs, err := answer.CACerts()
		if err != nil {
			return err
		}
		if len(certs) == 0 {
			r.log.warn("the server provides no CA certificates")
			return nil
		}
		return r.saveCertificates("cacertsout", "CA", certs)
	case "rootCaCert":
		return r.saveRootUpdate(p, answer)
	case "certReqTemplate":
		return r.saveTemplate(answer)
	case "crlStatusList":
		return r.saveCRL(answer)
	}
	return r.printInfos(answer)
}

func (r *run) saveRootUpdate(p *plan, answer cmp.GenMsg) error {
	update, err := answer.RootCAKeyUpdate(p.old, r.now())
	if err != nil {
		return err
	}
	if update == nil {
		r.log.info("there is no update of the root CA certificate")
		update = new(cmp.RootCAKeyUpdate)
	}
	return errors.Join(
		r.saveOrDelete("newwithnew", "newWithNew", update.NewWithNew), r.saveOrDelete("newwithold", "newWithOld", update.NewWithOld),
		r.saveOrDelete("oldwithnew", "oldWithNew", update.OldWithNew),
	)
}

// saveTemplate saves the two parts of a CertReqTemplateContent as they came.
func (r *run) saveTemplate(answer cmp.GenMsg) error {
	template, err := answer.RequestTemplate()
	if err != nil {
		return err
	}
	var parts [2]cryptobyte.String
	if template == nil {
		r.log.warn("the server has no template for requests")
	} else {
		value, _ := answer.Info(cmp.InfoCertReqTemplate)
		content := cryptobyte.String(value)
		content.ReadASN1(&content, tag.SEQUENCE)
		content.ReadASN1Element(&parts[0], tag.SEQUENCE)
		content.ReadASN1Element(&parts[1], tag.SEQUENCE)
	}
	return errors.Join(r.saveDER("template", parts[0]), r.saveDER("keyspec", parts[1]))
}

// saveDER saves DER, or deletes the file where there is none.
func (r *run) saveDER(option string, der []byte) error {
	if !r.has(option) {
		return nil
	}
	if len(der) == 0 {
		return r.remove(option)
	}
	return r.write(option, der)
}

func (r *run) saveCRL(answer cmp.GenMsg) error {
	lists, err := answer.CRLs()
	if err != nil {
		return err
	}
	if len(lists) == 0 {
		r.log.info("there is no update of the CRL")
		return r.remove("crlout")
	}
	if len(lists) > 1 {
		r.log.warn("of %d CRLs only the first is saved", len(lists))
	}
	der := lists[0].Raw
	if strings.EqualFold(r.values["crlform"], "PEM") {
		der = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	return r.write("crlout", der)
}

// remove deletes the file of an option, to say that there is nothing.
func (r *run) remove(option string) error {
	err := os.Remove(r.values[option])
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("-%s: %w", option, err)
}

// printInfos names what came; nothing here knows what it means.
func (r *run) printInfos(answer cmp.GenMsg) error {
	if len(answer) == 0 {
		r.log.info("genp has no infos")
	}
	for i, info := range answer {
		if _, err := fmt.Fprintf(r.out, "genp info #%d: %s\n", i+1, infoName(info.Type)); err != nil {
			return err
		}
	}
	return nil
}
