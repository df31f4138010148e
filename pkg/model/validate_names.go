package model

import (
	"net/url"
	"slices"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
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

func (s *Subject) validate(at *field.Path) (errs field.ErrorList) {
	if s == nil {
		return nil
	}
	if s.Country != "" && !countryPattern.MatchString(s.Country) {
		errs = append(errs, invalid(at.Child("country"), s.Country, "must be two capital letters (ISO 3166)")...)
	}
	if s.SerialNumber != "" && !serialNumberPattern.MatchString(s.SerialNumber) {
		errs = append(errs, invalid(at.Child("serialNumber"), s.SerialNumber, "must be letters, digits, spaces and '()+,-./:=? only (a PrintableString)")...)
	}
	return slices.Concat(errs, s.validateLengths(at), s.validateWhole(at))
}

// validateLengths: upper bounds of RFC 5280 Appendix A.1.
func (s *Subject) validateLengths(at *field.Path) (errs field.ErrorList) {
	for _, b := range []struct {
		name, value string
		max         int
	}{
		{"stateOrProvince", s.StateOrProvince, 128}, {"locality", s.Locality, 128},
		{"organization", s.Organization, 64}, {"organizationalUnit", s.OrganizationalUnit, 64},
		{"commonName", s.CommonName, 64}, {"serialNumber", s.SerialNumber, 64},
	} {
		if utf8.RuneCountInString(b.value) > b.max {
			errs = append(errs, field.TooLongCharacters(at.Child(b.name), b.value, b.max))
		}
	}
	return errs
}

func (s *Subject) validateWhole(at *field.Path) field.ErrorList {
	whole := at.Child("distinguishedName")
	single := *s
	single.DistinguishedName = ""
	errs := checkDN(whole, s.DistinguishedName)
	switch {
	case *s == (Subject{}):
		errs = append(errs, absent(at, "commonName", "organization", "country", "serialNumber", "distinguishedName")...)
	case s.DistinguishedName == "/":
		errs = append(errs, invalid(whole, "/", "is the empty name: leave subject out")...)
	case s.DistinguishedName != "" && single != (Subject{}):
		errs = append(errs, field.Forbidden(whole, "stands alone: remove it, or the single attributes"))
	}
	return errs
}

// validate: those of a network function have more rules.
func (n *SubjectAltNames) validate(at *field.Path, networkFunction bool) (errs field.ErrorList) {
	if n == nil {
		return nil
	}
	uri := checkURI
	if networkFunction {
		uri = checkInstanceID
	}
	if len(n.DNSNames)+len(n.IPAddresses)+len(n.URIs)+len(n.EmailAddresses) == 0 {
		errs = absent(at, "dnsNames", "ipAddresses", "uris", "emailAddresses")
	}
	return slices.Concat(errs,
		each(at.Child("dnsNames"), n.DNSNames, checkDNSName),
		each(at.Child("ipAddresses"), n.IPAddresses, checkIP),
		each(at.Child("uris"), n.URIs, uri),
		each(at.Child("emailAddresses"), n.EmailAddresses, checkEmail),
	)
}

// each applies check to every value; check returns the remedy, or "" for a good value.
func each(at *field.Path, values []string, check func(string) string) (errs field.ErrorList) {
	if len(values) > MaxSubjectAltNames {
		return field.ErrorList{field.TooMany(at, len(values), MaxSubjectAltNames)}
	}
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			errs = append(errs, field.Duplicate(at.Index(i), clip(v, 100)))
		} else if remedy := check(v); remedy != "" {
			errs = append(errs, invalid(at.Index(i), v, remedy)...)
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
	if remedy := checkURI(v); remedy != "" {
		return remedy
	}
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
