package lifecycle

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

// What the table of effects calls a reissue is what decide takes for another configuration.
func TestEffectsAreWhatIsDone(t *testing.T) {
	was := model.CMPCertificateSpec{
		Subject: &model.Subject{CommonName: "a"}, SubjectAltNames: &model.SubjectAltNames{}, Output: model.Output{SecretName: "a"},
		ValidityDays: 2,
	}
	for path, change := range map[string]func(*model.CMPCertificateSpec){
		"issuerRef":             func(s *model.CMPCertificateSpec) { s.IssuerRef.Kind = model.ClusterIssuerKind },
		"privateKey":            func(s *model.CMPCertificateSpec) { s.PrivateKey.Size = 384 },
		"subject":               func(s *model.CMPCertificateSpec) { s.Subject.Country = "DE" },
		"subjectAltNames":       func(s *model.CMPCertificateSpec) { s.SubjectAltNames.DNSNames = []string{"a"} },
		"keyUsages":             func(s *model.CMPCertificateSpec) { s.KeyUsages = []model.KeyUsage{"keyAgreement"} },
		"extendedKeyUsages":     func(s *model.CMPCertificateSpec) { s.ExtendedKeyUsages = []model.ExtendedKeyUsage{"serverAuth"} },
		"validityDays":          func(s *model.CMPCertificateSpec) { s.ValidityDays = 3 },
		"renewBeforeDays":       func(s *model.CMPCertificateSpec) { s.RenewBeforeDays = 3 },
		"renewBeforePercentage": func(s *model.CMPCertificateSpec) { s.RenewBeforePercentage = 3 },
		"output":                func(s *model.CMPCertificateSpec) { s.Output.SecretName = "b" },
		"caBundle":              func(s *model.CMPCertificateSpec) { s.CABundle = &model.CertificatesSource{SecretName: "b"} },
		"networkFunction":       func(s *model.CMPCertificateSpec) { s.NetworkFunction = "AMF" },
		"purpose":               func(s *model.CMPCertificateSpec) { s.Purpose = "SBI" },
		"record":                func(s *model.CMPCertificateSpec) { s.Record.KeepKey = new(bool) },
		"origin":                func(s *model.CMPCertificateSpec) { s.Origin = model.OriginAdopt },
		"basicConstraints":      func(s *model.CMPCertificateSpec) { s.BasicConstraints = model.EndEntity },
		"deletionPolicy":        func(s *model.CMPCertificateSpec) { s.DeletionPolicy = model.DeletionDelete },
		"paused":                func(s *model.CMPCertificateSpec) { s.Paused = true },
		"validity, the same": func(s *model.CMPCertificateSpec) {
			s.ValidityDays, s.Validity = 0, &metav1.Duration{Duration: 48 * time.Hour}
		},
	} {
		is := *was.DeepCopy()
		change(&is)
		effect, _ := model.Effect(&was, &is)
		if another := configDigest(is) != configDigest(was); another != (effect == model.EffectReissue) {
			t.Errorf("%s: got effect %s, and another configuration is asked for: %v", path, effect, another)
		}
	}
}
