package model

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func validCertificate() *CMPCertificate {
	return &CMPCertificate{
		TypeMeta: metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: CertificateKind},
		Spec: CMPCertificateSpec{
			IssuerRef: IssuerReference{Name: "ca"},
			Subject:   &Subject{CommonName: "amf.example.com", Country: "DE"},
			SubjectAltNames: &SubjectAltNames{
				DNSNames:    []string{"amf.example.com", "*.amf.example.com"},
				IPAddresses: []string{"192.0.2.1", "2001:db8::1"},
				URIs:        []string{"urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "https://amf.example.com:8443/api"},
			},
			Output: Output{SecretName: "amf-tls"},
		},
	}
}

func validIssuer() *CMPIssuer {
	return &CMPIssuer{Spec: CMPIssuerSpec{
		Server:                "http://127.0.0.1:8080/pkix/",
		InitialAuthentication: &InitialAuthentication{MAC: &SharedSecretSource{SecretName: "psk"}},
		Authentication:        &KeyPairSource{SecretName: "identity"},
		Trust:                 TrustSource{SecretName: "trust"},
	}}
}

func configEvent(t testing.TB, eventType string, data any) event.Event {
	t.Helper()
	return NewEvent(eventType, types.NamespacedName{Namespace: "core", Name: "amf"}, data)
}

func TestValidConfigurations(t *testing.T) {
	if err := CheckCertificateEvent(configEvent(t, ConfigCreated, validCertificate())); err != nil {
		t.Errorf("certificate: %v", err)
	}
	if err := CheckIssuerEvent(configEvent(t, IssuerCreated, validIssuer())); err != nil {
		t.Errorf("issuer: %v", err)
	}
}

// Each case breaks one rule; the error must name its field.
func TestInvalidCertificate(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*CMPCertificate)
		want string
	}{
		{"kind", func(c *CMPCertificate) { c.Kind = "Certificate" }, "kind"},
		{"apiVersion", func(c *CMPCertificate) { c.APIVersion = "v1" }, "apiVersion"},
		{"other name", func(c *CMPCertificate) { c.Name = "smf" }, "metadata.name"},
		{"other namespace", func(c *CMPCertificate) { c.Namespace = "edge" }, "metadata.namespace"},
		{"type", func(c *CMPCertificate) { c.Spec.Type = "OCCM" }, `spec.type: Unsupported value: "OCCM": supported values: "endEntity", "cmpIdentity"`},
		{"no issuer", func(c *CMPCertificate) { c.Spec.IssuerRef.Name = "" }, "spec.issuerRef.name"},
		{"issuer kind", func(c *CMPCertificate) { c.Spec.IssuerRef.Kind = "Issuer" }, "spec.issuerRef.kind"},
		{"algorithm", func(c *CMPCertificate) { c.Spec.PrivateKey.Algorithm = "DSA" }, "spec.privateKey.algorithm"},
		{"secp256k1", func(c *CMPCertificate) { c.Spec.PrivateKey.Algorithm = "secp256k1" }, "use ECDSA with size 256"},
		{"RSA size", func(c *CMPCertificate) { c.Spec.PrivateKey = PrivateKey{Algorithm: RSA, Size: 1024} }, "spec.privateKey.size: Invalid value: 1024: must be 2048, 3072 or 4096"},
		{"nothing named", func(c *CMPCertificate) { c.Spec.Subject, c.Spec.SubjectAltNames = nil, nil }, "spec: Required value: set one of subject, subjectAltNames"},
		{"country", func(c *CMPCertificate) { c.Spec.Subject.Country = "Germany" }, "spec.subject.country"},
		{"long name", func(c *CMPCertificate) { c.Spec.Subject.CommonName = strings.Repeat("x", 65) }, "spec.subject.commonName"},
		{"DNS name", func(c *CMPCertificate) { c.Spec.SubjectAltNames.DNSNames[1] = "a b" }, "spec.subjectAltNames.dnsNames[1]"},
		{"IP address", func(c *CMPCertificate) { c.Spec.SubjectAltNames.IPAddresses[0] = "300.1.1.1" }, "spec.subjectAltNames.ipAddresses[0]"},
		{"URI", func(c *CMPCertificate) { c.Spec.SubjectAltNames.URIs[0] = "urn:uuid:42" }, "spec.subjectAltNames.uris[0]"},
		{"e-mail", func(c *CMPCertificate) { c.Spec.SubjectAltNames.EmailAddresses = []string{"nobody"} }, "spec.subjectAltNames.emailAddresses[0]"},
		{"too many names", func(c *CMPCertificate) {
			c.Spec.SubjectAltNames.DNSNames = slices.Repeat([]string{"a.example"}, MaxSubjectAltNames+1)
		}, "spec.subjectAltNames.dnsNames"},
		{"key usage", func(c *CMPCertificate) { c.Spec.KeyUsages = []KeyUsage{"keyCertSign"} }, "spec.keyUsages[0]"},
		{"purpose", func(c *CMPCertificate) { c.Spec.ExtendedKeyUsages = []ExtendedKeyUsage{"any"} }, "spec.extendedKeyUsages[0]"},
		{"validity", func(c *CMPCertificate) { c.Spec.Validity = &metav1.Duration{Duration: time.Second} }, "spec.validity"},
		{"renewBefore", func(c *CMPCertificate) {
			c.Spec.Validity, c.Spec.RenewBefore = &metav1.Duration{Duration: time.Hour}, &metav1.Duration{Duration: time.Hour}
		}, "spec.renewBefore"},
		{"no output", func(c *CMPCertificate) { c.Spec.Output.SecretName = "" }, "spec.output.secretName"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := validCertificate()
			tc.edit(c)
			err := CheckCertificateEvent(configEvent(t, ConfigCreated, c))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error naming %q", err, tc.want)
			}
		})
	}
}

func TestInvalidIssuer(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*CMPIssuer)
		want string
	}{
		{"no server", func(i *CMPIssuer) { i.Spec.Server = "" }, "spec.server"},
		{"scheme", func(i *CMPIssuer) { i.Spec.Server = "ldap://ca" }, "spec.server"},
		{"user name", func(i *CMPIssuer) { i.Spec.Server = "http://me:pw@ca/" }, "spec.server: Invalid value: must be an http or https URL"},
		{"both bootstraps", func(i *CMPIssuer) { i.Spec.InitialAuthentication.Signature = &KeyPairSource{SecretName: "k"} }, "spec.initialAuthentication"},
		{"no trust", func(i *CMPIssuer) { i.Spec.Trust.SecretName = "" }, "spec.trust.secretName"},
		{"two trusts", func(i *CMPIssuer) { i.Spec.Trust.RootsKey, i.Spec.Trust.ServerCertificateKey = "a", "b" }, "spec.trust"},
		{"two senders", func(i *CMPIssuer) { i.Spec.Trust.ExpectedSender, i.Spec.Trust.ServerCertificateKey = "/CN=ca", "a" }, "spec.trust.expectedSender"},
		{"nobody is to send", func(i *CMPIssuer) { i.Spec.Trust.ExpectedSender = "/" }, "spec.trust.expectedSender"},
		{"confirmation", func(i *CMPIssuer) { i.Spec.Confirmation = "never" }, "spec.confirmation"},
		{"timeout", func(i *CMPIssuer) { i.Spec.TotalTimeout = &metav1.Duration{Duration: -time.Second} }, "spec.totalTimeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := validIssuer()
			tc.edit(i)
			err := CheckIssuerEvent(configEvent(t, IssuerCreated, i))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error naming %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "me:pw") {
				t.Errorf("the error repeats a password: %v", err)
			}
		})
	}
}

// All problems are told at once, each on a line of its own.
func TestAllProblemsAtOnce(t *testing.T) {
	c := validCertificate()
	c.Spec.IssuerRef.Name, c.Spec.Output.SecretName, c.Spec.Subject.Country = "", "", "x"
	err := CheckCertificateEvent(configEvent(t, ConfigCreated, c))
	invalid, ok := errors.AsType[*InvalidError](err)
	if !ok || len(invalid.Fields) != 3 {
		t.Fatalf("got %v, want an *InvalidError with three fields", err)
	}
}

func TestUnreadableData(t *testing.T) {
	for _, tc := range []struct{ name, data, want string }{
		{"nothing", "", "data: is required"},
		{"not JSON", "{", "data:"},
		{"unknown field", `{"spec":{"isuerRef":{}}}`, `unknown field "isuerRef"`},
		{"trailing", `{"spec":{}} {}`, "more than one JSON value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := configEvent(t, ConfigCreated, nil)
			e.DataEncoded = []byte(tc.data)
			err := CheckCertificateEvent(e)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSubjects(t *testing.T) {
	key := types.NamespacedName{Namespace: "core", Name: "api.example"}
	for _, tc := range []struct{ got, want string }{
		{WorkSubject(Enroll, key), "certloop.work.enroll.core.api_example"},
		{ScheduleSubject(Renew, key), "certloop.sched.renew.core.api_example"},
		{DeadSubject(Watch, types.NamespacedName{}), "certloop.dead.watch._._"},
		{FactSubject(CertificateIssued, key), "certloop.evt.certificate.issued.core.api_example"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %s, want %s", tc.got, tc.want)
		}
	}
}

func TestFollowKeepsCorrelation(t *testing.T) {
	first := configEvent(t, ConfigCreated, nil)
	first.SetExtension(TraceParent, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	second := Follow(first, configEvent(t, CertificateExpiring, nil))
	third := Follow(second, configEvent(t, CertificateRenewed, nil))
	ext := third.Extensions()
	if ext[CorrelationID] != first.ID() || ext[CausationID] != second.ID() || ext[TraceParent] == nil {
		t.Errorf("got %v, want correlation %s and cause %s", ext, first.ID(), second.ID())
	}
}

func TestDelayRoundTrip(t *testing.T) {
	want := time.Date(2026, 11, 21, 10, 0, 0, 5e8, time.UTC)
	got, err := DueTime(Delay(configEvent(t, EnrollmentRequested, Work{Reason: WorkPoll}), want))
	if err != nil || !got.Equal(want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestRenewalTime(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, tc := range []struct {
		name           string
		lifetime, want time.Duration
		renewBefore    time.Duration
	}{
		{"configured", 90 * day, 60 * day, 30 * day},
		{"a third by default", 90 * day, 60 * day, 0},
		{"granted shorter than renewBefore", 9 * day, 3 * day, 30 * day},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := RenewalTime(start, start.Add(tc.lifetime), tc.renewBefore)
			if want := start.Add(tc.want); !got.Equal(want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Every event type is in the table once, and every constant has a row.
func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if seen[k.Type] {
			t.Errorf("%s is in the table twice", k.Type)
		}
		seen[k.Type] = true
		if len(k.Consumers) == 0 && !k.Fact {
			t.Errorf("%s goes nowhere", k.Type)
		}
		if k.Doc == "" {
			t.Errorf("%s has no sentence", k.Type)
		}
	}
	if _, ok := KindOf("io.certloop.nothing.v1"); ok {
		t.Error("an unknown type was found")
	}
}

func FuzzCheckCertificateEvent(f *testing.F) {
	good, err := json.Marshal(validCertificate())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"spec":{"subjectAltNames":{"uris":["urn:uuid:%"]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := configEvent(t, ConfigCreated, nil)
		e.DataEncoded = data
		_ = CheckCertificateEvent(e) // must not panic
	})
}

// A CMPClusterIssuer has no namespace: its subject is /name. Nothing else may leave it out.
func TestSubjectOfAClusterIssuer(t *testing.T) {
	for eventType, want := range map[string]bool{
		IssuerCreated: true, IssuerDeleted: true, InputChanged: true, ConfigRejected: true, ConfigApplied: true,
		ConfigCreated: false, ConfigDeleted: false, EnrollmentRequested: false,
	} {
		e := NewEvent(eventType, types.NamespacedName{Name: "ca"}, nil)
		key, err := ObjectOf(e)
		if (err == nil) != want || want && key != (types.NamespacedName{Name: "ca"}) {
			t.Errorf("%s about %s: got %v and error %v, want it accepted: %v", eventType, e.Subject(), key, err, want)
		}
	}
	data := map[string]any{"kind": ClusterIssuerKind, "spec": map[string]any{"server": "http://ca.example.com/", "trust": map[string]any{"secretName": "ca-trust"}}}
	if err := CheckIssuerEvent(NewEvent(IssuerCreated, types.NamespacedName{Name: "ca"}, data)); err != nil {
		t.Errorf("got error %v", err)
	}
	if err := CheckIssuerEvent(NewEvent(IssuerCreated, types.NamespacedName{Namespace: "shop", Name: "ca"}, data)); err == nil {
		t.Error("a CMPClusterIssuer in a namespace is accepted")
	}
}
