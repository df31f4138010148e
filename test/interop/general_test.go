package interop

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// questions are the general messages our client asks.
var questions = map[string]func(*attempt, context.Context) error{
	opCACerts:    (*attempt).caCerts,
	opRootUpdate: (*attempt).rootUpdate,
	opTemplate:   (*attempt).requestTemplate,
	opCurrentCRL: (*attempt).currentCRL,
	opCRLs:       (*attempt).crls,
	opLanguages:  (*attempt).languages,
	opUnknown:    (*attempt).unknown,
}

// caCerts asks for the CA's certificates, of which its root must be one.
func (a *attempt) caCerts(ctx context.Context) error {
	answer, err := a.ca.client.Ask(ctx, a.config(), cmp.InfoTypeAndValue{Type: cmp.InfoCACerts})
	if err != nil {
		return err
	}
	certs, err := answer.CACerts()
	if err == nil && !slices.ContainsFunc(certs, a.ca.root.Equal) {
		err = fmt.Errorf("got %d certificates, none of which is the root", len(certs))
	}
	return err
}

// rootUpdate asks for the successor of the root, which must be proven by all
// three certificates, and not by those of another root.
func (a *attempt) rootUpdate(ctx context.Context) error {
	answer, err := a.ca.client.Ask(ctx, a.config(), cmp.InfoTypeAndValue{Type: cmp.InfoRootCACert, Value: a.ca.root.Raw})
	if err != nil {
		return err
	}
	update, err := answer.RootCAKeyUpdate(a.ca.root, time.Now())
	switch {
	case err != nil:
		return err
	case update == nil || update.OldWithNew == nil || update.NewWithNew.Equal(a.ca.root):
		return fmt.Errorf("got %+v, want a successor with oldWithNew: %w", update, errNoAnswer)
	}
	roots := x509.NewCertPool()
	roots.AddCert(update.NewWithNew)
	if _, err := update.OldWithNew.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		return fmt.Errorf("oldWithNew does not lead to newWithNew: %w", err)
	}
	if _, err := answer.RootCAKeyUpdate(update.NewWithNew, time.Now()); err == nil {
		return errors.New("the update is accepted for another root as well")
	}
	return nil
}

// requestTemplate asks what requests should look like: an organization, and RSA keys of 3072 bits.
func (a *attempt) requestTemplate(ctx context.Context) error {
	answer, err := a.ca.client.Ask(ctx, a.config(), cmp.InfoTypeAndValue{Type: cmp.InfoCertReqTemplate})
	if err != nil {
		return err
	}
	template, err := answer.RequestTemplate()
	switch {
	case err != nil:
		return err
	case template == nil:
		return errNoAnswer
	case template.Template.Subject.String() != "O=certloop tests" || !slices.Equal(template.RSABits, []int64{3072}):
		return fmt.Errorf("got subject %s and lengths of RSA keys %v, want O=certloop tests and 3072", template.Template.Subject, template.RSABits)
	}
	return nil
}

// currentCRL asks for the CA's revocation list.
func (a *attempt) currentCRL(ctx context.Context) error {
	_, err := a.revocationList(ctx, cmp.InfoTypeAndValue{Type: cmp.InfoCurrentCRL})
	return err
}

// crls asks for the list of the CA by its name, with and without one at hand, and for that of somebody else.
func (a *attempt) crls(ctx context.Context) error {
	list, err := a.revocationList(ctx, cmp.CRLStatusList(a.ca.root.RawSubject, time.Time{}))
	if err != nil {
		return err
	}
	if _, err := a.revocationList(ctx, cmp.CRLStatusList(a.ca.root.RawSubject, list.ThisUpdate.Add(-time.Hour))); err != nil {
		return fmt.Errorf("with an older one at hand: %w", err)
	}
	if _, err = a.revocationList(ctx, cmp.CRLStatusList(a.wish.csr.RawSubject, time.Time{})); !errors.Is(err, errNoAnswer) {
		return fmt.Errorf("the list of somebody else: got %w, want none", orNothing(err))
	}
	return nil
}

// revocationList asks for one list, which the CA must have signed.
func (a *attempt) revocationList(ctx context.Context, question cmp.InfoTypeAndValue) (*x509.RevocationList, error) {
	answer, err := a.ca.client.Ask(ctx, a.config(), question)
	if err != nil {
		return nil, err
	}
	lists, err := answer.CRLs()
	switch {
	case err != nil:
		return nil, err
	case len(lists) == 0:
		return nil, errNoAnswer
	case len(lists) > 1:
		return nil, fmt.Errorf("got %d revocation lists, want 1", len(lists))
	}
	return lists[0], lists[0].CheckSignatureFrom(a.ca.root)
}

// languages asks which language the CA would write in (RFC 9810 §5.3.19.13).
func (a *attempt) languages(ctx context.Context) error {
	suppLangTags := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 16}
	english := []byte{0x30, 4, 12, 2, 'e', 'n'}
	answer, err := a.ca.client.Ask(ctx, a.config(), cmp.InfoTypeAndValue{Type: suppLangTags, Value: english})
	if err != nil {
		return err
	}
	if value, ok := answer.Info(suppLangTags); !ok || !bytes.Equal(value, english) {
		return fmt.Errorf("got %x, want en", value)
	}
	return nil
}

// unknown asks for what nobody knows; an answer without a value says so (RFC 9483 §4.3).
func (a *attempt) unknown(ctx context.Context) error {
	private := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	answer, err := a.ca.client.Ask(ctx, a.config(), cmp.InfoTypeAndValue{Type: private})
	if err != nil {
		return err
	}
	if value, _ := answer.Info(private); value != nil {
		return fmt.Errorf("got %x, want nothing", value)
	}
	return nil
}

// nested obtains a certificate through a registration authority, here ourselves:
// every message is wrapped, and so must be the answers (RFC 9810 §5.1.3.5).
func (a *attempt) nested(ctx context.Context) error {
	ra, err := a.ca.identity(ctx)(keyP256)
	if err != nil {
		return err
	}
	cfg := a.config()
	cfg.Wrapper, cfg.WrappedBy = ra, &cfg.Trust
	issued, err := a.ca.client.Do(ctx, cfg, a.wish.request(cmp.TypeCR, nil))
	if err != nil {
		return err
	}
	return a.wish.check(issued.Certificate, a.ca.root, a.wish.csr.RawSubject)
}
