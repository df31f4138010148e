package model

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

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
	errs := checkType(kind, t).Also(checkMeta(e, kind, m).ViaField("metadata")).Also(spec().ViaField("spec"))
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

func checkMeta(e event.Event, kind string, m *metav1.ObjectMeta) (errs *apis.FieldError) {
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
	if kind == CertificateKind && len(RecordName(key.Name)) > maxName {
		errs = errs.Also(invalid(key.Name, "name", "must be at most 237 characters, so that the record Secret can be named after it"))
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

// What several specifications have in common. Each rule stands in the CRDs as well, so
// that both doors refuse the same.

// maxName is the most characters of the name of an object, and of a data key.
const maxName = validation.DNS1123SubdomainMaxLength

func secretName(name string) *apis.FieldError {
	if name == "" {
		return apis.ErrMissingField("secretName")
	}
	return optionalSecretName(name)
}

func optionalSecretName(name string) (errs *apis.FieldError) {
	if name == "" {
		return nil
	}
	for _, p := range validation.IsDNS1123Subdomain(name) {
		errs = errs.Also(invalid(name, "secretName", p))
	}
	if strings.HasSuffix(name, recordSuffix) {
		errs = errs.Also(invalid(name, "secretName", "must not be a record of certloop"))
	}
	return errs
}

// dataKeys checks pairs of a path and the data key that stands there; "" is none.
func dataKeys(pairs ...string) (errs *apis.FieldError) {
	for pair := range slices.Chunk(pairs, 2) {
		path, key := pair[0], pair[1]
		if key != "" && !dataKeyPattern.MatchString(key) || len(key) > maxName {
			errs = errs.Also(invalid(key, path, "must be a key in the data of a Secret: letters, digits, '-', '_' and '.'"))
		}
	}
	return errs
}

var dataKeyPattern = patternOf(`^[-._a-zA-Z0-9]+$`)

var dnPattern = patternOf(`^(/|/[A-Za-z0-9.]+=.*| *[A-Za-z0-9.-]+ *=.*)$`)

// checkDN looks at the form of a distinguished name only.
func checkDN(dn, path string) *apis.FieldError {
	if dn == "" || utf8.RuneCountInString(dn) <= 1024 && dnPattern.MatchString(dn) {
		return nil
	}
	return invalid(dn, path, "must be a distinguished name of at most 1024 characters, /type=value/… or RFC 4514, for example /O=Example/CN=ca")
}

// oneOf accepts the values allowed, and none.
func oneOf[T ~string](value T, path string, allowed ...T) *apis.FieldError {
	if value == "" || slices.Contains(allowed, value) {
		return nil
	}
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	return invalid(value, path, "must be one of "+strings.Join(words, ", "))
}

// within accepts numbers between two others, and zero for none.
func within(value int32, path string, least, most int32) *apis.FieldError {
	if value == 0 || value >= least && value <= most {
		return nil
	}
	return invalid(value, path, fmt.Sprintf("must be at least %d and at most %d", least, most))
}

func positive(d *metav1.Duration, path string) *apis.FieldError {
	if d != nil && d.Duration <= 0 {
		return invalid(d.Duration, path, "must be positive")
	}
	return nil
}
