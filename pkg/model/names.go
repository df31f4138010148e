package model

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// GroupVersion is the API group and version of the custom resources.
var GroupVersion = schema.GroupVersion{Group: "certloop.io", Version: "v1alpha1"}

// Kinds and plural resource names of the custom resources.
const (
	CertificateKind       = "CMPCertificate"
	CertificateResource   = "cmpcertificates"
	IssuerKind            = "CMPIssuer"
	IssuerResource        = "cmpissuers"
	ClusterIssuerKind     = "CMPClusterIssuer"
	ClusterIssuerResource = "cmpclusterissuers"
)

// Labels and annotations on the Secrets that certloop writes.
const (
	ManagedByLabel        = "certloop.io/managed-by"  // always ManagedBy
	CertificateLabel      = "certloop.io/certificate" // name of the CMPCertificate, shortened to a label value
	RoleLabel             = "certloop.io/role"        // RoleRecord or RoleOutput
	FingerprintAnnotation = "certloop.io/fingerprint" // SHA-256 over the projected data, hex
	NotAfterAnnotation    = "certloop.io/not-after"   // RFC 3339, UTC
	SerialAnnotation      = "certloop.io/serial"      // certificate serial number, hex
	RevisionAnnotation    = "certloop.io/revision"    // counts the certificates issued for a configuration

	CertificateAnnotation = "certloop.io/certificate-name" // name of the CMPCertificate in full
	UIDAnnotation         = "certloop.io/certificate-uid"  // its UID: a Secret belongs to one life of a configuration
	DataKeysAnnotation    = "certloop.io/data-keys"        // the data keys that certloop writes, sorted, with commas
	MarksAnnotation       = "certloop.io/marks"            // SHA-256 over all these labels and the other annotations, hex

	ManagedBy  = "certloop"
	RoleRecord = "record"
	RoleOutput = "output"
	// RoleInput is for people to set on Secrets that issuers name, so that a change of them is told at once; a
	// sweep finds it otherwise.
	RoleInput = "input"

	NetworkFunctionLabel = "certloop.io/network-function" // spec.networkFunction
	PurposeLabel         = "certloop.io/purpose"          // spec.purpose
)

// Annotations by which people ask for something on a CMPCertificate. Any value asks once;
// another value asks again.
const (
	RenewAnnotation    = "certloop.io/renew"    // a key update now
	RecreateAnnotation = "certloop.io/recreate" // a new certificate by an initial request, and new attempts where one was parked
)

// Field managers of server-side apply.
const (
	EventFieldManager  = "certloop-events" // owns the spec of objects that arrived as events
	StatusFieldManager = "certloop"        // owns status
)

// Verb names a function as the consumer of a work subject.
type Verb string

// The four functions.
const (
	Enroll Verb = "enroll"
	Renew  Verb = "renew"
	Watch  Verb = "watch"
	Scan   Verb = "scan"
)

// Streams of NATS JetStream and the subjects each one captures.
const (
	WorkStream   = "CERTLOOP_WORK"
	EventsStream = "CERTLOOP_EVENTS"
	DeadStream   = "CERTLOOP_DEAD"

	WorkSubjects     = "certloop.work.>"
	ScheduleSubjects = "certloop.sched.>"
	FactSubjects     = "certloop.evt.>"
	DeadSubjects     = "certloop.dead.>"
)

// noToken stands in a subject where an event concerns no object. It cannot be
// a Kubernetes name, because those hold no underscore.
const noToken = "_"

// WorkSubject is where work for one function and one object is published.
func WorkSubject(v Verb, key types.NamespacedName) string {
	return "certloop.work." + string(v) + "." + tokens(key)
}

// ScheduleSubject is where work that is due later waits. There is one schedule
// for each function and object: publishing again moves the alarm.
func ScheduleSubject(v Verb, key types.NamespacedName) string {
	return "certloop.sched." + string(v) + "." + tokens(key)
}

// AlarmSubject is ScheduleSubject for one type of event. What is due later for an issuer has an alarm for
// each type, beside that of a certificate that happens to have the issuer's name.
func AlarmSubject(v Verb, eventType string, key types.NamespacedName) string {
	subject := ScheduleSubject(v, key)
	if word, ok := strings.CutPrefix(eventType, "io.certloop.issuer."); ok {
		subject += "." + strings.TrimSuffix(word, ".v1")
	}
	return subject
}

// DeadSubject is where a message that will never be handled is kept with its reason.
func DeadSubject(v Verb, key types.NamespacedName) string {
	return "certloop.dead." + string(v) + "." + tokens(key)
}

// FactSubject is where the history keeps an event, by the noun and the verb of
// its type: io.certloop.certificate.issued.v1 of core/amf is kept at
// certloop.evt.certificate.issued.core.amf.
func FactSubject(eventType string, key types.NamespacedName) string {
	words := strings.TrimSuffix(strings.TrimPrefix(eventType, "io.certloop."), ".v1")
	return "certloop.evt." + words + "." + tokens(key)
}

// FactFilter selects the facts about the objects of a namespace; "" for those about cluster issuers.
func FactFilter(namespace string) string { return "certloop.evt.*.*." + token(namespace) + ".*" }

// ObjectFactFilter selects the facts about one object. A certificate and an issuer of the same name share it.
func ObjectFactFilter(key types.NamespacedName) string { return "certloop.evt.*.*." + tokens(key) }

// DeadFilter selects the dead letters about the objects of a namespace.
func DeadFilter(namespace string) string { return "certloop.dead.*." + token(namespace) + ".*" }

// WorkFilter selects all work of one function.
func WorkFilter(v Verb) string { return "certloop.work." + string(v) + ".>" }

func tokens(key types.NamespacedName) string {
	return token(key.Namespace) + "." + token(key.Name)
}

// token makes a Kubernetes name one NATS token. A dot would split it, so a dot is
// written "_", which is legal in a token and impossible in a Kubernetes name.
func token(name string) string {
	if name == "" {
		return noToken
	}
	return strings.ReplaceAll(name, ".", "_")
}

// ParseKey reads "namespace/name".
func ParseKey(s string) (types.NamespacedName, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, fmt.Errorf("subject %q is not namespace/name", clip(s, 80))
	}
	return types.NamespacedName{Namespace: ns, Name: name}, nil
}

// ParseIssuerKey reads "namespace/name" of a CMPIssuer, or "/name" of a CMPClusterIssuer,
// which is what a key without a namespace prints as.
func ParseIssuerKey(s string) (types.NamespacedName, error) {
	if name, ok := strings.CutPrefix(s, "/"); ok && name != "" && !strings.Contains(name, "/") {
		return types.NamespacedName{Name: name}, nil
	}
	key, err := ParseKey(s)
	if err != nil {
		return key, fmt.Errorf("%w, nor /name of a %s", err, ClusterIssuerKind)
	}
	return key, nil
}

// RecordName is the name of the Secret that holds the record of a certificate.
func RecordName(certificate string) string { return certificate + recordSuffix }

// RecordOf is the certificate whose record a Secret is, by its name; ok is false when it is none.
func RecordOf(secret string) (certificate string, ok bool) {
	return strings.CutSuffix(secret, recordSuffix)
}

const recordSuffix = ".certloop-record"

// LabelValue shortens a name to what a label value may hold (63 characters). It
// is for people who select by label; code never finds an object by it.
func LabelValue(name string) string { return strings.TrimRight(clip(name, 63), "-_.") }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}
