package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/transport"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

const (
	maxInputBytes = 16 << 20 // of a file to publish
	postTimeout   = 3 * time.Minute
	publishSource = "/certloop/publish"
)

// publishOptions are the flags of publish.
type publishOptions struct {
	busOptions
	cluster
	file    string
	ns      string
	http    string
	token   string // file
	roots   string // file
	client  *http.Client
	wait    bool
	timeout time.Duration
	format  string
}

func newPublish(t *terminal) *cobra.Command {
	o := &publishOptions{}
	cmd := &cobra.Command{
		Use:   "publish -f FILE",
		Short: "Publish configurations and events, and follow them to their certificates",
		Long: `Publish the documents of a file, YAML or JSON: a CMPIssuer becomes the event
issuer.created, a CMPCertificate config.created, and a CloudEvent in JSON form is sent as
it is. Everything is checked before anything is sent. What is reported as stored has been
acknowledged by JetStream; over HTTP it is accepted by a function or a broker.

With --wait what was declared is followed until every certificate is delivered as declared
and every issuer can be used; progress goes to stderr, the result to stdout. It is followed
by the facts that certloop tells over NATS, or, with --http and without a NATS server, by
the objects in the cluster of the kubeconfig, where a rejection cannot be seen. Events that
declare nothing are sent and not followed.

Exit codes: 0 stored or accepted, with --wait ready; 1 failed; 2 wrong command line,
environment or file; 3 rejected, the reasons are printed; 4 parked: the CA refused for good,
or the configuration is paused; 5 not ready within --timeout; 130 interrupted. What was
published stays published in each case. Of several declarations the first of 3, 4, 5 counts.`,
		Example: `  certloop publish -f certificates.yaml
  certloop publish -f certificates.yaml --wait --timeout 10m -o json
  certloop publish -f event.json --http http://127.0.0.1:8081   # to a function, or a broker
  certloop publish -f event.json --http https://broker-ingress.knative-eventing.svc/demo/default --http-ca ca.crt --http-token-file token
  kubectl get cmpcertificate web -o json | certloop publish -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t, cmd.InOrStdin())
		},
	}
	o.busOptions.addFlags(cmd)
	o.cluster.addFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "`file` to publish; - for standard input (required)")
	f.StringVarP(&o.ns, "namespace", "n", "default", "`namespace` of objects that name none")
	f.StringVar(&o.http, "http", "", "POST to this `URL` of a function or a broker instead of publishing to NATS")
	f.StringVar(&o.token, "http-token-file", "", "with --http: `file` with the bearer token that the receiver asks for, such as a broker with an EventPolicy")
	f.StringVar(&o.roots, "http-ca", "", "with --http: PEM `file` with the roots of the receiver's certificate; the system's when empty")
	f.BoolVar(&o.wait, "wait", false, "follow what is declared until it is ready, rejected or parked")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "with --wait: `how long` to follow")
	addFormat(cmd, &o.format, formats())
	return cmd
}

func (o *publishOptions) run(ctx context.Context, t *terminal, stdin io.Reader) error {
	if err := o.check(); err != nil {
		return misused(err)
	}
	events, err := o.events(stdin)
	if err != nil {
		return misused(err)
	}
	p := newPursuit(t, events)
	err = o.pursue(ctx, p)
	return cmp.Or(err, printResults(t, o.format, p.results()))
}

func (o *publishOptions) check() error {
	if err := checkFormat(o.format, formats()); err != nil {
		return err
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %s is not positive", o.timeout)
	}
	if o.http == "" {
		if o.token != "" || o.roots != "" {
			return errors.New("--http-token-file and --http-ca need --http")
		}
		return nil
	}
	u, err := url.Parse(o.http)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("--http is not http:// or https:// and a host")
	}
	o.client, err = o.httpClient()
	return err
}

// httpClient is the client for --http. It follows no redirect: the token is for nobody else.
func (o *publishOptions) httpClient() (*http.Client, error) {
	if _, err := readOptional(o.token); err != nil {
		return nil, fmt.Errorf("--http-token-file: %w", err)
	}
	ca, err := readOptional(o.roots)
	if err != nil {
		return nil, fmt.Errorf("--http-ca: %w", err)
	}
	sender, err := transport.New(&transport.Config{BearerTokenFile: o.token, TLS: transport.TLSConfig{CAData: ca}})
	if err != nil {
		return nil, fmt.Errorf("--http-token-file, --http-ca: %w", err)
	}
	return &http.Client{Transport: sender, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

func readOptional(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(file) // #nosec G304 -- the user names it
}

// pursue sends and, if asked to, follows. What there is to follow by is made ready first:
// an answer may come before the sending returns.
func (o *publishOptions) pursue(ctx context.Context, p *pursuit) error {
	if o.http != "" && (!o.wait || !o.hasServers()) {
		return o.overHTTP(ctx, p)
	}
	conn, err := o.connect(p.options()...)
	if err != nil {
		return err
	}
	defer conn.Close()
	bus, err := delivery.NewBus(conn, publishSource)
	if err != nil {
		return err
	}
	if o.wait {
		if err := p.listen(conn); err != nil {
			return err
		}
	}
	send, word := func(ctx context.Context, e event.Event) error { return bus.Publish(ctx, e) }, "stored"
	if o.http != "" {
		send, word = o.post, "accepted"
	}
	if err := p.send(ctx, send, word); err != nil || !o.wait {
		return err
	}
	return p.follow(ctx, o.timeout, p.askAgain(send))
}

// overHTTP has nothing to do with NATS: what is followed is read from the cluster.
func (o *publishOptions) overHTTP(ctx context.Context, p *pursuit) error {
	var store *ledger.Store
	if o.wait {
		var err error
		if store, err = o.store(); err != nil {
			return fmt.Errorf("--wait needs a NATS server (--nats-url, NATS_URL) or a cluster to follow by: %w", err)
		}
	}
	if err := p.send(ctx, o.post, "accepted"); err != nil || !o.wait {
		return err
	}
	return p.follow(ctx, o.timeout, p.look(store))
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
		if e.Time().IsZero() {
			e.SetTime(time.Now())
		}
		return e, err
	}
	if head.APIVersion != model.GroupVersion.String() {
		return e, fmt.Errorf("it is neither a CloudEvent nor a resource of %s", model.GroupVersion)
	}
	key := types.NamespacedName{Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}
	if key.Namespace == "" && head.Kind != model.ClusterIssuerKind {
		key.Namespace = o.ns
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
	e.SetTime(time.Now())
	return e, check(e)
}

// post sends an event to a function or a broker.
func (o *publishOptions) post(ctx context.Context, e event.Event) error {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	return delivery.Post(ctx, o.client, o.http, e)
}
