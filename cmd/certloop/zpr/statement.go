package zpr

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Attribute is a security attribute: namespace.key:value.
type Attribute struct{ Namespace, Key, Value string }

// defaultNamespace is ZPR's own, which a reference may leave out.
const defaultNamespace = "oracle-zpr"

var (
	wordPattern  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	plainPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// maxValueBytes bounds the value of an attribute.
const maxValueBytes = 255

// ParseAttribute reads [namespace.]key:value, quoted or not.
func ParseAttribute(s string) (Attribute, error) {
	text := s
	if quoted, ok := strings.CutPrefix(s, "'"); ok {
		inner, closed := strings.CutSuffix(quoted, "'")
		if !closed || strings.Contains(strings.ReplaceAll(inner, "''", ""), "'") {
			return Attribute{}, fmt.Errorf("attribute %s: the quote is not closed, or an inner one is not doubled", s)
		}
		text = strings.ReplaceAll(inner, "''", "'")
	}
	name, value, ok := strings.Cut(text, ":")
	if !ok {
		return Attribute{}, fmt.Errorf("attribute %q is not namespace.key:value", s)
	}
	a := Attribute{defaultNamespace, name, value}
	if namespace, key, ok := strings.Cut(name, "."); ok {
		a.Namespace, a.Key = namespace, key
	}
	return a, a.check()
}

func (a Attribute) check() error {
	for _, part := range []struct{ what, text string }{{"namespace", a.Namespace}, {"key", a.Key}} {
		if !wordPattern.MatchString(part.text) {
			return fmt.Errorf("attribute %s.%s:%s: %s %q may hold letters, digits, - and _ only, no space and no period, and at most 100 of them", a.Namespace, a.Key, a.Value, part.what, part.text)
		}
	}
	if a.Value == "" || len(a.Value) > maxValueBytes || strings.ContainsAny(a.Value, "\r\n\t\x00") {
		return fmt.Errorf("attribute %s.%s: the value must have 1 to %d printable characters", a.Namespace, a.Key, maxValueBytes)
	}
	return nil
}

// String writes an attribute as a statement does: quoted as a whole when its value needs it.
func (a Attribute) String() string {
	plain := a.Namespace + "." + a.Key + ":" + a.Value
	if plainPattern.MatchString(a.Value) {
		return plain
	}
	return "'" + strings.ReplaceAll(plain, "'", "''") + "'"
}

// Endpoint is one end of an allowed connection: an attribute of endpoints in the VCN, a
// block of addresses, every endpoint of the VCN, or Oracle's own services.
type Endpoint struct {
	Attribute *Attribute
	CIDR      netip.Prefix
	All       bool
	OSN       string // the token of the Oracle Services Network, as the edition writes it
}

const allEndpoints = "all-endpoints"

// OSN tokens by edition of the documentation.
const (
	osnAddresses = "osn-services-ip-addresses"
	osnEndpoints = "osn-services-ip-endpoints"
)

func (e Endpoint) String() string {
	switch {
	case e.Attribute != nil:
		return e.Attribute.String() + " endpoints"
	case e.All:
		return allEndpoints
	case e.OSN != "":
		return e.OSN
	default:
		return "'" + e.CIDR.String() + "'"
	}
}

func parseEndpoint(s string) (Endpoint, error) {
	switch s {
	case allEndpoints:
		return Endpoint{All: true}, nil
	case osnAddresses, osnEndpoints:
		return Endpoint{OSN: s}, nil
	}
	if text, ok := strings.CutSuffix(s, " endpoints"); ok {
		a, err := ParseAttribute(text)
		return Endpoint{Attribute: &a}, err
	}
	prefix, err := netip.ParsePrefix(strings.Trim(s, "'"))
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q is no attribute followed by \"endpoints\", no block of addresses in quotes, and neither %s nor %s", s, allEndpoints, osnAddresses)
	}
	return Endpoint{CIDR: prefix}, nil
}

// Statement is one ZPR policy statement.
type Statement struct {
	VCN      Attribute
	From, To Endpoint
	Protocol string // tcp/443 or so; empty allows every protocol and port
}

func (s Statement) String() string {
	text := fmt.Sprintf("in %s VCN allow %s to connect to %s", s.VCN, s.From, s.To)
	if s.Protocol != "" {
		text += " with protocol='" + s.Protocol + "'"
	}
	return text
}

var protocolPattern = regexp.MustCompile(`^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?$`)

// ParseStatement reads what String writes.
func ParseStatement(text string) (s Statement, err error) {
	rest, ok := strings.CutPrefix(text, "in ")
	vcn, rest, ok2 := strings.Cut(rest, " VCN allow ")
	from, rest, ok3 := strings.Cut(rest, " to connect to ")
	if !ok || !ok2 || !ok3 {
		return s, fmt.Errorf("statement %q is not: in ATTRIBUTE VCN allow ENDPOINT to connect to ENDPOINT", text)
	}
	to, protocol, limited := strings.Cut(rest, " with protocol=")
	if limited {
		s.Protocol = strings.Trim(protocol, "'")
		if !protocolPattern.MatchString(s.Protocol) {
			return s, fmt.Errorf("statement %q: protocol %s is not like 'tcp/443'", text, protocol)
		}
	}
	var errs [3]error
	s.VCN, errs[0] = ParseAttribute(vcn)
	s.From, errs[1] = parseEndpoint(from)
	s.To, errs[2] = parseEndpoint(to)
	return s, errors.Join(errs[:]...)
}
