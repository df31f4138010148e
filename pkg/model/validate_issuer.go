package model

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"knative.dev/pkg/apis"
)

// Validate reports everything that is wrong with the specification, all at once.
// The API server enforces the same rules; this serves those who publish events.
func (s *CMPIssuerSpec) Validate() (errs *apis.FieldError) {
	errs = errs.Also(checkServer(s.Server)).Also(checkDN(s.Recipient, "recipient")).Also(checkDN(s.Issuer, "issuer"))
	errs = errs.Also(s.validateTimeouts())
	errs = errs.Also(s.InitialAuthentication.validate().ViaField("initialAuthentication"))
	errs = errs.Also(s.Authentication.validate().ViaField("authentication"))
	errs = errs.Also(s.Trust.validate().ViaField("trust"))
	errs = errs.Also(s.TLS.validate(s.Server).ViaField("tls"))
	errs = errs.Also(oneOf(s.Confirmation, "confirmation", "explicit", "implicit"))
	errs = errs.Also(s.Chain.validate().ViaField("chain"))
	errs = errs.Also(oneOf(s.Renewal.SignedBy, "renewal.signedBy", SignedByCurrentCertificate, SignedByIdentity))
	errs = errs.Also(s.Policies.validate().ViaField("policies"))
	errs = errs.Also(oneOf(s.Retry.Policy, "policy", RetryBackoff, RetryFixed30s).ViaField("retry"))
	return errs.Also(within(s.Retry.ReleasePerSecond, "releasePerSecond", 1, 1000).ViaField("retry"))
}

func checkServer(server string) *apis.FieldError {
	if server == "" {
		return apis.ErrMissingField("server")
	}
	u, err := url.ParseRequestURI(server)
	if err != nil || len(server) > 2048 || !isServer(u) || strings.Contains(server, "#") {
		// Not the value: there may be a password in it.
		return invalid("…", "server", "must be an http or https URL without user name or fragment, for example http://ca.example.com:8080/pkix/")
	}
	return nil
}

func isServer(u *url.URL) bool {
	port, err := strconv.Atoi(u.Port())
	return (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		(u.Port() == "" || err == nil && port >= 1 && port <= 65535)
}

func (s *CMPIssuerSpec) validateTimeouts() *apis.FieldError {
	errs := positive(s.TotalTimeout, "totalTimeout").Also(positive(s.MessageTimeout, "messageTimeout"))
	if errs == nil && s.MessageTimeout != nil && s.MessageTimeout.Duration > s.TransactionLimit() {
		return invalid(s.MessageTimeout.Duration, "messageTimeout", "must not be longer than totalTimeout, which is "+s.TransactionLimit().String())
	}
	return errs
}

func (a *InitialAuthentication) validate() *apis.FieldError {
	switch {
	case a == nil:
		return nil
	case a.MAC == nil && a.Signature == nil:
		return apis.ErrMissingOneOf("mac", "signature")
	case a.MAC != nil && a.Signature != nil:
		return apis.ErrMultipleOneOf("mac", "signature")
	default:
		return a.MAC.validate().ViaField("mac").Also(a.Signature.validate().ViaField("signature"))
	}
}

func (s *SharedSecretSource) validate() *apis.FieldError {
	if s == nil {
		return nil
	}
	errs := secretName(s.SecretName).Also(dataKeys("referenceKey", s.ReferenceKey, "passwordKey", s.PasswordKey))
	errs = errs.Also(oneOf(s.PasswordFormat, "passwordFormat", PasswordRaw, PasswordOpenSSL))
	return errs.Also(s.Digest.validate()).Also(oneOf(s.MAC, "mac", "HMACSHA256", "HMACSHA384", "HMACSHA512"))
}

func (d Digest) validate() *apis.FieldError {
	return oneOf(d, "digest", "SHA256", "SHA384", "SHA512")
}

func (k *KeyPairSource) validate() *apis.FieldError {
	if k == nil {
		return nil
	}
	return secretName(k.SecretName).Also(k.Digest.validate()).Also(dataKeys("privateKeyKey", k.PrivateKeyKey,
		"certificateKey", k.CertificateKey, "extraCertificatesKey", k.ExtraCertificatesKey))
}

func (t TrustSource) validate() *apis.FieldError {
	errs := secretName(t.SecretName).Also(dataKeys("rootsKey", t.RootsKey, "intermediatesKey", t.IntermediatesKey,
		"serverCertificateKey", t.ServerCertificateKey))
	if t.RootsKey != "" && t.ServerCertificateKey != "" {
		errs = errs.Also(apis.ErrMultipleOneOf("rootsKey", "serverCertificateKey"))
	}
	return errs
}

func (t *TLS) validate(server string) *apis.FieldError {
	if t == nil {
		return nil
	}
	errs := t.Trust.validate().ViaField("trust").Also(t.ClientCertificate.validate().ViaField("clientCertificate"))
	if u, err := url.ParseRequestURI(server); err == nil && u.Scheme != "https" {
		errs = errs.Also(apis.ErrGeneric("is for a server with an https URL: change server, or remove tls", apis.CurrentField))
	}
	if t.ServerName != "" && !isHostName(t.ServerName) && !isIP(t.ServerName) {
		errs = errs.Also(invalid(t.ServerName, "serverName", "must be a host name or an IP address"))
	}
	return errs
}

func isHostName(s string) bool {
	return len(s) <= maxName && dnsNamePattern.MatchString(s) && !strings.HasPrefix(s, "*")
}

// isIP is true of the addresses that the CEL function isIP of the API server accepts.
func isIP(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Zone() == "" && !addr.Is4In6()
}

func (c *CertificatesSource) validate() *apis.FieldError {
	if c == nil {
		return nil
	}
	return secretName(c.SecretName).Also(dataKeys("key", c.Key))
}

func (c ChainSource) validate() *apis.FieldError {
	errs := oneOf(c.Source, "source", ChainFromResponse, ChainManual).Also(c.Manual.validate().ViaField("manual"))
	switch {
	case c.Source == ChainManual && c.Manual == nil:
		errs = errs.Also(apis.ErrMissingField("manual"))
	case c.Source != ChainManual && c.Manual != nil:
		errs = errs.Also(apis.ErrGeneric("is set, and source is not manual", "manual"))
	}
	return errs
}

func (p Policies) validate() *apis.FieldError {
	errs := oneOf(p.UnprotectedErrors, "unprotectedErrors", UnprotectedIgnored, UnprotectedAccepted)
	errs = errs.Also(oneOf(p.MACAnsweredWithSignature, "macAnsweredWithSignature", SignatureAllowed, SignatureRefused))
	errs = errs.Also(oneOf(p.GrantedModifications, "grantedModifications", ModificationsAccepted, ModificationsTold, ModificationsRejected))
	if p.ClockTolerance != nil && p.ClockTolerance.Duration < 0 {
		errs = errs.Also(invalid(p.ClockTolerance.Duration, "clockTolerance", "must not be negative"))
	}
	return errs
}
