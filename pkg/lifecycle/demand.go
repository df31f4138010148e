package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// Kinds of a demand.
const (
	renewal    = "renew"    // a key update now, due or not
	recreation = "recreate" // an initial request now, whatever there is
)

// demand is what a person asks for and no rule would: by an annotation, or by an event. It
// is carried out once: the certificate that was issued for it bears its id. Until then it stays:
// an annotation by itself, an event in the record, in Attempt.Insisted.
type demand struct {
	kind    string // renewal or recreation; empty when nothing is demanded
	id      string
	fresh   bool // the record does not know it: it ends a wait
	noted   bool // an annotation, which needs no remembering
	pressed bool // a person wants another attempt, and no more than that
}

func (d demand) String() string { return d.kind + " " + d.id }

// demandOf finds the first demand that was not carried out: one the record does not know,
// or else the one it does.
func demandOf(cert *model.CMPCertificate, rec *ledger.Record, in event.Event, work model.Work) demand {
	known := rec.Attempt.Insisted
	for _, d := range append(annotated(cert), told(in, work)) {
		if d.kind == "" || d.doneIn(rec) || d.String() == known {
			continue
		}
		d.fresh = true
		return d
	}
	if kind, id, ok := strings.Cut(known, " "); ok {
		return demand{kind: kind, id: id}
	}
	return demand{pressed: in.Type() == model.EnrollmentRequested && work.Reason == model.WorkManual}
}

// doneIn: the certificate in use was issued for it.
func (d demand) doneIn(rec *ledger.Record) bool {
	return rec.Current != nil && rec.Current.Cause == d.id
}

// annotated are the demands by annotation that the status does not know as carried out.
func annotated(cert *model.CMPCertificate) (out []demand) {
	for _, at := range annotations(cert) {
		if v := at.value(cert); v != "" && v != *at.done {
			out = append(out, demand{kind: at.kind, id: annotationID(cert, at.kind, v), noted: true})
		}
	}
	return out
}

// annotation is one by which people demand something, and where the status says what of it was done.
type annotation struct {
	kind, name string
	done       *string
}

func annotations(cert *model.CMPCertificate) []annotation {
	return []annotation{
		{recreation, model.RecreateAnnotation, &cert.Status.RecreateRequest},
		{renewal, model.RenewAnnotation, &cert.Status.RenewRequest},
	}
}

// maxValueBytes bounds what the status repeats of an annotation.
const maxValueBytes = 253

// value is that of the annotation as the status holds it: a digest where it is long.
func (at annotation) value(cert *model.CMPCertificate) string {
	v := cert.Annotations[at.name]
	if len(v) <= maxValueBytes {
		return v
	}
	sum := sha256.Sum256([]byte(v))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func annotationID(cert *model.CMPCertificate, kind, value string) string {
	return model.DerivedID(kind, string(cert.UID), value)
}

// told is the demand that an event makes, the same one each time it is delivered.
func told(in event.Event, work model.Work) demand {
	id := model.Correlation(in)
	switch {
	case in.Type() == model.RecreationRequested:
		return demand{kind: recreation, id: id}
	case in.Type() == model.RenewalRequested && work.Reason == model.WorkManual:
		return demand{kind: renewal, id: id}
	default:
		return demand{}
	}
}

// carriedOut writes into the status which annotations the certificate in use was issued for.
func carriedOut(cert *model.CMPCertificate, rec *ledger.Record) {
	for _, at := range annotations(cert) {
		if v := at.value(cert); v != "" && (demand{id: annotationID(cert, at.kind, v)}).doneIn(rec) {
			*at.done = v
		}
	}
}
