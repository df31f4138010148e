package cmpcmd

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certloop/certloop/pkg/cmp"
)

// Extensions that can be asked for (RFC 5280 §4.2).
var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidPolicies         = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// extensionKind is an extension by the names of x509v3_config(5), with how its
// values are read.
type extensionKind struct {
	name, long string
	id         asn1.ObjectIdentifier
	encode     func(c *conf, values []string) ([]byte, error)
}

func extensionKinds() []extensionKind {
	return []extensionKind{
		{"subjectAltName", "X509v3 Subject Alternative Name", oidSubjectAltName, encodeAltNames},
		{"keyUsage", "X509v3 Key Usage", oidKeyUsage, encodeKeyUsage},
		{"extendedKeyUsage", "X509v3 Extended Key Usage", oidExtKeyUsage, encodeExtKeyUsage},
		{"basicConstraints", "X509v3 Basic Constraints", oidBasicConstraints, encodeBasicConstraints},
		{"certificatePolicies", "X509v3 Certificate Policies", oidPolicies, encodePolicies},
	}
}

// sectionExtensions reads the extensions that a section of the configuration
// file describes, for an option.
func (s *settings) sectionExtensions(option string) ([]pkix.Extension, error) {
	if !s.has(option) {
		return nil, nil
	}
	name := s.values[option]
	if s.conf == nil {
		return nil, fmt.Errorf("-%s %s: there is no configuration file: give -config or set OPENSSL_CONF", option, name)
	}
	entries, ok := s.conf.sections[name]
	if !ok {
		return nil, fmt.Errorf("-%s: the configuration file has no section [%s]", option, name)
	}
	var out []pkix.Extension
	for _, e := range entries {
		x, err := s.conf.extension(e)
		if err != nil {
			return nil, fmt.Errorf("-%s: section [%s]: %s: %w", option, name, e.name, err)
		}
		out = append(out, x)
	}
	return out, nil
}

// extension encodes one line such as keyUsage = critical, digitalSignature.
func (c *conf) extension(e entry) (pkix.Extension, error) {
	values := splitValues(e.value)
	critical := len(values) > 0 && values[0] == "critical"
	if critical {
		values = values[1:]
	}
	if len(values) == 0 {
		return pkix.Extension{}, errors.New("has no value")
	}
	name, _, _ := strings.Cut(e.name, ".") // 1.name and name.1 make names unique
	for _, k := range extensionKinds() {
		if k.name == name || k.long == e.name || k.id.String() == e.name {
			value, err := k.encode(c, values)
			return pkix.Extension{Id: k.id, Critical: critical, Value: value}, err
		}
	}
	id, err := parseOID(e.name)
	if err != nil {
		return pkix.Extension{}, errors.New("is not supported: use subjectAltName, keyUsage, extendedKeyUsage, basicConstraints, certificatePolicies, or OID = DER:…")
	}
	value, err := rawDER(values[0])
	return pkix.Extension{Id: id, Critical: critical, Value: value}, err
}

// rawDER reads DER:xx:xx… or DER:xxxx….
func rawDER(value string) ([]byte, error) {
	digits, ok := strings.CutPrefix(value, "DER:")
	if !ok {
		return nil, errors.New("only values of the form DER:… are supported")
	}
	der, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if err != nil || len(der) == 0 {
		return nil, errors.New("DER: is not followed by hexadecimal digits")
	}
	return der, nil
}

// splitValues splits at commas and trims white space.
func splitValues(s string) []string {
	var out []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// encodeAltNames encodes type:value names and @section.
func encodeAltNames(c *conf, values []string) ([]byte, error) {
	names, err := c.expandSections(values)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, name := range names {
			if err == nil {
				err = addTypedName(b, name)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return b.Bytes()
}

// expandSections replaces @section by the type:value pairs of the section.
func (c *conf) expandSections(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		name, isSection := strings.CutPrefix(v, "@")
		if !isSection {
			out = append(out, v)
			continue
		}
		entries, ok := c.sections[name]
		if !ok {
			return nil, fmt.Errorf("there is no section [%s]", name)
		}
		for _, e := range entries {
			kind, _, _ := strings.Cut(e.name, ".") // DNS.1, DNS.2
			out = append(out, kind+":"+e.value)
		}
	}
	return out, nil
}

// Tags of GeneralName (RFC 5280 §4.2.1.6).
var (
	tagEmail = tag.Tag(1).ContextSpecific()
	tagDNS   = tag.Tag(2).ContextSpecific()
	tagURI   = tag.Tag(6).ContextSpecific()
	tagIP    = tag.Tag(7).ContextSpecific()
	tagRID   = tag.Tag(8).ContextSpecific()
)

// addTypedName adds one name such as DNS:web.example.
func addTypedName(b *cryptobyte.Builder, typed string) error {
	kind, value, _ := strings.Cut(typed, ":")
	value = strings.TrimSpace(value)
	switch kind {
	case "DNS":
		return addIA5(b, tagDNS, value)
	case "URI":
		return addIA5(b, tagURI, value)
	case "email":
		return addIA5(b, tagEmail, value)
	case "IP":
		address, err := netip.ParseAddr(value)
		if err != nil {
			return fmt.Errorf("%q is not an IP address", value)
		}
		addBytes(b, tagIP, address.AsSlice())
		return nil
	case "RID":
		id, err := parseOID(value)
		if err != nil {
			return err
		}
		var der cryptobyte.Builder
		der.AddASN1ObjectIdentifier(id)
		full, err := der.Bytes()
		if err == nil {
			addBytes(b, tagRID, full[2:])
		}
		return err
	}
	return fmt.Errorf("names of type %.20q are not supported: use DNS, IP, URI, email or RID", kind)
}

func addBytes(b *cryptobyte.Builder, t tag.Tag, content []byte) {
	b.AddASN1(t, func(b *cryptobyte.Builder) { b.AddBytes(content) })
}

func addIA5(b *cryptobyte.Builder, t tag.Tag, value string) error {
	if value == "" || strings.IndexFunc(value, func(r rune) bool { return r < 0x20 || r > 0x7e }) >= 0 {
		return fmt.Errorf("%q is not a name in ASCII", value)
	}
	addBytes(b, t, []byte(value))
	return nil
}

// plainAltNames encodes the names of -sans, whose types are guessed as OpenSSL
// guesses them: an IP address, else with @ an email address, else with a colon a
// URI, else a DNS name.
func plainAltNames(names []string) (pkix.Extension, error) {
	x := pkix.Extension{Id: oidSubjectAltName}
	var typed []string
	for _, name := range names {
		_, notIP := netip.ParseAddr(name)
		switch {
		case name == "critical":
			x.Critical = true
		case notIP == nil:
			typed = append(typed, "IP:"+name)
		case strings.Contains(name, "@"):
			typed = append(typed, "email:"+name)
		case strings.Contains(name, ":"):
			typed = append(typed, "URI:"+name)
		default:
			typed = append(typed, "DNS:"+name)
		}
	}
	if len(typed) == 0 {
		return x, errors.New("there is no name in it")
	}
	var err error
	x.Value, err = encodeAltNames(nil, typed)
	return x, err
}

// keyUsages are the bits of KeyUsage by name (RFC 5280 §4.2.1.3), with
// OpenSSL's second name of contentCommitment.
var keyUsages = [][]string{
	{"digitalSignature"}, {"nonRepudiation", "contentCommitment"}, {"keyEncipherment"}, {"dataEncipherment"}, {"keyAgreement"},
	{"keyCertSign"}, {"cRLSign"}, {"encipherOnly"}, {"decipherOnly"},
}

func encodeKeyUsage(_ *conf, values []string) ([]byte, error) {
	bits := asn1.BitString{Bytes: make([]byte, 2)}
	for _, v := range values {
		n := slices.IndexFunc(keyUsages, func(names []string) bool { return slices.Contains(names, v) })
		if n < 0 {
			return nil, fmt.Errorf("%q is not a key usage", v)
		}
		bits.Bytes[n/8] |= 0x80 >> (n % 8)
		bits.BitLength = max(bits.BitLength, n+1)
	}
	bits.Bytes = bits.Bytes[:(bits.BitLength+7)/8]
	return asn1.Marshal(bits)
}

// extKeyUsages are purposes by OpenSSL's short names (RFC 5280 §4.2.1.12, RFC 6402 §2.10, RFC 9509).
var extKeyUsages = map[string]asn1.ObjectIdentifier{
	"serverAuth": pkixPurpose(1), "clientAuth": pkixPurpose(2), "codeSigning": pkixPurpose(3), "emailProtection": pkixPurpose(4),
	"timeStamping": pkixPurpose(8), "OCSPSigning": pkixPurpose(9), "ipsecIKE": pkixPurpose(17), "cmcCA": pkixPurpose(27),
	"cmcRA": pkixPurpose(28), "anyExtendedKeyUsage": {2, 5, 29, 37, 0},
}

func pkixPurpose(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, n}
}

func encodeExtKeyUsage(_ *conf, values []string) ([]byte, error) {
	var ids []asn1.ObjectIdentifier
	for _, v := range values {
		id, ok := extKeyUsages[v]
		if !ok {
			var err error
			if id, err = parseOID(v); err != nil {
				return nil, fmt.Errorf("%q is not an extended key usage: give its OID", v)
			}
		}
		ids = append(ids, id)
	}
	return asn1.Marshal(ids)
}

// encodeBasicConstraints reads CA:TRUE and pathlen:n (RFC 5280 §4.2.1.9).
func encodeBasicConstraints(_ *conf, values []string) ([]byte, error) {
	constraints := struct {
		CA      bool `asn1:"optional"`
		PathLen int  `asn1:"optional,default:-1"`
	}{PathLen: -1}
	for _, v := range values {
		name, value, _ := strings.Cut(v, ":")
		var err error
		switch name {
		case "CA":
			constraints.CA, err = strconv.ParseBool(strings.ToLower(value))
		case "pathlen":
			constraints.PathLen, err = strconv.Atoi(value)
			if constraints.PathLen < 0 {
				err = errors.New("negative")
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither CA:TRUE, CA:FALSE nor pathlen:NUMBER", v)
		}
	}
	return asn1.Marshal(constraints)
}

// encodePolicies encodes policies without qualifiers (RFC 5280 §4.2.1.4).
func encodePolicies(_ *conf, values []string) ([]byte, error) {
	type policyInformation struct{ ID asn1.ObjectIdentifier }
	var policies []policyInformation
	for _, v := range values {
		if strings.HasPrefix(v, "@") {
			return nil, errors.New("policy qualifiers (@section) are not supported")
		}
		id, err := parseOID(v)
		if err != nil {
			return nil, err
		}
		policies = append(policies, policyInformation{id})
	}
	return asn1.Marshal(policies)
}

// parseOID reads a dotted object identifier.
func parseOID(s string) (asn1.ObjectIdentifier, error) {
	bad := fmt.Errorf("%.40q is not an OID in dotted form", s)
	var id asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || len(id) >= cmp.MaxEntries {
			return nil, bad
		}
		id = append(id, int(n))
	}
	if _, err := asn1.Marshal(id); err != nil {
		return nil, bad
	}
	return id, nil
}

// merge adds extensions to a list; those of the same type are replaced.
func merge(list, more []pkix.Extension) []pkix.Extension {
	for _, x := range more {
		i := slices.IndexFunc(list, func(old pkix.Extension) bool { return old.Id.Equal(x.Id) })
		if i >= 0 {
			list[i] = x
			continue
		}
		list = append(list, x)
	}
	return list
}

func hasExtension(list []pkix.Extension, id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(list, func(x pkix.Extension) bool { return x.Id.Equal(id) })
}
