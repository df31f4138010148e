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

	"github.com/certloop/certloop/pkg/model"
)

// maxAnswerBytes bounds what is read of a function's answer.
const maxAnswerBytes = 64 << 10

// Forward gives the work of one function to where it listens for HTTP: a Mux for a
// [Receiver] that pulls the work of a function somebody else has to wake.
//
// What the function accepted is settled, and so is what it refused, because it has
// dead-lettered that itself. Every other answer means that the event is to be delivered
// again. The client's timeout must leave the function its own.
func Forward(verb model.Verb, client *http.Client, url string) Mux {
	mux := Mux{}
	handle := func(ctx context.Context, in event.Event) ([]event.Event, error) {
		return nil, forward(ctx, client, url, in)
	}
	for _, kind := range model.KindsFor(verb) {
		mux[kind.Type] = Route{Handle: handle}
	}
	return mux
}

func forward(ctx context.Context, client *http.Client, url string, in event.Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(&in), req); err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("%s answered %s, and then nothing: %w", url, resp.Status, err)
	}
	if resp.StatusCode/100 == 2 || refusedForGood(resp) {
		return nil
	}
	return fmt.Errorf("%s answered %s: %s", url, resp.Status, detail(body))
}

// refusedForGood tells the refusal of a function, a problem document, from that of
// whatever stands between: a gateway that does not know the function yet answers 4xx too.
func refusedForGood(resp *http.Response) bool {
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), problemType) {
		return false
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

// detail is what an answer says for people.
func detail(body []byte) string {
	var p struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &p) == nil && p.Detail != "" {
		return clip(p.Detail, maxTermText)
	}
	return clip(strings.Join(strings.Fields(string(body)), " "), maxTermText)
}
