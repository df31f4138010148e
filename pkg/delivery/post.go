package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// maxAnswerBytes bounds what is read of an answer.
const maxAnswerBytes = 64 << 10

// Post sends an event, in binary mode, to where a function or a broker listens for HTTP. It
// returns nil when the event was accepted, and a *RefusedError when that was denied.
func Post(ctx context.Context, client *http.Client, url string, e event.Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(&e), req); err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("%s answered %s, and then nothing: %w", req.URL.Redacted(), resp.Status, err)
	}
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return refusedBy(req.URL.Redacted(), resp, body)
}

// RefusedError is the answer of who did not accept an event.
type RefusedError struct {
	URL    string
	Status string // of HTTP, with its code
	// Title and Details are those of a problem document (RFC 9457); without one there are
	// no Details, and Title is the beginning of the answer.
	Title   string
	Details []string
	// Final says that a function refused the event for what it is and has dead-lettered it:
	// sent again it would be refused again. Whatever stands between, such as a gateway that
	// does not know the function yet, may answer 4xx as well, but not with a problem document.
	Final bool
}

func (e *RefusedError) Error() string {
	text := e.Title
	if len(e.Details) > 0 {
		text += ": " + strings.Join(e.Details, "; ")
	}
	return fmt.Sprintf("%s answered %s: %s", e.URL, e.Status, clip(text, maxTermText))
}

func refusedBy(url string, resp *http.Response, body []byte) *RefusedError {
	e := &RefusedError{URL: url, Status: resp.Status, Title: clip(strings.Join(strings.Fields(string(body)), " "), maxTermText)}
	var p problem
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), problemType) || json.Unmarshal(body, &p) != nil {
		return e
	}
	e.Title, e.Final = p.Title, forGood(resp.StatusCode)
	for _, item := range p.Errors {
		e.Details = append(e.Details, item.Detail)
	}
	if len(e.Details) == 0 && p.Detail != "" {
		e.Details = []string{p.Detail}
	}
	return e
}

// forGood knows the answers of a function that has dead-lettered an event.
func forGood(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}
