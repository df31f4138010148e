package delivery

import (
	"encoding/json"
	"net/http"
)

// Kinds of problem that are answered and never dead-lettered.
const (
	methodNotAllowed Reason = "method-not-allowed"
	notNow           Reason = "not-now"
)

const problemType = "application/problem+json"

// problem is a problem document (RFC 9457 §3.1).
type problem struct {
	Type   string        `json:"type"`
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Detail string        `json:"detail"`
	Errors []problemItem `json:"errors,omitempty"`
}

// problemItem is one of several problems (an extension member, RFC 9457 §3.2).
type problemItem struct {
	Detail string `json:"detail"`
}

func newProblem(kind Reason, detail string) problem {
	status, title := headline(kind)
	return problem{
		Type:   "https://certloop.io/problems/" + string(kind),
		Title:  title,
		Status: status,
		Detail: clip(detail, maxErrorText),
	}
}

// problemOf tells everything that is wrong, under the status of the first refusal.
func problemOf(refused []*refusal) problem {
	p := newProblem(refused[0].reason, refused[0].Error())
	for _, why := range refused {
		for _, text := range why.details() {
			p.Errors = append(p.Errors, problemItem{clip(text, maxErrorText)})
		}
	}
	return p
}

// headline is the status and title of a kind of problem.
func headline(kind Reason) (status int, title string) {
	switch kind {
	case Undecodable:
		return http.StatusBadRequest, "Not a CloudEvent"
	case methodNotAllowed:
		return http.StatusMethodNotAllowed, "Method not allowed"
	case TooLarge:
		return http.StatusRequestEntityTooLarge, "Event too large"
	case Unsupported:
		return http.StatusUnsupportedMediaType, "Unsupported encoding of a CloudEvent"
	case UnknownType:
		return http.StatusUnprocessableEntity, "Event type not handled here"
	case InvalidEvent:
		return http.StatusUnprocessableEntity, "Invalid event"
	case Exhausted, Misaddressed, notNow: // the second never comes over HTTP
	}
	return http.StatusServiceUnavailable, "Not now: send the event again"
}

// write answers with p. A sender that is gone misses it.
func (p problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	body := json.NewEncoder(w)
	body.SetEscapeHTML(false)
	_ = body.Encode(p)
}
