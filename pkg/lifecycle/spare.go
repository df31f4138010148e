package lifecycle

import (
	"context"
	"fmt"

	"github.com/certloop/certloop/pkg/model"
)

// spareInputs keeps what an operator has provided for the issuer from being taken for an output.
func (a *attempt) spareInputs(ctx context.Context) error {
	ca, _, err := a.issuer(ctx)
	if err := ignoreUnmet(err); err != nil || ca == nil {
		return err
	}
	return ca.spare(a.cert)
}

// spare refuses an output that an operator has provided for the issuer: what is there would be lost. The
// Secrets of spec.authentication and spec.tls.clientCertificate may be outputs.
func (in *inputs) spare(cert *model.CMPCertificate) error {
	if in.home != cert.Namespace {
		return nil
	}
	for _, name := range cert.Spec.Output.SecretNames() {
		if field := in.provided(name); field != "" {
			return &unmetError{model.ReasonOutputConflict, fmt.Sprintf("Secret %s/%s is an input, named by %s of %s: name another one in spec.output", in.home, name, field, in)}
		}
	}
	return nil
}

// provided is the field by which a Secret is an input that certloop never writes; empty when it is none.
func (in *inputs) provided(name string) string {
	spec := &in.issuer.Spec
	initial, t := spec.InitialAuthentication, spec.TLS
	switch {
	case spec.Authentication != nil && spec.Authentication.SecretName == name:
		return ""
	case spec.Trust.SecretName == name:
		return "spec.trust"
	case initial != nil && initial.MAC != nil && initial.MAC.SecretName == name:
		return "spec.initialAuthentication.mac"
	case initial != nil && initial.Signature != nil && initial.Signature.SecretName == name:
		return "spec.initialAuthentication.signature"
	case spec.Chain.Manual != nil && spec.Chain.Manual.SecretName == name:
		return "spec.chain.manual"
	case t != nil && t.Trust != nil && t.Trust.SecretName == name:
		return "spec.tls.trust"
	default:
		return ""
	}
}
