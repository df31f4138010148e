package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

const (
	polls      = 3
	checkAfter = 2 * time.Second
)

// Check 8, first half: while the CA makes one certificate wait, no handler does.
func TestWaitingBlocksNobody(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	// One handler at a time: were it to wait, nothing else would be done.
	bus := rig.StartAllWith(t, w, []string{"CERTLOOP_CONCURRENCY=1"}).Bus(t)
	w.Settle(t, ca.CA)
	ca.Wait(polls, checkAfter)
	w.Apply(t, rig.EndEntity("patient"))
	waiting := waitForCA(t, w, bus, "patient")
	ca.Wait(0, checkAfter)
	w.Apply(t, rig.EndEntity("hasty"))
	w.WaitReady(t, rig.Patience, "hasty")
	if got := len(pollTimes(ca, waiting.TransactionID)); got == polls {
		t.Error("the certificate asked for later came after that of the one that was made to wait")
	}
	w.WaitReady(t, rig.Patience, "patient")
	rig.Pair(t, w.Secret(t, rig.SecretName("patient")))
	oneTransaction(t, ca, "patient", waiting.TransactionID)
	notTooEarly(t, ca, waiting.TransactionID)
}

// Check 8, second half: the process is killed between two polls and goes on with
// the same transaction.
func TestWaitingOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Settle(t, ca.CA)
	ca.Wait(polls, checkAfter)
	w.Apply(t, rig.EndEntity("patient"))
	waiting := waitForCA(t, w, bus, "patient")
	all.Kill(t)
	between := time.Now().Before(waiting.NextAttempt.Time)
	all.Restart(t)
	w.WaitReady(t, rig.Patience, "patient")
	rig.Pair(t, w.Secret(t, rig.SecretName("patient")))
	oneTransaction(t, ca, "patient", waiting.TransactionID)
	if between {
		notTooEarly(t, ca, waiting.TransactionID)
	} else {
		t.Log("this machine is slow: the kill hit a poll, which may then be repeated sooner")
	}
}

// waitForCA waits until a certificate is reported to wait for its CA.
func waitForCA(t *testing.T, w *rig.World, bus *rig.Bus, name string) model.AttemptFact {
	t.Helper()
	waiting := rig.Data[model.AttemptFact](t, bus.WaitFact(t, rig.Patience, model.CertificateWaiting, w.Key(name)))
	if waiting.Reason != "WaitingForCA" || waiting.TransactionID == "" || waiting.NextAttempt == nil {
		t.Fatalf("certificate.waiting says %+v, want reason WaitingForCA, the transactionID and the time of the next poll", waiting)
	}
	return waiting
}

// oneTransaction checks that a certificate came of the transaction it was begun in,
// after as many polls as the CA wanted.
func oneTransaction(t *testing.T, ca *rig.Responder, name, transaction string) {
	t.Helper()
	if got := transactions(ca, "CN="+name); got != 1 {
		t.Errorf("%d transactions, want 1", got)
	}
	for _, i := range ca.Issued() {
		if i.Subject == "CN="+name && i.TransactionID != transaction {
			t.Errorf("issued in transaction %s, begun was %s", i.TransactionID, transaction)
		}
	}
	if got := len(pollTimes(ca, transaction)); got < polls {
		t.Errorf("polled %d times in transaction %s, want at least %d", got, transaction, polls)
	}
}

func pollTimes(ca *rig.Responder, transaction string) (times []time.Time) {
	for _, e := range ca.Messages() {
		if e.TransactionID == transaction && e.Received == cmp.TypePollReq {
			times = append(times, e.Time)
		}
	}
	return times
}

// notTooEarly checks that no message followed a pollRep sooner than the CA asked for
// (RFC 9810 §5.3.22).
func notTooEarly(t *testing.T, ca *rig.Responder, transaction string) {
	t.Helper()
	messages := slices.DeleteFunc(ca.Messages(), func(e responder.Event) bool { return e.TransactionID != transaction })
	for i, e := range messages[1:] {
		if after := e.Time.Sub(messages[i].Time); messages[i].Answer == cmp.TypePollRep && after < checkAfter {
			t.Errorf("message %d, %s, came %s after the pollRep before it, want at least %s", i+1, e.Received, after, checkAfter)
		}
	}
}

// The same against OpenSSL's server code, whose log tells the transactions.
func TestWaitingOpenSSL(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartOpenSSL(t, "-poll", "3", "-check_after", "2")
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Bootstrap(t, ca.CA)
	w.Apply(t, rig.Issuer(ca.CA), rig.Identity())
	key := w.Key(rig.IdentityName)
	waiting := rig.Data[model.AttemptFact](t, bus.WaitFact(t, rig.Patience, model.CertificateWaiting, key))
	all.Kill(t)
	all.Restart(t)
	w.WaitReady(t, rig.Patience, rig.IdentityName)
	identity := rig.Pair(t, w.Secret(t, rig.SecretName(rig.IdentityName)))
	var bodies []string
	for _, line := range ca.Lines(t) {
		if line["transactionID"] == waiting.TransactionID {
			bodies = append(bodies, line["body"])
		} else {
			t.Errorf("the CA saw transaction %s, begun was %s", line["transactionID"], waiting.TransactionID)
		}
	}
	if want := []string{"ir", "pollReq", "pollReq", "pollReq", "certConf"}; !slices.Equal(bodies, want) {
		t.Errorf("the CA saw %q, want %q", bodies, want)
	}
	wantLine(t, ca, map[string]string{"body": "certConf", "confirmed": upperHex(identity.SerialNumber.Bytes())})
}
