package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// CloudEvents types.
const (
	// Configuration, published by pipelines.
	ConfigCreated = "io.certloop.config.created.v1"
	ConfigUpdated = "io.certloop.config.updated.v1"
	ConfigDeleted = "io.certloop.config.deleted.v1"
	IssuerCreated = "io.certloop.issuer.created.v1"
	IssuerUpdated = "io.certloop.issuer.updated.v1"
	IssuerDeleted = "io.certloop.issuer.deleted.v1"

	// Changes of our custom resources, from an ApiServerSource in Resource mode.
	ResourceAdd    = "dev.knative.apiserver.resource.add"
	ResourceUpdate = "dev.knative.apiserver.resource.update"
	ResourceDelete = "dev.knative.apiserver.resource.delete"
	// Changes of Secrets, from an ApiServerSource in Reference mode.
	RefAdd    = "dev.knative.apiserver.ref.add"
	RefUpdate = "dev.knative.apiserver.ref.update"
	RefDelete = "dev.knative.apiserver.ref.delete"
	// Ticks of a PingSource.
	Ping = "dev.knative.sources.ping"

	// Work that certloop gives to itself.
	EnrollmentRequested = "io.certloop.enrollment.requested.v1"
	RenewalRequested    = "io.certloop.renewal.requested.v1"
	RecreationRequested = "io.certloop.recreation.requested.v1"
	RevocationRequested = "io.certloop.revocation.requested.v1"
	IssuerProbe         = "io.certloop.issuer.probe.v1"
	IssuerRelease       = "io.certloop.issuer.release.v1"
	IssuerCheck         = "io.certloop.issuer.check.v1"
	InputChanged        = "io.certloop.input.changed.v1"
	SweepContinued      = "io.certloop.sweep.continued.v1"

	// Facts.
	ConfigRejected      = "io.certloop.config.rejected.v1"
	ConfigApplied       = "io.certloop.config.applied.v1"
	IssuerReady         = "io.certloop.issuer.ready.v1"
	IssuerFailed        = "io.certloop.issuer.failed.v1"
	IssuerUnavailable   = "io.certloop.issuer.unavailable.v1"
	IssuerAvailable     = "io.certloop.issuer.available.v1"
	CertificateIssued   = "io.certloop.certificate.issued.v1"
	CertificateRenewed  = "io.certloop.certificate.renewed.v1"
	CertificateRestored = "io.certloop.certificate.restored.v1"
	CertificateWaiting  = "io.certloop.certificate.waiting.v1"
	CertificateFailed   = "io.certloop.certificate.failed.v1"
	CertificateParked   = "io.certloop.certificate.parked.v1"
	CertificateExpiring = "io.certloop.certificate.expiring.v1"
	CertificateExpired  = "io.certloop.certificate.expired.v1"
	CertificateAdopted  = "io.certloop.certificate.adopted.v1"
	CertificateReady    = "io.certloop.certificate.ready.v1"
	CertificateRevoked  = "io.certloop.certificate.revoked.v1"
	CertificateEnded    = "io.certloop.certificate.ended.v1"
	SecretContended     = "io.certloop.secret.contended.v1"
	SecretModified      = "io.certloop.secret.modified.v1"
	SecretDeleted       = "io.certloop.secret.deleted.v1"
	ScanCompleted       = "io.certloop.scan.completed.v1"
	ScanHeld            = "io.certloop.scan.held.v1"
	IssuanceMaybeOrphan = "io.certloop.issuance.orphaned.v1"
)

// CloudEvents extension attributes.
const (
	CorrelationID = "correlationid" // constant from a request to its certificate
	CausationID   = "causationid"   // id of the event that led to this one
	TraceParent   = "traceparent"   // W3C trace context of the origin
	NotBefore     = "notbefore"     // RFC 3339 time before which the event is not delivered
)

// MaxEventBytes bounds an event, attributes and data together.
const MaxEventBytes = 64 << 10

// Kind is one row of the table of events.
type Kind struct {
	Type      string
	Consumers []Verb // the functions that act on it
	Fact      bool   // kept as history in EventsStream
	Doc       string // one sentence for people
}

// Kinds is the table of events: what exists, who acts on it, what is kept.
// The order is that of docs/events.md.
func Kinds() []Kind {
	return []Kind{
		{ConfigCreated, []Verb{Enroll}, true, "A certificate configuration was declared. Data: a CMPCertificate."},
		{ConfigUpdated, []Verb{Enroll}, true, "A certificate configuration changed. Data: a CMPCertificate."},
		{ConfigDeleted, []Verb{Enroll}, true, "A certificate configuration was withdrawn; the output Secret stays. No data."},
		{IssuerCreated, []Verb{Enroll}, true, "An issuer was declared. Data: a CMPIssuer, or a CMPClusterIssuer when the subject is /name."},
		{IssuerUpdated, []Verb{Enroll}, true, "An issuer changed. Data likewise."},
		{IssuerDeleted, []Verb{Enroll}, true, "An issuer was withdrawn. No data."},
		{ResourceAdd, []Verb{Enroll}, false, "A CMPIssuer or CMPCertificate appeared (ApiServerSource, Resource mode)."},
		{ResourceUpdate, []Verb{Enroll}, false, "A CMPIssuer or CMPCertificate changed."},
		{ResourceDelete, []Verb{Enroll}, false, "A CMPIssuer or CMPCertificate is gone."},
		{RefAdd, []Verb{Watch}, false, "A Secret appeared (ApiServerSource, Reference mode)."},
		{RefUpdate, []Verb{Watch}, false, "A Secret changed."},
		{RefDelete, []Verb{Watch}, false, "A Secret is gone."},
		{Ping, []Verb{Scan, Watch}, false, "A PingSource ticked."},
		{EnrollmentRequested, []Verb{Enroll}, false, "Look at this certificate again: a poll, a retry or a lease is due, or what it waited for has come."},
		{RenewalRequested, []Verb{Renew}, true, "Renew this certificate now, or go on with its renewal."},
		{RecreationRequested, []Verb{Enroll}, true, "Obtain a new certificate by an initial request, whatever there is; an attempt that was parked begins again."},
		{InputChanged, []Verb{Enroll}, true, "A Secret that an issuer names has changed, appeared or gone."},
		{IssuerProbe, []Verb{Enroll}, false, "An issuer did not answer: let one certificate try it. No data."},
		{IssuerRelease, []Verb{Enroll}, false, "An issuer answers again: let go the next certificates that wait for it, nearest expiry first. Data: who was let go last."},
		{IssuerCheck, []Verb{Enroll}, false, "A sweep found an issuer that was not looked at since it changed, or that nobody seems to use any more: look at it. No data."},
		{ConfigApplied, nil, true, "A configuration was applied; the data say what the change leads to, before it happens."},
		{ConfigRejected, nil, true, "A configuration was refused; the data say why."},
		{IssuerReady, nil, true, "An issuer can be used."},
		{IssuerFailed, nil, true, "An issuer cannot be used; the data say why."},
		{IssuerUnavailable, nil, true, "An issuer stopped answering; only probes ask it now."},
		{IssuerAvailable, nil, true, "An issuer answers again."},
		{CertificateIssued, nil, true, "A first certificate was issued and delivered."},
		{CertificateRenewed, nil, true, "A new certificate replaced the former one."},
		{CertificateReady, nil, true, "A configuration was declared or changed, and the certificate in use fits it and is delivered: nothing had to be issued."},
		{CertificateRestored, nil, true, "The output Secret was put back from the record, without the CA."},
		{CertificateWaiting, nil, true, "The CA is making us wait, or something this certificate needs does not exist yet."},
		{CertificateFailed, nil, true, "An attempt failed; the next one is scheduled."},
		{CertificateParked, nil, true, "The CA refused for a reason that repeating does not cure; a change or an event resumes."},
		{RevocationRequested, []Verb{Renew}, true, "Revoke the certificate in use, tell why, and obtain another."},
		{CertificateExpiring, []Verb{Renew}, true, "The certificate is due for renewal."},
		{CertificateExpired, []Verb{Renew}, true, "The certificate's validity has ended."},
		{CertificateRevoked, nil, true, "The CA revoked a certificate at our request."},
		{CertificateEnded, nil, true, "A configuration was withdrawn and its deletionPolicy carried out; nothing follows."},
		{SecretModified, []Verb{Enroll}, true, "The output Secret no longer holds what was delivered."},
		{SecretDeleted, []Verb{Enroll}, true, "The output Secret is gone."},
		{SweepContinued, []Verb{Watch}, false, "A sweep goes on with its next page."},
		{ScanHeld, nil, true, "More certificates are due at once than is believable; the rest wait for the next scans."},
		{CertificateAdopted, nil, true, "What was found in the output Secret is tracked from now on; the data say how it differs from the configuration."},
		{SecretContended, nil, true, "Somebody else keeps rewriting the output Secret; certloop leaves it to them until it is quiet or a person decides."},
		{ScanCompleted, nil, true, "A scan has looked at everything it should; the data name the namespaces that it may not read."},
		{IssuanceMaybeOrphan, nil, true, "A request was interrupted, then sent or begun anew: the CA may have issued a certificate nobody has."},
	}
}

// KindOf finds the row of a type.
func KindOf(eventType string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Type == eventType {
			return k, true
		}
	}
	return Kind{}, false
}

// KindsFor are the rows that a function acts on.
func KindsFor(v Verb) []Kind {
	return slices.DeleteFunc(Kinds(), func(k Kind) bool { return !slices.Contains(k.Consumers, v) })
}

// NewEvent makes an event about an object. data is encoded as JSON; nil means none.
// The id is a UUIDv7; give a fact that may be told twice a [DerivedID] instead.
func NewEvent(eventType string, key types.NamespacedName, data any) event.Event {
	e := event.New()
	e.SetID(uuid.Must(uuid.NewV7()).String())
	e.SetType(eventType)
	if key.Name != "" {
		e.SetSubject(key.String())
	}
	if data != nil {
		// Payload types hold strings, numbers and times only: encoding them cannot fail.
		if err := e.SetData(event.ApplicationJSON, data); err != nil {
			panic(fmt.Sprintf("model: payload %T cannot be encoded: %v", data, err))
		}
	}
	return e
}

// Follow makes out a consequence of in: same correlation, in as its cause, same trace.
func Follow(in, out event.Event) event.Event {
	out.SetExtension(CorrelationID, Correlation(in))
	out.SetExtension(CausationID, in.ID())
	if trace, ok := in.Extensions()[TraceParent].(string); ok {
		out.SetExtension(TraceParent, trace)
	}
	return out
}

// Correlation identifies what an event belongs to, from a request to its certificate:
// the correlationid it bears, or its own id when it is the first.
func Correlation(e event.Event) string {
	if id, ok := e.Extensions()[CorrelationID].(string); ok {
		return id
	}
	return e.ID()
}

// Delay asks that e is not delivered before t.
func Delay(e event.Event, t time.Time) event.Event {
	e.SetExtension(NotBefore, t.UTC().Format(time.RFC3339Nano))
	return e
}

// DueTime is when a delayed event is to be delivered; the zero time means at once.
func DueTime(e event.Event) (time.Time, error) {
	v, ok := e.Extensions()[NotBefore]
	if !ok {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, fmt.Sprint(v))
	if err != nil {
		return time.Time{}, fmt.Errorf("extension %s: %w", NotBefore, err)
	}
	return t, nil
}

// derivedSpace is the UUID namespace of derived event ids.
var derivedSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://certloop.io/events"))

// DerivedID is an event id that is the same whenever the same thing is told,
// so that telling it twice is told once (UUIDv5 over the parts).
func DerivedID(parts ...string) string {
	return uuid.NewSHA1(derivedSpace, []byte(strings.Join(parts, "\x00"))).String()
}

// ObjectOf is the object an event is about: the subject namespace/name of our own
// events, /name when it is a CMPClusterIssuer, the extensions namespace and name of an
// ApiServerSource. A tick is about no object: the zero key.
func ObjectOf(e event.Event) (types.NamespacedName, error) {
	switch {
	case e.Type() == Ping, e.Type() == ScanCompleted, e.Type() == ScanHeld, e.Type() == SweepContinued:
		return types.NamespacedName{}, nil
	case strings.HasPrefix(e.Type(), "dev.knative.apiserver."):
		ns, _ := e.Extensions()["namespace"].(string)
		name, _ := e.Extensions()["name"].(string)
		if e.Extensions()["kind"] == ClusterIssuerKind && name != "" {
			return types.NamespacedName{Name: name}, nil
		}
		if ns == "" || name == "" {
			return types.NamespacedName{}, errors.New("extensions namespace and name are required in an event of an ApiServerSource")
		}
		return types.NamespacedName{Namespace: ns, Name: name}, nil
	case strings.HasPrefix(e.Type(), "io.certloop.issuer."), e.Type() == InputChanged, e.Type() == ConfigRejected, e.Type() == ConfigApplied:
		return ParseIssuerKey(e.Subject())
	default:
		return ParseKey(e.Subject())
	}
}

// ObjectReference is the data of an ApiServerSource event in Reference mode.
type ObjectReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// Work is the data of enrollment.requested, renewal.requested and recreation.requested.
type Work struct {
	// Reason says why: poll, retry, lease, dependency, manual, probe, release, applied, end, status.
	Reason string `json:"reason,omitempty"`
	// Seen is the resourceVersion of the record at the time of asking. If it is still
	// the same one lease later nothing happened since: the holder of the lease is gone.
	Seen string `json:"seen,omitempty"`
}

// Reasons of Work.
const (
	WorkPoll       = "poll"
	WorkRetry      = "retry"
	WorkLease      = "lease"
	WorkDependency = "dependency"
	WorkManual     = "manual"
	WorkProbe      = "probe"   // try the CA although its circuit is open
	WorkRelease    = "release" // the CA answers again
	WorkApplied    = "applied" // the change of the configuration was told, its effect may happen
	WorkEnd        = "end"     // the end of the certificate was told, its configuration may go
	WorkStatus     = "status"  // somebody wants to be told how it stands
)

// CertificateFact is the data of certificate.issued, .renewed, .ready, .restored, .adopted, .expiring and .expired.
type CertificateFact struct {
	Serial      string      `json:"serial"`      // hex
	Fingerprint string      `json:"fingerprint"` // SHA-256 of the certificate, hex
	Subject     string      `json:"subject,omitempty"`
	Issuer      string      `json:"issuer,omitempty"`
	NotBefore   metav1.Time `json:"notBefore"`
	NotAfter    metav1.Time `json:"notAfter"`
	RenewalTime metav1.Time `json:"renewalTime"`
	Revision    int64       `json:"revision"`
	SecretName  string      `json:"secretName"`
	Differences []string    `json:"differences,omitempty"` // what the CA granted otherwise than asked
	Generation  int64       `json:"generation,omitempty"`  // of the configuration that it fits
}

// AttemptFact is the data of certificate.waiting, .failed and .parked.
type AttemptFact struct {
	Reason        string       `json:"reason"`
	Message       string       `json:"message"`
	Attempt       int64        `json:"attempt,omitempty"`
	TransactionID string       `json:"transactionID,omitempty"` // hex
	NextAttempt   *metav1.Time `json:"nextAttempt,omitempty"`
	Generation    int64        `json:"generation,omitempty"` // of the configuration
}

// SecretFact is the data of secret.modified and secret.deleted.
type SecretFact struct {
	SecretName string `json:"secretName"`
	Cause      string `json:"cause"` // what is wrong with it, in words
}

// RejectedFact is the data of config.rejected.
type RejectedFact struct {
	Reason  string   `json:"reason"`
	Message string   `json:"message"`
	Fields  []string `json:"fields,omitempty"`
}

// OrphanFact is the data of issuance.orphaned.
type OrphanFact struct {
	TransactionID string `json:"transactionID"` // hex, of the abandoned transaction
	Reason        string `json:"reason"`
}

// Effects of a changed configuration.
const (
	EffectReissue     = "reissue"     // a new certificate is obtained now
	EffectNextRenewal = "nextRenewal" // the next renewal follows it
	EffectOutput      = "output"      // the output is written again, without the CA
	EffectNone        = "none"
)

// ChangeFact is the data of config.applied.
type ChangeFact struct {
	Generation int64    `json:"generation"`
	Effect     string   `json:"effect"`
	Fields     []string `json:"fields,omitempty"` // paths that changed and matter
}

// IssuerFact is the data of issuer.ready, .failed, .unavailable and .available.
type IssuerFact struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Waiting int    `json:"waiting,omitempty"` // certificates that wait for it
	// Generation of the configuration of the issuer.
	Generation int64 `json:"generation,omitempty"`
}

// InputFact is the data of input.changed.
type InputFact struct {
	SecretName      string `json:"secretName"`
	ResourceVersion string `json:"resourceVersion,omitempty"` // absent when the Secret is gone
	IssuerKind      string `json:"issuerKind"`
}

// ReleaseWork is the data of issuer.release.
type ReleaseWork struct {
	// After is the certificate that was let go last, by its place in the order; absent for the first ones.
	After *Waiting `json:"after,omitempty"`
}

// Waiting is a certificate that waits for its CA, and its place in the order in which they are
// let go: nearest expiry first, those that never had a certificate last, the oldest first.
type Waiting struct {
	NotAfter  *metav1.Time `json:"notAfter,omitempty"`
	Created   metav1.Time  `json:"created"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
}

// RevocationFact is the data of certificate.revoked and of revocation.requested.
type RevocationFact struct {
	Serial string `json:"serial,omitempty"` // hex
	Reason string `json:"reason,omitempty"` // a CRLReason by its name in RFC 5280 §5.3.1
}

// EndFact is the data of certificate.ended.
type EndFact struct {
	DeletionPolicy string   `json:"deletionPolicy"`
	Deleted        []string `json:"deleted,omitempty"` // names of Secrets
}

// SweepWork is the data of sweep.continued: where a sweep is, and what it has found so far. Without
// data a sweep begins.
type SweepWork struct {
	Sweep     string   `json:"sweep,omitempty"`     // id of the event that began it
	Namespace int      `json:"namespace,omitempty"` // how many namespaces are done
	Continue  string   `json:"continue,omitempty"`  // token of the API server for the next page
	Found     ScanFact `json:"found,omitzero"`
	Due       int      `json:"due,omitempty"`
	Told      int      `json:"told,omitempty"`
}

// HeldFact is the data of scan.held.
type HeldFact struct {
	Due  int `json:"due"`  // found due at once
	Told int `json:"told"` // asked to be renewed now
}

// ScanFact is the data of scan.completed.
type ScanFact struct {
	Looked   int     `json:"looked"`   // certificates the API server returned
	Expiring int     `json:"expiring"` // renewals asked for
	Expired  int     `json:"expired"`
	Pending  int     `json:"pending"` // enrollments asked for
	Drifted  int     `json:"drifted"` // outputs that did not hold what was delivered
	Seconds  float64 `json:"seconds"`
	// Unread are the namespaces that the API server does not let certloop read, the first 20 of them.
	Unread []string `json:"unread,omitempty"`
}

// DecodeData reads the JSON data of an event strictly: unknown fields, trailing
// data and absent data are errors, in words for the event's sender.
func DecodeData(e event.Event, into any) error {
	if len(e.Data()) == 0 {
		return errors.New("data: is required")
	}
	d := json.NewDecoder(bytes.NewReader(e.Data()))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data: more than one JSON value")
	}
	return nil
}
