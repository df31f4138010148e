package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// hay is a place in which a key must not be.
type hay struct {
	where string
	data  []byte
}

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
	streams := streamed(t, bus)
	all.Kill(t)

	hays := append(streams, tapped(messages)...)
	hays = append(hays, files(t, all.StateDir)...)
	hays = append(hays, files(t, filepath.Dir(all.Log))...)
	for _, name := range names {
		hays = append(hays, resource(t, "CMPCertificate "+name, w.Certificate(t, name)))
	}
	hays = append(hays, resource(t, "CMPIssuer", w.Issuer(t)))
	needles := keys.Needles(t)
	size := 0
	for _, h := range hays {
		size += len(h.data)
	}
	t.Logf("%d keys in %d forms, searched for in %d places, %d bytes, %d of them messages", keys.Len(), len(needles), len(hays), size, len(messages))
	// Two per certificate, four renewed or begun anew.
	if keys.Len() < len(names)+3 || len(messages) < 20 || len(streams) < 10 {
		t.Errorf("%d keys, %d messages, %d stored: the run did not show enough to be searched", keys.Len(), len(messages), len(streams))
	}
	checkSearch(t, needles)
	for _, h := range hays {
		for _, n := range needles {
			if n.In(h.data) {
				t.Errorf("%s holds the key that was %s (%s)", h.where, n.Key, n.Form)
			}
		}
		for _, secret := range sharedSecret() {
			if strings.Contains(string(h.data), secret) {
				t.Errorf("%s holds the shared secret", h.where)
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

// streamed is what the three streams hold.
func streamed(t *testing.T, bus *rig.Bus) (hays []hay) {
	t.Helper()
	for _, stream := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		for _, m := range bus.Messages(t, stream, "certloop.>") {
			hays = append(hays, hay{fmt.Sprintf("message %d of %s on %s", m.Sequence, stream, m.Subject), flat(m.Header, m.Data)})
		}
	}
	return hays
}

func tapped(messages []*nats.Msg) (hays []hay) {
	for i, m := range messages {
		hays = append(hays, hay{fmt.Sprintf("published message %d on %s", i+1, m.Subject), flat(m.Header, m.Data)})
	}
	return hays
}

func flat(header nats.Header, data []byte) []byte {
	return fmt.Appendf(nil, "%q\n%s", header, data)
}

func files(t *testing.T, dir string) (hays []hay) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		hays = append(hays, hay{path, data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hays
}

func resource(t *testing.T, name string, object any) hay {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return hay{name, text}
}

// sharedSecret is the secret as it is and as a Secret in JSON shows it.
func sharedSecret() []string {
	return []string{rig.Secret, base64.StdEncoding.EncodeToString([]byte(rig.Secret))}
}

// checkSearch is the negative control: every form of every key is found where it is.
func checkSearch(t *testing.T, needles []rig.Needle) {
	t.Helper()
	for _, n := range needles {
		if !n.In(n.Example()) || n.In([]byte(`{"level":"INFO","key":"none"}`)) {
			t.Errorf("a search does not find the key that was %s (%s) in its own example", n.Key, n.Form)
		}
	}
}
