package model

import (
	"cmp"
	"time"
)

// What holds where a specification does not say. The API server puts most of it into the
// objects; these serve those that did not come through it.

// Times of an issuer that does not say.
const (
	defaultMessageTimeout = 30 * time.Second
	defaultTotalTimeout   = 24 * time.Hour
	defaultClockTolerance = 5 * time.Minute
)

// TransactionLimit bounds one whole transaction.
func (s *CMPIssuerSpec) TransactionLimit() time.Duration {
	if s.TotalTimeout != nil {
		return s.TotalTimeout.Duration
	}
	return defaultTotalTimeout
}

// MessageLimit bounds one request and its answer.
func (s *CMPIssuerSpec) MessageLimit() time.Duration {
	if s.MessageTimeout != nil {
		return s.MessageTimeout.Duration
	}
	return min(defaultMessageTimeout, s.TransactionLimit())
}

// Implicit tells whether the CA is asked to do without certConf.
func (s *CMPIssuerSpec) Implicit() bool { return s.Confirmation == "implicit" }

// DataKeys are those of the reference and of the shared secret.
func (s *SharedSecretSource) DataKeys() (reference, password string) {
	return cmp.Or(s.ReferenceKey, "reference"), cmp.Or(s.PasswordKey, "password")
}

// DataKeys are those of the private key and of the certificate.
func (k *KeyPairSource) DataKeys() (privateKey, certificate string) {
	return cmp.Or(k.PrivateKeyKey, "tls.key"), cmp.Or(k.CertificateKey, "tls.crt")
}

// DataKey is that of the certificates.
func (c *CertificatesSource) DataKey() string { return cmp.Or(c.Key, "ca.crt") }

// Anchors is the data key of what answers are trusted by, and whether it is the one
// certificate that may sign them.
func (t TrustSource) Anchors() (key string, pinned bool) {
	if t.ServerCertificateKey != "" {
		return t.ServerCertificateKey, true
	}
	return cmp.Or(t.RootsKey, "ca.crt"), false
}

// Tolerance is how far the CA's clock may be from ours.
func (p Policies) Tolerance() time.Duration {
	if p.ClockTolerance != nil {
		return p.ClockTolerance.Duration
	}
	return defaultClockTolerance
}

// Release is how many certificates a second are let go when the CA is back.
func (r RetryPolicy) Release() int { return int(cmp.Or(max(0, r.ReleasePerSecond), 10)) }

// Deletion is what becomes of the output Secrets when the configuration is withdrawn.
func (s *CMPCertificateSpec) Deletion() string { return cmp.Or(s.DeletionPolicy, DeletionKeep) }
