package model_test

import (
	"slices"
	"testing"

	"github.com/certloop/certloop/pkg/model"
)

func TestPlaces(t *testing.T) {
	for name, tt := range map[string]struct {
		output  model.Output
		places  []model.Place
		secrets []string
		split   bool
	}{
		"default": {model.Output{SecretName: "web"}, []model.Place{
			{Part: model.CABundlePart, SecretName: "web", Key: "ca.crt", Encoding: "PEM"},
			{Part: model.PrivateKeyPart, SecretName: "web", Key: "tls.key", Encoding: "PEM"},
			{Part: model.CertificatePart, SecretName: "web", Key: "tls.crt", Encoding: "PEM"},
		}, []string{"web"}, false},
		"every part elsewhere": {model.Output{
			SecretName: "web", PrivateKey: &model.OutputPart{SecretName: "a", Key: "key.der", Encoding: model.DER},
			Certificate: &model.OutputPart{SecretName: "b"}, Chain: &model.OutputPart{SecretName: "c"}, CABundle: &model.OutputPart{SecretName: "d", Key: "roots.pem"},
		}, []model.Place{
			{Part: model.ChainPart, SecretName: "c", Key: "chain.crt", Encoding: "PEM"},
			{Part: model.CABundlePart, SecretName: "d", Key: "roots.pem", Encoding: "PEM"},
			{Part: model.PrivateKeyPart, SecretName: "a", Key: "key.der", Encoding: "DER"},
			{Part: model.CertificatePart, SecretName: "b", Key: "tls.crt", Encoding: "PEM"},
		}, []string{"c", "d", "a", "b"}, true},
		"chain beside the certificate": {model.Output{SecretName: "web", PrivateKey: &model.OutputPart{SecretName: "key"}, Chain: &model.OutputPart{}}, []model.Place{
			{Part: model.ChainPart, SecretName: "web", Key: "chain.crt", Encoding: "PEM"},
			{Part: model.CABundlePart, SecretName: "web", Key: "ca.crt", Encoding: "PEM"},
			{Part: model.PrivateKeyPart, SecretName: "key", Key: "tls.key", Encoding: "PEM"},
			{Part: model.CertificatePart, SecretName: "web", Key: "tls.crt", Encoding: "PEM"},
		}, []string{"key", "web"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.output.Places(); !slices.Equal(got, tt.places) {
				t.Errorf("got places %+v, want %+v", got, tt.places)
			}
			if got := tt.output.SecretNames(); !slices.Equal(got, tt.secrets) {
				t.Errorf("got Secrets %q, want %q", got, tt.secrets)
			}
			if got := tt.output.Split(); got != tt.split {
				t.Errorf("got split %v, want %v", got, tt.split)
			}
		})
	}
}

func TestInputs(t *testing.T) {
	pair := func(name string) *model.KeyPairSource { return &model.KeyPairSource{SecretName: name} }
	certs := func(name string) *model.CertificatesSource { return &model.CertificatesSource{SecretName: name} }
	for name, tt := range map[string]struct {
		spec model.CMPIssuerSpec
		want []string
	}{
		"trust alone": {model.CMPIssuerSpec{Trust: model.TrustSource{SecretName: "t"}}, []string{"t"}},
		"everything": {model.CMPIssuerSpec{
			Trust: model.TrustSource{SecretName: "t"}, Authentication: pair("id"), Chain: model.ChainSource{Manual: certs("chain")},
			InitialAuthentication: &model.InitialAuthentication{Signature: pair("vendor")},
			TLS:                   &model.TLS{Trust: certs("tls"), ClientCertificate: pair("client")},
		}, []string{"chain", "client", "id", "t", "tls", "vendor"}},
		"one Secret for all": {model.CMPIssuerSpec{
			Trust: model.TrustSource{SecretName: "t"}, InitialAuthentication: &model.InitialAuthentication{MAC: &model.SharedSecretSource{SecretName: "t"}},
		}, []string{"t"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.spec.Inputs(); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
