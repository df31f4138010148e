package model

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
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
	return checkConfig(e, CertificateKind, &c, &c.TypeMeta, &c.ObjectMeta, func() field.ErrorList { return c.Spec.Validate() })
}

// CheckIssuerEvent refuses an issuer.created or issuer.updated event likewise. Its data are
// a CMPIssuer or, when its subject is /name, a CMPClusterIssuer.
func CheckIssuerEvent(e event.Event) error {
	var i CMPIssuer
	kind := IssuerKind
	if strings.HasPrefix(e.Subject(), "/") {
		kind = ClusterIssuerKind
	}
	return checkConfig(e, kind, &i, &i.TypeMeta, &i.ObjectMeta, func() field.ErrorList { return i.Spec.Validate() })
}

// CheckSubject refuses an event that does not name its object.
func CheckSubject(e event.Event) error {
	if _, err := ObjectOf(e); err != nil {
		return &InvalidError{Kind: e.Type(), Fields: []string{err.Error()}}
	}
	return nil
}

func checkConfig(e event.Event, kind string, into any, t *metav1.TypeMeta, m *metav1.ObjectMeta, spec func() field.ErrorList) error {
	if err := DecodeData(e, into); err != nil {
		return &InvalidError{Kind: kind, Fields: []string{err.Error()}}
	}
	errs := slices.Concat(checkType(kind, t), checkMeta(field.NewPath("metadata"), e, kind, m), spec())
	if len(errs) == 0 {
		return nil
	}
	invalid := &InvalidError{Kind: kind}
	for _, e := range errs {
		invalid.Fields = append(invalid.Fields, e.Error())
	}
	return invalid
}

func checkType(kind string, t *metav1.TypeMeta) (errs field.ErrorList) {
	if t.Kind != "" && t.Kind != kind {
		errs = append(errs, invalid(field.NewPath("kind"), t.Kind, "must be "+kind)...)
	}
	if t.APIVersion != "" && t.APIVersion != GroupVersion.String() {
		errs = append(errs, invalid(field.NewPath("apiVersion"), t.APIVersion, "must be "+GroupVersion.String())...)
	}
	return errs
}

func checkMeta(at *field.Path, e event.Event, kind string, m *metav1.ObjectMeta) (errs field.ErrorList) {
	name, namespace := at.Child("name"), at.Child("namespace")
	key, err := ObjectOf(e)
	if err != nil {
		return invalid(name, e.Subject(), err.Error())
	}
	if m.Name != "" && m.Name != key.Name {
		errs = append(errs, invalid(name, m.Name, "must equal the subject's "+key.Name)...)
	}
	if m.Namespace != "" && m.Namespace != key.Namespace {
		errs = append(errs, invalid(namespace, m.Namespace, "must equal the subject's "+key.Namespace)...)
	}
	errs = append(errs, invalid(name, key.Name, validation.IsDNS1123Subdomain(key.Name)...)...)
	if kind == CertificateKind && len(RecordName(key.Name)) > maxName {
		errs = append(errs, invalid(name, key.Name, "must be at most 237 characters, so that the record Secret can be named after it")...)
	}
	if key.Namespace == "" { // of a CMPClusterIssuer
		return errs
	}
	return append(errs, invalid(namespace, key.Namespace, validation.IsDNS1123Label(key.Namespace)...)...)
}

// invalid is the same value with each of these remedies.
func invalid(at *field.Path, value any, remedies ...string) (errs field.ErrorList) {
	switch value.(type) {
	case int, int32:
	default:
		value = clip(fmt.Sprint(value), 100)
	}
	for _, remedy := range remedies {
		errs = append(errs, field.Invalid(at, value, remedy))
	}
	return errs
}

// together are fields of which only one may be set.
func together(at *field.Path, names ...string) (errs field.ErrorList) {
	for _, name := range names {
		errs = append(errs, field.Forbidden(at.Child(name), "set only one of "+strings.Join(names, ", ")))
	}
	return errs
}

// absent are fields of which one has to be set.
func absent(at *field.Path, names ...string) field.ErrorList {
	return field.ErrorList{field.Required(at, "set one of "+strings.Join(names, ", "))}
}

// What several specifications have in common. Each rule stands in the CRDs as well, so
// that both doors refuse the same.

// maxName is the most characters of the name of an object, and of a data key.
const maxName = validation.DNS1123SubdomainMaxLength

func secretName(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at.Child("secretName"), "name a Secret")}
	}
	return optionalSecretName(at, name)
}

func optionalSecretName(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return nil
	}
	at = at.Child("secretName")
	errs := invalid(at, name, validation.IsDNS1123Subdomain(name)...)
	if strings.HasSuffix(name, recordSuffix) {
		errs = append(errs, invalid(at, name, "must not be a record of certloop")...)
	}
	return errs
}

// dataKeys checks pairs of a field and the data key that stands there; "" is none.
func dataKeys(at *field.Path, pairs ...string) (errs field.ErrorList) {
	for pair := range slices.Chunk(pairs, 2) {
		name, key := pair[0], pair[1]
		if key != "" && !dataKeyPattern.MatchString(key) || len(key) > maxName {
			errs = append(errs, invalid(at.Child(name), key, "must be a key in the data of a Secret: letters, digits, '-', '_' and '.'")...)
		}
	}
	return errs
}

var dataKeyPattern = patternOf(`^[-._a-zA-Z0-9]+$`)

var dnPattern = patternOf(`^(/|/[A-Za-z0-9.]+=.*| *[A-Za-z0-9.-]+ *=.*)$`)

// checkDN looks at the form of a distinguished name only.
func checkDN(at *field.Path, dn string) field.ErrorList {
	if dn == "" || utf8.RuneCountInString(dn) <= 1024 && dnPattern.MatchString(dn) {
		return nil
	}
	return invalid(at, dn, "must be a distinguished name of at most 1024 characters, /type=value/… or RFC 4514, for example /O=Example/CN=ca")
}

// oneOf accepts the values allowed, and none.
func oneOf[T ~string](at *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" || slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, T(clip(string(value), 100)), allowed)}
}

// within accepts numbers between two others, and zero for none.
func within(at *field.Path, value, least, most int32) field.ErrorList {
	if value == 0 || value >= least && value <= most {
		return nil
	}
	return invalid(at, value, fmt.Sprintf("must be at least %d and at most %d", least, most))
}

func positive(at *field.Path, d *metav1.Duration) field.ErrorList {
	if d != nil && d.Duration <= 0 {
		return invalid(at, d.Duration, "must be positive")
	}
	return nil
}
