package model

import (
	"fmt"
	"net/url"
	"slices"
	"unicode/utf8"

	"knative.dev/pkg/apis"
)

const uuidURN = `^[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:`

// Patterns that the CRDs have too.
var (
	countryPattern      = patternOf(`^[A-Z]{2}$`)
	serialNumberPattern = patternOf(`^[A-Za-z0-9 '()+,./:=?-]+$`) // a PrintableString (X.520)

	dnsNamePattern = patternOf(`^([*][.])?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	uriPattern     = patternOf(`^[A-Za-z][A-Za-z0-9+.-]*:(//([A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?([/?#]([!-$&-~]|%[0-9A-Fa-f]{2})*)?|([!-$&-.0-~]|%[0-9A-Fa-f]{2})([!-$&-~]|%[0-9A-Fa-f]{2})*)$`)
	webPattern     = patternOf(`^[Hh][Tt][Tt][Pp][Ss]?:`)
	apiRootPattern = patternOf(`^[A-Za-z]+://[^?#]+$`)
	emailPattern   = patternOf(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+([.][A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

	uuidURNPattern    = patternOf(uuidURN)
	uuidPattern       = patternOf(uuidURN + `[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$`)
	instanceIDPattern = patternOf(uuidURN + `[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$`)
)

func (s *Subject) validate() (errs *apis.FieldError) {
	if s == nil {
		return nil
	}
	if s.Country != "" && !countryPattern.MatchString(s.Country) {
		errs = errs.Also(invalid(s.Country, "country", "must be two capital letters (ISO 3166)"))
	}
	if s.SerialNumber != "" && !serialNumberPattern.MatchString(s.SerialNumber) {
		errs = errs.Also(invalid(s.SerialNumber, "serialNumber", "must be letters, digits, spaces and '()+,-./:=? only (a PrintableString)"))
	}
	return errs.Also(s.validateLengths()).Also(s.validateWhole())
}

// validateLengths: upper bounds of RFC 5280 Appendix A.1.
func (s *Subject) validateLengths() (errs *apis.FieldError) {
	for _, b := range []struct {
		path, value string
		max         int
	}{
		{"stateOrProvince", s.StateOrProvince, 128}, {"locality", s.Locality, 128},
		{"organization", s.Organization, 64}, {"organizationalUnit", s.OrganizationalUnit, 64},
		{"commonName", s.CommonName, 64}, {"serialNumber", s.SerialNumber, 64},
	} {
		if utf8.RuneCountInString(b.value) > b.max {
			errs = errs.Also(invalid(b.value, b.path, fmt.Sprintf("must be at most %d characters", b.max)))
		}
	}
	return errs
}

func (s *Subject) validateWhole() *apis.FieldError {
	single := *s
	single.DistinguishedName = ""
	errs := checkDN(s.DistinguishedName, "distinguishedName")
	switch {
	case *s == (Subject{}):
		errs = errs.Also(apis.ErrMissingOneOf("commonName", "organization", "country", "serialNumber", "distinguishedName"))
	case s.DistinguishedName == "/":
		errs = errs.Also(invalid("/", "distinguishedName", "is the empty name: leave subject out"))
	case s.DistinguishedName != "" && single != (Subject{}):
		errs = errs.Also(apis.ErrGeneric("stands alone: remove it, or the single attributes", "distinguishedName"))
	}
	return errs
}

func (n *SubjectAltNames) validate() (errs *apis.FieldError) {
	if n == nil {
		return nil
	}
	if len(n.DNSNames)+len(n.IPAddresses)+len(n.URIs)+len(n.EmailAddresses) == 0 {
		errs = errs.Also(apis.ErrMissingOneOf("dnsNames", "ipAddresses", "uris", "emailAddresses"))
	}
	errs = errs.Also(each(n.DNSNames, "dnsNames", checkDNSName))
	errs = errs.Also(each(n.IPAddresses, "ipAddresses", checkIP))
	errs = errs.Also(each(n.URIs, "uris", checkURI))
	return errs.Also(each(n.EmailAddresses, "emailAddresses", checkEmail))
}

// each applies check to every value; check returns the remedy, or "" for a good value.
func each(values []string, path string, check func(string) string) (errs *apis.FieldError) {
	if len(values) > MaxSubjectAltNames {
		return invalid(len(values), path, fmt.Sprintf("must hold at most %d names", MaxSubjectAltNames))
	}
	for i, v := range values {
		remedy := check(v)
		if slices.Contains(values[:i], v) {
			remedy = "is there twice"
		}
		if remedy != "" {
			errs = errs.Also(apis.ErrInvalidValue(clip(v, 100), apis.CurrentField, remedy).ViaFieldIndex(path, i))
		}
	}
	return errs
}

func checkDNSName(v string) string {
	if len(v) > maxName || !dnsNamePattern.MatchString(v) {
		return "must be a DNS name, a leading *. allowed"
	}
	return ""
}

func checkIP(v string) string {
	if !isIP(v) {
		return "must be an IPv4 or IPv6 address"
	}
	return ""
}

func checkURI(v string) string {
	_, err := url.Parse(v)
	switch {
	case len(v) > 2048 || err != nil || !uriPattern.MatchString(v):
		return "must be an absolute URI in ASCII (RFC 5280 §4.2.1.6), scheme://host… or scheme:…"
	case webPattern.MatchString(v) && !apiRootPattern.MatchString(v):
		return "an http or https URI is an API root: scheme://host[:port][/prefix], without user, query and fragment"
	case uuidURNPattern.MatchString(v) && !uuidPattern.MatchString(v):
		return "urn:uuid: is followed by a UUID"
	}
	return ""
}

// checkInstanceID is for the URIs of a network function (3GPP TS 29.571 §5.3.2).
func checkInstanceID(v string) string {
	if uuidPattern.MatchString(v) && !instanceIDPattern.MatchString(v) {
		return "the urn:uuid: of a network function is its instance id, a UUID of version 4 (3GPP TS 29.571)"
	}
	return ""
}

func checkEmail(v string) string {
	if len(v) > 320 || !emailPattern.MatchString(v) {
		return "must be an address such as operator@example.com"
	}
	return ""
}
