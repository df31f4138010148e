package ledger_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

func TestProjectCreates(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	if none, err := r.outputOf(cert); none != nil || err != nil {
		t.Fatalf("before: got Secret %v and error %v, want neither", none, err)
	}
	if found, err := r.deliver(r.store, cert, rec); err != nil || found != ledger.Absent {
		t.Fatalf("got %q, %v; want %q put right", found, err, ledger.Absent)
	}
	s := r.secret("web-tls")
	if s.Type != corev1.SecretTypeTLS {
		t.Errorf("got type %s, want %s", s.Type, corev1.SecretTypeTLS)
	}
	if _, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"]); err != nil {
		t.Errorf("tls.key is not the key of tls.crt: %v", err)
	}
	c := rec.Current
	want := map[string][]byte{"tls.key": encode(t, c.Key), "tls.crt": ledger.EncodeCertificates(c.Chain...), "ca.crt": ledger.EncodeCertificates(r.root.cert)}
	if !maps.EqualFunc(s.Data, want, bytes.Equal) {
		t.Errorf("got data keys %v, or other data than the record's", slices.Sorted(maps.Keys(s.Data)))
	}
	if want := map[string]string{"certloop.io/managed-by": "certloop", "certloop.io/role": "output", "certloop.io/certificate": "web"}; !maps.Equal(s.Labels, want) {
		t.Errorf("got labels %v, want %v", s.Labels, want)
	}
	leaf := c.Certificate()
	for name, want := range map[string]string{
		"certloop.io/not-after": leaf.NotAfter.UTC().Format(time.RFC3339), "certloop.io/revision": "1",
		"certloop.io/serial": ledger.SerialHex(leaf.SerialNumber.Bytes()), "certloop.io/certificate-uid": string(cert.UID),
	} {
		if got := s.Annotations[name]; got != want {
			t.Errorf("annotation %s: got %q, want %q", name, got, want)
		}
	}
	if got := s.Annotations["certloop.io/fingerprint"]; len(got) != 64 {
		t.Errorf("annotation fingerprint: got %q, want a SHA-256", got)
	}
	if len(s.OwnerReferences) > 0 {
		t.Errorf("got owners %v: the output must outlive its configuration", s.OwnerReferences)
	}
	r.project(cert, rec, false)
	if got := r.secret("web-tls").ResourceVersion; got != s.ResourceVersion {
		t.Error("an output that is right was written again")
	}
}

// Whatever somebody does to an output, its data and marks come back, and what is
// not ours stays as it is.
func TestProjectRepairs(t *testing.T) {
	tests := map[string]struct {
		harm func(*corev1.Secret)
		says string
	}{
		"key overwritten":         {func(s *corev1.Secret) { s.Data["tls.key"] = []byte("rubbish") }, "tls.key was changed"},
		"certificate overwritten": {func(s *corev1.Secret) { s.Data["tls.crt"] = append(s.Data["tls.crt"], '\n') }, "tls.crt was changed"},
		"certificate emptied":     {func(s *corev1.Secret) { s.Data["tls.crt"] = nil }, "tls.crt was changed"},
		"anchor removed":          {func(s *corev1.Secret) { delete(s.Data, "ca.crt") }, "ca.crt is missing"},
		"everything emptied": {func(s *corev1.Secret) { s.Data = map[string][]byte{"tls.key": {}, "tls.crt": {}} },
			"ca.crt is missing, tls.crt was changed, tls.key was changed"},
		"marks removed": {func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil }, strings.Join([]string{"label certloop.io/certificate is missing", "label certloop.io/managed-by is missing", "label certloop.io/role is missing", "annotation certloop.io/certificate-uid was changed", "annotation certloop.io/revision was changed"}, ", ")},
		"both": {func(s *corev1.Secret) { s.Data["tls.key"] = nil; s.Labels["certloop.io/managed-by"] = "x" },
			"tls.key was changed, label certloop.io/managed-by is missing"},
		"nothing":           {func(s *corev1.Secret) { s.Data["theirs"] = []byte("2") }, ""},
		"other annotations": {func(s *corev1.Secret) { delete(s.Annotations, "certloop.io/serial") }, ""},
	}
	r := newRig(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			cert, rec := r.issued(objectName(name))
			r.project(cert, rec, true)
			output := cert.Spec.Output.SecretName
			r.edit(output, func(s *corev1.Secret) {
				s.Data["theirs"] = []byte("1")
				metav1.SetMetaDataLabel(&s.ObjectMeta, "team", "shop")
				metav1.SetMetaDataAnnotation(&s.ObjectMeta, "note", "kept")
			})
			before := r.secret(output)
			r.edit(output, tt.harm)
			harmed := r.secret(output)
			if got, err := r.drift(rec, harmed); err != nil || got != tt.says {
				t.Errorf("Drift says %q, %v; want %q", got, err, tt.says)
			}
			if found, err := r.deliver(r.store, cert, rec); err != nil || found != tt.says {
				t.Errorf("Project put %q right, %v; want %q", found, err, tt.says)
			}
			got := r.secret(output)
			for _, key := range []string{"tls.key", "tls.crt", "ca.crt"} {
				if !bytes.Equal(got.Data[key], before.Data[key]) {
					t.Errorf("%s is not what it was", key)
				}
			}
			if !bytes.Equal(got.Data["theirs"], harmed.Data["theirs"]) {
				t.Errorf("foreign data key: got %q, want %q", got.Data["theirs"], harmed.Data["theirs"])
			}
			if got.Labels["team"] != harmed.Labels["team"] || got.Annotations["note"] != harmed.Annotations["note"] {
				t.Errorf("got labels %v, annotations %v; want the foreign ones as they were", got.Labels, got.Annotations)
			}
			if got.Labels["certloop.io/managed-by"] != "certloop" || got.Labels["certloop.io/role"] != "output" {
				t.Errorf("got labels %v, want ours", got.Labels)
			}
		})
	}
}

func TestDriftOfNothing(t *testing.T) {
	r := newRig(t)
	_, rec := r.issued("web")
	if got, err := r.drift(rec, nil); err != nil || got != ledger.Absent {
		t.Errorf("got %q, %v", got, err)
	}
}

// An output is behind when it holds, untouched, what the record held before.
func TestOutdated(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	r.project(cert, rec, true)
	if rec.Outdated(r.secret("web-tls")) {
		t.Error("an output that is right is taken for one that is behind")
	}
	stale := r.record(cert)
	r.issue(rec, "web")
	r.save(rec)
	tests := map[string]struct {
		change func(*corev1.Secret)
		want   bool
	}{
		"untouched":               {func(*corev1.Secret) {}, true},
		"foreign parts added":     {func(s *corev1.Secret) { s.Data["theirs"] = []byte("1"); s.Labels["team"] = "shop" }, true},
		"certificate changed":     {func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") }, false},
		"key removed":             {func(s *corev1.Secret) { delete(s.Data, "tls.key") }, false},
		"anchor removed":          {func(s *corev1.Secret) { delete(s.Data, "ca.crt") }, false},
		"no revision":             {func(s *corev1.Secret) { delete(s.Annotations, "certloop.io/revision") }, false},
		"a revision that is ours": {func(s *corev1.Secret) { s.Annotations["certloop.io/revision"] = "2" }, false},
		"a later revision":        {func(s *corev1.Secret) { s.Annotations["certloop.io/revision"] = "3" }, false},
		"no fingerprint":          {func(s *corev1.Secret) { delete(s.Annotations, "certloop.io/fingerprint") }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := r.secret("web-tls")
			tt.change(s)
			if got := rec.Outdated(s); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if rec.Outdated(nil) || stale.Outdated(r.secret("web-tls")) {
		t.Error("what does not exist, or is as the record is, is taken for behind")
	}
}

// A new certificate replaces key and certificate at once, in one write.
func TestProjectRenewal(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	r.project(cert, rec, true)
	former := r.secret("web-tls")
	r.issue(rec, "web")
	r.save(rec)
	writes := 0
	r.store = r.watched(func(req *http.Request) {
		if req.Method != http.MethodGet {
			writes++
		}
	})
	r.project(cert, rec, true)
	if writes != 1 {
		t.Errorf("%d writes, want 1: between two a workload could read a key without its certificate", writes)
	}
	s := r.secret("web-tls")
	if _, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"]); err != nil {
		t.Errorf("tls.key is not the key of tls.crt: %v", err)
	}
	if bytes.Equal(s.Data["tls.key"], former.Data["tls.key"]) || s.Annotations["certloop.io/revision"] != "2" ||
		s.Annotations["certloop.io/fingerprint"] == former.Annotations["certloop.io/fingerprint"] {
		t.Errorf("got annotations %v, want a new key and revision 2", s.Annotations)
	}
}

// A record whose key is not that of its certificate is delivered to nobody.
func TestProjectRefusesAMismatch(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	rec.Current.Key = generate(t, model.PrivateKey{})
	wrote, err := r.deliver(r.store, cert, rec)
	if wrote != "" || err == nil || !strings.Contains(err.Error(), "do not match") || !strings.Contains(err.Error(), r.ns+"/web.certloop-record") {
		t.Errorf("got %v, %v; want an error that names the record", wrote, err)
	}
	rec.Current.Key = ledger.PrivateKey{}
	if wrote, err := r.deliver(r.store, cert, rec); wrote != "" || err == nil {
		t.Errorf("without a key: got %v, %v; want an error", wrote, err)
	}
	if none, err := r.outputOf(cert); none != nil || err != nil {
		t.Errorf("got Secret %v and error %v, want neither", none, err)
	}
}

func TestProjectRefusesWhatIsNotOurs(t *testing.T) {
	pair := map[string][]byte{"tls.key": []byte("theirs"), "tls.crt": []byte("theirs")}
	tests := map[string]struct {
		secret corev1.Secret
		says   string // "" when it may be replaced
	}{
		"another type": {corev1.Secret{Type: corev1.SecretTypeOpaque, Data: pair}, "its type is Opaque, not kubernetes.io/tls"},
		"another certificate's": {corev1.Secret{Type: corev1.SecretTypeTLS, Data: pair, ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{"certloop.io/certificate": "other"}}}, "it belongs to CMPCertificate other"},
		"another long name's": {corev1.Secret{Type: corev1.SecretTypeTLS, Data: pair, ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{"certloop.io/certificate": "another-long-names"},
			Annotations: map[string]string{"certloop.io/certificate-uid": "x", "certloop.io/certificate-name": "another-long-names-and-more"}}},
			"it belongs to CMPCertificate another-long-names-and-more"},
		"immutable": {corev1.Secret{Type: corev1.SecretTypeTLS, Data: pair, Immutable: new(true)}, "it is immutable"},
		"a record":  {corev1.Secret{Type: ledger.RecordType, Data: pair}, "its type is certloop.io/record"},
		"a former life's": {corev1.Secret{Type: corev1.SecretTypeTLS, Data: pair, ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{"certloop.io/certificate": "a-former-lifes"},
			Annotations: map[string]string{"certloop.io/certificate-uid": "former", "certloop.io/revision": "99"}}}, ""},
		"unmarked":      {corev1.Secret{Type: corev1.SecretTypeTLS, Data: pair}, "its data key tls.crt"},
		"a placeholder": {corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.key": {}, "tls.crt": {}, "theirs": []byte("1")}}, ""},
		"marks cut down": {corev1.Secret{Type: corev1.SecretTypeTLS, Data: pair, ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{"certloop.io/fingerprint": "0815"}}}, ""},
	}
	r := newRig(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			cert, rec := r.issued(objectName(name))
			s := tt.secret
			s.Name = cert.Spec.Output.SecretName
			before := r.create(&s)
			wrote, err := r.deliver(r.store, cert, rec)
			if tt.says == "" {
				if wrote == "" || err != nil {
					t.Errorf("got %v, %v; want it replaced", wrote, err)
				}
				return
			}
			if wrote != "" || !errors.Is(err, ledger.ErrNotManaged) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), r.ns+"/"+s.Name) {
				t.Errorf("got %v, %v; want ErrNotManaged that names the Secret and says %q", wrote, err, tt.says)
			}
			if got := r.secret(s.Name); got.ResourceVersion != before.ResourceVersion {
				t.Error("it was written")
			}
		})
	}
}

// Two configurations that name the same output do not take it from each other.
func TestProjectTwoOfOneOutput(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	r.project(cert, rec, true)
	other := r.declare("other", spec("web"))
	otherRec := r.record(other)
	r.issue(otherRec, "other")
	r.save(otherRec)
	if wrote, err := r.deliver(r.store, other, otherRec); wrote != "" || !errors.Is(err, ledger.ErrNotManaged) {
		t.Errorf("got %v, %v; want ErrNotManaged", wrote, err)
	}
	r.project(cert, rec, false)
}

// Whoever fell asleep with an old record does not put the old certificate back.
func TestProjectRefusesToGoBack(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	r.project(cert, rec, true)
	stale := r.record(cert)
	r.issue(rec, "web")
	r.save(rec)
	r.project(cert, rec, true)
	before := r.secret("web-tls")
	wrote, err := r.deliver(r.store, cert, stale)
	if wrote != "" || !errors.Is(err, ledger.ErrConflict) || !strings.Contains(err.Error(), "revision 2, ours is 1") {
		t.Errorf("got %v, %v; want ErrConflict that tells both revisions", wrote, err)
	}
	if got := r.secret("web-tls"); got.ResourceVersion != before.ResourceVersion {
		t.Error("the output was written")
	}
}

// Somebody writes the output between our reading and our writing it.
func TestProjectConflict(t *testing.T) {
	tests := map[string]struct {
		present bool
		method  string
	}{
		"it appears": {false, http.MethodPost},
		"it changes": {true, http.MethodPut},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			cert, rec := r.issued("web")
			if tt.present {
				r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.key": nil, "tls.crt": nil}})
			}
			hit := false
			store := r.watched(func(req *http.Request) {
				if req.Method != tt.method || hit {
					return
				}
				hit = true
				if tt.present {
					r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("theirs") })
					return
				}
				r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.key": nil, "tls.crt": []byte("theirs")}})
			})
			wrote, err := r.deliver(store, cert, rec)
			if !hit || !errors.Is(err, ledger.ErrConflict) {
				t.Errorf("got %v, %v (interrupted: %v); want ErrConflict", wrote, err, hit)
			}
			if got := r.secret("web-tls").Data["tls.crt"]; string(got) != "theirs" {
				t.Errorf("got tls.crt %q, want what was written in between", got)
			}
			if wrote, err := r.deliver(r.store, cert, rec); wrote != "" || !errors.Is(err, ledger.ErrNotManaged) {
				t.Errorf("got %v, %v; want what others put there first refused", wrote, err)
			}
		})
	}
}

// It was deleted between reading and writing.
func TestProjectDeletedMeanwhile(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	r.project(cert, rec, true)
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = nil })
	store := r.watched(func(req *http.Request) {
		if req.Method == http.MethodPut {
			if err := r.secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := r.deliver(store, cert, rec); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
	r.project(cert, rec, true)
}

func TestSerialHex(t *testing.T) {
	for _, tt := range []struct {
		serial []byte
		want   string
	}{{nil, ""}, {[]byte{0x0a}, "0a"}, {[]byte{0xff, 0x00, 0x1b}, "ff001b"}} {
		if got := ledger.SerialHex(tt.serial); got != tt.want {
			t.Errorf("SerialHex(%x): got %q, want %q", tt.serial, got, tt.want)
		}
	}
}

// The output is in the configuration's namespace, whatever else is there.
func TestOutputIsOfTheNamespace(t *testing.T) {
	r, elsewhere := newRig(t), newRig(t)
	cert, rec := r.issued("web")
	elsewhere.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"}})
	r.project(cert, rec, true)
	got, err := r.outputOf(cert)
	if err != nil {
		t.Fatal(err)
	}
	if want := (types.NamespacedName{Namespace: r.ns, Name: "web-tls"}); got.Namespace != want.Namespace || got.Name != want.Name {
		t.Errorf("got %s/%s, want %s", got.Namespace, got.Name, want)
	}
}
