package main

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

func identitySample() *model.CMPCertificate {
	c := sample(demoIdentity)
	c.Spec.Type = model.CMPIdentity
	c.Spec.Subject = &model.Subject{Organization: "Example", CommonName: "certloop demo"}
	return c
}

func webSample() *model.CMPCertificate {
	c := sample(demoWeb)
	c.Spec.PrivateKey = model.PrivateKey{Algorithm: model.ECDSA, Size: 256}
	c.Spec.Subject = &model.Subject{Organization: "Example", CommonName: "web.demo.svc"}
	c.Spec.SubjectAltNames = &model.SubjectAltNames{
		DNSNames:    []string{"web.demo.svc", "web.demo.svc.cluster.local"},
		IPAddresses: []string{"192.0.2.10", "2001:db8::10"},
		URIs:        []string{"urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6"},
	}
	c.Spec.Validity = &metav1.Duration{Duration: 90 * 24 * time.Hour}
	return c
}

func shortSample() *model.CMPCertificate {
	c := sample(demoShort)
	c.Spec.Subject = &model.Subject{Organization: "Example", CommonName: "short.demo.svc"}
	c.Spec.SubjectAltNames = &model.SubjectAltNames{DNSNames: []string{"short.demo.svc"}}
	c.Spec.Validity = &metav1.Duration{Duration: shortValidity}
	c.Spec.RenewBefore = &metav1.Duration{Duration: shortRenewBefore}
	return c
}

func sample(name string) *model.CMPCertificate {
	c := &model.CMPCertificate{TypeMeta: typeMeta(""), ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.IssuerRef.Name = demoIssuer
	c.Spec.Output.SecretName = name + "-tls"
	return c
}
