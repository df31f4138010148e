package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/pkg/service"
)

const applyTimeout = 30 * time.Second // for the three streams to be made

// busOptions say which NATS servers a command talks to.
type busOptions struct{ url string }

func (o *busOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.url, "nats-url", "", "NATS `servers`, separated by commas (default: NATS_URL, else "+nats.DefaultURL+"); credentials come from NATS_CREDS, NATS_CA, NATS_CERT and NATS_KEY, the prefix of inboxes from NATS_INBOX_PREFIX (default: _INBOX_USER for a user in the URL, else _INBOX)")
}

// hasServers tells whether servers are named.
func (o *busOptions) hasServers() bool { return o.url != "" || os.Getenv("NATS_URL") != "" }

// connect connects now, or fails.
func (o *busOptions) connect(more ...nats.Option) (*nats.Conn, error) {
	url := cmp.Or(o.url, os.Getenv("NATS_URL"), nats.DefaultURL)
	inbox, err := service.InboxPrefix(os.Getenv("NATS_INBOX_PREFIX"), url)
	if err != nil {
		return nil, misused(err)
	}
	opts := append([]nats.Option{nats.Name("certloop"), nats.CustomInboxPrefix(inbox)}, more...)
	if file := os.Getenv("NATS_CREDS"); file != "" {
		opts = append(opts, nats.UserCredentials(file))
	}
	if file := os.Getenv("NATS_CA"); file != "" {
		opts = append(opts, nats.RootCAs(file))
	}
	if cert, key := os.Getenv("NATS_CERT"), os.Getenv("NATS_KEY"); cert != "" && key != "" {
		opts = append(opts, nats.ClientCert(cert, key))
	}
	conn, err := nats.Connect(url, opts...)
	if err != nil {
		// The URL is not repeated: it may hold a password.
		return nil, fmt.Errorf("connecting to NATS: %w: is --nats-url or NATS_URL right?", err)
	}
	return conn, nil
}

// withStreams connects to NATS for as long as do takes.
func (o *busOptions) withStreams(do func(jetstream.JetStream) error) error {
	return o.withBus(func(_ *delivery.Bus, js jetstream.JetStream) error { return do(js) })
}

func (o *busOptions) withBus(do func(*delivery.Bus, jetstream.JetStream) error) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	bus, err := delivery.NewBus(conn, publishSource)
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	return do(bus, js)
}

func newBus(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bus",
		Short:   "Prepare NATS JetStream for certloop",
		Example: `  certloop bus apply --nats-url nats://nats.certloop.svc:4222`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(errors.New("say what to do: " + cmd.CommandPath() + " apply"))
		},
	}
	cmd.AddCommand(newBusApply(t))
	return cmd
}

func newBusApply(t *terminal) *cobra.Command {
	var o busOptions
	var replicas int
	var format string
	formats := []string{formatTable, formatJSON, formatYAML}
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Create the streams, or bring them to what this version needs",
		Long: `Create the three streams of certloop, or bring existing ones to what this version
needs. Applying twice changes nothing. It needs nats-server 2.12 or later.

With -o json or yaml the result is {streams: [{name, replicas}]}.`,
		Example: `  certloop bus apply
  certloop bus apply --nats-url nats://nats.certloop.svc:4222 --replicas 3
  certloop bus apply -o json | jq -r '.streams[].name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, formats); err != nil {
				return err
			}
			return runBusApply(cmd.Context(), t, o, replicas, format)
		},
	}
	o.addFlags(cmd)
	addFormat(cmd, &format, formats)
	cmd.Flags().IntVar(&replicas, "replicas", 0, "`copies` of each stream: 1, or 3 or 5 in a cluster of NATS servers (default: as they are, else 1)")
	return cmd
}

// busApplied is what `bus apply` tells.
type busApplied struct {
	Streams []appliedStream `json:"streams"`
}

type appliedStream struct {
	Name     string `json:"name"`
	Replicas int    `json:"replicas"`
}

func runBusApply(ctx context.Context, t *terminal, o busOptions, replicas int, format string) error {
	err := o.withStreams(func(js jetstream.JetStream) (err error) {
		replicas, err = applyStreams(ctx, js, replicas)
		return err
	})
	if err != nil {
		return err
	}
	var applied busApplied
	for _, name := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		applied.Streams = append(applied.Streams, appliedStream{name, replicas})
	}
	return applied.print(t.out, format)
}

func (a busApplied) print(w io.Writer, format string) error {
	if format != formatTable {
		return printDocument(w, format, a)
	}
	for _, s := range a.Streams {
		if _, err := fmt.Fprintf(w, "stream %s applied, replicas %d\n", s.Name, s.Replicas); err != nil {
			return err
		}
	}
	return nil
}

// applyStreams applies the streams with so many replicas; 0 leaves their number as it
// is. It returns the number.
func applyStreams(ctx context.Context, js jetstream.JetStream, replicas int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	if replicas == 0 {
		var err error
		if replicas, err = presentReplicas(ctx, js); err != nil {
			return 0, err
		}
	}
	return replicas, delivery.Apply(ctx, js, replicas)
}

func presentReplicas(ctx context.Context, js jetstream.JetStream) (int, error) {
	stream, err := js.Stream(ctx, model.WorkStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", model.WorkStream, err)
	}
	return stream.CachedInfo().Config.Replicas, nil
}
