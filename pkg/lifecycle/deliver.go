package lifecycle

import (
	order "cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// announceFor is how long after an issuance its fact is told again on every look, so
// that a crash before it was published loses nothing. It is the duplicate window of
// the streams, within which they drop what they have already.
const announceFor = 10 * time.Minute

// record reads the record. Where nothing was ever told of a certificate there is none, and
// nothing is read: should there be one after all, writing it fails and it is looked at again.
func (a *attempt) record(ctx context.Context) (*ledger.Record, error) {
	if st := &a.cert.Status; !a.again && st.ObservedGeneration == 0 && len(st.Conditions) == 0 {
		return ledger.NewRecord(a.cert), nil
	}
	return a.o.Ledger.Record(ctx, a.cert)
}

// deliver makes the output hold what the record holds and tells what is in use.
func (a *attempt) deliver(ctx context.Context) error {
	delivered, err := a.bring(ctx)
	if err != nil || !delivered {
		return err
	}
	if a.o.now().Sub(a.rec.Current.Stored) < announceFor {
		a.announce()
	}
	return nil
}

func (a *attempt) announce() {
	eventType := model.CertificateIssued
	switch {
	case a.rec.Current.Adopted:
		eventType = model.CertificateAdopted
	case a.rec.Current.Revision > 1:
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
		Differences: a.rec.Current.Differences,
		Generation:  a.cert.Generation,
	}
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// project makes the output hold what the record holds, and reports.
func (a *attempt) project(ctx context.Context) error {
	_, err := a.bring(ctx)
	return err
}

// bring makes the output hold what the record holds, reports, and tells whether it does now.
func (a *attempt) bring(ctx context.Context) (delivered bool, err error) {
	if err := a.refreshBundle(ctx); err != nil {
		a.withheld = true
		return false, a.unmet(ctx, err)
	}
	found, err := a.outputs(ctx)
	if err != nil {
		return false, err
	}
	deviations, err := a.rec.Deviations(found)
	if errors.Is(err, ledger.ErrKeyLost) {
		return false, a.replaceLostKey(ctx)
	}
	if err != nil {
		return false, err
	}
	if len(deviations) > 0 {
		if stop, err := a.write(ctx, found, deviations); stop || err != nil {
			return false, err
		}
	}
	if err := a.forgetKey(ctx); err != nil {
		return false, err
	}
	return true, a.report(ctx, a.outcomeOfRecord())
}

// write puts the outputs right, unless somebody had a reason to change them, or would do
// so again and again. stop says that all is reported.
func (a *attempt) write(ctx context.Context, found ledger.Outputs, deviations []ledger.Deviation) (stop bool, err error) {
	var repairs []event.Event
	rewritten := a.wasDelivered()
	if !rewritten {
		if err := a.upToDate(ctx); err != nil {
			return true, err
		}
	} else {
		switch adopted, err := a.adoptReplacement(ctx, found); {
		case err != nil:
			return true, err
		case adopted:
			return a.mark(ctx, found)
		}
		repairs = a.repairs(found, deviations) // as it is before it is put right
		if stop, err := a.contested(ctx, found, repairs); stop || err != nil {
			return true, err
		}
	}
	began := a.o.now()
	if err := a.replace(ctx, found); err != nil {
		return true, a.undelivered(ctx, err)
	}
	for _, d := range deviations {
		a.trace(began, "project", d.SecretName)
	}
	a.facts = append(a.facts, repairs...)
	return false, nil
}

// wasDelivered: what the record holds was delivered as the configuration says, so that
// what is wrong with the output now is somebody's doing.
func (a *attempt) wasDelivered() bool {
	st := &a.cert.Status
	return st.Revision == a.rec.Current.Revision && st.ObservedGeneration == a.cert.Generation
}

// upToDate is a conflict where somebody has reported since the configuration was read: the output
// may have been delivered then, and changed by a third since.
func (a *attempt) upToDate(ctx context.Context) error {
	if a.promoted { // by us: nobody can have delivered it
		return nil
	}
	now, err := a.o.Ledger.Certificate(ctx, a.key)
	if err == nil && now.ResourceVersion != a.cert.ResourceVersion {
		return fmt.Errorf("%w: the configuration has another status by now", ledger.ErrConflict)
	}
	return err
}

// mark writes the marks of what was adopted beside it, and tells.
func (a *attempt) mark(ctx context.Context, found ledger.Outputs) (stop bool, err error) {
	if err := a.replace(ctx, found); err != nil {
		return true, a.undelivered(ctx, err)
	}
	a.announce()
	return false, nil
}

// replace writes the outputs. Where a configuration is new they are not read first; and what
// belonged to a configuration that is no more may be taken over.
func (a *attempt) replace(ctx context.Context, found ledger.Outputs) error {
	err := a.o.Ledger.Project(ctx, a.rec, found)
	switch {
	case errors.Is(err, ledger.ErrConflict) && a.unread:
		a.unread = false
		present, err := a.o.Ledger.Outputs(ctx, a.cert)
		if err != nil {
			return err
		}
		maps.Copy(found, present)
		return a.replace(ctx, found)
	case errors.Is(err, ledger.ErrNotManaged):
		inherited, lookErr := a.inherit(ctx, found)
		if lookErr != nil || !inherited {
			return errors.Join(err, lookErr)
		}
		return a.o.Ledger.Project(ctx, a.rec, found)
	default:
		return err
	}
}

// inherit takes the marks of configurations that no longer exist off the outputs that
// were found, and tells whether there were any.
func (a *attempt) inherit(ctx context.Context, found ledger.Outputs) (any bool, err error) {
	for _, secret := range found {
		name := ledger.OwnerName(secret)
		if name == "" || name == a.cert.Name {
			continue
		}
		_, err := a.o.Ledger.Certificate(ctx, types.NamespacedName{Namespace: a.key.Namespace, Name: name})
		if err == nil {
			continue
		}
		if !errors.Is(err, ledger.ErrNotFound) {
			return false, err
		}
		ledger.Disown(secret)
		any = true
	}
	return any, nil
}

// undelivered says why an output cannot be written, where it is for somebody else to put
// that right. Any other write that failed is repeated, with the same bytes.
func (a *attempt) undelivered(ctx context.Context, err error) error {
	a.withheld = true
	switch {
	case errors.Is(err, ledger.ErrNotManaged):
		return a.unmet(ctx, &unmetError{model.ReasonOutputConflict, err.Error()})
	case apierrors.IsForbidden(err):
		return a.unmet(ctx, &unmetError{model.ReasonForbidden, err.Error() + "; the certificate is kept, and delivered as soon as it may be"})
	default:
		return err
	}
}

// outputs reads what is in the outputs now. Those of a configuration that never had any are
// not read but created; who finds them there looks again.
func (a *attempt) outputs(ctx context.Context) (ledger.Outputs, error) {
	if a.found != nil {
		return a.found, nil
	}
	a.unread = a.cert.Status.Revision == 0 && !a.cert.Spec.Adopts() && a.rec.Current != nil && a.rec.Current.Revision == 1 && !a.rec.Current.Keyless
	a.found = ledger.Outputs{}
	if a.unread {
		return a.found, nil
	}
	var err error
	a.found, err = a.o.Ledger.Outputs(ctx, a.cert)
	return a.found, err
}

// setSecrets notes the resourceVersions of what was written and read for this certificate,
// by which a sweep recognises it without reading it.
func (a *attempt) setSecrets(s *model.CMPCertificateStatus) {
	if a.found == nil && s.Secrets == nil {
		return
	}
	seen := map[string]string{}
	if a.found == nil {
		maps.Copy(seen, s.Secrets)
	}
	for name, secret := range a.found {
		seen[name] = secret.ResourceVersion
	}
	if a.bundle != "" {
		seen[a.cert.Spec.CABundle.SecretName] = a.bundle
	}
	seen[model.RecordName(a.cert.Name)] = a.rec.Version()
	s.Secrets = seen
}

// refreshBundle makes what workloads are to trust what the configuration says now. While the
// Secret it names is missing, what it held last stays; before there was any, nothing is delivered.
func (a *attempt) refreshBundle(ctx context.Context) error {
	bundle, err := a.readBundle(ctx)
	var why *unmetError
	if errors.As(err, &why) && len(a.rec.Current.Bundle) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.EqualFunc(bundle, a.rec.Current.Bundle, (*x509.Certificate).Equal) {
		return nil
	}
	a.rec.Current.Bundle = bundle
	return a.save(ctx, "bundle")
}

func (a *attempt) readBundle(ctx context.Context) ([]*x509.Certificate, error) {
	src := a.cert.Spec.CABundle
	if src == nil {
		return nil, nil
	}
	key := types.NamespacedName{Namespace: a.key.Namespace, Name: src.SecretName}
	secret, err := a.o.Ledger.Secret(ctx, key)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, &unmetError{model.ReasonSecretNotFound, fmt.Sprintf("Secret %s, named by spec.caBundle, does not exist: create it, or leave caBundle out", key)}
	}
	if err != nil {
		return nil, err
	}
	a.bundle = secret.ResourceVersion
	certs, err := ledger.ParseCertificates(secret.Data[order.Or(src.Key, "ca.crt")])
	if err != nil {
		return nil, &unmetError{model.ReasonSecretInvalid, fmt.Sprintf("Secret %s, named by spec.caBundle, data key %s: %v", key, order.Or(src.Key, "ca.crt"), err)}
	}
	return certs, nil
}

// notes are what people should know of an output that is as it should be.
func (a *attempt) notes() (all []string) {
	if a.rec.Current == nil {
		return nil
	}
	if o := &a.cert.Spec.Output; o.Split() {
		all = append(all, fmt.Sprintf("%s: private key and certificate are in different Secrets, %s and %s: while they are replaced a reader may see one without the other",
			model.ReasonSplitOutput, o.KeySecretName(), o.CertificateSecretName()))
	}
	if c := a.rec.Current; len(c.Bundle) > 0 && !leadsTo(c.Chain, c.Bundle, a.o.now()) {
		all = append(all, fmt.Sprintf("%s: the certificate does not chain to the CA bundle of Secret %s, which is delivered as it is", model.ReasonCABundleInvalid, a.cert.Spec.CABundle.SecretName))
	}
	return all
}

// leadsTo tells whether a chain ends in one of some roots.
func leadsTo(chain, roots []*x509.Certificate, now time.Time) bool {
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(chain[1:]), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: now,
	})
	return err == nil
}

// recallKey finds the private key that the record does not keep in the output. Without it
// a key update is signed by the CMP identity.
func (a *attempt) recallKey(ctx context.Context) error {
	c := a.rec.Current
	if c == nil || !c.Keyless || c.Key.Signer() != nil {
		return nil
	}
	found, err := a.outputs(ctx)
	if err != nil {
		return err
	}
	if key, ok := a.rec.OutputKey(found); ok {
		c.Key = key
	}
	return nil
}

// forgetKey takes the key out of the record when the output holds it, where the
// configuration wants no second copy; or puts one there where it wants one again.
func (a *attempt) forgetKey(ctx context.Context) error {
	c := a.rec.Current
	if c.Keyless == !a.cert.Spec.KeepsKey() {
		return nil
	}
	if err := a.recallKey(ctx); err != nil {
		return err
	}
	if c.Keyless && c.Key.Signer() == nil {
		return nil
	}
	c.Keyless = !c.Keyless
	return a.save(ctx, "forget")
}

// replaceLostKey obtains another certificate, because the key of this one is nowhere.
func (a *attempt) replaceLostKey(ctx context.Context) error {
	a.rec.Current.Config = "" // it satisfies no configuration any more
	v, err := a.view(ctx)
	if err != nil {
		return err
	}
	if decide(v) == begin {
		return a.begin(ctx, v)
	}
	if next := a.rec.Attempt.Next; next.After(a.o.now()) {
		a.later(next, model.Work{Reason: model.WorkRetry})
	}
	return a.report(ctx, a.outcomeOfRecord())
}

// repairs are the facts that outputs were put back, and from what, unless the event that led here says so.
// Whoever else sees a change tells of it under the same id, which the history holds once; an event
// of another change of the same Secret, come late, has another one.
func (a *attempt) repairs(found ledger.Outputs, deviations []ledger.Deviation) (repairs []event.Event) {
	for _, e := range a.drifts(found, deviations) {
		if !a.toldBy(e) {
			repairs = append(repairs, model.Follow(a.in, e))
		}
	}
	e := model.NewEvent(model.CertificateRestored, a.key, a.fact())
	e.SetID(model.DerivedID(model.CertificateRestored, string(a.cert.UID), a.in.ID()))
	return append(repairs, model.Follow(a.in, e))
}

// toldBy: the event that led here tells of a drift. One that names no Secret may be about any; of
// which deletion one tells cannot be seen.
func (a *attempt) toldBy(drift event.Event) bool {
	if a.in.Type() != drift.Type() {
		return false
	}
	var known, now model.SecretFact
	_ = a.in.DataAs(&known)
	_ = drift.DataAs(&now) // of our own making
	if known.SecretName == "" {
		return true
	}
	return known.SecretName == now.SecretName && (drift.Type() == model.SecretDeleted || a.in.ID() == drift.ID())
}

// drifts are the facts that tell how outputs are not as they should be.
func (a *attempt) drifts(found ledger.Outputs, deviations []ledger.Deviation) (all []event.Event) {
	for _, d := range deviations {
		all = append(all, driftFact(a.cert, found, a.rec, d, a.in))
	}
	return all
}
