package model

import (
	"cmp"
	"slices"
)

// Part is a part of an output.
type Part string

// Parts of an output.
const (
	ChainPart       Part = "chain"
	CABundlePart    Part = "caBundle"
	PrivateKeyPart  Part = "privateKey"
	CertificatePart Part = "certificate"
)

// Place is where a part of an output goes, nothing left to default.
//
// +kubebuilder:object:generate=false
type Place struct {
	Part       Part
	SecretName string
	Key        string
	Encoding   string // PEM or DER
}

// Places are where the parts of an output go, in the order in which they are to be
// written where they go to different Secrets: what a certificate needs before the certificate.
// There is no place for the chain when it follows the certificate.
func (o *Output) Places() []Place {
	var all []Place
	add := func(part Part, p *OutputPart, key string) {
		if p == nil {
			p = new(OutputPart)
		}
		all = append(all, Place{part, cmp.Or(p.SecretName, o.SecretName), cmp.Or(p.Key, key), cmp.Or(p.Encoding, PEM)})
	}
	if o.Chain != nil {
		add(ChainPart, o.Chain, "chain.crt")
	}
	add(CABundlePart, o.CABundle, "ca.crt")
	add(PrivateKeyPart, o.PrivateKey, "tls.key")
	add(CertificatePart, o.Certificate, "tls.crt")
	return all
}

// SecretNames are the Secrets of an output, each once, in the order in which they are
// to be written: the one with the certificate is the last.
func (o *Output) SecretNames() []string {
	var names []string
	for _, p := range o.Places() {
		names = slices.DeleteFunc(names, func(n string) bool { return n == p.SecretName })
		names = append(names, p.SecretName)
	}
	return names
}

// place is that of a part that always has one.
func (o *Output) place(part Part) Place {
	all := o.Places()
	return all[slices.IndexFunc(all, func(p Place) bool { return p.Part == part })]
}

// HasParts tells whether a part goes to a Secret of its own.
func (o *Output) HasParts() bool {
	return len(o.SecretNames()) > 1 || o.SecretNames()[0] != o.SecretName
}

// KeySecretName is the Secret that the private key goes to.
func (o *Output) KeySecretName() string { return o.place(PrivateKeyPart).SecretName }

// CertificateSecretName is the Secret that the certificate goes to.
func (o *Output) CertificateSecretName() string { return o.place(CertificatePart).SecretName }

// Split tells whether key and certificate go to different Secrets, which cannot be
// replaced at one instant.
func (o *Output) Split() bool {
	return o.KeySecretName() != o.CertificateSecretName()
}

// Adopts tells whether what already is in the output is to be taken over as it is.
func (s *CMPCertificateSpec) Adopts() bool { return s.Origin == OriginAdopt || s.Origin == "MANUAL" }

// KeepsKey tells whether the record is to hold a second copy of the private key.
func (s *CMPCertificateSpec) KeepsKey() bool { return s.Record.KeepKey == nil || *s.Record.KeepKey }

// Inputs are the names of the Secrets that an issuer names, each once, sorted.
func (s *CMPIssuerSpec) Inputs() []string {
	names := []string{s.Trust.SecretName}
	pair := func(p *KeyPairSource) {
		if p != nil {
			names = append(names, p.SecretName)
		}
	}
	certs := func(c *CertificatesSource) {
		if c != nil {
			names = append(names, c.SecretName)
		}
	}
	if i := s.InitialAuthentication; i != nil {
		pair(i.Signature)
		if i.MAC != nil {
			names = append(names, i.MAC.SecretName)
		}
	}
	pair(s.Authentication)
	certs(s.Chain.Manual)
	if s.TLS != nil {
		certs(s.TLS.Trust)
		pair(s.TLS.ClientCertificate)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
