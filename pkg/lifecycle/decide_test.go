package lifecycle

import (
	"crypto/x509"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// issued is a certificate of a day, issued hours ago for a configuration.
func issued(ago time.Duration, config string) *ledger.Issuance {
	return &ledger.Issuance{
		Chain:  []*x509.Certificate{{NotBefore: noon.Add(-ago), NotAfter: noon.Add(24*time.Hour - ago)}},
		Config: config, Revision: 1,
	}
}

func TestDecide(t *testing.T) {
	const enroll, renew = ledger.ForEnrollment, ledger.ForRenewal
	for _, tc := range []struct {
		name    string
		rec     ledger.Record
		purpose string
		work    string
		want    action
	}{
		{"nothing yet", ledger.Record{}, enroll, "", begin},
		{"somebody works on it", ledger.Record{Lease: &ledger.Lease{}, Flight: &ledger.Flight{Config: "c"}}, enroll, "", comeBack},
		{"the lease is over", ledger.Record{Lease: &ledger.Lease{}, Flight: &ledger.Flight{Config: "c"}}, enroll, model.WorkLease, resume},
		{"interrupted", ledger.Record{Flight: &ledger.Flight{Config: "c"}}, enroll, "", resume},
		{"the CA makes us wait", ledger.Record{Flight: &ledger.Flight{Config: "c", NextPoll: noon.Add(time.Second)}}, enroll, "", rest},
		{"the poll is due", ledger.Record{Flight: &ledger.Flight{Config: "c", NextPoll: noon}}, enroll, model.WorkPoll, resume},
		{"changed while waiting", ledger.Record{Flight: &ledger.Flight{Config: "old", NextPoll: noon.Add(time.Hour)}}, enroll, "", abandon},
		{"changed after it was issued", ledger.Record{Flight: &ledger.Flight{Config: "old", Chain: []*x509.Certificate{{}}}}, enroll, "", resume},
		{"satisfied", ledger.Record{Current: issued(time.Hour, "c")}, enroll, "", deliver},
		{"due is renew's business", ledger.Record{Current: issued(20*time.Hour, "c")}, enroll, "", deliver},
		{"due", ledger.Record{Current: issued(20*time.Hour, "c")}, renew, "", begin},
		{"not due", ledger.Record{Current: issued(time.Hour, "c")}, renew, "", deliver},
		{"a retry that is not due any more", ledger.Record{Current: issued(time.Hour, "c")}, renew, model.WorkRetry, deliver},
		{"expired", ledger.Record{Current: issued(25*time.Hour, "c")}, enroll, "", begin},
		{"configuration changed", ledger.Record{Current: issued(time.Hour, "old")}, enroll, "", begin},
		{"after a failure", ledger.Record{Attempt: ledger.Attempts{Next: noon.Add(time.Second)}}, enroll, "", rest},
		{"after a failure, what was missing came", ledger.Record{Attempt: ledger.Attempts{Next: noon.Add(time.Second)}}, enroll, model.WorkDependency, begin},
		{"the retry is due", ledger.Record{Attempt: ledger.Attempts{Next: noon}}, enroll, model.WorkRetry, begin},
		{"a failed poll rests too", ledger.Record{Flight: &ledger.Flight{Config: "c", NextPoll: noon.Add(-time.Minute)}, Attempt: ledger.Attempts{Next: noon.Add(time.Second)}}, enroll, "", rest},
		{"parked", ledger.Record{Attempt: ledger.Attempts{Parked: "c@i/1"}}, enroll, model.WorkDependency, rest},
		{"parked, the issuer changed", ledger.Record{Attempt: ledger.Attempts{Parked: "c@i/0"}}, enroll, "", begin},
		{"after a failure, the CA answers again", ledger.Record{Attempt: ledger.Attempts{Next: noon.Add(time.Second)}}, enroll, model.WorkRelease, begin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := view{rec: &tc.rec, spec: &model.CMPCertificateSpec{}, config: "c", issuer: "i/1", purpose: tc.purpose, work: model.Work{Reason: tc.work}, now: noon}
			if got := decide(v); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// What a person asks for, by an event or an annotation.
func TestDecideDemands(t *testing.T) {
	const kur, ir = ledger.ForRenewal, ledger.ForEnrollment
	flight := func(purpose, cause string) *ledger.Flight {
		return &ledger.Flight{Config: "c", Purpose: purpose, Cause: cause, NextPoll: noon.Add(time.Minute)}
	}
	renew, recreate := demand{kind: renewal, id: "1"}, demand{kind: recreation, id: "1"}
	first := func(d demand) demand { d.fresh = true; return d }
	good, later := issued(time.Hour, "c"), noon.Add(time.Second)
	for _, tc := range []struct {
		name   string
		rec    ledger.Record
		demand demand
		want   action
		ask    string
	}{
		{"renewal", ledger.Record{Current: good}, first(renew), begin, kur},
		{"renewal that failed", ledger.Record{Current: good, Attempt: ledger.Attempts{Failed: 1, Next: noon}}, renew, begin, kur},
		{"renewal that failed just now", ledger.Record{Current: good, Attempt: ledger.Attempts{Failed: 1, Next: later}}, renew, rest, kur},
		{"renewal of nothing", ledger.Record{}, first(renew), begin, ir},
		{"recreation", ledger.Record{Current: good}, first(recreate), begin, ir},
		{"recreation after a failure", ledger.Record{Attempt: ledger.Attempts{Failed: 1, Next: later}}, first(recreate), begin, ir},
		{"parked", ledger.Record{Attempt: ledger.Attempts{Parked: "c@i/1"}}, first(recreate), begin, ir},
		{"parked for it", ledger.Record{Current: good, Attempt: ledger.Attempts{Parked: "c@i/1"}}, recreate, rest, ir},
		{"one more attempt", ledger.Record{Attempt: ledger.Attempts{Parked: "c@i/1"}}, demand{pressed: true}, begin, ir},
		{"a key update is on its way", ledger.Record{Current: good, Flight: flight(kur, "0")}, first(renew), rest, kur},
		{"recreation, and a key update is on its way", ledger.Record{Current: good, Flight: flight(kur, "0")}, first(recreate), abandon, ir},
		{"recreation, and an initial request is on its way", ledger.Record{Current: good, Flight: flight(ir, "0")}, first(recreate), rest, ir},
		{"recreation is on its way", ledger.Record{Current: good, Flight: flight(ir, "1")}, recreate, rest, ir},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := view{rec: &tc.rec, spec: &model.CMPCertificateSpec{}, config: "c", issuer: "i/1", purpose: ir, demand: tc.demand, now: noon}
			if got := decide(v); got != tc.want {
				t.Errorf("got action %d, want %d", got, tc.want)
			}
			if got := v.request(); got != tc.ask {
				t.Errorf("got a request for %s, want %s", got, tc.ask)
			}
			if f := tc.rec.Flight; v.joins() != (f != nil && tc.want == rest && f.Cause != "1") {
				t.Errorf("got joins %v", v.joins())
			}
		})
	}
}

// A lease is over only for who saw the record as it still is.
func TestLeaseOfALivingHolder(t *testing.T) {
	v := view{rec: &ledger.Record{Lease: &ledger.Lease{}}, spec: &model.CMPCertificateSpec{}, work: model.Work{Reason: model.WorkLease, Seen: "41"}, now: noon}
	if got := decide(v); got != comeBack {
		t.Errorf("got %d, want %d", got, comeBack)
	}
}

func TestRequestPurpose(t *testing.T) {
	for _, tc := range []struct {
		name string
		rec  ledger.Record
		want string
	}{
		{"first", ledger.Record{}, ledger.ForEnrollment},
		{"update", ledger.Record{Current: issued(20*time.Hour, "c")}, ledger.ForRenewal},
		{"expired", ledger.Record{Current: issued(25*time.Hour, "c")}, ledger.ForEnrollment},
		{"another configuration", ledger.Record{Current: issued(time.Hour, "old")}, ledger.ForEnrollment},
	} {
		if got := (view{rec: &tc.rec, config: "c", now: noon}).request(); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// Where a certificate goes and when it is renewed is no reason to ask for another one.
func TestConfigDigest(t *testing.T) {
	base := model.CMPCertificateSpec{Subject: &model.Subject{CommonName: "a"}, Output: model.Output{SecretName: "x"}}
	moved, renamed := base, base
	moved.Output.SecretName, moved.RenewBefore = "y", &metav1.Duration{Duration: time.Hour}
	renamed.Subject = &model.Subject{CommonName: "b"}
	if configDigest(base) != configDigest(moved) {
		t.Error("moving the output changed the digest")
	}
	if configDigest(base) == configDigest(renamed) {
		t.Error("another subject did not change the digest")
	}
}
