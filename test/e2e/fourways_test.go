package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// result is what must be the same whichever way was taken.
type result struct {
	Spec          model.CMPCertificateSpec
	Ready, Reason string
	Revision      int64
	Type          corev1.SecretType
	Labels        map[string]string
	Keys          []string
	Certificate   granted
	Issued        int // by the CA, identity included
	EndEntities   int // transactions for the certificate
	Facts         []string
}

const fourWays = "web"

// Check 4: POST in binary and in structured mode to the enroll binary, publish on
// JetStream, kubectl apply: one result.
func TestFourWaysOneResult(t *testing.T) {
	t.Parallel()
	documents := func(ca rig.CA) (issuer, identity, web string) {
		return rig.Issuer(ca), rig.Identity(),
			rig.EndEntity(fourWays, "subjectAltNames: {dnsNames: [web.example.com]}", "subject: {organization: Example, commonName: web}", "validity: 24h")
	}
	ways := []string{"binary", "structured", "jetstream", "kubectl"}
	results := make(map[string]result, len(ways))
	var mu sync.Mutex
	t.Run("ways", func(t *testing.T) {
		for _, name := range ways {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := rig.NewWorld(t)
				ca := rig.StartResponder(t, responder.Config{})
				w.Bootstrap(t, ca.CA)
				bus, declare := startWay(t, w, name)
				issuer, identity, web := documents(ca.CA)
				declare(t, model.IssuerCreated, rig.IssuerName, issuer)
				declare(t, model.ConfigCreated, rig.IdentityName, identity)
				declare(t, model.ConfigCreated, fourWays, web)
				w.WaitReady(t, rig.Patience, rig.IdentityName, fourWays)
				got := observe(t, w, ca, bus)
				mu.Lock()
				defer mu.Unlock()
				results[name] = got
			})
		}
	})
	if len(results) < len(ways) {
		return // skipped, or failed and said so
	}
	for _, name := range ways[1:] {
		if d := diff.Diff(results[name], results[ways[0]]); d != "" {
			t.Errorf("%s (-) and %s (+) differ:\n%s", name, ways[0], d)
		}
	}
	if got := results["binary"]; got.Issued != 2 || got.EndEntities != 1 || got.Ready != "True" {
		t.Errorf("%d certificates, %d for %s, Ready %q; want 2, 1, True", got.Issued, got.EndEntities, fourWays, got.Ready)
	}
}

// startWay starts what a way needs: the enroll binary on a NATS server, and for
// kubectl the all-in-one, whose watch stands in for an ApiServerSource.
func startWay(t *testing.T, w *rig.World, name string) (*rig.Bus, func(t *testing.T, eventType, object, document string)) {
	t.Helper()
	if name == "kubectl" {
		bus := rig.StartAll(t, w).Bus(t)
		return bus, func(t *testing.T, _, _, document string) { w.Kubectl(t, document, "apply", "-f", "-") }
	}
	nats := rig.StartNATS(t)
	_, url := rig.StartFunction(t, w, "enroll", nats.URL)
	bus := rig.OpenBus(t, nats.URL)
	return bus, func(t *testing.T, eventType, object, document string) {
		t.Helper()
		e := rig.Event(t, eventType, w.Key(object), document)
		switch name {
		case "binary":
			accepted(t, rig.PostBinary(t, url, e))
		case "structured":
			accepted(t, rig.PostStructured(t, url, e))
		default:
			bus.Publish(t, model.Enroll, w.Key(object), e)
		}
	}
}

// persist sends again what is refused for now only, as every sender of CloudEvents does.
func persist(t *testing.T, send func() rig.Answer) {
	t.Helper()
	var got rig.Answer
	rig.Eventually(t, rig.Patience, "the event is taken", func() error {
		if got = send(); got.Status == http.StatusServiceUnavailable {
			return errors.New(got.Body)
		}
		return nil
	})
	accepted(t, got)
}

func accepted(t *testing.T, got rig.Answer) {
	t.Helper()
	if got.Status != http.StatusAccepted || got.Body != "" {
		t.Errorf("answered %d %q, want 202 and no body", got.Status, got.Body)
	}
}

func observe(t *testing.T, w *rig.World, ca *rig.Responder, bus *rig.Bus) result {
	t.Helper()
	bus.WaitFact(t, rig.Patience, model.CertificateIssued, w.Key(fourWays))
	cert, secret := w.Certificate(t, fourWays), w.Secret(t, rig.SecretName(fourWays))
	ready := rig.Condition(cert.Status.Conditions, model.Ready)
	r := result{
		Spec: cert.Spec, Ready: string(ready.Status), Reason: ready.Reason, Revision: cert.Status.Revision,
		Type: secret.Type, Labels: secret.Labels, Certificate: grantedBy(t, rig.Pair(t, secret)),
		Issued: len(ca.Issued()), EndEntities: transactions(ca, "CN=web,O=Example"),
	}
	for key := range secret.Data {
		r.Keys = append(r.Keys, key)
	}
	slices.Sort(r.Keys)
	for _, e := range bus.Facts(t, model.CertificateIssued, w.Key(fourWays)) {
		r.Facts = append(r.Facts, e.Type())
	}
	return r
}

// transactions counts the CMP transactions that asked for a certificate for a subject
// and were answered with one.
func transactions(ca *rig.Responder, subject string) int {
	seen := map[string]bool{}
	for _, e := range ca.Messages() {
		if e.Issuance != nil && e.Issuance.Subject == subject {
			seen[e.TransactionID] = true
		}
	}
	return len(seen)
}

// The same event ten times, at once, by all transports: one CMP transaction.
func TestSameEventTenTimes(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	nats := rig.StartNATS(t)
	_, url := rig.StartFunction(t, w, "enroll", nats.URL)
	bus := rig.OpenBus(t, nats.URL)
	w.Bootstrap(t, ca.CA)
	w.Apply(t, rig.Issuer(ca.CA))
	identity := rig.Event(t, model.ConfigCreated, w.Key(rig.IdentityName), rig.Identity())
	accepted(t, rig.PostBinary(t, url, identity))
	w.WaitReady(t, rig.Patience, rig.IdentityName)

	same := rig.Event(t, model.ConfigCreated, w.Key(fourWays), rig.EndEntity(fourWays))
	t.Run("send", func(t *testing.T) {
		for i := range 10 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				switch i % 3 {
				case 0:
					persist(t, func() rig.Answer { return rig.PostBinary(t, url, same) })
				case 1:
					persist(t, func() rig.Answer { return rig.PostStructured(t, url, same) })
				default:
					bus.Publish(t, model.Enroll, w.Key(fourWays), same)
				}
			})
		}
	})
	w.WaitReady(t, rig.Patience, fourWays)
	rig.Eventually(t, rig.Patience, "all work is settled", func() error {
		if left := bus.Messages(t, model.WorkStream, model.WorkSubjects); len(left) > 0 {
			return fmt.Errorf("%d messages are left, the first on %s", len(left), left[0].Subject)
		}
		return nil
	})
	if got := transactions(ca, "CN="+fourWays); got != 1 {
		t.Errorf("%d CMP transactions, want 1", got)
	}
	if got := w.Certificate(t, fourWays).Status; got.Revision != 1 || got.ExtraIssuances != 0 {
		t.Errorf("revision %d, %d extra issuances; want 1 and 0", got.Revision, got.ExtraIssuances)
	}
	if got := len(bus.Facts(t, model.CertificateIssued, w.Key(fourWays))); got != 1 {
		t.Errorf("certificate.issued is in the history %d times, want once", got)
	}
}
