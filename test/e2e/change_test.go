package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// What changes in a configuration decides what happens: other names need another
// certificate, another output does not; without a configuration the output stays.
func TestConfigurationChanges(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	declare := func(names string) string {
		return rig.EndEntity("web", "subject: {commonName: web}", "subjectAltNames: {dnsNames: ["+names+"]}")
	}
	w.Kubectl(t, declare("a.example.com"), "apply", "-f", "-")
	w.WaitReady(t, rig.Patience, "web")

	w.Kubectl(t, declare("a.example.com, b.example.com"), "apply", "-f", "-")
	waitRevision(t, w, "web", 2)
	w.WaitReady(t, rig.Patience, "web")
	second := rig.Pair(t, w.Secret(t, rig.SecretName("web")))
	if want := []string{"a.example.com", "b.example.com"}; !slices.Equal(second.DNSNames, want) {
		t.Errorf("DNS names %q, want %q", second.DNSNames, want)
	}

	w.Kubectl(t, "", "patch", "cmpc", "web", "--type=merge", "-p", `{"spec":{"output":{"secretName":"moved"},"renewBefore":"1h"}}`)
	rig.Eventually(t, rig.Patience, "the new output is there", func() error {
		if w.Secret(t, "moved") == nil {
			return errors.New("there is no Secret")
		}
		return nil
	})
	if !rig.Pair(t, w.Secret(t, "moved")).Equal(second) {
		t.Error("the new output holds another certificate")
	}
	if got := transactions(ca, "CN=web"); got != 2 {
		t.Errorf("%d transactions, want 2", got)
	}

	w.Kubectl(t, "", "delete", "cmpc", "web")
	rig.Eventually(t, rig.Patience, "the record is gone", func() error {
		if w.Secret(t, model.RecordName("web")) != nil {
			return fmt.Errorf("Secret %s is there", model.RecordName("web"))
		}
		return nil
	})
	rig.Pair(t, w.Secret(t, "moved"))
}
