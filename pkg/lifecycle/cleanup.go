package lifecycle

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// guard keeps a configuration from going before its deletionPolicy is carried out, and lets
// it go when the policy is keep.
func (a *attempt) guard(ctx context.Context) error {
	return a.o.Ledger.KeepCertificate(ctx, a.cert, a.cert.Spec.Deletion() != model.DeletionKeep)
}

// end carries out the deletionPolicy of a configuration that is withdrawn: revoke, delete the
// output, tell, let it go. Each may be repeated, so that a crash between any two of them is harmless; the
// end is told before the configuration goes, because afterwards nobody would tell it.
//
// Being paused keeps nobody from going, nor does a spoilt record. A CA that does not revoke does: it is
// asked again and again until it does, or until the policy is changed to delete or keep.
func (a *attempt) end(ctx context.Context) error {
	if !slices.Contains(a.cert.Finalizers, model.CleanUpFinalizer) {
		return a.o.release(ctx, issuerKey(a.cert))
	}
	var deleted []string
	policy := a.cert.Spec.Deletion()
	if policy == model.DeletionRevokeAndDelete {
		if done, err := a.revokeLast(ctx); !done || err != nil {
			return err
		}
	}
	if policy != model.DeletionKeep {
		var err error
		if deleted, err = a.deleteOutputs(ctx); err != nil {
			return err
		}
	}
	if a.work.Reason != model.WorkEnd || len(deleted) > 0 {
		a.tell(endFact(a.cert, policy, deleted))
		a.atOnce(model.Work{Reason: model.WorkEnd})
		return nil
	}
	if err := a.o.Ledger.KeepCertificate(ctx, a.cert, false); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	return a.o.release(ctx, issuerKey(a.cert))
}

// endFact tells the end of a configuration, once for each life of one.
func endFact(cert *model.CMPCertificate, policy string, deleted []string) event.Event {
	e := model.NewEvent(model.CertificateEnded, types.NamespacedName{Namespace: cert.Namespace, Name: cert.Name}, model.EndFact{DeletionPolicy: policy, Deleted: deleted})
	e.SetID(model.DerivedID(model.CertificateEnded, string(cert.UID)))
	return e
}

// deleteOutputs deletes the Secrets that bear the mark of this configuration.
func (a *attempt) deleteOutputs(ctx context.Context) (deleted []string, err error) {
	found, err := a.o.Ledger.Outputs(ctx, a.cert)
	if err != nil {
		return nil, err
	}
	for _, name := range a.cert.Spec.Output.SecretNames() {
		secret := found[name]
		if secret == nil || secret.Annotations[model.UIDAnnotation] != string(a.cert.UID) {
			continue
		}
		if err := a.o.Ledger.DeleteSecret(ctx, secret); err != nil {
			return nil, err
		}
		deleted = append(deleted, name)
	}
	return deleted, nil
}

// revokeLast has the certificate in use revoked before its configuration goes. There is
// nothing to revoke when none was issued, or it has expired.
func (a *attempt) revokeLast(ctx context.Context) (done bool, err error) {
	a.rec, err = a.o.Ledger.Record(ctx, a.cert)
	if errors.Is(err, ledger.ErrSpoilt) || errors.Is(err, ledger.ErrNotManaged) {
		a.rec = ledger.NewRecord(a.cert)
		return false, a.unrevoked(ctx, fmt.Errorf("the record, which knows the certificate, %w", err), a.askAgain(a.cert.Status.Attempts+1))
	}
	if err != nil {
		return false, err
	}
	if v := (view{rec: a.rec, work: a.work}); a.rec.Lease != nil && !v.leaseOver() {
		a.comeBack()
		return false, nil
	}
	c := a.rec.Current
	if c == nil || !a.o.now().Before(c.Certificate().NotAfter) {
		return true, nil
	}
	r := a.rec.Revoke
	if r == nil || r.Serial != serialOf(c) {
		r = revocationOf(c, "cessationOfOperation", a)
	}
	switch err := a.askToRevoke(ctx, r); {
	case errors.Is(err, ledger.ErrConflict), ctx.Err() != nil:
		return false, err
	case err != nil:
		return false, a.unrevoked(ctx, err, a.askAgain(a.cert.Status.Attempts+1))
	}
	return true, nil
}

// unrevoked reports that the CA did not revoke, and asks again later.
func (a *attempt) unrevoked(ctx context.Context, err error, next time.Time) error {
	out := outcome{reason: model.ReasonRevocationFailed, message: bounded(err.Error()), next: next}
	if c := meta.FindStatusCondition(a.cert.Status.Conditions, model.Reconciling); c == nil || c.Reason != out.reason {
		out.fact = model.CertificateFailed
	}
	a.o.Log.WarnContext(ctx, "not revoked", "certificate", a.key.String(), "err", out.message, "next", next)
	a.later(next, model.Work{Reason: model.WorkRetry})
	return a.report(ctx, out)
}

func (a *attempt) askAgain(failed int64) time.Time {
	return a.o.now().Add(model.RetryDelay(failed, 0, 0, jitter()))
}

func serialOf(i *ledger.Issuance) string {
	return ledger.SerialHex(i.Certificate().SerialNumber.Bytes())
}

func revocationOf(i *ledger.Issuance, reason string, a *attempt) *ledger.Revocation {
	return &ledger.Revocation{Serial: serialOf(i), Issuer: i.Certificate().RawIssuer, Reason: reason, Cause: model.Correlation(a.in)}
}

// revocation carries out what revocation.requested asks for. It is remembered until the CA
// has done it. Meanwhile life goes on: a renewal must not wait for a CA that does not revoke, and what is
// renewed meanwhile is still to be revoked.
func (a *attempt) revocation(ctx context.Context) (done bool, err error) {
	if a.in.Type() == model.RevocationRequested {
		if err := a.remember(ctx); err != nil {
			return false, err
		}
	}
	r := a.rec.Revoke
	if r == nil || r.Next.After(a.o.now()) {
		return false, nil
	}
	err = a.askToRevoke(ctx, r)
	if errors.Is(err, ledger.ErrConflict) || ctx.Err() != nil {
		return false, err
	}
	if err != nil {
		r.Failed++
		r.Next = a.askAgain(r.Failed)
		if err := a.save(ctx, "revocation"); err != nil {
			return false, err
		}
		return true, a.unrevoked(ctx, err, r.Next)
	}
	a.rec.Revoke = nil
	if c := a.rec.Current; c != nil && serialOf(c) == r.Serial {
		// For no configuration any more, so that another one is begun.
		c.Config, a.rec.Attempt.Next = "", time.Time{}
	}
	return false, a.save(ctx, "revocation")
}

// remember notes down what is to be revoked: the certificate in use, or the one that the event names if it
// is that. The same request delivered once more, after another certificate came of it, is no new one.
func (a *attempt) remember(ctx context.Context) error {
	var want model.RevocationFact
	if len(a.in.Data()) > 0 {
		if err := a.in.DataAs(&want); err != nil {
			return nil //nolint:nilerr // the door has judged the data
		}
	}
	c := a.rec.Current
	switch {
	case c == nil, a.rec.Revoke != nil, c.Config == "", c.Cause == model.Correlation(a.in), want.Serial != "" && want.Serial != serialOf(c):
		return nil
	}
	if _, known := revocationReasons()[want.Reason]; !known {
		want.Reason = "unspecified"
	}
	a.rec.Revoke = revocationOf(c, want.Reason, a)
	return a.save(ctx, "revocation")
}

// revocationReasons are the reasons by their name in RFC 5280 §5.3.1.
func revocationReasons() map[string]cmp.Reason {
	return map[string]cmp.Reason{
		"unspecified": cmp.ReasonUnspecified, "keyCompromise": cmp.ReasonKeyCompromise, "cACompromise": cmp.ReasonCACompromise,
		"affiliationChanged": cmp.ReasonAffiliationChanged, "superseded": cmp.ReasonSuperseded,
		"cessationOfOperation": cmp.ReasonCessationOfOperation, "privilegeWithdrawn": cmp.ReasonPrivilegeWithdrawn,
	}
}

// askToRevoke asks the CA, and tells when it has done it, or had before.
func (a *attempt) askToRevoke(ctx context.Context, r *ledger.Revocation) error {
	serial, err := hex.DecodeString(r.Serial)
	if err != nil {
		return fmt.Errorf("serial number %q: %w", r.Serial, err)
	}
	ca, _, err := a.issuer(ctx)
	if err != nil {
		return err
	}
	config := ca.config
	if config.Credential, err = a.revoker(ca, r); err != nil {
		return err
	}
	limit, _ := ca.patience(ctx)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := a.o.now()
	_, err = ca.client.Revoke(ctx, config, cmp.Revocation{Issuer: r.Issuer, SerialNumber: new(big.Int).SetBytes(serial), Reason: revocationReasons()[r.Reason]})
	var peer *cmp.Error
	if errors.As(err, &peer) && peer.Verified && peer.Failure&cmp.FailCertRevoked != 0 {
		err = nil
	}
	if err != nil {
		return err
	}
	a.trace(began, "revoke", r.Serial)
	e := model.NewEvent(model.CertificateRevoked, a.key, model.RevocationFact{Serial: r.Serial, Reason: r.Reason})
	e.SetID(model.DerivedID(model.CertificateRevoked, string(a.cert.UID), r.Serial))
	a.tellKept(e)
	return nil
}

// revoker signs a revocation request: the certificate itself (RFC 9483 §4.2), or the
// identity where that cannot, or is not in use any more.
func (a *attempt) revoker(ca *authority, r *ledger.Revocation) (cmp.Credential, error) {
	if c := a.rec.Current; a.currentSigns() && serialOf(c) == r.Serial {
		return &cmp.Signer{Key: c.Key.Signer(), Certificate: c.Certificate(), Chain: c.Chain[1:], Hash: ca.digest()}, nil
	}
	if ca.identity.problem != nil && a.cert.Spec.Type == model.CMPIdentity {
		return ca.bootstrap.Credential, ca.bootstrap.problem
	}
	return ca.identity.Credential, ca.identity.problem
}

// applied tells what the change of a configuration leads to, and comes back for the effect:
// the fact is published before it happens.
func (a *attempt) applied(ctx context.Context) (done bool, err error) {
	is := &ledger.Applied{Generation: a.cert.Generation, Spec: a.cert.Spec}
	was := a.rec.Applied
	switch {
	case was == nil:
		a.rec.Applied = is // kept with the next write
		if a.rec.Current == nil && a.rec.Flight == nil && a.cert.Status.ObservedGeneration != is.Generation {
			a.tellApplied(model.EffectReissue, nil)
		}
		return false, nil
	case was.Generation == is.Generation:
		return false, nil
	}
	effect, fields := model.Effect(&was.Spec, &is.Spec)
	if a.work.Reason != model.WorkApplied {
		a.tellApplied(effect, fields)
		if told(a.in, a.work).kind == "" { // what somebody demands is not put off: it would be forgotten
			a.atOnce(model.Work{Reason: model.WorkApplied})
			return true, nil
		}
	}
	a.rec.Applied = is
	if effect == model.EffectReissue {
		a.rec.Attempt.Next = time.Time{}
	}
	if err := a.save(ctx, "applied"); err != nil {
		return false, err
	}
	former := a.cert.DeepCopy()
	former.Spec = was.Spec
	if key := issuerKey(former); key != issuerKey(a.cert) {
		return false, a.o.release(ctx, key)
	}
	return false, nil
}

// atOnce asks for another look by the same function, after what is told now.
func (a *attempt) atOnce(w model.Work) {
	eventType := model.EnrollmentRequested
	if a.purpose == ledger.ForRenewal {
		eventType = model.RenewalRequested
	}
	a.tell(model.NewEvent(eventType, a.key, w))
}

func (a *attempt) tellApplied(effect string, fields []string) {
	e := model.NewEvent(model.ConfigApplied, a.key, model.ChangeFact{Generation: a.cert.Generation, Effect: effect, Fields: fields})
	e.SetID(model.DerivedID(model.ConfigApplied, string(a.cert.UID), fmt.Sprint(a.cert.Generation)))
	a.tell(e)
}
