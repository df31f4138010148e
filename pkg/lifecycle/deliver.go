package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// announceFor is how long after an issuance its fact is told again on every look, so
// that a crash before it was published loses nothing. It is the duplicate window of
// the streams, within which they drop what they have already.
const announceFor = 10 * time.Minute

// deliver makes the output hold what the record holds and tells what is in use.
func (a *attempt) deliver(ctx context.Context) error {
	if err := a.project(ctx); err != nil {
		return err
	}
	if a.o.now().Sub(a.rec.Current.Stored) < announceFor {
		a.announce()
	}
	return nil
}

func (a *attempt) announce() {
	eventType := model.CertificateIssued
	if a.rec.Current.Revision > 1 {
		eventType = model.CertificateRenewed
	}
	e := model.NewEvent(eventType, a.key, a.fact())
	e.SetID(model.DerivedID(eventType, string(a.cert.UID), fmt.Sprint(a.rec.Current.Revision)))
	a.tell(e)
}

func (a *attempt) fact() model.CertificateFact {
	cert := a.rec.Current.Certificate()
	return model.CertificateFact{
		Serial: ledger.SerialHex(cert.SerialNumber.Bytes()), Fingerprint: fingerprint(cert.Raw),
		Subject: cert.Subject.String(), Issuer: cert.Issuer.String(),
		NotBefore: metav1.NewTime(cert.NotBefore), NotAfter: metav1.NewTime(cert.NotAfter),
		RenewalTime: metav1.NewTime(renewalTime(a.rec.Current, &a.cert.Spec)),
		Revision:    a.rec.Current.Revision, SecretName: a.cert.Spec.Output.SecretName,
		Differences: a.differences,
	}
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// project writes the output when it differs from the record, and reports.
func (a *attempt) project(ctx context.Context) error {
	began := a.o.now()
	found, err := a.o.Ledger.Project(ctx, a.cert, a.rec)
	if errors.Is(err, ledger.ErrNotManaged) {
		return a.unmet(ctx, &unmetError{"OutputConflict", err.Error()})
	}
	if err != nil {
		return err // the write alone is repeated, with the same bytes
	}
	if found != "" {
		a.trace(began, "project", a.cert.Spec.Output.SecretName)
		a.repaired(found)
	}
	return a.report(ctx, a.outcomeOfRecord())
}

// repaired tells that an output was put back, as opposed to delivered for the first
// time. Where it was found by chance, before its event came, that is told as well.
func (a *attempt) repaired(found string) {
	st := &a.cert.Status
	if st.Revision != a.rec.Current.Revision || st.ObservedGeneration != a.cert.Generation {
		return // delivered for the first time, or to another Secret
	}
	if a.in.Type() != model.SecretModified && a.in.Type() != model.SecretDeleted {
		eventType := model.SecretModified
		if found == ledger.Absent {
			eventType = model.SecretDeleted
		}
		e := model.NewEvent(eventType, a.key, model.SecretFact{SecretName: a.cert.Spec.Output.SecretName, Cause: found})
		e.SetID(model.DerivedID(eventType, string(a.cert.UID), a.in.ID()))
		a.tell(e)
	}
	e := model.NewEvent(model.CertificateRestored, a.key, a.fact())
	e.SetID(model.DerivedID(model.CertificateRestored, string(a.cert.UID), a.in.ID()))
	a.tell(e)
}
