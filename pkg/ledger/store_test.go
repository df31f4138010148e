package ledger_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

func TestOpenSendsNothing(t *testing.T) {
	if _, err := ledger.Open(&rest.Config{Host: "https://127.0.0.1:1"}); err != nil {
		t.Error(err)
	}
	if _, err := ledger.Open(&rest.Config{Host: "https://[::1"}); err == nil {
		t.Error("an address that is none is accepted")
	}
}

func TestReadingWhatIsNotThere(t *testing.T) {
	r := newRig(t)
	_, cert := r.store.Certificate(t.Context(), r.key("web"))
	_, issuer := r.store.Issuer(t.Context(), r.key("web"))
	_, secret := r.store.Secret(t.Context(), r.key("web"))
	for kind, err := range map[string]error{"cmpcertificate": cert, "cmpissuer": issuer, "secret": secret} {
		if !errors.Is(err, ledger.ErrNotFound) || !strings.Contains(err.Error(), kind+" "+r.ns+"/web") {
			t.Errorf("got error %v, want ErrNotFound that names the %s", err, kind)
		}
	}
}

// What the API server refuses for other reasons stays what it said.
func TestForbidden(t *testing.T) {
	r := newRig(t)
	cfg := rest.CopyConfig(r.config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	_, err := r.open(cfg).Secret(t.Context(), r.key("web"))
	if !apierrors.IsForbidden(err) || errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got error %v, want the API server's refusal", err)
	}
	if err != nil && !strings.HasPrefix(err.Error(), "reading secret "+r.ns+"/web: ") {
		t.Errorf("got error %v, want what was being done first", err)
	}
}

// More configurations than a page holds: each is visited once, and no page is larger.
func TestCertificatesInPages(t *testing.T) {
	r := newRig(t)
	const many = ledger.PageSize + 100
	var group errgroup.Group
	group.SetLimit(16)
	for i := range many {
		group.Go(func() error {
			_, err := r.store.ApplyCertificate(t.Context(), r.key(fmt.Sprintf("web-%d", i)), spec("web"))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var lists []string
	store := r.watched(func(req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/cmpcertificates") {
			lists = append(lists, req.URL.Query().Get("limit"))
		}
	})
	seen := map[string]int{}
	err := store.Certificates(t.Context(), ledger.Query{Namespace: r.ns}, func(c *model.CMPCertificate) error {
		seen[c.Name]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != many {
		t.Errorf("visited %d configurations, want %d", len(seen), many)
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s was visited %d times", name, n)
		}
	}
	if !slices.Equal(lists, []string{"500", "500"}) {
		t.Errorf("got requests with limits %v, want two of 500", lists)
	}

	stop := errors.New("enough")
	visits := 0
	err = store.Certificates(t.Context(), ledger.Query{Namespace: r.ns}, func(*model.CMPCertificate) error {
		visits++
		return stop
	})
	if !errors.Is(err, stop) || visits != 1 {
		t.Errorf("got %v after %d visits, want the visitor's error after one", err, visits)
	}
}

func TestCertificatesSelected(t *testing.T) {
	r, other := newRig(t), newRig(t)
	for name, day := range map[string]string{"today": "2026-11-22", "tomorrow": "2026-11-23", "never": ""} {
		for _, in := range []*rig{r, other} {
			s := spec(name)
			s.IssuerRef.Name = "ca-of-" + name
			cert := in.declare(name, s)
			cert.Status.RenewalDay = day
			if err := in.store.UpdateCertificateStatus(t.Context(), cert); err != nil {
				t.Fatal(err)
			}
		}
	}
	untouched := r.declare("untouched", spec("untouched")) // without any status
	if untouched.Status.RenewalDay != "" {
		t.Fatal("a new configuration has a renewal day")
	}
	day, none := "2026-11-22", ""
	tests := map[string]struct {
		query ledger.Query
		want  []string
	}{
		"all of a namespace": {ledger.Query{Namespace: r.ns}, []string{"never", "today", "tomorrow", "untouched"}},
		"by day":             {ledger.Query{Namespace: r.ns, RenewalDay: &day}, []string{"today"}},
		"never issued":       {ledger.Query{Namespace: r.ns, RenewalDay: &none}, []string{"never", "untouched"}},
		"by issuer":          {ledger.Query{Namespace: r.ns, Issuer: "ca-of-tomorrow"}, []string{"tomorrow"}},
		"by Secret":          {ledger.Query{Namespace: r.ns, SecretName: "untouched-tls"}, []string{"untouched"}},
		"by all of it":       {ledger.Query{Namespace: r.ns, RenewalDay: &day, Issuer: "ca-of-today", SecretName: "today-tls"}, []string{"today"}},
		"nothing fits":       {ledger.Query{Namespace: r.ns, RenewalDay: &day, Issuer: "ca-of-tomorrow"}, nil},
		"no such namespace":  {ledger.Query{Namespace: "nowhere"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := r.in(t).names(tt.query, r.ns); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	// Every namespace: other tests' configurations may be there too.
	q := ledger.Query{SecretName: "today-tls", Issuer: "ca-of-today"}
	if here, there := r.names(q, r.ns), r.names(q, other.ns); len(here) != 1 || len(there) != 1 {
		t.Errorf("in every namespace: got %v and %v, want one each", here, there)
	}
}

// names lists what a query selects of one namespace, sorted.
func (r *rig) names(q ledger.Query, namespace string) (names []string) {
	r.t.Helper()
	err := r.store.Certificates(r.t.Context(), q, func(c *model.CMPCertificate) error {
		if c.Namespace == namespace {
			names = append(names, c.Name)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestCertificatesBadSelector(t *testing.T) {
	r := newRig(t)
	err := r.store.Certificates(t.Context(), ledger.Query{Namespace: r.ns, Issuer: "a=b,,c"}, func(*model.CMPCertificate) error { return nil })
	if err == nil || !strings.HasPrefix(err.Error(), "listing cmpcertificates: ") {
		t.Errorf("got error %v, want what was being done first", err)
	}
}

func TestApplyCertificate(t *testing.T) {
	r := newRig(t)
	s := spec("web")
	s.Validity = &metav1.Duration{Duration: time.Hour}
	made := r.declare("web", s)
	if made.Generation != 1 || made.Spec.Type != model.EndEntity || made.Spec.Validity.Duration != time.Hour || made.UID == "" {
		t.Errorf("got %+v, want the object as the API server made it, with defaults", made)
	}
	if again := r.declare("web", s); again.ResourceVersion != made.ResourceVersion {
		t.Error("the same configuration again was a change")
	}
	s.Validity = nil
	if changed := r.declare("web", s); changed.Spec.Validity != nil || changed.Generation != 2 {
		t.Errorf("got validity %v, generation %d; want a field that is left out to go", changed.Spec.Validity, changed.Generation)
	}
}

// kubectl or GitOps owns a field that the event would change.
func TestApplyOwnedByAnother(t *testing.T) {
	r := newRig(t)
	theirs := spec("web")
	theirs.Validity = &metav1.Duration{Duration: time.Hour}
	r.apply("kubectl", model.CertificateKind, model.CertificateResource, "web", theirs)
	r.declare("web", theirs) // the same is no conflict

	ours := spec("web")
	ours.Validity = &metav1.Duration{Duration: 2 * time.Hour}
	_, err := r.store.ApplyCertificate(t.Context(), r.key("web"), ours)
	if !errors.Is(err, ledger.ErrOwnedByAnother) || errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got error %v, want ErrOwnedByAnother alone", err)
	}
	for _, want := range []string{r.ns + "/web", "kubectl", ".spec.validity"} {
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	got, err := r.store.Certificate(t.Context(), r.key("web"))
	if err != nil || got.Spec.Validity.Duration != time.Hour {
		t.Errorf("got %+v, %v; want their validity", got.Spec, err)
	}
	r.apply("kubectl", model.IssuerKind, model.IssuerResource, "ca", issuer("http://a.example.com/"))
	if _, err := r.store.ApplyIssuer(t.Context(), r.key("ca"), issuer("http://b.example.com/")); !errors.Is(err, ledger.ErrOwnedByAnother) {
		t.Errorf("an issuer: got error %v, want ErrOwnedByAnother", err)
	}
}

func issuer(server string) model.CMPIssuerSpec {
	return model.CMPIssuerSpec{Server: server, Trust: model.TrustSource{SecretName: "ca-trust"}}
}

// A refusal of the API server is told as it was said: repeating does not cure it.
func TestApplyRefused(t *testing.T) {
	r := newRig(t)
	tests := map[string]struct {
		key  types.NamespacedName
		spec model.CMPCertificateSpec
		want metav1.StatusReason
		says string
	}{
		"a rule broken":      {r.key("web"), model.CMPCertificateSpec{IssuerRef: model.IssuerReference{Name: "ca"}, Output: model.Output{SecretName: "s"}}, metav1.StatusReasonInvalid, "set subject, subjectAltNames or both"},
		"a name that is bad": {r.key("Web"), spec("web"), metav1.StatusReasonInvalid, "RFC 1123"},
		"no such namespace":  {types.NamespacedName{Namespace: "nowhere", Name: "web"}, spec("web"), metav1.StatusReasonNotFound, `namespaces "nowhere" not found`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := r.store.ApplyCertificate(t.Context(), tt.key, tt.spec)
			var status apierrors.APIStatus
			if !errors.As(err, &status) || status.Status().Reason != tt.want || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got error %v, want the API server's %s saying %q", err, tt.want, tt.says)
			}
		})
	}
}

func TestWithdraw(t *testing.T) {
	r := newRig(t)
	kinds := map[string]struct {
		kind, resource string
		spec           any
		declare        func(name string) error
		withdraw       func(name string) error
		gone           func(name string) bool
	}{
		"certificate": {
			model.CertificateKind, model.CertificateResource, spec("web"),
			func(name string) error {
				_, err := r.store.ApplyCertificate(t.Context(), r.key(name), spec("web"))
				return err
			},
			func(name string) error { return r.store.DeleteCertificate(t.Context(), r.key(name)) },
			func(name string) bool {
				_, err := r.store.Certificate(t.Context(), r.key(name))
				return errors.Is(err, ledger.ErrNotFound)
			},
		},
		"issuer": {
			model.IssuerKind, model.IssuerResource, issuer("http://ca.example.com/"),
			func(name string) error {
				_, err := r.store.ApplyIssuer(t.Context(), r.key(name), issuer("http://ca.example.com/"))
				return err
			},
			func(name string) error { return r.store.DeleteIssuer(t.Context(), r.key(name)) },
			func(name string) bool {
				_, err := r.store.Issuer(t.Context(), r.key(name))
				return errors.Is(err, ledger.ErrNotFound)
			},
		},
	}
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			if err := k.declare("ours"); err != nil {
				t.Fatal(err)
			}
			r.in(t).apply("kubectl", k.kind, k.resource, "theirs", k.spec)
			if err := k.withdraw("ours"); err != nil || !k.gone("ours") {
				t.Errorf("declared by an event: error %v, gone %v; want it gone", err, k.gone("ours"))
			}
			if err := k.withdraw("ours"); err != nil {
				t.Errorf("gone already: got error %v, want none", err)
			}
			err := k.withdraw("theirs")
			if !errors.Is(err, ledger.ErrOwnedByAnother) || k.gone("theirs") || !strings.Contains(err.Error(), r.ns+"/theirs") {
				t.Errorf("declared by kubectl: error %v, gone %v; want ErrOwnedByAnother", err, k.gone("theirs"))
			}
		})
	}
}

// Between reading a configuration and deleting it, it was deleted and declared anew:
// the new one stays.
func TestWithdrawAnotherLife(t *testing.T) {
	r := newRig(t)
	first := r.declare("web", spec("web"))
	store := r.watched(func(req *http.Request) {
		if req.Method != http.MethodDelete {
			return
		}
		if err := r.resource(model.CertificateResource).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		r.declare("web", spec("web"))
	})
	if err := store.DeleteCertificate(t.Context(), r.key("web")); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got error %v, want ErrConflict", err)
	}
	got, err := r.store.Certificate(t.Context(), r.key("web"))
	if err != nil || got.UID == first.UID {
		t.Errorf("got %v, want the second life", err)
	}
}

func TestUpdateStatus(t *testing.T) {
	r := newRig(t)
	cert := r.declare("web", spec("web"))
	stale := cert.DeepCopy()
	cert.Status.Serial = "2a"
	if err := r.store.UpdateCertificateStatus(t.Context(), cert); err != nil {
		t.Fatal(err)
	}
	cert.Status.Revision = 1
	if err := r.store.UpdateCertificateStatus(t.Context(), cert); err != nil {
		t.Errorf("again, with what was returned: %v", err)
	}
	stale.Status.Serial = "ff"
	if err := r.store.UpdateCertificateStatus(t.Context(), stale); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got error %v, want ErrConflict", err)
	}
	got, err := r.store.Certificate(t.Context(), r.key("web"))
	if err != nil || got.Status.Serial != "2a" || got.Status.Revision != 1 || got.Generation != 1 {
		t.Errorf("got %+v, %v; want the first writer's status and no new generation", got, err)
	}
	if err := r.store.DeleteCertificate(t.Context(), r.key("web")); err != nil {
		t.Fatal(err)
	}
	if err := r.store.UpdateCertificateStatus(t.Context(), cert); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("after deletion: got error %v, want ErrNotFound", err)
	}

	ca, err := r.store.ApplyIssuer(t.Context(), r.key("ca"), issuer("http://ca.example.com/"))
	if err != nil {
		t.Fatal(err)
	}
	stale2 := ca.DeepCopy()
	ca.Status.ObservedGeneration = 1
	if err := r.store.UpdateIssuerStatus(t.Context(), ca); err != nil {
		t.Error(err)
	}
	stale2.Status.ObservedGeneration = 2
	if err := r.store.UpdateIssuerStatus(t.Context(), stale2); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("an issuer: got error %v, want ErrConflict", err)
	}
}
