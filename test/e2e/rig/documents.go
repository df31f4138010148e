package rig

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Names in the documents.
const (
	IssuerName   = "ca"
	IdentityName = "identity"
)

// Issuer is a CMPIssuer for a CA: the first request authenticates by the shared
// secret in ca-bootstrap, the others by the identity. Each field is one more line of its spec.
func Issuer(ca CA, fields ...string) string {
	return fmt.Sprintf(`apiVersion: certloop.io/v1alpha1
kind: CMPIssuer
metadata: {name: %s}
spec:
  server: %s
  initialAuthentication: {mac: {secretName: ca-bootstrap}}
  authentication: {secretName: %s}
  trust: {secretName: ca-trust}
`, IssuerName, ca.URL, SecretName(IdentityName)) + indented(fields)
}

// Identity is the CMPCertificate that signs the requests for all others.
func Identity(fields ...string) string {
	return certificate(IdentityName, append([]string{"type: cmpIdentity"}, fields...))
}

// EndEntity is a CMPCertificate with the name as common name, unless a field is
// about the subject or the alternative names. Its output is [SecretName].
func EndEntity(name string, fields ...string) string { return certificate(name, fields) }

// SecretName is the output of a certificate of this package.
func SecretName(certificate string) string { return certificate + "-tls" }

func certificate(name string, fields []string) string {
	if all := strings.Join(fields, "\n"); !strings.Contains(all, "subject") {
		fields = append([]string{"subject: {commonName: " + name + "}"}, fields...)
	}
	return fmt.Sprintf(`apiVersion: certloop.io/v1alpha1
kind: CMPCertificate
metadata: {name: %s}
spec:
  issuerRef: {name: %s}
  output: {secretName: %s}
`, name, IssuerName, SecretName(name)) + indented(fields)
}

func indented(fields []string) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString("  " + f + "\n")
	}
	return b.String()
}

// Event is a CloudEvent about an object, as a pipeline sends it. The data are a
// document in YAML, made JSON; none when it is empty.
func Event(tb testing.TB, eventType string, key types.NamespacedName, document string) event.Event {
	tb.Helper()
	e := event.New()
	e.SetType(eventType)
	e.SetID(uuid.NewString())
	e.SetSource("/pipelines/e2e")
	e.SetSubject(key.String())
	if document == "" {
		return e
	}
	var data any
	err := yaml.Unmarshal([]byte(document), &data)
	if err == nil {
		err = e.SetData(event.ApplicationJSON, data)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return e
}
