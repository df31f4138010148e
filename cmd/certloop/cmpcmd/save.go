package cmpcmd

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/certloop/certloop/pkg/cmp"
)

// filePermissions are those of files we write: nothing in them is secret.
const filePermissions = 0o644

// save writes what a successful exchange brought. Each file is there as soon as
// its option is given, and empty if there is nothing for it.
func (r *run) save(p *plan, o *outcome) error {
	if err := r.saveOrDelete("srvcertout", "validated server", o.signer); err != nil {
		return err
	}
	if err := r.saveDERs("extracertsout", "extra", o.answer.ExtraCerts); err != nil {
		return err
	}
	switch body := o.answer.Body.(type) {
	case cmp.GenMsg:
		return r.saveGeneral(p, body)
	case *cmp.CertRepMessage:
		return r.saveIssued(p, o, body)
	}
	return nil
}

// saveIssued writes the new certificate and its chain, into one file if both have the same name.
func (r *run) saveIssued(p *plan, o *outcome, body *cmp.CertRepMessage) error {
	own := []*x509.Certificate{o.issued.Certificate}
	chain := withoutRoot(chainOf(own[0], o.extraCerts, p.config.Trust.Intermediates, p.config.Trust.IssuedRoots))
	if r.has("certout") && r.values["certout"] == r.values["chainout"] {
		if err := r.saveCertificates("chainout", "newly enrolled and chain", append(own, chain...)); err != nil {
			return err
		}
	} else {
		if err := r.saveCertificates("chainout", "chain", chain); err != nil {
			return err
		}
		if err := r.saveCertificates("certout", "newly enrolled", own); err != nil {
			return err
		}
	}
	return r.saveDERs("cacertsout", "CA", body.CAPubs)
}

// saveOrDelete writes one certificate, or deletes the file where there is none.
func (r *run) saveOrDelete(option, what string, c *x509.Certificate) error {
	if !r.has(option) {
		return nil
	}
	if c == nil {
		return r.remove(option)
	}
	return r.saveCertificates(option, what, []*x509.Certificate{c})
}

func (r *run) saveCertificates(option, what string, certs []*x509.Certificate) error {
	var ders [][]byte
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return r.saveDERs(option, what, ders)
}

// saveDERs writes certificates to the file of an option, in the format of -certform.
func (r *run) saveDERs(option, what string, ders [][]byte) error {
	if !r.has(option) {
		return nil
	}
	r.log.info("received %d %s certificate(s), saving to %s", len(ders), what, r.values[option])
	asDER := strings.EqualFold(r.values["certform"], "DER")
	if asDER && len(ders) > 1 {
		r.log.warn("%s holds more than one certificate in DER", r.values[option])
	}
	if asDER {
		return r.write(option, slices.Concat(ders...))
	}
	var b bytes.Buffer
	for _, der := range ders {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return err
		}
	}
	return r.write(option, b.Bytes())
}

// write writes the file of an option.
func (r *run) write(option string, content []byte) error {
	return writeFile(option, r.values[option], content)
}

// writeFile writes in place, as OpenSSL does, so that links and devices work.
func writeFile(option, path string, content []byte) error {
	if err := os.WriteFile(path, content, filePermissions); err != nil {
		return fmt.Errorf("-%s: %w", option, err)
	}
	return nil
}
