package e2e

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

const (
	killedCertificates = 20
	kills              = 10
)

// Check 6: `kill -9` at ten random moments during 20 enrolments. All end Ready with
// matching keys, and what the CA issued beyond that is at most one for each kill, each told.
func TestKillNineDuringEnrolments(t *testing.T) {
	t.Parallel()
	// Our CA answers a repeated request with the same certificate: nothing is extra,
	// however many requests a kill interrupts.
	t.Run("responder", func(t *testing.T) {
		t.Parallel()
		ca := rig.StartResponder(t, responder.Config{})
		killDuringEnrolments(t, ca.CA, 0, nil, func() (serials []string) {
			for _, i := range ca.Issued() {
				serials = append(serials, i.Serial)
			}
			return serials
		})
	})
	// OpenSSL's issues another one. One request at a time, so that a kill
	// interrupts at most one.
	t.Run("openssl", func(t *testing.T) {
		t.Parallel()
		ca := rig.StartOpenSSL(t)
		killDuringEnrolments(t, ca.CA, kills, []string{"CERTLOOP_CONCURRENCY=1"}, func() (serials []string) {
			for _, c := range ca.Issued(t) {
				serials = append(serials, serialOf(c))
			}
			return serials
		})
	})
}

func serialOf(c *x509.Certificate) string { return ledger.SerialHex(c.SerialNumber.Bytes()) }

func killDuringEnrolments(t *testing.T, ca rig.CA, most int, env []string, issued func() []string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := rig.NewWorld(t)
	outputs := w.WatchOutputs(t)
	all := rig.StartAllWith(t, w, env)
	bus := all.Bus(t)
	w.Settle(t, rig.Slow(t, ca, 150*time.Millisecond))

	var names []string
	for range kills {
		for range killedCertificates / kills {
			names = append(names, fmt.Sprintf("c%02d", len(names)))
			w.Apply(t, rig.EndEntity(names[len(names)-1]))
		}
		time.Sleep(time.Duration(random.Int64N(int64(900 * time.Millisecond))))
		all.Kill(t)
		all.Restart(t)
	}
	took := w.WaitReady(t, 2*rig.Patience, names...)
	t.Logf("all Ready %.1f s after the last kill", took.Seconds())

	wanted := map[string]bool{serialOf(rig.Pair(t, w.Secret(t, rig.SecretName(rig.IdentityName)))): true}
	for _, name := range names {
		cert := rig.Pair(t, w.Secret(t, rig.SecretName(name)))
		wanted[serialOf(cert)] = true
		if cert.Subject.CommonName != name {
			t.Errorf("the Secret of %s holds a certificate for %s", name, cert.Subject)
		}
		bus.WaitFact(t, rig.Patience, model.CertificateIssued, w.Key(name))
	}
	if wrong, versions := outputs.Mismatched(); len(wrong) > 0 || versions < len(wanted) {
		t.Errorf("%d versions of Secrets were visible, in these key and certificate did not match: %q", versions, wrong)
	}
	checkExtras(t, issued(), wanted, most, reported(t, w, bus, names))
}

// reported is how many extra certificates status and history tell of, whichever is more.
func reported(t *testing.T, w *rig.World, bus *rig.Bus, names []string) int {
	t.Helper()
	counted := 0
	for _, name := range append(names, rig.IdentityName) {
		counted += int(w.Certificate(t, name).Status.ExtraIssuances)
	}
	told := len(bus.Facts(t, model.IssuanceMaybeOrphan, types.NamespacedName{}))
	t.Logf("%d extra certificates are counted in status, %d times it is told", counted, told)
	return max(counted, told)
}

// checkExtras compares what the CA issued with what is in use.
func checkExtras(t *testing.T, issued []string, wanted map[string]bool, most, reported int) {
	t.Helper()
	extras := 0
	for _, serial := range issued {
		if !wanted[serial] {
			extras++
		}
		delete(wanted, serial)
	}
	t.Logf("%d kills cost %d extra certificates", kills, extras)
	if len(wanted) > 0 {
		t.Errorf("certificates in Secrets that the CA did not issue: %v", wanted)
	}
	if extras > most {
		t.Errorf("%d extra certificates, want at most %d", extras, most)
	}
	if extras > reported {
		t.Errorf("%d extra certificates, but only %d are reported", extras, reported)
	}
}

// SIGTERM is no kill: what is under way is finished, and nothing is asked twice.
func TestDrainDuringEnrolments(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	ca.Behave(func(b *responder.Behaviour) { b.Delay = time.Second })
	asked := len(ca.Messages())
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("c%d", i))
		w.Apply(t, rig.EndEntity(names[i]))
	}
	rig.Eventually(t, rig.Patience, "the CA is asked", func() error {
		if len(ca.Messages()) == asked {
			return errors.New("it is not")
		}
		return nil
	})
	t.Logf("drained in %.1f s", all.Stop(t).Seconds())
	all.Restart(t)
	w.WaitReady(t, rig.Patience, names...)
	for _, name := range names {
		if got := transactions(ca, "CN="+name); got != 1 {
			t.Errorf("%s took %d transactions, want 1", name, got)
		}
		if got := w.Certificate(t, name).Status.ExtraIssuances; got != 0 {
			t.Errorf("%s: %d extra issuances, want 0", name, got)
		}
	}
}
