package lifecycle_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/kubetest"
)

// tap stands before the CA and keeps what we sent.
type tap struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*cmp.Message
}

func (r *rig) tap(start func(*httptest.Server)) *tap {
	r.t.Helper()
	w := new(tap)
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			r.t.Error(err)
		}
		m, err := cmp.ParseMessage(body)
		if err != nil {
			r.t.Error(err)
		}
		w.mu.Lock()
		w.seen = append(w.seen, m)
		w.mu.Unlock()
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.ca.ServeHTTP(rw, req)
	}))
	start(w.Server)
	r.t.Cleanup(w.Close)
	return w
}

// sent are the messages of a type.
func (w *tap) sent(kind cmp.BodyType) (all []*cmp.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.seen {
		if m.Type == kind {
			all = append(all, m)
		}
	}
	return all
}

// pair is a key and its certificate, made by a CA of the test's own.
type pair struct {
	key  ledger.PrivateKey
	cert *x509.Certificate
}

func newPair(t testing.TB, name string, issuer *pair, now time.Time, lifetime time.Duration) *pair {
	t.Helper()
	key, err := ledger.GenerateKey(model.PrivateKey{})
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, SubjectKeyId: []byte(name),
	}
	signer, parent := key.Signer(), template
	if issuer == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		signer, parent = issuer.key.Signer(), issuer.cert
	}
	der, err := x509.CreateCertificate(nil, template, parent, key.Signer().Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{key, cert}
}

func (p *pair) data(t testing.TB) map[string][]byte {
	t.Helper()
	key, err := p.key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"tls.key": key, "tls.crt": ledger.EncodeCertificates(p.cert)}
}

func (r *rig) wantIssuer(name string, ready bool, reason string) {
	r.t.Helper()
	i, err := r.store.Issuer(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	c := meta.FindStatusCondition(i.Status.Conditions, model.Ready)
	if c == nil || (c.Status == metav1.ConditionTrue) != ready || c.Reason != reason {
		r.t.Fatalf("issuer %s: got condition %+v, want Ready %v, reason %s", name, c, ready, reason)
	}
}

// inputChanged is what watch-secrets tells of a Secret that an issuer names.
func (r *rig) inputChanged(issuer, secret string) {
	r.t.Helper()
	r.send(model.NewEvent(model.InputChanged, r.key(issuer), model.InputFact{SecretName: secret, IssuerKind: model.IssuerKind}))
}

// A CMPClusterIssuer serves certificates of every namespace; its Secrets are in certloop's own.
func TestClusterIssuer(t *testing.T) {
	r := newRig(t, nil)
	issuer := types.NamespacedName{Name: r.ns} // unique
	far := types.NamespacedName{Namespace: kubetest.Start(t).Namespace(t), Name: "web"}
	spec := certificate("web", 24*time.Hour)
	spec.IssuerRef = model.IssuerReference{Kind: model.ClusterIssuerKind, Name: issuer.Name}
	r.send(model.NewEvent(model.ConfigCreated, far, map[string]any{"spec": spec}))
	state := func() *metav1.Condition {
		c, err := r.store.Certificate(t.Context(), far)
		if err != nil {
			t.Fatal(err)
		}
		return meta.FindStatusCondition(c.Status.Conditions, model.Ready)
	}
	if c := state(); c == nil || c.Reason != model.ReasonIssuerNotFound || !strings.Contains(c.Message, model.ClusterIssuerKind) {
		t.Fatalf("got condition %+v, want IssuerNotFound of a %s", c, model.ClusterIssuerKind)
	}
	// The namesake of the other kind is nobody's concern.
	r.declare(model.IssuerCreated, issuer.Name, r.issuer())

	r.trustAndBootstrap()
	r.send(model.NewEvent(model.IssuerCreated, issuer, map[string]any{"kind": model.ClusterIssuerKind, "spec": r.issuer()}))
	identity := identity()
	identity.IssuerRef = spec.IssuerRef
	r.declare(model.ConfigCreated, "identity", identity)
	if c := state(); c == nil || c.Status != metav1.ConditionTrue {
		t.Fatalf("got condition %+v, want Ready", c)
	}
	i, err := r.store.Issuer(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(i.Finalizers, model.InUseFinalizer) || len(i.Status.Inputs) != 3 || i.Status.Inputs["identity-tls"] == "" {
		t.Errorf("got finalizers %q and inputs %v", i.Finalizers, i.Status.Inputs)
	}
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	r.wantTold(model.ConfigRejected, 1)
	r.send(model.NewEvent(model.ConfigDeleted, far, nil))
	r.send(model.NewEvent(model.ConfigDeleted, r.key("identity"), nil))
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	if _, err := r.store.Issuer(t.Context(), issuer); err == nil {
		t.Error("an issuer that nobody uses was not deleted")
	}
}

// Without a namespace of its own an installation has no cluster issuers, and says so.
func TestClusterIssuerWithoutANamespace(t *testing.T) {
	r := newRig(t, nil)
	issuer := types.NamespacedName{Name: r.ns}
	o := r.obtainer(nil)
	o.Namespace = ""
	r.sendTo(o, model.NewEvent(model.IssuerCreated, issuer, map[string]any{"spec": r.issuer()}))
	spec := certificate("web", 24*time.Hour)
	spec.IssuerRef = model.IssuerReference{Kind: model.ClusterIssuerKind, Name: issuer.Name}
	r.sendTo(o, model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": spec}))
	r.wantReason("web", model.ReasonNamespaceNotServed)
}

// What an issuer says about protection is what goes over the wire.
func TestProtectionAsConfigured(t *testing.T) {
	r := newRig(t, nil)
	w := r.tap((*httptest.Server).Start)
	r.secret("ca-trust", map[string][]byte{"ca.crt": ledger.EncodeCertificates(r.ca.CACertificate())})
	r.secret("ca-bootstrap", map[string][]byte{"r": []byte("ref"), "p": []byte("pass:correct horse")})
	spec := r.issuer()
	spec.Server = w.URL
	spec.Recipient = "/CN=the CA"
	spec.InitialAuthentication.MAC = &model.SharedSecretSource{
		SecretName: "ca-bootstrap", ReferenceKey: "r", PasswordKey: "p", PasswordFormat: model.PasswordOpenSSL, Digest: "SHA384", MAC: "HMACSHA512",
	}
	spec.Authentication.Digest = "SHA512"
	r.declare(model.IssuerCreated, "ca", spec)
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReady("identity", true)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReady("web", true)

	requests := w.sent(cmp.TypeIR)
	if len(requests) != 2 || !requests[0].ProtectedByMAC() || requests[1].ProtectedByMAC() {
		t.Fatalf("got %d requests", len(requests))
	}
	// OIDs of SHA-384 (2.16.840.1.101.3.4.2.2) and HMAC with SHA-512 (1.2.840.113549.2.11) in the parameters.
	parameters := requests[0].Header.ProtectionAlg.Parameters
	for name, oid := range map[string][]byte{
		"SHA-384":      {6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2},
		"HMAC-SHA-512": {6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 11},
	} {
		if !bytes.Contains(parameters, oid) {
			t.Errorf("the parameters of the MAC do not name %s: %x", name, parameters)
		}
	}
	if got, want := requests[1].Header.ProtectionAlg.Algorithm.String(), "1.2.840.10045.4.3.4"; got != want {
		t.Errorf("got signature algorithm %s, want ecdsa-with-SHA512, %s", got, want)
	}
	if name, ok := requests[1].Header.Recipient.Name(); !ok || name.String() != "CN=the CA" {
		t.Errorf("got recipient %s", name)
	}
	leaf, err := ledger.ParseCertificates(r.output("identity").Data["tls.crt"])
	if err != nil {
		t.Fatal(err)
	}
	if extra := requests[1].ExtraCerts; len(extra) == 0 || !bytes.Equal(extra[0], leaf[0].Raw) {
		t.Error("the first of extraCerts is not the signer")
	}
}

// The three ways to begin with a CA, in one namespace side by side with another CA.
func TestBootstrapModes(t *testing.T) {
	vendor := newPair(t, "vendor root", nil, time.Now(), 24*365*time.Hour)
	r := newRig(t, func(c *responder.Config) { c.ClientCAs = []*x509.Certificate{vendor.cert} })
	w := r.tap((*httptest.Server).Start)
	device := newPair(t, "device", vendor, time.Now(), 24*365*time.Hour)
	r.trustAndBootstrap()
	data := device.data(t)
	data["more"] = ledger.EncodeCertificates(newPair(t, "issuer of the device", vendor, time.Now(), time.Hour).cert)
	r.secret("device", data)

	spec := r.issuer()
	spec.Server = w.URL
	spec.Authentication.SecretName = "fresh-tls"
	spec.InitialAuthentication = &model.InitialAuthentication{Signature: &model.KeyPairSource{SecretName: "device", ExtraCertificatesKey: "more"}}
	fresh := identity()
	fresh.Subject = &model.Subject{CommonName: "fresh"}
	fresh.IssuerRef.Name, fresh.Output.SecretName = "vendor", "fresh-tls"
	r.declare(model.ConfigCreated, "fresh", fresh) // before its issuer
	r.declare(model.IssuerCreated, "vendor", spec)
	r.wantReady("fresh", true)
	sender, _ := w.sent(cmp.TypeIR)[0].Header.Sender.Name()
	if got := sender.String(); got != "CN=device" {
		t.Errorf("the request for the identity was sent by %s, want the vendor's certificate", got)
	}
	if extra := w.sent(cmp.TypeIR)[0].ExtraCerts; len(extra) != 2 || !bytes.Equal(extra[0], device.cert.Raw) {
		t.Errorf("got %d extraCerts, want the signer and then the further one", len(extra))
	}

	given := spec
	given.InitialAuthentication, given.Authentication = nil, &model.KeyPairSource{SecretName: "device"}
	r.declare(model.IssuerCreated, "given", given)
	r.wantIssuer("given", true, model.ReasonUsable)
	before := len(w.sent(cmp.TypeIR))
	web := certificate("web", 24*time.Hour)
	web.IssuerRef.Name = "given"
	r.declare(model.ConfigCreated, "web", web)
	r.wantReady("web", true)
	if n := len(w.sent(cmp.TypeIR)) - before; n != 1 {
		t.Errorf("got %d requests where the identity is given, want that for web alone", n)
	}

	other, err := responder.Start(responder.Config{Name: "the other CA", SharedSecrets: map[string]string{"ref": "correct horse"}, Now: r.now}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	r.secret("other-trust", map[string][]byte{"ca.crt": ledger.EncodeCertificates(other.CACertificate())})
	spec = r.issuer()
	spec.Server, spec.Trust.SecretName, spec.Authentication.SecretName = other.URL, "other-trust", "other-tls"
	r.declare(model.IssuerCreated, "other", spec)
	second := identity()
	second.IssuerRef.Name, second.Output.SecretName = "other", "other-tls"
	r.declare(model.ConfigCreated, "other", second)
	api := certificate("api", 24*time.Hour)
	api.IssuerRef.Name = "other"
	r.declare(model.ConfigCreated, "api", api)
	r.wantReady("api", true)
	for name, want := range map[string]string{"web": r.ca.CACertificate().Subject.CommonName, "api": "the other CA"} {
		chain, err := ledger.ParseCertificates(r.output(name).Data["tls.crt"])
		if err != nil {
			t.Fatal(err)
		}
		if got := chain[0].Issuer.CommonName; got != want {
			t.Errorf("%s was issued by %s, want %s", name, got, want)
		}
	}
}

// The identity is renewed, twice, while others wait for the CA: what they have begun with it they
// end with it, in another process too.
func TestIdentityRenewedInFlight(t *testing.T) {
	r := newRig(t, nil)
	w := r.tap((*httptest.Server).Start)
	r.trustAndBootstrap()
	spec := r.issuer()
	spec.Server = w.URL
	r.declare(model.IssuerCreated, "ca", spec)
	r.declare(model.ConfigCreated, "identity", identity())
	r.ca.Wait(4, 2*time.Second)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", model.ReasonWaitingForCA)
	signer := w.sent(cmp.TypeIR)[1].Header.SenderKID
	for revision := int64(2); revision <= 3; revision++ {
		r.ca.Behave(func(b *responder.Behaviour) { b.Wait = 0 })
		r.send(model.NewEvent(model.RenewalRequested, r.key("identity"), model.Work{Reason: model.WorkManual}))
		if st := r.status("identity"); st.Revision != revision {
			t.Fatalf("got revision %d of the identity, want %d", st.Revision, revision)
		}
	}
	for len(r.later) > 0 {
		r.wait() // each time another Obtainer: nothing is left in memory
	}
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
	r.wantTold(model.IssuanceMaybeOrphan, 0)
	polls := slices.Concat(w.sent(cmp.TypePollReq), w.sent(cmp.TypeCertConf)[len(w.sent(cmp.TypeCertConf))-1:])
	if len(polls) < 2 {
		t.Fatalf("got %d polls", len(polls))
	}
	for _, m := range polls {
		if !bytes.Equal(m.Header.SenderKID, signer) {
			t.Errorf("%s was signed by another identity than the request", m.Type)
		}
	}
	r.declare(model.ConfigCreated, "api", certificate("api", 24*time.Hour))
	requests := w.sent(cmp.TypeIR)
	if bytes.Equal(requests[len(requests)-1].Header.SenderKID, signer) {
		t.Error("a new request was signed by the former identity")
	}
}

// counted is a store that counts its requests, by verb and resource.
func (r *rig) counted(t testing.TB) (*ledger.Store, func() map[string]int) {
	t.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	cfg := kubetest.Start(t).Config()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
			mu.Lock()
			counts[req.Method+" "+strings.Join(parts[min(len(parts), slices.Index(parts, "namespaces")+2):], "/")]++
			mu.Unlock()
			return next.RoundTrip(req)
		})
	})
	store, err := ledger.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store, func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		got := counts
		counts = map[string]int{}
		return got
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Under load an enrolment reads neither issuer nor Secrets of it again; seconds later, or when it is
// told of a change, it does.
func TestIssuerIsRemembered(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "zero", certificate("zero", 24*time.Hour))
	store, counts := r.counted(t)
	o := r.obtainer(nil)
	o.Ledger = store
	frozen := r.now()
	o.Now = func() time.Time { return frozen }
	enrol := func(name string) map[string]int {
		t.Helper()
		counts()
		r.sendTo(o, model.NewEvent(model.ConfigCreated, r.key(name), map[string]any{"spec": certificate(name, 24*time.Hour)}))
		r.wantReady(name, true)
		return counts()
	}
	inputs := func(got map[string]int) (n int) {
		for what, times := range got {
			if strings.Contains(what, "cmpissuers") || strings.Contains(what, "ca-trust") || strings.Contains(what, "ca-bootstrap") || strings.HasSuffix(what, "secrets/identity-tls") {
				n += times
			}
		}
		return n
	}
	if got := enrol("one"); inputs(got) != 4 {
		t.Errorf("the first one: got %v, want the issuer and three Secrets read", got)
	}
	got := enrol("two")
	if inputs(got) != 0 {
		t.Errorf("right after: got %v, want neither the issuer nor its Secrets read", got)
	}
	reads, writes := 0, 0
	for what, n := range got {
		if strings.HasPrefix(what, "GET ") {
			reads += n
		} else {
			writes += n
		}
	}
	if reads > 4 || writes > 6 { // ConfigCreated itself applies and reads once more than an enrolment
		t.Errorf("got %d reads and %d writes: %v", reads, writes, got)
	}
	frozen = frozen.Add(6 * time.Second)
	if got := enrol("three"); inputs(got) != 4 {
		t.Errorf("six seconds later: got %v, want the issuer and three Secrets read", got)
	}
	r.sendTo(o, model.NewEvent(model.InputChanged, r.key("ca"), model.InputFact{SecretName: "ca-trust"}))
	counts()
	r.sendTo(o, model.NewEvent(model.ConfigCreated, r.key("four"), map[string]any{"spec": certificate("four", 24*time.Hour)}))
	if got := counts(); inputs(got) != 0 {
		t.Errorf("after a change that was looked at: got %v, want nothing read again", got)
	}
}

// What is remembered of an issuer is no reason to give up: its Secrets are read again first.
func TestRotatedSecret(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	if err := r.overwrite("ca-bootstrap", "password", "wrong"); err != nil {
		t.Fatal(err)
	}
	o := r.obtainer(nil)
	frozen := r.now()
	o.Now = func() time.Time { return frozen }
	r.sendTo(o, model.NewEvent(model.IssuerCreated, r.key("ca"), map[string]any{"spec": r.issuer()}))
	if err := r.overwrite("ca-bootstrap", "password", "correct horse"); err != nil {
		t.Fatal(err)
	}
	// Remembered is the wrong one: the CA refuses it, and it is found to be another by now.
	r.sendTo(o, model.NewEvent(model.ConfigCreated, r.key("identity"), map[string]any{"spec": identity()}))
	r.wantTold(model.CertificateParked, 0)
	r.wait()
	r.wantReady("identity", true)
}

// A certificate that was parked for a wrong shared secret goes on when the Secret is put right.
func TestParkedUntilInputChanges(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	if err := r.overwrite("ca-bootstrap", "password", "wrong"); err != nil {
		t.Fatal(err)
	}
	r.declare(model.IssuerCreated, "ca", r.issuer())
	r.declare(model.ConfigCreated, "identity", identity())
	for len(r.later) > 0 {
		r.wait()
	}
	r.wantTold(model.CertificateParked, 1)
	r.inputChanged("ca", "ca-bootstrap") // nothing has changed
	r.wantReady("identity", false)
	if err := r.overwrite("ca-bootstrap", "password", "correct horse"); err != nil {
		t.Fatal(err)
	}
	r.inputChanged("ca", "ca-bootstrap")
	r.wantReady("identity", true)
}

// Without trust nothing is asked of the CA, and everybody can see why; with it everything goes on.
func TestTrustComesAndGoes(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.wantIssuer("ca", true, model.ReasonUsable)
	trust, err := r.secrets.Get(t.Context(), "ca-trust", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.wantTrustEnd("ca", r.ca.CACertificate().NotAfter)
	if err := r.secrets.Delete(t.Context(), "ca-trust", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.inputChanged("ca", "ca-trust")
	r.wantIssuer("ca", false, model.ReasonSecretNotFound)
	r.wantTrustEnd("ca", time.Time{})
	r.wantTold(model.IssuerFailed, 1)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", model.ReasonSecretNotFound)
	r.wantIssuances("web", 0)
	r.inputChanged("ca", "ca-trust") // told again, no news
	r.wantTold(model.IssuerFailed, 1)

	expired := newPair(t, "old root", nil, r.now().Add(-48*time.Hour), time.Hour)
	r.secret("ca-trust", map[string][]byte{"ca.crt": ledger.EncodeCertificates(expired.cert)})
	r.inputChanged("ca", "ca-trust")
	r.wantIssuer("ca", false, model.ReasonTrustExpired)
	r.wantTrustEnd("ca", expired.cert.NotAfter)
	if err := r.overwrite("ca-trust", "ca.crt", string(trust.Data["ca.crt"])+string(ledger.EncodeCertificates(expired.cert))); err != nil {
		t.Fatal(err)
	}
	r.inputChanged("ca", "ca-trust")
	r.wantIssuer("ca", true, model.ReasonUsable)
	r.wantTrustEnd("ca", r.ca.CACertificate().NotAfter) // the later one
	r.wantReady("web", true)
	if n := r.told(model.IssuerReady); n < 2 {
		t.Errorf("got %d issuer.ready, want the first and the last", n)
	}
}

// wantTrustEnd: the status tells until when a trust anchor is valid, and nothing when none can be read.
func (r *rig) wantTrustEnd(name string, want time.Time) {
	r.t.Helper()
	issuer, err := r.store.Issuer(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	if got := issuer.Status.TrustNotAfter; got.IsZero() != want.IsZero() || got != nil && !got.Time.Equal(want) {
		r.t.Errorf("got trustNotAfter %v, want %v", got, want)
	}
}

// Once there is an identity, the shared secret may be taken away.
func TestBootstrapSecretIsNeededOnce(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	if err := r.secrets.Delete(t.Context(), "ca-bootstrap", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.inputChanged("ca", "ca-bootstrap")
	r.wantIssuer("ca", true, model.ReasonUsable)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReady("web", true)
}

// HTTPS with a client certificate, trusted apart from CMP's trust.
func TestTLS(t *testing.T) {
	r := newRig(t, nil)
	client := newPair(t, "client root", nil, time.Now(), 24*time.Hour)
	mine := newPair(t, "certloop", client, time.Now(), 24*time.Hour)
	w := r.tap(func(s *httptest.Server) {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
		s.TLS.ClientCAs.AddCert(client.cert)
		s.StartTLS()
	})
	r.trustAndBootstrap()
	r.secret("web-pki", map[string][]byte{"ca.crt": ledger.EncodeCertificates(w.Certificate())})
	r.secret("client", mine.data(t))
	spec := r.issuer()
	spec.Server = w.URL
	spec.TLS = &model.TLS{Trust: &model.CertificatesSource{SecretName: "web-pki"}, ServerName: "example.com"}
	r.declare(model.IssuerCreated, "ca", spec)
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReady("identity", false) // it presents no certificate
	spec.TLS.ClientCertificate = &model.KeyPairSource{SecretName: "client"}
	r.declare(model.IssuerUpdated, "ca", spec)
	r.wantReady("identity", true)
	spec.TLS.Trust.SecretName = "ca-trust" // that of CMP is of no use here
	r.declare(model.IssuerUpdated, "ca", spec)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", model.ReasonCAUnreachable)
}

// The chain the operator provides takes the place of the response's, when it belongs to the certificate.
func TestManualChain(t *testing.T) {
	r := newRig(t, func(c *responder.Config) { c.Intermediate = true })
	r.ready()
	chain, err := ledger.ParseCertificates(r.output("identity").Data["tls.crt"])
	if err != nil || len(chain) != 2 {
		t.Fatalf("got a chain of %d and error %v, want the issuing CA in it", len(chain), err)
	}
	stranger := newPair(t, "stranger", nil, time.Now(), time.Hour)
	// In the wrong order, with the root, and with a certificate that has nothing to do with it.
	r.secret("chain", map[string][]byte{"ca.crt": ledger.EncodeCertificates(r.ca.CACertificate(), stranger.cert, chain[1])})
	spec := r.issuer()
	spec.Chain = model.ChainSource{Source: model.ChainManual, Manual: &model.CertificatesSource{SecretName: "chain"}}
	r.declare(model.IssuerCreated, "manual", spec)
	by := func(name string) model.CMPCertificateSpec {
		spec := certificate(name, 24*time.Hour)
		spec.IssuerRef.Name = "manual"
		return spec
	}
	r.declare(model.ConfigCreated, "web", by("web"))
	r.wantReady("web", true)
	got, err := ledger.ParseCertificates(r.output("web").Data["tls.crt"])
	if err != nil || len(got) != 3 || !got[1].Equal(chain[1]) || !got[2].Equal(r.ca.CACertificate()) {
		t.Errorf("got a chain of %d and error %v, want issuing CA and root", len(got), err)
	}
	if err := r.overwrite("chain", "ca.crt", string(ledger.EncodeCertificates(stranger.cert))); err != nil {
		t.Fatal(err)
	}
	r.declare(model.ConfigCreated, "api", by("api"))
	r.wantReady("api", true)
	if st := r.status("api"); len(st.Differences) != 1 || !strings.HasPrefix(st.Differences[0], "chain: ") {
		t.Errorf("got differences %q, want one about the chain", st.Differences)
	}
}

// What the CA grants otherwise than asked for is accepted, told, or refused, as the issuer says.
func TestGrantedModifications(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Behave(func(b *responder.Behaviour) {
		b.Modify = func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(-time.Hour) }
	})
	for policy, want := range map[string]struct {
		ready bool
		told  int
	}{"accept": {true, 0}, "warn": {true, 1}, "reject": {false, 0}} {
		spec := r.issuer()
		spec.Policies.GrantedModifications = policy
		r.declare(model.IssuerUpdated, "ca", spec)
		r.declare(model.ConfigCreated, policy, certificate(policy, 24*time.Hour))
		r.wantReady(policy, want.ready)
		if got := r.status(policy).Differences; len(got) != want.told {
			t.Errorf("%s: got differences %q, want %d", policy, got, want.told)
		}
	}
}

// A distinguished name in OpenSSL's notation reaches the CA as it stands.
func TestDistinguishedName(t *testing.T) {
	r := newRig(t, nil)
	w := r.tap((*httptest.Server).Start)
	r.trustAndBootstrap()
	spec := r.issuer()
	spec.Server = w.URL
	r.declare(model.IssuerCreated, "ca", spec)
	want := identity()
	want.Subject = &model.Subject{DistinguishedName: "/C=DE/O=Ex\\/ample/OU=a+OU=b/CN=identity"}
	r.declare(model.ConfigCreated, "identity", want)
	r.wantReady("identity", true)
	leaf, err := ledger.ParseCertificates(r.output("identity").Data["tls.crt"])
	if err != nil {
		t.Fatal(err)
	}
	expected, err := cmp.ParseName(want.Subject.DistinguishedName)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(leaf[0].RawSubject, expected) {
		t.Errorf("got subject %s, want %s", leaf[0].Subject, expected)
	}
}

// Whoever the CA has certified may sign its answers, unless the issuer says who does.
func TestExpectedSender(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "mallory", certificate("mallory", 24*time.Hour))
	name := r.ca.CACertificate().Subject.String()
	for issuer, sender := range map[string]string{"ca-rfc4514": name, "ca-slashed": "/" + name} {
		spec := r.issuer()
		spec.Trust.ExpectedSender = sender
		r.declare(model.IssuerCreated, issuer, spec)
		r.wantIssuer(issuer, true, model.ReasonUsable)
	}
	ask := func(issuer, name string) {
		spec := certificate(name, 24*time.Hour)
		spec.IssuerRef.Name = issuer
		r.declare(model.ConfigCreated, name, spec)
	}
	r.signsAnswers("mallory")
	ask("ca", "trusting")
	r.wantReady("trusting", true)
	ask("ca-rfc4514", "web")
	ask("ca-slashed", "amf")
	for _, cert := range []string{"web", "amf"} {
		r.wantReason(cert, model.ReasonResponseNotAuthentic)
		for _, part := range []string{"CN=mallory", "not the expected", name} {
			if got := r.message(cert, model.Ready); !strings.Contains(got, part) {
				t.Errorf("%s: got message %q, want %q in it", cert, got, part)
			}
		}
	}
	r.ca.Behave(func(b *responder.Behaviour) { b.AlterDER = nil })
	r.wait()
	r.wait()
	r.wantReady("web", true)
	r.wantReady("amf", true)
}

// What the CA protects by the shared secret may have any sender.
func TestExpectedSenderByMAC(t *testing.T) {
	r := newRig(t, func(c *responder.Config) {
		sender, err := cmp.ParseName("/CN=ref")
		if err != nil {
			t.Fatal(err)
		}
		c.Behaviour.Alter = func(m *cmp.Message) { m.Header.Sender = cmp.DirectoryName(sender) }
	})
	r.trustAndBootstrap()
	issuer := r.issuer()
	issuer.Trust.ExpectedSender = r.ca.CACertificate().Subject.String()
	r.declare(model.IssuerCreated, "ca", issuer)
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReady("identity", true)
}

// signsAnswers makes the owner of a certificate the signer of what the CA answers.
func (r *rig) signsAnswers(name string) {
	r.t.Helper()
	out := r.output(name).Data
	key, err := ledger.ParseKey(out["tls.key"])
	if err != nil {
		r.t.Fatal(err)
	}
	chain, err := ledger.ParseCertificates(out["tls.crt"])
	if err != nil {
		r.t.Fatal(err)
	}
	signer := &cmp.Signer{Key: key.Signer(), Certificate: chain[0]}
	r.ca.Behave(func(b *responder.Behaviour) {
		b.AlterDER = func(der []byte) []byte {
			m, err := cmp.ParseMessage(der)
			if err != nil {
				r.t.Error(err)
				return der
			}
			m.Header.Sender, m.ExtraCerts = cmp.DirectoryName(chain[0].RawSubject), nil
			if err := m.Protect(nil, signer); err != nil {
				r.t.Error(err)
			}
			if der, err = m.Marshal(); err != nil {
				r.t.Error(err)
			}
			return der
		}
	})
}

// An issuer that certificates refer to stays.
func TestIssuerInUse(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	finalizers := func() []string {
		i, err := r.store.Issuer(t.Context(), r.key("ca"))
		if err != nil {
			t.Fatal(err)
		}
		return i.Finalizers
	}
	if !slices.Equal(finalizers(), []string{model.InUseFinalizer}) {
		t.Errorf("got finalizers %q", finalizers())
	}
	r.declare(model.IssuerDeleted, "ca", nil)
	if got := r.lastRejection(); got.Reason != model.ReasonIssuerInUse || !strings.Contains(got.Message, r.ns+"/identity") || !strings.Contains(got.Message, r.ns+"/web") {
		t.Errorf("got %+v, want the users named", got)
	}
	r.declare(model.ConfigDeleted, "web", nil)
	if !slices.Equal(finalizers(), []string{model.InUseFinalizer}) {
		t.Errorf("one is left: got finalizers %q", finalizers())
	}
	// The last one is deleted with kubectl; what an ApiServerSource tells then carries the object.
	identity, err := r.store.Certificate(t.Context(), r.key("identity"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.dynamic.Resource(model.GroupVersion.WithResource(model.CertificateResource)).Namespace(r.ns).Delete(t.Context(), "identity", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.observed(model.ResourceDelete, model.CertificateKind, "identity", identity)
	if got := finalizers(); len(got) != 0 {
		t.Errorf("nobody is left: got finalizers %q", got)
	}
	r.declare(model.IssuerDeleted, "ca", nil)
	if _, err := r.store.Issuer(t.Context(), r.key("ca")); err == nil {
		t.Error("the issuer was not deleted")
	}
}

// An issuer that ends with its namespace while it is in use goes when the last user does.
func TestIssuerGoesWithItsLastUser(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	if err := kubernetes.NewForConfigOrDie(r.config).CoreV1().Namespaces().Delete(t.Context(), r.ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.endIssuer("ca")
	r.observe(model.ResourceUpdate, model.IssuerKind, "ca")
	if _, err := r.store.Issuer(t.Context(), r.key("ca")); err != nil {
		t.Fatalf("it is in use: %v", err)
	}
	r.declare(model.ConfigDeleted, "identity", nil)
	if _, err := r.store.Issuer(t.Context(), r.key("ca")); err == nil {
		t.Error("nobody uses it: want it gone")
	}
}

// endIssuer deletes an issuer of a namespace that is ending. Admission hears of that end a little later.
func (r *rig) endIssuer(name string) {
	r.t.Helper()
	issuers := r.dynamic.Resource(model.GroupVersion.WithResource(model.IssuerResource)).Namespace(r.ns)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := issuers.Delete(r.t.Context(), name, metav1.DeleteOptions{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) lastRejection() (fact model.RejectedFact) {
	r.t.Helper()
	for _, f := range r.facts {
		if f.Type() == model.ConfigRejected {
			if err := f.DataAs(&fact); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	return fact
}

// observe is what an ApiServerSource in Resource mode tells.
func (r *rig) observe(eventType, kind, name string) {
	r.t.Helper()
	r.observed(eventType, kind, name, nil)
}

func (r *rig) observed(eventType, kind, name string, data any) {
	r.t.Helper()
	in := model.NewEvent(eventType, r.key(name), data)
	in.SetExtension("kind", kind)
	in.SetExtension("namespace", r.ns)
	in.SetExtension("name", name)
	out, err := r.obtainer(nil).Observed(r.t.Context(), in)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range out {
		r.send(e)
	}
}
