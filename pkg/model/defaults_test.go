package model

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What holds where a specification does not say is what the API server puts there.
func TestDefaultsAreThoseOfTheDefinitions(t *testing.T) {
	issuer := func(path ...string) any { return defaultOf(t, IssuerResource, path...) }
	reference, password := new(SharedSecretSource).DataKeys()
	key, certificate := new(KeyPairSource).DataKeys()
	for name, tc := range map[string]struct{ got, want any }{
		"reference":   {reference, issuer("initialAuthentication", "mac", "referenceKey")},
		"password":    {password, issuer("initialAuthentication", "mac", "passwordKey")},
		"private key": {key, issuer("authentication", "privateKeyKey")},
		"certificate": {certificate, issuer("authentication", "certificateKey")},
		"roots":       {new(CertificatesSource).DataKey(), issuer("tls", "trust", "key")},
		"release":     {float64(RetryPolicy{}.Release()), issuer("retry", "releasePerSecond")},
		"deletion":    {new(CMPCertificateSpec).Deletion(), defaultOf(t, CertificateResource, "deletionPolicy")},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, and the definition has %v", name, tc.got, tc.want)
		}
	}
}

// defaultOf is the default of a field below spec, as the definition of a resource has it.
func defaultOf(t *testing.T, resource string, path ...string) any {
	t.Helper()
	at := definition(t, resource)
	for _, name := range append([]string{"spec"}, path...) {
		properties, _ := at["properties"].(map[string]any)
		if at, _ = properties[name].(map[string]any); at == nil {
			t.Fatalf("%s has no field %v", resource, path)
		}
	}
	return at["default"]
}

func TestTimesOfAnIssuer(t *testing.T) {
	d := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for name, tc := range map[string]struct {
		spec           CMPIssuerSpec
		message, total time.Duration
	}{
		"nothing said": {CMPIssuerSpec{}, 30 * time.Second, 24 * time.Hour},
		"short whole":  {CMPIssuerSpec{TotalTimeout: d(10 * time.Second)}, 10 * time.Second, 10 * time.Second},
		"both":         {CMPIssuerSpec{TotalTimeout: d(time.Hour), MessageTimeout: d(time.Minute)}, time.Minute, time.Hour},
	} {
		if message, total := tc.spec.MessageLimit(), tc.spec.TransactionLimit(); message != tc.message || total != tc.total {
			t.Errorf("%s: got %s of %s, want %s of %s", name, message, total, tc.message, tc.total)
		}
	}
	if got := (Policies{}).Tolerance(); got != 5*time.Minute {
		t.Errorf("got a tolerance of %s, want 5m", got)
	}
	if got := (Policies{ClockTolerance: d(0)}).Tolerance(); got != 0 {
		t.Errorf("got a tolerance of %s, want none", got)
	}
}

func TestAnchorsOfATrustStore(t *testing.T) {
	for name, tc := range map[string]struct {
		trust  TrustSource
		key    string
		pinned bool
	}{
		"nothing said": {TrustSource{}, "ca.crt", false},
		"roots":        {TrustSource{RootsKey: "roots.pem"}, "roots.pem", false},
		"pinned":       {TrustSource{ServerCertificateKey: "ca.pem"}, "ca.pem", true},
	} {
		if key, pinned := tc.trust.Anchors(); key != tc.key || pinned != tc.pinned {
			t.Errorf("%s: got %s, %v", name, key, pinned)
		}
	}
}
