package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

const (
	maxInputBytes  = 16 << 20 // of a file to publish
	maxAnswerBytes = 64 << 10 // of an HTTP answer
	postTimeout    = 3 * time.Minute
	publishSource  = "/certloop/publish"
)

// publishOptions are the flags of publish.
type publishOptions struct {
	busOptions
	file      string
	namespace string
	http      string
}

func newPublish(t *terminal) *cobra.Command {
	o := &publishOptions{}
	cmd := &cobra.Command{
		Use:   "publish -f FILE",
		Short: "Publish configurations and events",
		Long: `Publish the documents of a file, YAML or JSON: a CMPIssuer becomes the event
issuer.created, a CMPCertificate config.created, and a CloudEvent in JSON form is sent as
it is. Everything is checked before anything is sent. What is reported as stored has been
acknowledged by JetStream.`,
		Example: `  certloop publish -f certificates.yaml
  certloop publish -f event.json --http http://127.0.0.1:8081   # to a function
  kubectl get cmpcertificate web -o json | certloop publish -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t, cmd.InOrStdin())
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "`file` to publish; - for standard input (required)")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "`namespace` of objects that name none")
	f.StringVar(&o.http, "http", "", "POST to this `URL` of a function instead of publishing to NATS")
	return cmd
}

func (o *publishOptions) run(ctx context.Context, t *terminal, stdin io.Reader) error {
	events, err := o.events(stdin)
	if err != nil {
		return misused(err)
	}
	if o.http != "" {
		return o.post(ctx, t, events)
	}
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	bus, err := delivery.NewBus(conn, publishSource)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := bus.Publish(ctx, e); err != nil {
			return err
		}
		if err := tellSent(t.out, "stored", e); err != nil {
			return err
		}
	}
	return nil
}

func tellSent(w io.Writer, what string, e event.Event) error {
	_, err := fmt.Fprintf(w, "%s %s %s id=%s\n", what, e.Type(), e.Subject(), e.ID())
	return err
}

// events reads and checks all documents.
func (o *publishOptions) events(stdin io.Reader) ([]event.Event, error) {
	in := stdin
	switch o.file {
	case "":
		return nil, errors.New("-f FILE is needed")
	case "-":
	default:
		f, err := os.Open(o.file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	var all []event.Event
	docs := yaml.NewYAMLOrJSONDecoder(io.LimitReader(in, maxInputBytes), 4096)
	for n := 1; ; n++ {
		var doc json.RawMessage
		err := docs.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return all, someEvents(all)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(doc) == 0 || string(doc) == "null" {
			continue
		}
		e, err := o.event(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		all = append(all, e)
	}
}

func someEvents(all []event.Event) error {
	if len(all) == 0 {
		return errors.New("no documents to publish")
	}
	return nil
}

// event makes an event of a document.
func (o *publishOptions) event(doc json.RawMessage) (e event.Event, err error) {
	var head struct {
		SpecVersion string `json:"specversion"`
		APIVersion  string `json:"apiVersion"`
		Kind        string `json:"kind"`
		Metadata    struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return e, err
	}
	if head.SpecVersion != "" {
		err := json.Unmarshal(doc, &e)
		if err == nil {
			err = known(e)
		}
		return e, err
	}
	if head.APIVersion != model.GroupVersion.String() {
		return e, fmt.Errorf("it is neither a CloudEvent nor a resource of %s", model.GroupVersion)
	}
	key := types.NamespacedName{Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}
	if key.Namespace == "" && head.Kind != model.ClusterIssuerKind {
		key.Namespace = o.namespace
	}
	return declaration(head.Kind, key, doc)
}

// known tells whether certloop knows such an event and what it is about.
func known(e event.Event) error {
	if _, ok := model.KindOf(e.Type()); !ok {
		return fmt.Errorf("type %q is not one of certloop's events", e.Type())
	}
	return model.CheckSubject(e)
}

// declaration is the event that declares a resource, checked.
func declaration(kind string, key types.NamespacedName, doc json.RawMessage) (event.Event, error) {
	var eventType string
	var check func(event.Event) error
	switch kind {
	case model.CertificateKind:
		eventType, check = model.ConfigCreated, model.CheckCertificateEvent
	case model.IssuerKind, model.ClusterIssuerKind:
		eventType, check = model.IssuerCreated, model.CheckIssuerEvent
	default:
		return event.Event{}, fmt.Errorf("kind %q is none of %s, %s and %s", kind, model.CertificateKind, model.IssuerKind, model.ClusterIssuerKind)
	}
	e := model.NewEvent(eventType, key, doc)
	e.SetSource(publishSource)
	return e, check(e)
}

func (o *publishOptions) post(ctx context.Context, t *terminal, events []event.Event) error {
	for _, e := range events {
		if err := postEvent(ctx, o.http, e); err != nil {
			return fmt.Errorf("%s of %s: %w", e.Type(), e.Subject(), err)
		}
		if err := tellSent(t.out, "accepted", e); err != nil {
			return err
		}
	}
	return nil
}

// postEvent sends an event in structured mode and wants it accepted.
func postEvent(ctx context.Context, url string, e event.Event) error {
	if e.Time().IsZero() {
		e.SetTime(time.Now())
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return misused(err)
	}
	req.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return refusedBy(resp.Status, answer)
	}
	return nil
}

// refusedBy reads a problem document (RFC 9457), or takes the answer as it is.
func refusedBy(status string, answer []byte) error {
	var problem struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(answer, &problem) != nil || problem.Title == "" {
		return fmt.Errorf("%s: %s", status, strings.TrimSpace(string(answer)))
	}
	return fmt.Errorf("%s: %s: %s", status, problem.Title, problem.Detail)
}
