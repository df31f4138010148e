package e2e

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Check 10: a run with everything that can happen to a certificate, then every byte
// of every NATS message and file, of the log and of the custom resources is searched
// for every private key and for the shared secret.
func TestNoPrivateKeyOutsideSecrets(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	keys := w.WatchKeys(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w, "--log-level", "debug")
	bus := all.Bus(t)
	seen := bus.Tap(t)
	names := eventfulLife(t, w, ca, all, bus)
	messages := seen()
	// The files of the store as they are when nobody writes them.
	streams := bus.Stored(t)
	all.Kill(t)

	hays := append(streams, rig.Tapped(messages)...)
	hays = append(hays, rig.Files(t, all.StateDir)...)
	hays = append(hays, rig.Files(t, filepath.Dir(all.Log))...)
	for _, name := range names {
		hays = append(hays, rig.Resource(t, "CMPCertificate "+name, w.Certificate(t, name)))
	}
	hays = append(hays, rig.Resource(t, "CMPIssuer", w.Issuer(t)))
	t.Log(keys.CheckAbsent(t, hays))
	// Two per certificate, four renewed or begun anew.
	if keys.Len() < len(names)+3 || len(messages) < 20 || len(streams) < 10 {
		t.Errorf("%d keys, %d messages, %d stored: the run did not show enough to be searched", keys.Len(), len(messages), len(streams))
	}
	for _, h := range hays {
		for _, secret := range sharedSecret() {
			if strings.Contains(string(h.Data), secret) {
				t.Errorf("%s holds the shared secret", h.Where)
			}
		}
	}
}

// eventfulLife makes certificates be issued, waited for, refused, repaired, renewed
// and begun anew, sends a key to where no key belongs, and returns their names.
func eventfulLife(t *testing.T, w *rig.World, ca *rig.Responder, all *rig.AllInOne, bus *rig.Bus) []string {
	t.Helper()
	w.Settle(t, ca.CA)
	ca.Wait(1, 0)
	w.Apply(t, rig.EndEntity("ecdsa"), rig.EndEntity("rsa", "privateKey: {algorithm: RSA}"))
	w.WaitReady(t, rig.Patience, "ecdsa", "rsa")
	ca.Wait(0, 0)
	w.Overwrite(t, rig.SecretName("ecdsa"), "tls.crt", []byte("rubbish"))
	bus.WaitFact(t, rig.Patience, model.CertificateRestored, w.Key("ecdsa"))
	for _, name := range []string{"ecdsa", "rsa", rig.IdentityName} {
		bus.Publish(t, model.Renew, w.Key(name), rig.Event(t, model.RenewalRequested, w.Key(name), "{reason: manual}"))
		waitRevision(t, w, name, 2)
	}
	ca.Behave(func(b *responder.Behaviour) { b.WrongSignature = true })
	w.Apply(t, rig.EndEntity("distrusted"))
	w.WaitReason(t, rig.Patience, "distrusted", "ResponseNotAuthentic")
	ca.Behave(func(b *responder.Behaviour) { b.WrongSignature, b.WrongKey = false, true })
	w.Apply(t, rig.EndEntity("mistaken"))
	bus.WaitFact(t, rig.Patience, model.CertificateFailed, w.Key("mistaken"))
	ca.Behave(func(b *responder.Behaviour) { b.WrongKey = false })

	// An ApiServerSource in the wrong mode sends the whole Secret.
	secret, err := json.Marshal(w.Secret(t, rig.SecretName("rsa")))
	if err != nil {
		t.Fatal(err)
	}
	rig.Post(t, all.Ready["watch-secrets"], map[string][]string{
		"Ce-Specversion": {"1.0"}, "Ce-Type": {"dev.knative.apiserver.resource.update"}, "Ce-Source": {"/e2e"}, "Ce-Id": {"1"},
		"Ce-Namespace": {w.Namespace}, "Ce-Name": {rig.SecretName("rsa")}, "Ce-Kind": {"Secret"}, "Content-Type": {"application/json"},
	}, string(secret))
	return []string{rig.IdentityName, "ecdsa", "rsa", "distrusted", "mistaken"}
}

// sharedSecret is the secret as it is and as a Secret in JSON shows it.
func sharedSecret() []string {
	return []string{rig.Secret, base64.StdEncoding.EncodeToString([]byte(rig.Secret))}
}
