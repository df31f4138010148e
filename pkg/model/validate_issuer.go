package model

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate reports everything that is wrong with the specification, all at once.
// The API server enforces the same rules; this serves those who publish events.
func (s *CMPIssuerSpec) Validate() field.ErrorList {
	at := field.NewPath("spec")
	retry := at.Child("retry")
	return slices.Concat(
		checkServer(at.Child("server"), s.Server),
		checkDN(at.Child("recipient"), s.Recipient),
		checkDN(at.Child("issuer"), s.Issuer),
		s.validateTimeouts(at),
		s.InitialAuthentication.validate(at.Child("initialAuthentication")),
		s.Authentication.validate(at.Child("authentication")),
		s.Trust.validate(at.Child("trust")),
		s.TLS.validate(at.Child("tls"), s.Server),
		oneOf(at.Child("confirmation"), s.Confirmation, "explicit", "implicit"),
		s.Chain.validate(at.Child("chain")),
		oneOf(at.Child("renewal", "signedBy"), s.Renewal.SignedBy, SignedByCurrentCertificate, SignedByIdentity),
		s.Policies.validate(at.Child("policies")),
		oneOf(retry.Child("policy"), s.Retry.Policy, RetryBackoff, RetryFixed30s),
		within(retry.Child("releasePerSecond"), s.Retry.ReleasePerSecond, 1, 1000),
	)
}

func checkServer(at *field.Path, server string) field.ErrorList {
	if server == "" {
		return field.ErrorList{field.Required(at, "give the URL of the CMP server")}
	}
	u, err := url.ParseRequestURI(server)
	if err != nil || len(server) > 2048 || !isServer(u) || strings.Contains(server, "#") {
		// Not the value: there may be a password in it.
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "must be an http or https URL without user name or fragment, for example http://ca.example.com:8080/pkix/")}
	}
	return nil
}

func isServer(u *url.URL) bool {
	port, err := strconv.Atoi(u.Port())
	return (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		(u.Port() == "" || err == nil && port >= 1 && port <= 65535)
}

func (s *CMPIssuerSpec) validateTimeouts(at *field.Path) field.ErrorList {
	message := at.Child("messageTimeout")
	errs := append(positive(at.Child("totalTimeout"), s.TotalTimeout), positive(message, s.MessageTimeout)...)
	if len(errs) == 0 && s.MessageTimeout != nil && s.MessageTimeout.Duration > s.TransactionLimit() {
		return invalid(message, s.MessageTimeout.Duration, "must not be longer than totalTimeout, which is "+s.TransactionLimit().String())
	}
	return errs
}

func (a *InitialAuthentication) validate(at *field.Path) field.ErrorList {
	switch {
	case a == nil:
		return nil
	case a.MAC == nil && a.Signature == nil:
		return absent(at, "mac", "signature")
	case a.MAC != nil && a.Signature != nil:
		return together(at, "mac", "signature")
	default:
		return append(a.MAC.validate(at.Child("mac")), a.Signature.validate(at.Child("signature"))...)
	}
}

func (s *SharedSecretSource) validate(at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	return slices.Concat(
		secretName(at, s.SecretName),
		dataKeys(at, "referenceKey", s.ReferenceKey, "passwordKey", s.PasswordKey),
		oneOf(at.Child("passwordFormat"), s.PasswordFormat, PasswordRaw, PasswordOpenSSL),
		s.Digest.validate(at.Child("digest")),
		oneOf(at.Child("mac"), s.MAC, "HMACSHA256", "HMACSHA384", "HMACSHA512"),
	)
}

func (d Digest) validate(at *field.Path) field.ErrorList {
	return oneOf(at, d, "SHA256", "SHA384", "SHA512")
}

func (k *KeyPairSource) validate(at *field.Path) field.ErrorList {
	if k == nil {
		return nil
	}
	return slices.Concat(
		secretName(at, k.SecretName),
		k.Digest.validate(at.Child("digest")),
		dataKeys(at, "privateKeyKey", k.PrivateKeyKey, "certificateKey", k.CertificateKey, "extraCertificatesKey", k.ExtraCertificatesKey),
	)
}

func (t TrustSource) validate(at *field.Path) field.ErrorList {
	errs := append(secretName(at, t.SecretName), dataKeys(at, "rootsKey", t.RootsKey, "intermediatesKey", t.IntermediatesKey,
		"serverCertificateKey", t.ServerCertificateKey)...)
	if t.RootsKey != "" && t.ServerCertificateKey != "" {
		errs = append(errs, together(at, "rootsKey", "serverCertificateKey")...)
	}
	return append(errs, t.validateSender(at)...)
}

func (t TrustSource) validateSender(at *field.Path) field.ErrorList {
	sender := at.Child("expectedSender")
	errs := checkDN(sender, t.ExpectedSender)
	if t.ExpectedSender == "/" {
		errs = append(errs, invalid(sender, "/", "is the empty name: give the CA's, or leave it out")...)
	}
	if t.ExpectedSender != "" && t.ServerCertificateKey != "" {
		errs = append(errs, together(at, "expectedSender", "serverCertificateKey")...)
	}
	return errs
}

func (t *TLS) validate(at *field.Path, server string) field.ErrorList {
	if t == nil {
		return nil
	}
	errs := append(t.Trust.validate(at.Child("trust")), t.ClientCertificate.validate(at.Child("clientCertificate"))...)
	if u, err := url.ParseRequestURI(server); err == nil && u.Scheme != "https" {
		errs = append(errs, field.Forbidden(at, "is for a server with an https URL: change server, or remove tls"))
	}
	if t.ServerName != "" && !isHostName(t.ServerName) && !isIP(t.ServerName) {
		errs = append(errs, invalid(at.Child("serverName"), t.ServerName, "must be a host name or an IP address")...)
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

func (c *CertificatesSource) validate(at *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	return append(secretName(at, c.SecretName), dataKeys(at, "key", c.Key)...)
}

func (c ChainSource) validate(at *field.Path) field.ErrorList {
	manual := at.Child("manual")
	errs := append(oneOf(at.Child("source"), c.Source, ChainFromResponse, ChainManual), c.Manual.validate(manual)...)
	switch {
	case c.Source == ChainManual && c.Manual == nil:
		errs = append(errs, field.Required(manual, "source is manual"))
	case c.Source != ChainManual && c.Manual != nil:
		errs = append(errs, field.Forbidden(manual, "is set, and source is not manual"))
	}
	return errs
}

func (p Policies) validate(at *field.Path) field.ErrorList {
	errs := slices.Concat(
		oneOf(at.Child("unprotectedErrors"), p.UnprotectedErrors, UnprotectedIgnored, UnprotectedAccepted),
		oneOf(at.Child("macAnsweredWithSignature"), p.MACAnsweredWithSignature, SignatureAllowed, SignatureRefused),
		oneOf(at.Child("grantedModifications"), p.GrantedModifications, ModificationsAccepted, ModificationsTold, ModificationsRejected),
	)
	if p.ClockTolerance != nil && p.ClockTolerance.Duration < 0 {
		errs = append(errs, invalid(at.Child("clockTolerance"), p.ClockTolerance.Duration, "must not be negative")...)
	}
	return errs
}
