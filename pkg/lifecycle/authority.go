package lifecycle

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// Timeouts of an issuer that does not say.
const (
	defaultMessageTimeout = 30 * time.Second
	defaultTotalTimeout   = 24 * time.Hour
)

// authority is an issuer with everything needed to ask it: where it is, what protects
// our messages, what we trust of its answers.
type authority struct {
	issuer         *model.CMPIssuer
	client         *cmp.Client
	config         cmp.Config
	messageTimeout time.Duration
	totalTimeout   time.Duration
}

// authorize reads the issuer and the Secrets it names. An *unmetError says what is
// missing or wrong.
func (a *attempt) authorize(ctx context.Context, purpose string) error {
	issuer, err := a.o.Ledger.Issuer(ctx, a.issuerKey())
	if errors.Is(err, ledger.ErrNotFound) {
		return &unmetError{"IssuerNotFound", fmt.Sprintf("CMPIssuer %s does not exist: create it, or correct spec.issuerRef.name", a.issuerKey())}
	}
	if err != nil {
		return err
	}
	ca, err := a.o.authority(ctx, issuer)
	if reportErr := a.o.reportIssuer(ctx, issuer, err); reportErr != nil {
		return reportErr
	}
	if err != nil {
		return err
	}
	if ca.config.Credential, err = a.credential(ctx, issuer, purpose); err != nil {
		return err
	}
	a.ca = ca
	return nil
}

// authority builds everything about an issuer but the credential, which depends on
// the certificate.
func (o *Obtainer) authority(ctx context.Context, issuer *model.CMPIssuer) (*authority, error) {
	spec := &issuer.Spec
	trust, err := o.trust(ctx, issuer)
	if err != nil {
		return nil, err
	}
	recipient, err := parseName(spec.Recipient, "spec.recipient")
	if err != nil {
		return nil, err
	}
	ca := &authority{issuer: issuer, messageTimeout: defaultMessageTimeout, totalTimeout: defaultTotalTimeout}
	if spec.MessageTimeout != nil {
		ca.messageTimeout = spec.MessageTimeout.Duration
	}
	if spec.TotalTimeout != nil {
		ca.totalTimeout = spec.TotalTimeout.Duration
	}
	ca.client = &cmp.Client{URL: spec.Server, Timeout: ca.messageTimeout}
	ca.config = cmp.Config{
		Recipient: recipient, Trust: trust, ImplicitConfirm: spec.Confirmation == "implicit",
		TotalTimeout: ca.totalTimeout, Now: o.now,
	}
	return ca, nil
}

func parseName(s, field string) (cmp.Name, error) {
	if s == "" {
		return nil, nil
	}
	name, err := cmp.ParseName(s)
	if err != nil {
		return nil, &unmetError{"IssuerInvalid", fmt.Sprintf("issuer %s: %v", field, err)}
	}
	return name, nil
}

func (o *Obtainer) trust(ctx context.Context, issuer *model.CMPIssuer) (trust cmp.Trust, err error) {
	src := issuer.Spec.Trust
	secret, err := o.input(ctx, issuer, src.SecretName, "spec.trust")
	if err != nil {
		return trust, err
	}
	if src.ServerCertificateKey != "" {
		pinned, err := certificates(secret, src.ServerCertificateKey)
		if err != nil {
			return trust, err
		}
		trust.ServerCertificate = pinned[0]
	} else if trust.Roots, err = certificates(secret, orElse(src.RootsKey, "ca.crt")); err != nil {
		return trust, err
	}
	if src.IntermediatesKey != "" {
		trust.Intermediates, err = certificates(secret, src.IntermediatesKey)
	}
	return trust, err
}

// credential is what protects a request: the certificate in use for a key update
// (unless the issuer wants the identity), the bootstrap secret for the identity, the
// identity for everything else.
func (a *attempt) credential(ctx context.Context, issuer *model.CMPIssuer, purpose string) (cmp.Credential, error) {
	identity := a.cert.Spec.Type == model.CMPIdentity
	switch {
	case purpose == ledger.ForRenewal && (identity || issuer.Spec.Renewal.SignedBy != "cmpIdentity"):
		c := a.rec.Current
		return &cmp.Signer{Key: c.Key.Signer(), Certificate: c.Certificate(), Chain: c.Chain[1:]}, nil
	case identity:
		return a.o.bootstrap(ctx, issuer)
	case issuer.Spec.Authentication == nil:
		return nil, &unmetError{"IdentityNotConfigured", fmt.Sprintf("CMPIssuer %s has no spec.authentication: name the Secret of the CMP identity that signs requests for endEntity certificates", issuer.Name)}
	default:
		return a.o.identity(ctx, issuer)
	}
}

func (o *Obtainer) bootstrap(ctx context.Context, issuer *model.CMPIssuer) (cmp.Credential, error) {
	initial := issuer.Spec.InitialAuthentication
	switch {
	case initial == nil:
		return nil, &unmetError{"BootstrapNotConfigured", fmt.Sprintf("CMPIssuer %s has no spec.initialAuthentication: a cmpIdentity needs a shared secret or a pre-provisioned certificate", issuer.Name)}
	case initial.MAC != nil:
		return o.sharedSecret(ctx, issuer, initial.MAC)
	default:
		return o.signer(ctx, issuer, initial.Signature, "spec.initialAuthentication.signature")
	}
}

func (o *Obtainer) sharedSecret(ctx context.Context, issuer *model.CMPIssuer, src *model.SharedSecretSource) (cmp.Credential, error) {
	secret, err := o.input(ctx, issuer, src.SecretName, "spec.initialAuthentication.mac")
	if err != nil {
		return nil, err
	}
	reference, err := value(secret, orElse(src.ReferenceKey, "reference"))
	if err != nil {
		return nil, err
	}
	password, err := value(secret, orElse(src.PasswordKey, "password"))
	if err != nil {
		return nil, err
	}
	return &cmp.SharedSecret{Reference: reference, Secret: password}, nil
}

func (o *Obtainer) identity(ctx context.Context, issuer *model.CMPIssuer) (cmp.Credential, error) {
	c, err := o.signer(ctx, issuer, issuer.Spec.Authentication, "spec.authentication")
	var why *unmetError
	if errors.As(err, &why) && why.reason == "SecretNotFound" {
		return nil, &unmetError{"IdentityNotReady", "the CMP identity does not exist yet: " + why.message}
	}
	return c, err
}

func (o *Obtainer) signer(ctx context.Context, issuer *model.CMPIssuer, src *model.KeyPairSource, field string) (cmp.Credential, error) {
	secret, err := o.input(ctx, issuer, src.SecretName, field)
	if err != nil {
		return nil, err
	}
	key, err := value(secret, orElse(src.PrivateKeyKey, corev1.TLSPrivateKeyKey))
	if err != nil {
		return nil, err
	}
	private, err := ledger.ParseKey(key)
	if err != nil {
		return nil, invalidSecret(secret, orElse(src.PrivateKeyKey, corev1.TLSPrivateKeyKey), err)
	}
	chain, err := certificates(secret, orElse(src.CertificateKey, corev1.TLSCertKey))
	if err != nil {
		return nil, err
	}
	if !private.Fits(chain[0]) {
		return nil, invalidSecret(secret, orElse(src.CertificateKey, corev1.TLSCertKey), errors.New("is not the certificate of the private key beside it"))
	}
	if !o.now().Before(chain[0].NotAfter) {
		return nil, &unmetError{"IdentityExpired", fmt.Sprintf("the certificate in Secret %s/%s expired at %s", secret.Namespace, secret.Name, chain[0].NotAfter.Format(time.RFC3339))}
	}
	return &cmp.Signer{Key: private.Signer(), Certificate: chain[0], Chain: chain[1:]}, nil
}

// input reads a Secret that an issuer names.
func (o *Obtainer) input(ctx context.Context, issuer *model.CMPIssuer, name, field string) (*corev1.Secret, error) {
	key := types.NamespacedName{Namespace: issuer.Namespace, Name: name}
	secret, err := o.Ledger.Secret(ctx, key)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, &unmetError{"SecretNotFound", fmt.Sprintf("Secret %s, named by %s of CMPIssuer %s, does not exist", key, field, issuer.Name)}
	}
	return secret, err
}

func value(secret *corev1.Secret, key string) ([]byte, error) {
	v := secret.Data[key]
	if len(v) == 0 {
		return nil, invalidSecret(secret, key, errors.New("is missing or empty"))
	}
	return v, nil
}

func certificates(secret *corev1.Secret, key string) ([]*x509.Certificate, error) {
	v, err := value(secret, key)
	if err != nil {
		return nil, err
	}
	certs, err := ledger.ParseCertificates(v)
	if err != nil {
		return nil, invalidSecret(secret, key, err)
	}
	return certs, nil
}

func invalidSecret(secret *corev1.Secret, key string, err error) error {
	return &unmetError{"SecretInvalid", fmt.Sprintf("Secret %s/%s, data key %s: %v", secret.Namespace, secret.Name, key, err)}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// anchors finds the trust anchor a chain ends in; none when answers are trusted by a
// pinned certificate.
func (ca *authority) anchors(chain []*x509.Certificate) []*x509.Certificate {
	opts := x509.VerifyOptions{
		Roots: pool(ca.config.Trust.Roots), Intermediates: pool(chain[1:], ca.config.Trust.Intermediates),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: ca.config.Now(),
	}
	paths, err := chain[0].Verify(opts)
	if err != nil || len(paths) == 0 {
		return nil
	}
	return paths[0][len(paths[0])-1:]
}

func pool(sets ...[]*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, certs := range sets {
		for _, c := range certs {
			p.AddCert(c)
		}
	}
	return p
}
