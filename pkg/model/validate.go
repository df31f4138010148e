package model

import (
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"knative.dev/pkg/apis"
)

// InvalidError says everything that is wrong with a payload, each with its path.
type InvalidError struct {
	Kind   string   // what was judged
	Fields []string // one line for each problem: path and remedy
}

func (e *InvalidError) Error() string {
	return e.Kind + " is invalid: " + strings.Join(e.Fields, "; ")
}

// CheckCertificateEvent refuses a config.created or config.updated event that can
// never be applied: its data are not a CMPCertificate, break a rule, or are about
// another object than its subject says. The error is an [*InvalidError].
func CheckCertificateEvent(e event.Event) error {
	var c CMPCertificate
	return checkConfig(e, CertificateKind, &c, &c.TypeMeta, &c.ObjectMeta, func() *apis.FieldError { return c.Spec.Validate() })
}

// CheckIssuerEvent refuses an issuer.created or issuer.updated event likewise. Its data are
// a CMPIssuer or, when its subject is /name, a CMPClusterIssuer.
func CheckIssuerEvent(e event.Event) error {
	var i CMPIssuer
	kind := IssuerKind
	if strings.HasPrefix(e.Subject(), "/") {
		kind = ClusterIssuerKind
	}
	return checkConfig(e, kind, &i, &i.TypeMeta, &i.ObjectMeta, func() *apis.FieldError { return i.Spec.Validate() })
}

// CheckSubject refuses an event that does not name its object.
func CheckSubject(e event.Event) error {
	if _, err := ObjectOf(e); err != nil {
		return &InvalidError{Kind: e.Type(), Fields: []string{err.Error()}}
	}
	return nil
}

func checkConfig(e event.Event, kind string, into any, t *metav1.TypeMeta, m *metav1.ObjectMeta, spec func() *apis.FieldError) error {
	if err := DecodeData(e, into); err != nil {
		return &InvalidError{Kind: kind, Fields: []string{err.Error()}}
	}
	errs := checkType(kind, t).Also(checkMeta(e, m).ViaField("metadata")).Also(spec().ViaField("spec"))
	if fields := lines(errs); len(fields) > 0 {
		return &InvalidError{Kind: kind, Fields: fields}
	}
	return nil
}

// lines flattens field errors, one line for each path, in a stable order.
func lines(errs *apis.FieldError) []string {
	var out []string
	for _, e := range errs.WrappedErrors() {
		for _, path := range e.Paths {
			line := path + ": " + e.Message
			if e.Details != "" {
				line += ": " + e.Details
			}
			out = append(out, line)
		}
	}
	return out
}

func checkType(kind string, t *metav1.TypeMeta) (errs *apis.FieldError) {
	if t.Kind != "" && t.Kind != kind {
		errs = errs.Also(invalid(t.Kind, "kind", "must be "+kind))
	}
	if t.APIVersion != "" && t.APIVersion != GroupVersion.String() {
		errs = errs.Also(invalid(t.APIVersion, "apiVersion", "must be "+GroupVersion.String()))
	}
	return errs
}

func checkMeta(e event.Event, m *metav1.ObjectMeta) (errs *apis.FieldError) {
	key, err := ObjectOf(e)
	if err != nil {
		return invalid(e.Subject(), "name", err.Error())
	}
	if m.Name != "" && m.Name != key.Name {
		errs = errs.Also(invalid(m.Name, "name", "must equal the subject's "+key.Name))
	}
	if m.Namespace != "" && m.Namespace != key.Namespace {
		errs = errs.Also(invalid(m.Namespace, "namespace", "must equal the subject's "+key.Namespace))
	}
	for _, p := range validation.IsDNS1123Subdomain(key.Name) {
		errs = errs.Also(invalid(key.Name, "name", p))
	}
	if key.Namespace == "" { // of a CMPClusterIssuer
		return errs
	}
	for _, p := range validation.IsDNS1123Label(key.Namespace) {
		errs = errs.Also(invalid(key.Namespace, "namespace", p))
	}
	return errs
}

func invalid(value any, path, remedy string) *apis.FieldError {
	return apis.ErrInvalidValue(clip(fmt.Sprint(value), 100), path, remedy)
}

// Validate reports everything that is wrong with the specification, all at once.
// The API server enforces the same rules; this serves those who publish events.
func (s *CMPIssuerSpec) Validate() (errs *apis.FieldError) {
	errs = errs.Also(checkServer(s.Server))
	if a := s.InitialAuthentication; a != nil && (a.MAC == nil) == (a.Signature == nil) {
		errs = errs.Also(apis.ErrGeneric("expected exactly one", "mac", "signature").ViaField("initialAuthentication"))
	}
	if a := s.InitialAuthentication; a != nil && a.MAC != nil {
		errs = errs.Also(secretName(a.MAC.SecretName).ViaField("mac").ViaField("initialAuthentication"))
	}
	if a := s.InitialAuthentication; a != nil && a.Signature != nil {
		errs = errs.Also(secretName(a.Signature.SecretName).ViaField("signature").ViaField("initialAuthentication"))
	}
	if a := s.Authentication; a != nil {
		errs = errs.Also(secretName(a.SecretName).ViaField("authentication"))
	}
	errs = errs.Also(secretName(s.Trust.SecretName).ViaField("trust"))
	if s.Trust.RootsKey != "" && s.Trust.ServerCertificateKey != "" {
		errs = errs.Also(apis.ErrMultipleOneOf("rootsKey", "serverCertificateKey").ViaField("trust"))
	}
	errs = errs.Also(oneOf(s.Confirmation, "confirmation", "", "explicit", "implicit"))
	errs = errs.Also(oneOf(s.Renewal.SignedBy, "renewal.signedBy", "", "currentCertificate", "cmpIdentity"))
	errs = errs.Also(positive(s.TotalTimeout, "totalTimeout")).Also(positive(s.MessageTimeout, "messageTimeout"))
	return errs
}

func checkServer(server string) *apis.FieldError {
	if server == "" {
		return apis.ErrMissingField("server")
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return invalid("…", "server", "must be an http or https URL without user name, for example http://ca.example.com:8080/pkix/")
	}
	return nil
}

func secretName(name string) *apis.FieldError {
	if name == "" {
		return apis.ErrMissingField("secretName")
	}
	var errs *apis.FieldError
	for _, p := range validation.IsDNS1123Subdomain(name) {
		errs = errs.Also(invalid(name, "secretName", p))
	}
	return errs
}

func oneOf(value, path string, allowed ...string) *apis.FieldError {
	if slices.Contains(allowed, value) {
		return nil
	}
	return invalid(value, path, "must be one of "+strings.Join(allowed[1:], ", "))
}

func positive(d *metav1.Duration, path string) *apis.FieldError {
	if d != nil && d.Duration <= 0 {
		return invalid(d.Duration, path, "must be positive")
	}
	return nil
}

// Validate reports everything that is wrong with the specification, all at once.
func (s *CMPCertificateSpec) Validate() (errs *apis.FieldError) {
	errs = errs.Also(oneOf(s.Type, "type", "", EndEntity, CMPIdentity))
	errs = errs.Also(s.IssuerRef.validate().ViaField("issuerRef"))
	errs = errs.Also(s.PrivateKey.validate().ViaField("privateKey"))
	if s.Subject == nil && s.SubjectAltNames == nil {
		errs = errs.Also(apis.ErrMissingOneOf("subject", "subjectAltNames"))
	}
	errs = errs.Also(s.Subject.validate().ViaField("subject"))
	errs = errs.Also(s.SubjectAltNames.validate().ViaField("subjectAltNames"))
	errs = errs.Also(s.validateUsages())
	errs = errs.Also(s.validateTimes())
	return errs.Also(secretName(s.Output.SecretName).ViaField("output"))
}

func (r IssuerReference) validate() *apis.FieldError {
	if r.Name == "" {
		return apis.ErrMissingField("name")
	}
	return oneOf(r.Kind, "kind", "", IssuerKind, ClusterIssuerKind)
}

func (k PrivateKey) validate() *apis.FieldError {
	sizes := []int{0, 256, 384, 521}
	switch k.Algorithm {
	case "", ECDSA:
	case RSA:
		sizes = []int{0, 2048, 3072, 4096}
	case "SECP256K1", "secp256k1":
		return invalid(k.Algorithm, "algorithm", "secp256k1 is not a curve of TLS or 3GPP TS 33.310: use ECDSA with size 256 (P-256, secp256r1)")
	default:
		return invalid(k.Algorithm, "algorithm", "must be one of ECDSA, RSA")
	}
	if slices.Contains(sizes, k.Size) {
		return nil
	}
	return invalid(strconv.Itoa(k.Size), "size", fmt.Sprintf("must be one of %d, %d, %d", sizes[1], sizes[2], sizes[3]))
}

var countryPattern = regexp.MustCompile(`^[A-Z]{2}$`)

func (s *Subject) validate() (errs *apis.FieldError) {
	if s == nil {
		return nil
	}
	if s.Country != "" && !countryPattern.MatchString(s.Country) {
		errs = errs.Also(invalid(s.Country, "country", "must be two capital letters (ISO 3166)"))
	}
	bounds := []struct {
		path, value string
		max         int
	}{
		// Upper bounds of RFC 5280 Appendix A.1.
		{"stateOrProvince", s.StateOrProvince, 128}, {"locality", s.Locality, 128},
		{"organization", s.Organization, 64}, {"organizationalUnit", s.OrganizationalUnit, 64},
		{"commonName", s.CommonName, 64}, {"serialNumber", s.SerialNumber, 64},
	}
	for _, b := range bounds {
		if len([]rune(b.value)) > b.max {
			errs = errs.Also(invalid(b.value, b.path, fmt.Sprintf("must be at most %d characters", b.max)))
		}
	}
	if *s == (Subject{}) {
		errs = errs.Also(apis.ErrMissingOneOf("commonName", "organization", "country", "serialNumber"))
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
		errs = errs.Also(invalid(len(values), path, fmt.Sprintf("must hold at most %d names", MaxSubjectAltNames)))
		return errs
	}
	for i, v := range values {
		if remedy := check(v); remedy != "" {
			errs = errs.Also(apis.ErrInvalidValue(clip(v, 100), apis.CurrentField, remedy).ViaFieldIndex(path, i))
		}
	}
	return errs
}

func checkDNSName(v string) string {
	name := strings.TrimPrefix(v, "*.")
	if p := validation.IsDNS1123Subdomain(strings.ToLower(name)); len(p) > 0 {
		return "must be a DNS name, a leading *. allowed"
	}
	return ""
}

func checkIP(v string) string {
	if net.ParseIP(v) == nil {
		return "must be an IPv4 or IPv6 address"
	}
	return ""
}

var uuidURN = regexp.MustCompile(`^urn:uuid:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

func checkURI(v string) string {
	u, err := url.Parse(v)
	switch {
	case len(v) > 2048 || err != nil || u.Scheme == "":
		return "must be an absolute URI"
	case strings.HasPrefix(strings.ToLower(v), "urn:uuid:") && !uuidURN.MatchString(v):
		return "must be urn:uuid: followed by a UUID"
	case !isASCII(v):
		return "must be ASCII (RFC 5280 §4.2.1.6)"
	}
	return ""
}

func checkEmail(v string) string {
	if a, err := mail.ParseAddress(v); err != nil || a.Address != v || !isASCII(v) {
		return "must be an address such as operator@example.com"
	}
	return ""
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 126 || r < 33 }) < 0
}

// KeyUsageNames are the usages an end entity may ask for, by their bit in the
// keyUsage extension (RFC 5280 §4.2.1.3).
func KeyUsageNames() map[KeyUsage]int {
	return map[KeyUsage]int{"digitalSignature": 0, "contentCommitment": 1, "keyEncipherment": 2, "dataEncipherment": 3, "keyAgreement": 4}
}

// ExtendedKeyUsageOIDs are the purposes that may be asked for, by their last arc
// under id-kp, 1.3.6.1.5.5.7.3 (RFC 5280 §4.2.1.12).
func ExtendedKeyUsageOIDs() map[ExtendedKeyUsage]int {
	return map[ExtendedKeyUsage]int{"serverAuth": 1, "clientAuth": 2, "codeSigning": 3, "emailProtection": 4, "timeStamping": 8, "OCSPSigning": 9}
}

func (s *CMPCertificateSpec) validateUsages() (errs *apis.FieldError) {
	known := KeyUsageNames()
	for i, u := range s.KeyUsages {
		if _, ok := known[u]; !ok {
			errs = errs.Also(apis.ErrInvalidArrayValue(clip(string(u), 100), "keyUsages", i))
		}
	}
	purposes := ExtendedKeyUsageOIDs()
	for i, u := range s.ExtendedKeyUsages {
		if _, ok := purposes[u]; !ok {
			errs = errs.Also(apis.ErrInvalidArrayValue(clip(string(u), 100), "extendedKeyUsages", i))
		}
	}
	return errs
}

// MinValidity is the shortest lifetime that may be asked for.
const MinValidity = 10 * time.Second

func (s *CMPCertificateSpec) validateTimes() (errs *apis.FieldError) {
	if s.Validity != nil && s.Validity.Duration < MinValidity {
		errs = errs.Also(invalid(s.Validity.Duration, "validity", "must be at least "+MinValidity.String()))
	}
	errs = errs.Also(positive(s.RenewBefore, "renewBefore"))
	if s.Validity != nil && s.RenewBefore != nil && s.RenewBefore.Duration >= s.Validity.Duration {
		errs = errs.Also(invalid(s.RenewBefore.Duration, "renewBefore", "must be shorter than validity"))
	}
	return errs
}
