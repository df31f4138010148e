package cmp

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// attribute is a type of attribute in distinguished names, with the names
// OpenSSL has for it, and how its values are encoded (RFC 5280 appendix A.1, and
// where that is silent as OpenSSL does it). What short says is how it is written here.
type attribute struct {
	short, long string
	oid         asn1.ObjectIdentifier
	tag         tag.Tag // 0: UTF8String
	least, most int     // characters; most 0: no bound
}

// maxCommonName is the most characters of a commonName (RFC 5280 appendix A.1).
const maxCommonName = 64

var attributes = [...]attribute{
	{short: "CN", long: "commonName", oid: x520(3), most: maxCommonName},
	{short: "SN", long: "surname", oid: x520(4), most: 32768},
	{short: "serialNumber", oid: x520(5), tag: tag.PrintableString, most: 64},
	{short: "C", long: "countryName", oid: x520(6), tag: tag.PrintableString, least: 2, most: 2},
	{short: "L", long: "localityName", oid: x520(7), most: 128},
	{short: "ST", long: "stateOrProvinceName", oid: x520(8), most: 128},
	{short: "street", long: "streetAddress", oid: x520(9)},
	{short: "O", long: "organizationName", oid: x520(10), most: 64},
	{short: "OU", long: "organizationalUnitName", oid: x520(11), most: 64},
	{short: "title", oid: x520(12)},
	{short: "description", oid: x520(13)},
	{short: "businessCategory", oid: x520(15)},
	{short: "postalAddress", oid: x520(16)},
	{short: "postalCode", oid: x520(17)},
	{short: "postOfficeBox", oid: x520(18)},
	{short: "physicalDeliveryOfficeName", oid: x520(19)},
	{short: "telephoneNumber", oid: x520(20)},
	{short: "facsimileTelephoneNumber", oid: x520(23)},
	{short: "x121Address", oid: x520(24)},
	{short: "internationaliSDNNumber", oid: x520(25)},
	{short: "registeredAddress", oid: x520(26)},
	{short: "destinationIndicator", oid: x520(27)},
	{short: "name", oid: x520(41), most: 32768},
	{short: "GN", long: "givenName", oid: x520(42), most: 32768},
	{short: "initials", oid: x520(43), most: 32768},
	{short: "generationQualifier", oid: x520(44)},
	{short: "x500UniqueIdentifier", oid: x520(45)},
	{short: "dnQualifier", oid: x520(46), tag: tag.PrintableString},
	{short: "houseIdentifier", oid: x520(51)},
	{short: "dmdName", oid: x520(54)},
	{short: "pseudonym", oid: x520(65)},
	{short: "role", oid: x520(72)},
	{short: "organizationIdentifier", oid: x520(97)},
	{short: "c3", long: "countryCode3c", oid: x520(98), tag: tag.PrintableString, least: 3, most: 3},
	{short: "n3", long: "countryCode3n", oid: x520(99), tag: tagNumericString, least: 3, most: 3},
	{short: "dnsName", oid: x520(100)},
	{short: "UID", long: "userId", oid: cosine(1)}, // before uniqueIdentifier: uid is this one in RFC 4514
	{short: "mail", long: "rfc822Mailbox", oid: cosine(3), tag: tag.IA5String, most: 256},
	{short: "DC", long: "domainComponent", oid: cosine(25), tag: tag.IA5String},
	{short: "uniqueIdentifier", long: "uid", oid: cosine(44)},
	{short: "emailAddress", oid: pkcs9(1), tag: tag.IA5String, most: 128},
	{short: "unstructuredName", oid: pkcs9(2)},
	{short: "unstructuredAddress", oid: pkcs9(8)},
	{short: "jurisdictionL", long: "jurisdictionLocalityName", oid: jurisdiction(1)},
	{short: "jurisdictionST", long: "jurisdictionStateOrProvinceName", oid: jurisdiction(2)},
	{short: "jurisdictionC", long: "jurisdictionCountryName", oid: jurisdiction(3), tag: tag.PrintableString, least: 2, most: 2},
	{short: "INN", oid: asn1.ObjectIdentifier{1, 2, 643, 3, 131, 1, 1}, tag: tagNumericString, most: 12},
	{short: "OGRN", oid: asn1.ObjectIdentifier{1, 2, 643, 100, 1}, tag: tagNumericString, most: 13},
	{short: "SNILS", oid: asn1.ObjectIdentifier{1, 2, 643, 100, 3}, tag: tagNumericString, most: 11},
}

// x520 is an attribute type of X.520.
func x520(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 4, n} }

// cosine is an attribute type of the COSINE and Internet X.500 schema (RFC 4524).
func cosine(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, n}
}

// pkcs9 is an attribute type of PKCS #9.
func pkcs9(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, n} }

// jurisdiction is an attribute type of certificates for extended validation.
func jurisdiction(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 60, 2, 1, n}
}

// ParseName reads a distinguished name in one of two notations.
//
// What begins with a slash is /type=value/type=value as OpenSSL reads it: from
// the top downward, a backslash makes any character an ordinary one, a plus
// joins the next attribute to the same RDN, a single slash is the NULL-DN.
// Types are OpenSSL's short and long names, in their case, or dotted OIDs; like
// OpenSSL it skips attributes of unknown type or without a value, which
// [SkippedAttributes] reports.
//
// Anything else is RFC 4514: type=value,type=value from the bottom upward.
//
// C must have two characters; C, c3, serialNumber and dnQualifier become
// PrintableString, DC, mail and emailAddress IA5String, n3, INN, OGRN and SNILS
// NumericString, all others UTF8String.
func ParseName(s string) (Name, error) {
	n, _, err := parseName(s)
	return n, err
}

// SkippedAttributes names the attributes that [ParseName] leaves out of a name
// in OpenSSL's notation. A careful program refuses a name that has any.
func SkippedAttributes(s string) []string {
	_, skipped, _ := parseName(s)
	return skipped
}

// maxNameText bounds the text of a name, in bytes.
const maxNameText = 16 << 10

func parseName(s string) (n Name, skipped []string, err error) {
	var rdns [][][]byte
	switch {
	case len(s) > maxNameText || !utf8.ValidString(s):
		err = errors.New("too long, or not UTF-8")
	case s == "":
		err = errors.New("empty; the NULL-DN is written /")
	case s[0] == '/':
		rdns, skipped, err = parseSlashed(s[1:])
	default:
		rdns, err = parse4514(s)
	}
	if err == nil && len(rdns) > MaxNameRDNs {
		err = fmt.Errorf("more than %d RDNs", MaxNameRDNs)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("distinguished name: %w", err)
	}
	return encodeName(rdns), skipped, nil
}

// parseSlashed reads OpenSSL's notation, after its first slash.
func parseSlashed(s string) (rdns [][][]byte, skipped []string, err error) {
	join := false
	for s != "" {
		kind, rest, found := strings.Cut(s, "=")
		if !found {
			return nil, nil, fmt.Errorf("missing '=' after the type %q", kind)
		}
		value, separator, rest, err := slashedValue(rest)
		if err != nil {
			return nil, nil, err
		}
		s = rest
		joined := join && len(rdns) > 0
		join = separator == '+'
		a, known := attributeByName(kind)
		if !known || value == "" {
			skipped = append(skipped, kind)
			continue
		}
		der, err := a.encode(value)
		if err != nil {
			return nil, nil, err
		}
		rdns = appendAVA(rdns, der, joined)
	}
	return rdns, skipped, nil
}

// slashedValue reads up to an unescaped slash or plus.
func slashedValue(s string) (value string, separator byte, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '/', '+':
			return b.String(), s[i], s[i+1:], nil
		case '\\':
			if i++; i == len(s) {
				return "", 0, "", errors.New("a backslash at the end")
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), 0, "", nil
}

func appendAVA(rdns [][][]byte, der []byte, joined bool) [][][]byte {
	if joined {
		rdns[len(rdns)-1] = append(rdns[len(rdns)-1], der)
		return rdns
	}
	return append(rdns, [][]byte{der})
}

// parse4514 reads the notation of RFC 4514, tolerating blanks beside separators.
func parse4514(s string) (rdns [][][]byte, err error) {
	joined := false
	for more := true; more; {
		kind, rest, found := strings.Cut(s, "=")
		kind = strings.TrimSpace(kind)
		if !found {
			return nil, fmt.Errorf("missing '=' after the type %q", kind)
		}
		rest = strings.TrimLeft(rest, " ")
		isHex := strings.HasPrefix(rest, "#")
		value, separator, rest, err := value4514(rest)
		if err != nil {
			return nil, err
		}
		der, err := encode4514(kind, value, isHex)
		if err != nil {
			return nil, err
		}
		rdns = appendAVA(rdns, der, joined)
		s, joined, more = rest, separator == '+', separator != 0
	}
	slices.Reverse(rdns)
	return rdns, nil
}

// encode4514 encodes an attribute, its value as text or as # and hexadecimal DER.
func encode4514(kind, value string, isHex bool) ([]byte, error) {
	a, known := attributeByFoldedName(kind)
	if !known {
		a, known = attributeByName(kind)
	}
	if !known {
		return nil, fmt.Errorf("unknown type %q", kind)
	}
	if !isHex {
		return a.encode(value)
	}
	der, err := hex.DecodeString(value[1:])
	if err != nil {
		return nil, fmt.Errorf("value of %s: %w", kind, err)
	}
	p := newParser(der, inName)
	p.element(kind)
	p.done(kind)
	if !p.ok() {
		return nil, fmt.Errorf("value of %s: not DER", kind)
	}
	return encodeAVA(a.oid, der), nil
}

// value4514 reads up to an unescaped comma, semicolon or plus.
func value4514(s string) (value string, separator byte, rest string, err error) {
	var b strings.Builder
	end := 0 // of what must not be trimmed
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ',', ';', '+':
			return trimmed(b.String(), end), c, s[i+1:], nil
		case '\\':
			n, used, err := escaped4514(s[i+1:])
			if err != nil {
				return "", 0, "", err
			}
			b.WriteByte(n)
			i += used
			end = b.Len()
		case '"', '<', '>', 0:
			return "", 0, "", fmt.Errorf("unescaped %q", c)
		default:
			b.WriteByte(c)
		}
	}
	return trimmed(b.String(), end), 0, "", nil
}

// trimmed drops blanks at the end, but not what was escaped.
func trimmed(s string, keep int) string {
	return s[:keep] + strings.TrimRight(s[keep:], " ")
}

// escaped4514 reads what follows a backslash: two hexadecimal digits or one special character.
func escaped4514(s string) (b byte, used int, err error) {
	if len(s) >= 2 {
		if n, err := strconv.ParseUint(s[:2], 16, 8); err == nil {
			return byte(n), 2, nil
		}
	}
	if s == "" || !strings.ContainsRune(` "#+,;<=>\`, rune(s[0])) {
		return 0, 0, errors.New("a backslash that escapes nothing")
	}
	return s[0], 1, nil
}

func attributeByName(kind string) (attribute, bool) {
	if kind == "" {
		return attribute{}, false
	}
	for _, a := range attributes {
		if a.short == kind || a.long == kind {
			return a, true
		}
	}
	oid, ok := parseOID(kind)
	if !ok {
		return attribute{}, false
	}
	for _, a := range attributes {
		if a.oid.Equal(oid) {
			return a, true
		}
	}
	return attribute{short: kind, oid: oid}, true
}

// attributeByFoldedName knows that RFC 4514 does not care for case: uid is UID there.
func attributeByFoldedName(kind string) (attribute, bool) {
	for _, a := range attributes {
		if strings.EqualFold(a.short, kind) || a.long != "" && strings.EqualFold(a.long, kind) {
			return a, true
		}
	}
	return attribute{}, false
}

// parseOID reads a dotted object identifier.
func parseOID(s string) (asn1.ObjectIdentifier, bool) {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || len(oid) >= MaxEntries || strconv.FormatUint(n, 10) != arc {
			return nil, false
		}
		oid = append(oid, int(n))
	}
	ok := len(oid) >= 2 && oid[0] <= 2 && (oid[1] < 40 || oid[0] == 2 && oid[1] < 1<<30)
	return oid, ok
}

// encode encodes the attribute with a value.
func (a attribute) encode(value string) ([]byte, error) {
	if err := a.check(value); err != nil {
		return nil, err
	}
	var w writer
	w.primitive(a.string(), []byte(value))
	return encodeAVA(a.oid, w.b), nil
}

// check says whether text can be a value of a.
func (a attribute) check(value string) error {
	least := max(a.least, 1)
	if n := utf8.RuneCountInString(value); n < least || a.most > 0 && n > a.most {
		return fmt.Errorf("value of %s: %d characters are outside of %d to %d", a.short, n, least, a.most)
	}
	if !fitsString(a.string(), value) {
		return fmt.Errorf("value of %s: has characters it must not have", a.short)
	}
	return nil
}

// string is the string type that values of a are given.
func (a attribute) string() tag.Tag { return orDefault(a.tag, tag.UTF8String) }

func fitsString(t tag.Tag, value string) bool {
	switch t {
	case tag.PrintableString:
		return strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?") == ""
	case tagNumericString:
		return strings.Trim(value, "0123456789 ") == ""
	case tag.IA5String:
		return strings.IndexFunc(value, func(r rune) bool { return r > 0x7f }) < 0
	}
	return utf8.ValidString(value)
}

func encodeAVA(oid asn1.ObjectIdentifier, value []byte) []byte {
	var w writer
	m := w.open(tag.SEQUENCE)
	w.oid(oid)
	w.raw(value)
	w.close(m)
	return w.b
}

// encodeName encodes RDNs from the top downward, the attributes of each in DER's order (X.690 §11.6).
func encodeName(rdns [][][]byte) Name {
	var w writer
	m := w.open(tag.SEQUENCE)
	for _, rdn := range rdns {
		slices.SortFunc(rdn, slices.Compare)
		set := w.open(tag.SET)
		for _, ava := range rdn {
			w.raw(ava)
		}
		w.close(set)
	}
	w.close(m)
	return w.b
}

// commonName is the name with a single commonName.
func commonName(value []byte) Name {
	var w writer
	w.primitive(tag.UTF8String, value)
	return encodeName([][][]byte{{encodeAVA(x520(3), w.b)}})
}
