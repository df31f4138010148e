package interop

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certloop/certloop/pkg/cmp"
)

// naming is a way to name the certificate to revoke.
type naming func(victim *cmp.Signer) (cmp.Revocation, error)

var revocations = map[string]naming{
	opRR: func(victim *cmp.Signer) (cmp.Revocation, error) {
		return cmp.Revocation{Certificate: victim.Certificate, Reason: cmp.ReasonSuperseded}, nil
	},
	opRRSerial: func(victim *cmp.Signer) (cmp.Revocation, error) {
		c := victim.Certificate
		return cmp.Revocation{Issuer: c.RawIssuer, SerialNumber: c.SerialNumber, Reason: cmp.ReasonCessationOfOperation}, nil
	},
	opRRRequest: func(victim *cmp.Signer) (cmp.Revocation, error) {
		csr, err := requestOf(victim)
		return cmp.Revocation{Request: csr, Reason: cmp.ReasonKeyCompromise}, err
	},
}

// requestOf is the PKCS #10 request somebody could have made a certificate from.
func requestOf(id *cmp.Signer) (*x509.CertificateRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: id.Certificate.RawSubject}, id.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// revokeNew revokes a certificate made for the purpose: by its own signature, or
// by the shared secret.
func (a *attempt) revokeNew(ctx context.Context, p *protection, by naming) error {
	victim, err := a.victim(ctx, p.identityKey())
	if err != nil {
		return err
	}
	if own, ok := a.credential.(*cmp.Signer); ok {
		a.credential = &cmp.Signer{Key: victim.Key, Certificate: victim.Certificate, PSS: own.PSS, Hash: own.Hash}
	}
	what, err := by(victim)
	if err == nil {
		err = a.revoke(ctx, what)
	}
	if err != nil {
		return err
	}
	return a.useless(ctx, victim)
}

// victim is a certificate that nobody else has the subject of.
func (a *attempt) victim(ctx context.Context, kind string) (*cmp.Signer, error) {
	return a.ca.enrol(ctx, kind, "victim "+rand.Text())
}

// reasons are those a certificate can be revoked for.
var reasons = []cmp.Reason{
	cmp.ReasonUnspecified, cmp.ReasonKeyCompromise, cmp.ReasonCACompromise, cmp.ReasonAffiliationChanged, cmp.ReasonSuperseded,
	cmp.ReasonCessationOfOperation, cmp.ReasonCertificateHold, cmp.ReasonPrivilegeWithdrawn, cmp.ReasonAACompromise,
}

// revokeForEachReason revokes a certificate for each, and looks for it in the
// revocation list; listed tells whether the CA puts reasons there.
func (a *attempt) revokeForEachReason(ctx context.Context, listed bool) error {
	want := map[string]cmp.Reason{}
	by := a.credential
	for _, reason := range reasons {
		victim, err := a.victim(ctx, keyP256)
		if err != nil {
			return err
		}
		if _, signed := by.(*cmp.Signer); signed {
			a.credential = victim
		}
		if err := a.revoke(ctx, cmp.Revocation{Certificate: victim.Certificate, Reason: reason}); err != nil {
			return fmt.Errorf("reason %d: %w", reason, err)
		}
		want[victim.Certificate.SerialNumber.String()] = reason
	}
	a.credential = by
	list, err := a.revocationList(ctx, cmp.InfoTypeAndValue{Type: cmp.InfoCurrentCRL})
	if err != nil {
		return err
	}
	for _, e := range list.RevokedCertificateEntries {
		reason, ours := want[e.SerialNumber.String()]
		if ours && listed && int(reason) != e.ReasonCode {
			return fmt.Errorf("revoked for %d, listed for %d", reason, e.ReasonCode)
		}
		delete(want, e.SerialNumber.String())
	}
	if len(want) > 0 {
		return fmt.Errorf("%d of %d revoked certificates are not in the list", len(want), len(reasons))
	}
	return nil
}

// errNoAnswer is a question that somebody should have an answer to, and has not.
var errNoAnswer = errors.New("nothing available")
