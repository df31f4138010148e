package lifecycle

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// adoptOrigin takes over what is in the output of a configuration that says so, before
// anything is asked of the CA. What is there is not judged: its first renewal follows the
// configuration.
func (a *attempt) adoptOrigin(ctx context.Context) error {
	found, err := a.outputs(ctx)
	if err != nil {
		return err
	}
	if err := a.spareInputs(ctx); err != nil {
		return err
	}
	held, err := ledger.Held(a.cert, found)
	if err != nil {
		return &unmetError{model.ReasonAdoptionImpossible, err.Error() + "; put key and certificate there, or set spec.origin to create"}
	}
	if len(held.Anchors) == 0 {
		if held.Anchors, err = a.trusts(ctx, held.Chain); err != nil {
			return err
		}
	}
	return a.take(ctx, held)
}

// recovery takes over what was delivered, when the record of it is lost and the output still holds
// it, so that nothing needs to be asked of the CA. Where the output is lost as well, or the status does not say
// that it is what the configuration wants, another certificate is obtained.
func (a *attempt) recovery(ctx context.Context) (bool, error) {
	st := &a.cert.Status
	fits := st.ObservedGeneration == a.cert.Generation && meta.IsStatusConditionTrue(st.Conditions, model.Ready)
	if a.rec.Version() != "" || st.Revision == 0 || !fits {
		return false, nil
	}
	found, err := a.outputs(ctx)
	if err != nil {
		return false, err
	}
	held, err := ledger.Held(a.cert, found)
	if err != nil || fingerprint(held.Certificate().Raw) != st.Fingerprint || !a.inForce(held.Certificate()) {
		return false, nil //nolint:nilerr // what cannot be read is lost
	}
	anchors, err := a.trusts(ctx, held.Chain)
	if err != nil {
		return false, err
	}
	if len(anchors) > 0 { // the output may hold the bundle of spec.caBundle in their place
		held.Anchors = anchors
	}
	a.rec.Applied = &ledger.Applied{Generation: a.cert.Generation, Spec: a.cert.Spec}
	return false, a.take(ctx, held)
}

// adoptReplacement takes over what somebody has put into the output in place of what was
// delivered, if it is as good: a pair that the configuration and the issuer's trust allow.
// Everything else is repaired, and so is what was delivered before: a restored backup is no
// decision.
func (a *attempt) adoptReplacement(ctx context.Context, found ledger.Outputs) (bool, error) {
	if refusedFor(&a.cert.Status, model.ReasonOutputConflict) {
		return false, nil // it was made by others, in place of nothing of ours
	}
	held, err := ledger.Held(a.cert, found)
	if err != nil || held.Certificate().Equal(a.rec.Current.Certificate()) || a.rec.WasInUse(held.Certificate()) || !a.inForce(held.Certificate()) {
		return false, nil //nolint:nilerr // what cannot be read is not as good
	}
	for _, d := range a.differencesOf(held.Certificate()) {
		if d.matters {
			return false, nil
		}
	}
	anchors, err := a.trusts(ctx, held.Chain)
	if err != nil || len(anchors) == 0 {
		return false, err
	}
	held.Anchors = anchors
	return true, a.take(ctx, held)
}

func (a *attempt) inForce(c *x509.Certificate) bool {
	now := a.o.now()
	return !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

// trusts are the anchors of the issuer that a chain ends in. None when there is no issuer, or
// it trusts by a pinned certificate.
func (a *attempt) trusts(ctx context.Context, chain []*x509.Certificate) ([]*x509.Certificate, error) {
	ca, _, err := a.issuer(ctx)
	if err != nil || ca == nil {
		return nil, ignoreUnmet(err)
	}
	return ca.anchors(chain), nil
}

// take makes what was found the certificate in use, as a revision of its own.
func (a *attempt) take(ctx context.Context, held *ledger.Issuance) error {
	held.Adopted, held.Config, held.Stored, held.Cause = true, a.config, a.o.now(), model.Correlation(a.in)
	held.Keyless = !a.cert.Spec.KeepsKey()
	for _, d := range a.differencesOf(held.Certificate()) {
		held.Differences = append(held.Differences, d.String())
	}
	a.rec.Replace(held)
	a.rec.Attempt = ledger.Attempts{Orphans: a.rec.Attempt.Orphans}
	return a.save(ctx, "adopt")
}

// difference between a certificate and what the configuration says. Those that matter
// keep a certificate from being adopted in place of what was delivered.
type difference struct {
	field, want, got string
	matters          bool
}

func (d difference) String() string {
	return fmt.Sprintf("%s: wanted %q, found %q", d.field, d.want, d.got)
}

// differencesOf compares a certificate that certloop did not ask for with the configuration.
func (a *attempt) differencesOf(c *x509.Certificate) (out []difference) {
	spec := &a.cert.Spec
	add := func(same, matters bool, field, want, got string) {
		if !same {
			out = append(out, difference{field, bounded(want), bounded(got), matters})
		}
	}
	if subject, err := subjectName(spec.Subject); err == nil && spec.Subject != nil {
		got := cmp.Name(c.RawSubject)
		add(subject.Equal(got), true, "subject", subject.String(), got.String())
	}
	want, got := wantedNames(spec.SubjectAltNames), heldNames(c)
	add(containsAll(got, want), true, "subjectAltName", strings.Join(want, ","), strings.Join(got, ","))
	add(containsAll(want, got), false, "subjectAltName", strings.Join(want, ","), strings.Join(got, ","))
	if usage, err := keyUsage(spec.KeyUsages); err == nil {
		has, _ := extensionOf(c, usage.Id.String())
		add(string(usage.Value) == string(has), true, "keyUsage", fmt.Sprintf("%x", usage.Value), fmt.Sprintf("%x", has))
	}
	purposes, has := wantedPurposes(spec), heldPurposes(c)
	add(containsAll(has, purposes), true, "extendedKeyUsage", strings.Join(purposes, ","), strings.Join(has, ","))
	add(!c.IsCA, true, "basicConstraints", "endEntity", "cA")
	add(keyOf(c) == wantedKey(spec.PrivateKey), true, "privateKey", wantedKey(spec.PrivateKey), keyOf(c))
	if lifetime := spec.RequestedValidity(); lifetime > 0 {
		given := c.NotAfter.Sub(c.NotBefore)
		add((given-lifetime).Abs() <= time.Hour, false, "validity", lifetime.String(), given.String())
	}
	return slices.CompactFunc(out, func(x, y difference) bool { return x.field == y.field })
}

func containsAll(all, some []string) bool {
	for _, s := range some {
		if !slices.Contains(all, s) {
			return false
		}
	}
	return true
}

// wantedNames are the alternative names of a configuration, as heldNames writes them.
func wantedNames(n *model.SubjectAltNames) (out []string) {
	if n == nil {
		return nil
	}
	for _, v := range n.DNSNames {
		out = append(out, "DNS:"+strings.ToLower(v))
	}
	for _, v := range n.IPAddresses {
		out = append(out, "IP:"+net.ParseIP(v).String())
	}
	for _, v := range n.URIs {
		out = append(out, "URI:"+v)
	}
	for _, v := range n.EmailAddresses {
		out = append(out, "email:"+v)
	}
	slices.Sort(out)
	return out
}

func heldNames(c *x509.Certificate) (out []string) {
	for _, v := range c.DNSNames {
		out = append(out, "DNS:"+strings.ToLower(v))
	}
	for _, v := range c.IPAddresses {
		out = append(out, "IP:"+v.String())
	}
	for _, v := range c.URIs {
		out = append(out, "URI:"+v.String())
	}
	for _, v := range c.EmailAddresses {
		out = append(out, "email:"+v)
	}
	slices.Sort(out)
	return out
}

func wantedPurposes(spec *model.CMPCertificateSpec) (out []string) {
	for _, id := range purposes(spec) {
		out = append(out, id.String())
	}
	return out
}

// oidAnyExtendedKeyUsage stands for every purpose (RFC 5280 §4.2.1.12).
const oidAnyExtendedKeyUsage = "2.5.29.37.0"

// heldPurposes are the purposes of a certificate: all of the known ones where it does not
// restrict them.
func heldPurposes(c *x509.Certificate) (out []string) {
	for _, id := range c.UnknownExtKeyUsage {
		out = append(out, id.String())
	}
	all := len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0
	for _, u := range c.ExtKeyUsage {
		all = all || u == x509.ExtKeyUsageAny
		out = append(out, u.OID().String())
	}
	if all {
		for _, last := range model.ExtendedKeyUsageOIDs() {
			out = append(out, fmt.Sprintf("1.3.6.1.5.5.7.3.%d", last))
		}
	}
	return slices.DeleteFunc(out, func(id string) bool { return id == oidAnyExtendedKeyUsage })
}

func extensionOf(c *x509.Certificate, id string) ([]byte, bool) {
	for _, e := range c.Extensions {
		if e.Id.String() == id {
			return e.Value, true
		}
	}
	return nil, false
}

// wantedKey is the kind of key a configuration asks for, as keyOf writes it.
func wantedKey(k model.PrivateKey) string {
	switch k.Algorithm {
	case model.RSA:
		return fmt.Sprintf("RSA %d", max(k.Size, 2048))
	case model.Ed25519:
		return model.Ed25519
	default:
		return fmt.Sprintf("ECDSA %d", max(k.Size, 256))
	}
}

func keyOf(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA %d", key.Curve.Params().BitSize)
	default:
		return c.PublicKeyAlgorithm.String()
	}
}
