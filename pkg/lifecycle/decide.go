package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// view is all that the next action depends on.
type view struct {
	rec     *ledger.Record
	spec    *model.CMPCertificateSpec
	config  string // digest of what the configuration asks of the CA
	issuer  string // what a parked certificate waits for to change, besides its configuration
	purpose string // what the event is for: ledger.ForEnrollment or ledger.ForRenewal
	work    model.Work
	demand  demand
	now     time.Time
}

// action is what to do next.
type action int

const (
	comeBack action = iota // somebody is working on it: look again when the lease should be over
	rest                   // it is not time yet
	resume                 // go on with the transaction in flight
	abandon                // end the transaction in flight, which is for what is not wanted any more, and begin
	begin                  // begin a transaction
	deliver                // nothing to ask of the CA: see to the output
)

// decide is the whole policy of an attempt.
func decide(v view) action {
	switch {
	case v.rec.Lease != nil && !v.leaseOver():
		return comeBack
	case v.rec.Flight != nil:
		return v.inFlight()
	case v.satisfied():
		return deliver
	case v.parked(), v.tooEarly():
		return rest
	default:
		return begin
	}
}

// leaseOver: the record has not changed since somebody looked one lease ago, so its
// holder is gone.
func (v view) leaseOver() bool {
	return cameBack(v.work) && v.work.Seen == v.rec.Version()
}

// cameBack: the work was put off for the length of a lease. What else it is for stays.
func cameBack(w model.Work) bool {
	switch w.Reason {
	case model.WorkLease, model.WorkManual, model.WorkProbe, model.WorkRelease:
		return true
	default:
		return false
	}
}

func (v view) inFlight() action {
	switch f := v.rec.Flight; {
	case f.Chain == nil && (f.Config != v.config || v.overruled()):
		return abandon
	case f.NextPoll.After(v.now), v.tooEarly():
		return rest
	default:
		return resume
	}
}

// overruled: the key update in flight is not what a person asks for.
func (v view) overruled() bool {
	return v.demand.kind == recreation && v.rec.Flight.Purpose == ledger.ForRenewal
}

// joins: what a person asks for is what the transaction in flight will bring.
func (v view) joins() bool {
	f := v.rec.Flight
	return f != nil && f.Chain == nil && f.Config == v.config &&
		v.demand.kind != "" && v.demand.id != f.Cause && !v.overruled()
}

// satisfied: what is in use fits the configuration, nobody asks for another one, and it
// is not due, or being due is the business of the other function.
func (v view) satisfied() bool {
	return v.usable() && v.demand.kind == "" && (v.purpose != ledger.ForRenewal || !v.due())
}

// usable: there is a certificate for this configuration, and it has not expired.
func (v view) usable() bool {
	c := v.rec.Current
	return c != nil && c.Config == v.config && v.now.Before(c.Certificate().NotAfter)
}

func (v view) due() bool { return !v.now.Before(renewalTime(v.rec.Current, v.spec)) }

// parked: the CA refused, and nothing has changed since that would make it answer otherwise.
func (v view) parked() bool {
	p := v.rec.Attempt.Parked
	return p != "" && p == v.parkedFor() && !v.insisted()
}

// insisted: a person asks, and had not asked before.
func (v view) insisted() bool { return v.demand.fresh || v.demand.pressed }

// parkedFor names the state in which the CA refused: the same question to the same
// issuer has the same answer.
func (v view) parkedFor() string { return v.config + "@" + v.issuer }

// tooEarly: an attempt failed and the next one is not due. What it waited for may
// have come, and a person may insist.
func (v view) tooEarly() bool {
	return v.rec.Attempt.Next.After(v.now) && v.rec.Attempt.Parked == "" && !v.woken() && !v.insisted()
}

// woken: what the attempt waited for is there, or may be.
func (v view) woken() bool {
	switch v.work.Reason {
	case model.WorkDependency, model.WorkProbe, model.WorkRelease:
		return true
	default:
		return false
	}
}

// request is what a new transaction is for: a key update while there is a certificate
// to update, an initial request otherwise, and where a person wants one.
func (v view) request() string {
	if v.usable() && v.demand.kind != recreation {
		return ledger.ForRenewal
	}
	return ledger.ForEnrollment
}

func renewalTime(i *ledger.Issuance, spec *model.CMPCertificateSpec) time.Time {
	cert := i.Certificate()
	return model.RenewalTime(cert.NotBefore, cert.NotAfter, spec.RenewLead(cert.NotAfter.Sub(cert.NotBefore)))
}

// asked is the part of a configuration that a CA is asked for. Changing anything else
// needs no new certificate.
type asked struct {
	Type              string
	IssuerRef         model.IssuerReference
	PrivateKey        model.PrivateKey
	Subject           *model.Subject
	SubjectAltNames   *model.SubjectAltNames
	KeyUsages         []model.KeyUsage
	ExtendedKeyUsages []model.ExtendedKeyUsage
	Validity          time.Duration
}

// configDigest identifies what a configuration asks of a CA.
func configDigest(spec model.CMPCertificateSpec) string {
	js, err := json.Marshal(asked{
		spec.Type, spec.IssuerRef, spec.PrivateKey, spec.Subject, spec.SubjectAltNames,
		spec.KeyUsages, spec.ExtendedKeyUsages, spec.RequestedValidity(),
	})
	if err != nil {
		panic(fmt.Sprintf("lifecycle: a specification cannot be encoded: %v", err)) // it came from JSON
	}
	sum := sha256.Sum256(js)
	return hex.EncodeToString(sum[:16])
}
