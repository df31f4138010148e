package main

import (
	"net/http"
	"os"
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/functiontest"
)

func TestMain(m *testing.M) { os.Exit(functiontest.Main(m)) }

func TestCommandLine(t *testing.T) { functiontest.CommandLine(t) }

func TestEnds(t *testing.T) { functiontest.Ends(t) }

func TestRefusals(t *testing.T) { functiontest.Refusals(t) }

// A tick finds what is due, what has expired and what was forgotten, and nothing else.
func TestTick(t *testing.T) {
	for _, mode := range functiontest.Modes() {
		t.Run(mode.Name, func(t *testing.T) {
			w := rig.NewWorld(t)
			now := time.Now()
			report(t, w, "due", now.Add(time.Hour), now.Add(-time.Minute), nil)
			report(t, w, "expired", now.Add(-time.Minute), now.Add(-time.Hour), nil)
			report(t, w, "fresh", now.Add(48*time.Hour), now.Add(24*time.Hour), nil)
			overdue := now.Add(-2 * time.Minute)
			report(t, w, "forgotten", time.Time{}, time.Time{}, &overdue)
			soon := now.Add(time.Minute)
			report(t, w, "waiting", time.Time{}, time.Time{}, &soon)
			w.Apply(t, rig.EndEntity("new"))

			f := functiontest.Start(t, w)
			ping := f.Testdata(t, "ping.json")
			told := window()
			f.Post(t, mode, ping)
			f.WantFacts(t, model.CertificateExpired, model.CertificateExpiring, model.ScanCompleted)
			f.WantWork(t, "certloop.work.enroll.forgotten", "certloop.work.renew.expired", "certloop.work.renew.due")
			for eventType, name := range map[string]string{model.CertificateExpiring: "due", model.CertificateExpired: "expired"} {
				facts := f.Facts(t, eventType, w.Key(name))
				if len(facts) != 1 {
					t.Fatalf("%d facts %s of %s, want 1", len(facts), eventType, name)
				}
				functiontest.WantCause(t, facts[0], ping)
				if got := rig.Data[model.CertificateFact](t, facts[0]); got.Serial != "2a" || got.SecretName != name+"-tls" || got.NotAfter.IsZero() {
					t.Errorf("%s says %+v, want serial 2a, the Secret and the end", eventType, got)
				}
			}
			done := f.Facts(t, model.ScanCompleted, types.NamespacedName{})
			if len(done) != 1 {
				t.Fatalf("%d facts %s, want 1", len(done), model.ScanCompleted)
			}
			functiontest.WantCause(t, done[0], ping)
			got := rig.Data[model.ScanFact](t, done[0])
			got.Seconds = 0
			if want := (model.ScanFact{Looked: 5, Expiring: 1, Expired: 1, Pending: 1}); !reflect.DeepEqual(got, want) {
				t.Errorf("scan.completed says %+v, want %+v", got, want)
			}

			// A tick too many: it is looked again, and nobody is told twice.
			ping.SetID("another")
			f.Post(t, mode, ping)
			if window() != told {
				return // told anew, and rightly
			}
			f.WantFacts(t, model.CertificateExpired, model.CertificateExpiring, model.ScanCompleted, model.ScanCompleted)
			f.WantWork(t, "certloop.work.enroll.forgotten", "certloop.work.renew.expired", "certloop.work.renew.due")
		})
	}
}

// window is the time within which the same thing is told once.
func window() time.Time { return time.Now().Truncate(10 * time.Minute) }

// A sweep is the business of watch-secrets.
func TestOtherTicks(t *testing.T) {
	f := functiontest.Start(t, rig.NewWorld(t))
	ping := f.Testdata(t, "ping.json", `"scan": "expiry"`, `"scan": "sweep"`)
	f.Post(t, functiontest.Modes()[0], ping)
	f.WantFacts(t)
}

// Some of Knative's senders put no data into a tick: it is one for the expiry.
func TestTickWithoutData(t *testing.T) {
	f := functiontest.Start(t, rig.NewWorld(t))
	got := rig.Post(t, f.URL, http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Type": {model.Ping}, "Ce-Source": {"/ping"}, "Ce-Id": {"1"},
	}, "")
	if got.Status != http.StatusAccepted {
		t.Errorf("answered %d %s, want 202", got.Status, got.Body)
	}
	f.WantFacts(t, model.ScanCompleted)
}

// report declares a certificate and writes into its status what enroll would have.
func report(t *testing.T, w *rig.World, name string, end, renewal time.Time, next *time.Time) {
	t.Helper()
	w.Apply(t, rig.EndEntity(name))
	store, err := ledger.Open(w.Cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	cert := w.Certificate(t, name)
	s := &cert.Status
	s.ObservedGeneration = cert.Generation
	if next != nil {
		at := metav1.NewTime(*next)
		s.NextAttempt = &at
	} else {
		notBefore, notAfter, renewalTime := metav1.NewTime(renewal.Add(-24*time.Hour)), metav1.NewTime(end), metav1.NewTime(renewal)
		s.NotBefore = &notBefore
		s.Serial, s.Revision, s.NotAfter, s.RenewalTime, s.RenewalDay = "2a", 1, &notAfter, &renewalTime, model.RenewalDay(renewal)
	}
	if err := store.UpdateCertificateStatus(t.Context(), cert); err != nil {
		t.Fatal(err)
	}
}
