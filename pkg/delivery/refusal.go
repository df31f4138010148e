package delivery

import (
	"errors"
	"strings"

	"github.com/certloop/certloop/pkg/model"
)

// Reason says in one word why an event was dead-lettered.
type Reason string

// Reasons, as they stand in [ReasonHeader] and end the type of a problem document.
const (
	Undecodable  Reason = "undecodable"          // not a CloudEvent
	Unsupported  Reason = "unsupported-encoding" // neither binary nor structured JSON
	TooLarge     Reason = "too-large"            // more than model.MaxEventBytes
	UnknownType  Reason = "unknown-type"         // this function handles no such type
	InvalidEvent Reason = "invalid-event"        // subject, extensions or data are wrong
	Misaddressed Reason = "misaddressed"         // came on the subject of another object
	Exhausted    Reason = "deliveries-exhausted" // the handler failed every delivery allowed
)

// refusal is the error of an event that will never be handled, however often it
// is delivered.
type refusal struct {
	reason Reason
	errs   []error
}

func refuse(reason Reason, errs ...error) *refusal {
	return &refusal{reason: reason, errs: errs}
}

func (r *refusal) Error() string { return strings.Join(r.details(), "; ") }

func (r *refusal) Unwrap() []error { return r.errs }

// details are the single problems, each a sentence for the event's sender.
func (r *refusal) details() []string {
	var texts []string
	for _, err := range r.errs {
		if invalid, ok := errors.AsType[*model.InvalidError](err); ok {
			texts = append(texts, invalid.Fields...)
		} else {
			texts = append(texts, strings.TrimSpace(err.Error()))
		}
	}
	return texts
}
