package lifecycle_test

import (
	"bytes"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

// What others made is not overwritten, whatever its type, unless the configuration says so; an input of the
// issuer never is.
func TestOutputOfOthers(t *testing.T) {
	pair := newPair(t, "theirs", nil, time.Now(), time.Hour).data(t)
	theirs := func(labels map[string]string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls", Labels: labels}, Type: corev1.SecretTypeTLS, Data: pair}
	}
	inOpaque := model.Output{SecretName: "ca-bootstrap", PrivateKey: &model.OutputPart{Key: "password"}, Certificate: &model.OutputPart{Key: "reference"}}
	for name, tc := range map[string]struct {
		present *corev1.Secret
		change  func(*model.CMPCertificateSpec)
		refused bool
	}{
		"of the same type":             {theirs(map[string]string{"controller.cert-manager.io/fao": "true"}), nil, true},
		"that is to be overwritten":    {theirs(nil), func(s *model.CMPCertificateSpec) { s.Origin = model.OriginAutomatic }, false},
		"of a certificate of ours":     {theirs(map[string]string{model.CertificateLabel: "web"}), nil, false},
		"of a certificate that went":   {theirs(map[string]string{model.CertificateLabel: "gone", model.RoleLabel: model.RoleOutput}), nil, false},
		"the issuer's shared secret":   {nil, func(s *model.CMPCertificateSpec) { s.Output = inOpaque }, true},
		"the shared secret, AUTOMATIC": {nil, func(s *model.CMPCertificateSpec) { s.Output, s.Origin = inOpaque, model.OriginAutomatic }, true},
		"another part of the trust": {nil, func(s *model.CMPCertificateSpec) {
			s.Output.CABundle = &model.OutputPart{SecretName: "ca-trust", Key: "more.crt"}
		}, true},
		"the trust, to be adopted": {nil, func(s *model.CMPCertificateSpec) {
			s.Output.CABundle, s.Origin = &model.OutputPart{SecretName: "ca-trust"}, model.OriginAdopt
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			if tc.present != nil {
				if _, err := r.secrets.Create(t.Context(), tc.present.DeepCopy(), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			bootstrap, trust := r.get("ca-bootstrap"), r.get("ca-trust")
			spec := certificate("web", 24*time.Hour)
			if tc.change != nil {
				tc.change(&spec)
			}
			r.declare(model.ConfigCreated, "web", spec)
			if !tc.refused {
				r.wantReady("web", true)
				return
			}
			for range 8 { // and no fight is seen where nobody writes
				r.wantReason("web", model.ReasonOutputConflict)
				r.wait()
			}
			if r.get("ca-bootstrap").ResourceVersion != bootstrap.ResourceVersion || r.get("ca-trust").ResourceVersion != trust.ResourceVersion {
				t.Error("an input of the issuer was written")
			}
			if tc.present == nil {
				r.wantIssuances("web", 0)
				return
			}
			if got := r.output("web").Data["tls.key"]; !bytes.Equal(got, pair["tls.key"]) {
				t.Error("what others made was overwritten")
			}
			r.delete("web-tls")
			r.wait()
			r.wantReady("web", true)
			r.wantIssuances("web", 1)
		})
	}
}

// An output that certloop has written is put back though nothing on it says so any more.
func TestOutputWithoutMarks(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	want := r.output("web").Data["tls.crt"]
	r.edit("web-tls", func(s *corev1.Secret) {
		s.Labels, s.Annotations, s.Data = nil, nil, newPair(t, "theirs", nil, time.Now(), time.Hour).data(t)
	})
	r.send(r.ref(model.RefUpdate, "web-tls"))
	r.wantReady("web", true)
	if !bytes.Equal(r.output("web").Data["tls.crt"], want) {
		t.Error("it was not put back")
	}
	r.send(model.NewEvent(model.ConfigDeleted, r.key("web"), nil))
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
}
