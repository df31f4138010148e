package ledger_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
)

// Of an output that somebody else has changed no metadata say that it is as certloop wrote it.
func TestAsWritten(t *testing.T) {
	r := newRig(t)
	s := spec("web")
	s.Purpose = "tls"
	cert := r.declare("web", s)
	rec := r.record(cert)
	r.issue(rec, "web")
	r.save(rec)
	tests := map[string]struct {
		change func(*corev1.Secret)
		want   bool
	}{
		"nothing":                 {func(*corev1.Secret) {}, true},
		"key overwritten":         {func(s *corev1.Secret) { s.Data["tls.key"] = []byte("rubbish") }, false},
		"certificate emptied":     {func(s *corev1.Secret) { s.Data["tls.crt"] = nil }, false},
		"anchor removed":          {func(s *corev1.Secret) { delete(s.Data, "ca.crt") }, false},
		"label removed":           {func(s *corev1.Secret) { delete(s.Labels, "certloop.io/purpose") }, false},
		"label changed":           {func(s *corev1.Secret) { s.Labels["certloop.io/certificate"] = "shop" }, false},
		"annotation changed":      {func(s *corev1.Secret) { s.Annotations["certloop.io/revision"] = "7" }, false},
		"list of keys shortened":  {func(s *corev1.Secret) { s.Annotations["certloop.io/data-keys"] = "tls.key" }, false},
		"marks removed":           {func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil }, false},
		"history of fields lost":  {func(s *corev1.Secret) { s.ManagedFields = []metav1.ManagedFieldsEntry{{}} }, false},
		"foreign data key added":  {func(s *corev1.Secret) { s.Data["theirs"] = []byte("1") }, true},
		"foreign label added":     {func(s *corev1.Secret) { s.Labels["team"] = "shop" }, true},
		"foreign annotation":      {func(s *corev1.Secret) { s.Annotations["note"] = "kept" }, true},
		"key written in vain":     {func(s *corev1.Secret) { s.Data["tls.key"] = append([]byte{}, s.Data["tls.key"]...) }, true},
		"made immutable, no more": {func(s *corev1.Secret) { s.Immutable = new(true) }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			if _, err := r.deliver(r.store, cert, rec); err != nil {
				t.Fatal(err)
			}
			r.edit("web-tls", tt.change)
			meta, err := r.store.SecretMetadata(t.Context(), r.key("web-tls"))
			if err != nil {
				t.Fatal(err)
			}
			if got := ledger.AsWritten(meta); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
			r.remove("web-tls")
		})
	}
}

// One that somebody else has made is not ours, whatever it says and holds.
func TestNotAsWrittenWhenMadeAgain(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	r.project(cert, rec, true)
	s := r.secret("web-tls")
	r.remove("web-tls")
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: s.Labels, Annotations: s.Annotations}, Type: s.Type, Data: s.Data})
	if meta, err := r.store.SecretMetadata(t.Context(), r.key("web-tls")); err != nil || ledger.AsWritten(meta) {
		t.Errorf("it is taken for ours, error %v", err)
	}
}
