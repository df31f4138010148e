package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// repairedWithin is what is promised for putting an output back.
const repairedWithin = 5 * time.Second

// Check 5: a deleted output is back within 5 s with the same bytes, an overwritten
// one is repaired and told, and the CA need not be there.
func TestRepairWithoutTheCA(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	// No sweep: what is repaired here is repaired because of an event.
	bus := rig.StartAll(t, w, "--sweep-interval", "1h").Bus(t)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("web"))
	w.WaitReady(t, rig.Patience, "web")
	bus.WaitFact(t, rig.Patience, model.CertificateIssued, w.Key("web"))
	ca.Down()
	asked := len(ca.Messages())
	output := rig.SecretName("web")
	want := w.Secret(t, output).Data
	rubbish := []byte("-----BEGIN RUBBISH-----\n")

	tests := []struct {
		name   string
		damage func(t *testing.T)
		fact   string
		cause  string
	}{
		{"deleted", func(t *testing.T) { w.Delete(t, "Secret", output) }, model.SecretDeleted, "does not exist"},
		{"certificate overwritten", func(t *testing.T) { w.Overwrite(t, output, corev1.TLSCertKey, rubbish) }, model.SecretModified, "tls.crt was changed"},
		{"key overwritten", func(t *testing.T) { w.Overwrite(t, output, corev1.TLSPrivateKeyKey, rubbish) }, model.SecretModified, "tls.key was changed"},
		{"deleted again", func(t *testing.T) { w.Delete(t, "Secret", output) }, model.SecretDeleted, "does not exist"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			told, restored := len(bus.Facts(t, test.fact, w.Key("web"))), len(bus.Facts(t, model.CertificateRestored, w.Key("web")))
			test.damage(t)
			took := rig.Eventually(t, rig.Patience, "the output is as it was", func() error {
				return holds(w.Secret(t, output), want)
			})
			t.Logf("repaired after %.2f s", took.Seconds())
			if took > repairedWithin {
				t.Errorf("repaired after %s, want within %s", took, repairedWithin)
			}
			rig.Pair(t, w.Secret(t, output))
			rig.Eventually(t, rig.Patience, "the history tells of it", func() error {
				facts := bus.Facts(t, test.fact, w.Key("web"))
				if len(facts) == told {
					return fmt.Errorf("no %s", test.fact)
				}
				if got := rig.Data[model.SecretFact](t, facts[len(facts)-1]); got.SecretName != output || !strings.Contains(got.Cause, test.cause) {
					return fmt.Errorf("%s tells of Secret %s: %s; want %s: %s", test.fact, got.SecretName, got.Cause, output, test.cause)
				}
				if len(bus.Facts(t, model.CertificateRestored, w.Key("web"))) == restored {
					return errors.New("no certificate.restored")
				}
				return nil
			})
		})
	}
	if got := len(ca.Messages()); got != asked {
		t.Errorf("the CA was asked %d times during the repairs", got-asked)
	}
}

// What others add to an output stays: labels, annotations and data keys of their own.
func TestRepairLeavesForeignParts(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("web"))
	w.WaitReady(t, rig.Patience, "web")
	output := rig.SecretName("web")
	want := maps.Clone(w.Secret(t, output).Data)
	w.Kubectl(t, "", "label", "secret", output, "team=shop")
	w.Kubectl(t, "", "annotate", "secret", output, "note=keep me")
	w.Overwrite(t, output, "keystore.jks", []byte("theirs"))
	w.Overwrite(t, output, corev1.TLSCertKey, []byte("rubbish"))
	want["keystore.jks"] = []byte("theirs")
	rig.Eventually(t, rig.Patience, "the output is repaired", func() error { return holds(w.Secret(t, output), want) })
	s := w.Secret(t, output)
	if s.Labels["team"] != "shop" || s.Annotations["note"] != "keep me" {
		t.Errorf("labels %v, annotations %v: want team=shop and note=keep me among them", s.Labels, s.Annotations)
	}
}

// holds tells how a Secret differs from what it should hold.
func holds(s *corev1.Secret, want map[string][]byte) error {
	if s == nil {
		return errors.New("there is no Secret")
	}
	if !maps.EqualFunc(s.Data, want, slices.Equal) {
		// Names only: the values are private keys.
		return fmt.Errorf("its content differs, data keys (-got +want) %s", diff.Diff(slices.Sorted(maps.Keys(s.Data)), slices.Sorted(maps.Keys(want))))
	}
	return nil
}
