package lifecycle_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// provoked are the reasons that were given while the tests of this package ran: in the
// conditions that the API server took, and in the facts and rejections that handlers returned.
var provoked reasons

type reasons struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (r *reasons) see(codes ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	for _, c := range codes {
		r.seen[c] = true
	}
}

// told sees the reason of a fact, in data that have one.
func (r *reasons) told(facts ...event.Event) {
	for _, f := range facts {
		var data struct{ Reason string }
		if json.Unmarshal(f.Data(), &data) == nil {
			r.see(data.Reason)
		}
	}
}

// noted finds the reasons that stand in a message, each with a colon behind it.
var noted = regexp.MustCompile(`\b([A-Z][A-Za-z]+): `)

// written sees what stands in the status of an object.
func (r *reasons) written(object []byte) {
	var o struct {
		Status struct{ Conditions []metav1.Condition }
	}
	if json.Unmarshal(object, &o) != nil {
		return
	}
	for _, c := range o.Status.Conditions {
		r.see(c.Reason)
		for _, note := range noted.FindAllStringSubmatch(c.Message, -1) {
			r.see(note[1])
		}
	}
}

// missing are the reasons of the catalogue that were not given.
func (r *reasons) missing() (codes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range model.Reasons() {
		if !r.seen[row.Code] {
			codes = append(codes, row.Code)
		}
	}
	return codes
}

// wrap sees every status that the API server has taken.
func (r *reasons) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		var sent []byte
		if req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "/status") && req.GetBody != nil {
			if body, err := req.GetBody(); err == nil {
				sent, _ = io.ReadAll(body) // what is missing then is missing in the end
			}
		}
		res, err := next.RoundTrip(req)
		if err == nil && res.StatusCode == http.StatusOK {
			r.written(sent)
		}
		return res, err
	})
}

// judge is the result of the tests: where all of them have run and passed, every reason of the
// catalogue must have been given. What nobody gives does not belong there.
func (r *reasons) judge(code int, all bool, complain io.Writer) int {
	if code != 0 || !all || r.untouched() {
		return code
	}
	missing := r.missing()
	if len(missing) == 0 {
		return 0
	}
	_, _ = fmt.Fprintf(complain, "FAIL: no test provokes %s: add one, or remove it from pkg/model/reason.go\n", strings.Join(missing, ", "))
	return 1
}

// untouched: there was no API server, which every test has said.
func (r *reasons) untouched() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen) == 0
}

// everyTest: the whole package was asked for, and no part of it.
func everyTest() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}

// The check of the catalogue finds what is missing, wherever a reason may stand.
func TestReasonsAreSeen(t *testing.T) {
	var r reasons
	r.told(model.NewEvent(model.ConfigRejected, types.NamespacedName{Namespace: "a", Name: "b"}, model.RejectedFact{Reason: model.ReasonOwnedByAnother}))
	r.written([]byte(`{"status":{"conditions":[{"type":"Ready","reason":"Issued","message":"delivered; SplitOutput: in two"}]}}`))
	missing := r.missing()
	for _, code := range []string{model.ReasonOwnedByAnother, model.ReasonIssued, model.ReasonSplitOutput} {
		if slices.Contains(missing, code) {
			t.Errorf("%s was given and is missing", code)
		}
	}
	if got, want := len(missing), len(model.Reasons())-3; got != want {
		t.Errorf("got %d missing, want %d", got, want)
	}
	var complaint strings.Builder
	if r.judge(0, true, &complaint) != 1 || !strings.Contains(complaint.String(), model.ReasonPaused) {
		t.Errorf("what is missing is not told: %q", complaint.String())
	}
	if failed, some := r.judge(2, true, &complaint), r.judge(0, false, &complaint); failed != 2 || some != 0 {
		t.Errorf("got %d after tests that failed and %d after some of them, want their own results", failed, some)
	}
}

// What a configuration lacks or breaks is told where its sender looks, by the reason for it.
func TestReasonsOfWhatIsMissing(t *testing.T) {
	for reason, tc := range map[string]struct {
		issuer      func(*model.CMPIssuerSpec)
		certificate func(*model.CMPCertificateSpec)
	}{
		model.ReasonIdentityNotConfigured:  {func(s *model.CMPIssuerSpec) { s.Authentication = nil }, nil},
		model.ReasonBootstrapNotConfigured: {func(s *model.CMPIssuerSpec) { s.InitialAuthentication = nil }, func(s *model.CMPCertificateSpec) { s.Type = model.CMPIdentity }},
		model.ReasonIssuerInvalid:          {func(s *model.CMPIssuerSpec) { s.Recipient = `CN=#not hexadecimal` }, nil},
		model.ReasonSecretInvalid:          {func(s *model.CMPIssuerSpec) { s.Trust.RootsKey = "rubbish" }, nil},
		model.ReasonIdentityExpired:        {func(s *model.CMPIssuerSpec) { s.Authentication.SecretName = "old" }, nil},
	} {
		t.Run(reason, func(t *testing.T) {
			r := newRig(t, nil)
			r.secret("ca-bootstrap", map[string][]byte{"reference": []byte("ref"), "password": []byte("correct horse")})
			root := newPair(t, "root", nil, r.now(), time.Hour)
			r.secret("ca-trust", map[string][]byte{"ca.crt": root.data(t)["tls.crt"], "rubbish": []byte("rubbish")})
			r.secret("old", newPair(t, "old", root, r.now().Add(-48*time.Hour), time.Hour).data(t))
			issuer := r.issuer()
			tc.issuer(&issuer)
			r.declare(model.IssuerCreated, "ca", issuer)
			spec := certificate("web", 24*time.Hour)
			if tc.certificate != nil {
				tc.certificate(&spec)
			}
			r.declare(model.ConfigCreated, "web", spec)
			r.wantReason("web", reason)
			r.wantTold(model.CertificateWaiting, 1)
			if n := len(r.ca.Issued()); n > 0 {
				t.Errorf("the CA issued %d certificates", n)
			}
		})
	}
}

// A name that is misspelt is nobody's name: nothing is issued without what was left out of it.
func TestReasonsOfMisspeltNames(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	web := certificate("web", 24*time.Hour)
	web.Subject = &model.Subject{DistinguishedName: "/O=Example/CM=web.example.com"}
	r.declare(model.ConfigCreated, "web", web)
	r.wantReason("web", model.ReasonConfigInvalid)
	for name, change := range map[string]func(*model.CMPIssuerSpec){
		"ca-issuer":    func(s *model.CMPIssuerSpec) { s.Issuer = "/CM=amf" },
		"ca-rfc4514":   func(s *model.CMPIssuerSpec) { s.Issuer = "CM=amf" },
		"ca-recipient": func(s *model.CMPIssuerSpec) { s.Recipient = "/O=Example/CM=ca" },
		"ca-sender":    func(s *model.CMPIssuerSpec) { s.Trust.ExpectedSender = "/O=Example/CM=ca" },
	} {
		issuer := r.issuer()
		change(&issuer)
		r.declare(model.IssuerCreated, name, issuer)
		i, err := r.store.Issuer(t.Context(), r.key(name))
		if err != nil {
			t.Fatal(err)
		}
		if c := meta.FindStatusCondition(i.Status.Conditions, model.Ready); c == nil || c.Reason != model.ReasonIssuerInvalid || !strings.Contains(c.Message, "CM") {
			t.Errorf("%s: got %+v, want IssuerInvalid and what is wrong", name, c)
		}
		spec := certificate(name, 24*time.Hour)
		spec.IssuerRef.Name = name
		r.declare(model.ConfigCreated, name, spec)
		r.wantReason(name, model.ReasonIssuerInvalid)
		r.wantIssuances(name, 0)
	}
	r.wantIssuances("web", 0)
}

// What is wrong with a Secret of an issuer names the field by which it is one.
func TestMessagesNameTheField(t *testing.T) {
	r := newRig(t, nil)
	r.secret("ca-trust", map[string][]byte{"ca.crt": []byte("rubbish")})
	r.declare(model.IssuerCreated, "ca", r.issuer())
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", model.ReasonSecretInvalid)
	for _, part := range []string{"/ca-trust", "data key ca.crt", "spec.trust", r.ns + "/ca", "correct it"} {
		if got := r.message("web", model.Ready); !strings.Contains(got, part) {
			t.Errorf("got message %q, want %q in it", got, part)
		}
	}
}

// What the cluster does not take is rejected, by the reason for it.
func TestReasonsOfRejections(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	rejection := func(key types.NamespacedName, spec model.CMPCertificateSpec) model.RejectedFact {
		t.Helper()
		r.send(model.NewEvent(model.ConfigCreated, key, map[string]any{"spec": spec}))
		return r.lastRejection()
	}
	spec := certificate("web", 24*time.Hour)
	spec.PrivateKey.Size = 1000
	if got := rejection(r.key("web"), spec); got.Reason != model.ReasonConfigInvalid || len(got.Fields) == 0 || !strings.HasPrefix(got.Fields[0], "spec.privateKey") {
		t.Errorf("got %+v, want the field named", got)
	}
	spec = certificate("web", 24*time.Hour)
	if got := rejection(types.NamespacedName{Namespace: "no-such-namespace", Name: "web"}, spec); got.Reason != model.ReasonNamespaceNotFound {
		t.Errorf("got %+v, want NamespaceNotFound", got)
	}
	r.kubectlApply(`{"apiVersion":"certloop.io/v1alpha1","kind":"CMPCertificate","metadata":{"name":"web"},
		"spec":{"issuerRef":{"name":"ca"},"subject":{"commonName":"web"},"output":{"secretName":"other"}}}`)
	if got := rejection(r.key("web"), spec); got.Reason != model.ReasonOwnedByAnother || !strings.Contains(got.Message, "kubectl") {
		t.Errorf("got %+v, want the owner named", got)
	}
}

// An issuer that is about to go takes no new certificates.
func TestReasonOfAnIssuerThatGoes(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	r.declare(model.IssuerCreated, "ca", r.issuer())
	issuers := r.dynamic.Resource(model.GroupVersion.WithResource(model.IssuerResource)).Namespace(r.ns)
	finalizers := func(all ...any) {
		t.Helper()
		i, err := issuers.Get(t.Context(), "ca", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := unstructured.SetNestedSlice(i.Object, all, "metadata", "finalizers"); err != nil {
			t.Fatal(err)
		}
		if _, err := issuers.Update(t.Context(), i, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	finalizers("example.com/somebody-else")
	if err := issuers.Delete(t.Context(), "ca", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReason("identity", model.ReasonIssuerNotReady)
	r.wantIssuances("identity", 0)
	finalizers()
}

// A certificate that ends while it is being delivered is not called valid.
func TestReasonOfACertificateThatEndsMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	o := r.obtainer(func(s lifecycle.Step) {
		if s.Name == "project" {
			r.advance(48 * time.Hour)
		}
	})
	r.sendTo(o, model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)}))
	r.wantReason("web", model.ReasonPending)
	r.tick("sweep")
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
}

// A transaction that does not end is given up by the reason for it.
func TestReasonOfATransactionWithoutEnd(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Wait(-1, time.Hour)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	for began := r.now(); r.told(model.CertificateFailed) == 0 && r.now().Sub(began) < 26*time.Hour; {
		r.wait()
	}
	c := meta.FindStatusCondition(r.status("web").Conditions, model.Reconciling)
	if c == nil || c.Reason != model.ReasonTransactionTimeout {
		t.Errorf("got %+v, want TransactionTimeout", c)
	}
}
