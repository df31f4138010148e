package lifecycle_test

import (
	"bytes"
	order "cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/eventtest"
	"github.com/certloop/certloop/test/freeport"
	"github.com/certloop/certloop/test/kubetest"
)

// rig is a namespace of the real API server, a CA that really signs, and the
// handlers under a clock of the test's own.
type rig struct {
	t       testing.TB
	ns      string
	config  *rest.Config
	store   *ledger.Store
	secrets typed.SecretInterface
	dynamic dynamic.Interface
	ca      *responder.Running
	watch   *lifecycle.Watcher

	// process handles all events, as long as it lives; each event has its own when nil.
	process *lifecycle.Obtainer

	mu    sync.Mutex
	ahead time.Duration // of the real clock
	facts []event.Event // everything any handler returned
	later []scheduled   // what is due later, soonest first, one for each function and object
	said  []byte        // the data of the first facts
	read  int           // how many those are
}

func newRig(t testing.TB, behave func(*responder.Config)) *rig {
	t.Helper()
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "../../deploy/knative/crds")
	cluster.ApplyPolicies(t, "../../deploy/knative/policies")
	config := cluster.Config()
	config.Wrap(provoked.wrap)
	store, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ns: cluster.Namespace(t), store: store, config: config}
	r.dynamic = dynamic.NewForConfigOrDie(cluster.Config())
	r.secrets = kubernetes.NewForConfigOrDie(cluster.Config()).CoreV1().Secrets(r.ns)
	cfg := responder.Config{SharedSecrets: map[string]string{"ref": "correct horse"}, Now: r.now}
	if behave != nil {
		behave(&cfg)
	}
	if r.ca, err = responder.Start(cfg, freeport.Address(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stopCA)
	return r
}

// stopCA ends the CA's listening; it may be ended already.
func (r *rig) stopCA() {
	if r.ca == nil {
		return
	}
	if err := r.ca.Close(); err != nil {
		r.t.Error(err)
	}
	r.ca = nil
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.ahead)
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += d
}

func (r *rig) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.ns, Name: name}
}

func (r *rig) obtainer(trace func(lifecycle.Step)) *lifecycle.Obtainer {
	if trace == nil && r.process != nil {
		return r.process
	}
	return &lifecycle.Obtainer{Ledger: r.store, Holder: "test", Log: slog.New(slog.DiscardHandler), Now: r.now, Namespace: r.ns, Trace: trace}
}

// watcher is the same one for all events, as in a process.
func (r *rig) watcher() *lifecycle.Watcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watch == nil {
		r.watch = &lifecycle.Watcher{Ledger: r.store, Namespaces: []string{r.ns}, Now: r.now}
	}
	return r.watch
}

func (r *rig) secret(name string, data map[string][]byte) {
	r.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
	if _, err := r.secrets.Create(r.t.Context(), s, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) trustAndBootstrap() {
	r.t.Helper()
	r.secret("ca-trust", map[string][]byte{"ca.crt": ledger.EncodeCertificates(r.ca.CACertificate())})
	r.secret("ca-bootstrap", map[string][]byte{"reference": []byte("ref"), "password": []byte("correct horse")})
}

func (r *rig) issuer() model.CMPIssuerSpec {
	return model.CMPIssuerSpec{
		Server:                r.ca.URL,
		InitialAuthentication: &model.InitialAuthentication{MAC: &model.SharedSecretSource{SecretName: "ca-bootstrap"}},
		Authentication:        &model.KeyPairSource{SecretName: "identity-tls"},
		Trust:                 model.TrustSource{SecretName: "ca-trust"},
	}
}

func certificate(name string, validity time.Duration) model.CMPCertificateSpec {
	return model.CMPCertificateSpec{
		IssuerRef: model.IssuerReference{Name: "ca"},
		Subject:   &model.Subject{CommonName: name, Organization: "Example"},
		SubjectAltNames: &model.SubjectAltNames{
			DNSNames: []string{name + ".example.com"}, IPAddresses: []string{"192.0.2.1", "2001:db8::1"},
			URIs: []string{"urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6"},
		},
		Validity: &metav1.Duration{Duration: validity},
		Output:   model.Output{SecretName: name + "-tls"},
	}
}

func identity() model.CMPCertificateSpec {
	spec := certificate("identity", 30*24*time.Hour)
	spec.Type = model.CMPIdentity
	return spec
}

// declare publishes a configuration as an event and follows what comes of it.
func (r *rig) declare(eventType, name string, spec any) {
	r.t.Helper()
	r.send(model.NewEvent(eventType, r.key(name), map[string]any{"spec": spec}))
}

// ready brings up the issuer and its identity.
func (r *rig) ready() {
	r.t.Helper()
	r.trustAndBootstrap()
	r.declare(model.IssuerCreated, "ca", r.issuer())
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReady("identity", true)
}

// send gives an event to its handlers, and what follows to theirs, until nothing is
// left but what is due later.
func (r *rig) send(in event.Event) { r.t.Helper(); r.sendTo(r.obtainer(nil), in) }

func (r *rig) sendTo(o *lifecycle.Obtainer, in event.Event) {
	r.t.Helper()
	for queue := []event.Event{in}; len(queue) > 0; {
		next := queue[0]
		queue = queue[1:]
		due, err := model.DueTime(next)
		if err != nil {
			r.t.Fatal(err)
		}
		if due.After(r.now()) {
			r.schedule(next)
			continue
		}
		out, err := r.handle(o, next)
		if err != nil {
			r.t.Fatalf("%s: %v", next.Type(), err)
		}
		queue = append(queue, out...)
	}
}

// alarm is the subject an event waits at until it is due.
func alarm(t testing.TB, e event.Event) string {
	kind, ok := model.KindOf(e.Type())
	key, err := model.ObjectOf(e)
	if !ok || err != nil || len(kind.Consumers) == 0 {
		t.Fatalf("%s of %q cannot be due later: %v", e.Type(), e.Subject(), err)
	}
	return model.AlarmSubject(kind.Consumers[0], e.Type(), key)
}

// schedule keeps one alarm for each function and object, as JetStream does.
func (r *rig) schedule(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := scheduled{e, alarm(r.t, e), due(e)}
	r.later = slices.DeleteFunc(r.later, func(o scheduled) bool { return o.subject == next.subject })
	i, _ := slices.BinarySearchFunc(r.later, next, func(o, next scheduled) int { return order.Or(o.due.Compare(next.due), -1) })
	r.later = slices.Insert(r.later, i, next)
}

// scheduled is an event that is due later, and the subject at which it waits.
type scheduled struct {
	event.Event
	subject string
	due     time.Time
}

// wait moves the clock to the next alarm and lets it ring; it returns how long that was.
func (r *rig) wait() time.Duration {
	r.t.Helper()
	if len(r.later) == 0 {
		r.t.Fatal("nothing is due later")
	}
	next := r.later[0]
	r.later = r.later[1:]
	pause := next.due.Sub(r.now())
	r.advance(pause)
	r.send(next.Event)
	return pause
}

func due(e event.Event) time.Time { t, _ := model.DueTime(e); return t }

func (r *rig) handle(o *lifecycle.Obtainer, in event.Event) ([]event.Event, error) {
	w := r.watcher()
	handlers := map[string]func(context.Context, event.Event) ([]event.Event, error){
		model.ConfigCreated: o.ConfigDeclared, model.ConfigUpdated: o.ConfigDeclared, model.ConfigDeleted: o.ConfigWithdrawn,
		model.IssuerCreated: o.IssuerDeclared, model.IssuerUpdated: o.IssuerDeclared, model.IssuerDeleted: o.IssuerWithdrawn,
		model.IssuerProbe: o.Probe, model.IssuerRelease: o.Release, model.IssuerCheck: o.Check,
		model.EnrollmentRequested: o.Enroll, model.RecreationRequested: o.Enroll, model.SecretModified: o.Enroll, model.SecretDeleted: o.Enroll,
		model.InputChanged:        o.InputChanged,
		model.CertificateExpiring: o.Renew, model.CertificateExpired: o.Renew, model.RenewalRequested: o.Renew, model.RevocationRequested: o.Renew,
		model.SweepContinued: w.Sweep,
		model.ResourceAdd:    o.Observed, model.ResourceUpdate: o.Observed,
		model.RefAdd: w.Changed, model.RefUpdate: w.Changed, model.RefDelete: w.Changed,
	}
	handler := handlers[in.Type()]
	if in.Type() == model.Ping {
		handler = w.Scan
		if strings.Contains(string(in.Data()), "sweep") {
			handler = w.Sweep
		}
	}
	if handler == nil {
		return nil, nil // a fact for the history
	}
	out, err := handler(r.t.Context(), in)
	r.mu.Lock()
	defer r.mu.Unlock()
	eventtest.Check(r.t, out...)
	provoked.told(out...)
	r.facts = append(r.facts, out...)
	return out, err
}

func (r *rig) tick(scan string) {
	r.t.Helper()
	r.send(model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": scan}))
}

func (r *rig) status(name string) model.CMPCertificateStatus {
	r.t.Helper()
	c, err := r.store.Certificate(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return c.Status
}

func (r *rig) wantReady(name string, want bool) {
	r.t.Helper()
	if st := r.status(name); meta.IsStatusConditionTrue(st.Conditions, model.Ready) != want {
		r.t.Fatalf("%s: got conditions %+v, want Ready %v", name, st.Conditions, want)
	}
	if want {
		r.wantWhole(name)
	}
}

func (r *rig) wantReason(name, want string) {
	r.t.Helper()
	c := meta.FindStatusCondition(r.status(name).Conditions, model.Ready)
	if c == nil || c.Reason != want {
		r.t.Fatalf("%s: got condition %+v, want reason %s", name, c, want)
	}
}

func (r *rig) output(name string) *corev1.Secret {
	r.t.Helper()
	s, err := r.secrets.Get(r.t.Context(), name+"-tls", metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// wantWhole checks what must hold at all times: the key is that of the certificate, in
// the output and in the record, which has no transaction and no lease left; and no fact holds a key.
func (r *rig) wantWhole(name string) {
	r.t.Helper()
	out := r.output(name)
	key, err := ledger.ParseKey(out.Data["tls.key"])
	if err != nil {
		r.t.Fatalf("%s: tls.key: %v", name, err)
	}
	chain, err := ledger.ParseCertificates(out.Data["tls.crt"])
	if err != nil {
		r.t.Fatalf("%s: tls.crt: %v", name, err)
	}
	if !key.Fits(chain[0]) {
		r.t.Fatalf("%s: tls.key is not the key of tls.crt", name)
	}
	cert, err := r.store.Certificate(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	rec, err := r.store.Record(r.t.Context(), cert)
	if err != nil {
		r.t.Fatal(err)
	}
	if rec.Flight != nil || rec.Lease != nil {
		r.t.Fatalf("%s: the record has a transaction or a lease left: %+v %+v", name, rec.Flight, rec.Lease)
	}
	block, _ := pem.Decode(out.Data["tls.key"])
	r.wantNoKey(block.Bytes)
}

func (r *rig) wantNoKey(der []byte) {
	r.t.Helper()
	if r.read > len(r.facts) {
		r.read, r.said = 0, nil
	}
	for _, f := range r.facts[r.read:] {
		js, err := json.Marshal(f)
		if err != nil {
			r.t.Fatal(err)
		}
		if bytes.Contains(js, []byte("PRIVATE KEY")) {
			r.t.Fatalf("a private key is in %s", f.Type())
		}
		r.said = append(r.said, f.Data()...)
	}
	r.read = len(r.facts)
	if bytes.Contains(r.said, der) {
		r.t.Fatal("a private key is in a fact")
	}
}

// told counts the facts of a type, the same one told twice once.
func (r *rig) told(eventType string) int {
	ids := map[string]bool{}
	for _, f := range r.facts {
		if f.Type() == eventType {
			ids[f.ID()] = true
		}
	}
	return len(ids)
}

func (r *rig) wantTold(eventType string, want int) {
	r.t.Helper()
	if got := r.told(eventType); got != want {
		r.t.Errorf("got %d %s, want %d", got, eventType, want)
	}
}

// issuances counts the certificates the CA issued for a subject.
func (r *rig) issuances(name string) int {
	n := 0
	for _, i := range r.ca.Issued() {
		if strings.Contains(i.Subject, "CN="+name) {
			n++
		}
	}
	return n
}

func (r *rig) wantIssuances(name string, want int) {
	r.t.Helper()
	if got := r.issuances(name); got != want {
		r.t.Errorf("the CA issued %d certificates for %s, want %d", got, name, want)
	}
}

// errCrash is what a process says when it is killed.
var errCrash = errors.New("crash")

// crash runs one attempt and kills it right after the nth step with a name. It tells
// whether the attempt got there.
func (r *rig) crash(in event.Event, step string, n int) (crashed bool) {
	r.t.Helper()
	defer func() {
		if p := recover(); p == nil {
			return
		} else if p != errCrash { //nolint:errorlint // a recovered value
			panic(p)
		}
		crashed = true
	}()
	o := r.obtainer(func(s lifecycle.Step) {
		if s.Name == step {
			if n--; n == 0 {
				panic(errCrash)
			}
		}
	})
	if _, err := r.handle(o, in); err != nil {
		r.t.Fatal(err)
	}
	return false
}

// kubectlApply applies a CMPCertificate as another field manager, by force.
func (r *rig) kubectlApply(body string) {
	r.t.Helper()
	var obj unstructured.Unstructured
	if err := json.Unmarshal([]byte(body), &obj.Object); err != nil {
		r.t.Fatal(err)
	}
	resource := r.dynamic.Resource(model.GroupVersion.WithResource(model.CertificateResource)).Namespace(r.ns)
	if _, err := resource.Apply(r.t.Context(), obj.GetName(), &obj, metav1.ApplyOptions{FieldManager: "kubectl", Force: true}); err != nil {
		r.t.Fatal(err)
	}
}

// apiEvent is what an ApiServerSource tells of a configuration as it is now.
func (r *rig) apiEvent(eventType, name string) event.Event {
	r.t.Helper()
	c, err := r.store.Certificate(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	e := model.NewEvent(eventType, types.NamespacedName{}, c)
	e.SetExtension("kind", model.CertificateKind)
	e.SetExtension("namespace", r.ns)
	e.SetExtension("name", name)
	return e
}
