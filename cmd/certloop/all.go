package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/pkg/service"
)

// Defaults of the sources.
const (
	defaultScan  = time.Minute
	defaultSweep = 15 * time.Minute
	minInterval  = 100 * time.Millisecond
)

// allOptions are the flags of all.
type allOptions struct {
	logging
	system
	stateDir   string
	natsURL    string
	kubeconfig string
	namespaces []string
}

func newAll(t *terminal) *cobra.Command {
	o := &allOptions{}
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Run the four functions in one process",
		Long: `Run the four functions in one process, over an embedded NATS server with JetStream
unless one is given. A watch of the cluster and a clock stand in for Knative's
ApiServerSource and PingSource.

When everything works it prints one line: READY nats=… enroll=… renew=… watch-secrets=…
expiry-scan=…, the addresses. On SIGTERM it drains. Several may run side by side on one
NATS and one cluster: leases keep them apart.

It reads the same environment variables as the functions; flags come first.`,
		Example: `  certloop all --kubeconfig ~/.kube/config --state-dir /var/lib/certloop
  certloop all --nats-url nats://nats.certloop.svc:4222
  certloop all --port enroll=8081,renew=8082 --scan-interval 10s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t)
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *allOptions) addFlags(cmd *cobra.Command) {
	o.logging.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.stateDir, "state-dir", "", "`directory` of the embedded NATS server (default: certloop/all in the user's state directory)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` with the cluster and its credentials (default: KUBECONFIG, or the cluster we run in)")
	f.StringSliceVar(&o.namespaces, "namespaces", nil, "`names` of the namespaces to watch (default: CERTLOOP_NAMESPACES, else all)")
	f.BoolVar(&o.clusterIssuers, "cluster-issuers", false, "watch CMPClusterIssuers although only some namespaces are watched; needs the right to list and watch them")
	f.StringVar(&o.natsURL, "nats-url", "", "NATS `servers` to use instead of the embedded one (default: NATS_URL)")
	f.IntVar(&o.natsPort, "nats-port", 0, "`port` of the embedded NATS server on loopback; 0 takes that of the last start, or a free one")
	f.StringVar(&o.host, "listen-host", loopback, "`address` the functions listen on")
	f.StringToIntVar(&o.ports, "port", nil, "`FUNCTION=PORT` the functions listen on (default: free ones)")
	f.DurationVar(&o.scan, "scan-interval", defaultScan, "time between scans for what is due")
	f.DurationVar(&o.sweep, "sweep-interval", defaultSweep, "time between looks at everything")
}

func (o *allOptions) run(ctx context.Context, t *terminal) error {
	if err := o.complete(t); err != nil {
		return err
	}
	if o.config.NATSURL == "" {
		st, err := o.openState()
		if err != nil {
			return err
		}
		defer st.close()
		o.natsDir = natsDir(st)
	}
	return o.system.run(ctx, func(r *running) { tellReady(t.out, r) })
}

// complete turns flags and environment into the configuration of the functions. Where
// no NATS server is named it leaves the name empty.
func (o *allOptions) complete(t *terminal) (err error) {
	if o.log, err = o.logger(t.err); err != nil {
		return err
	}
	if o.config, err = service.FromEnvironment(); err != nil {
		return misused(err)
	}
	if o.kubeconfig != "" {
		o.config.Kubeconfig = o.kubeconfig
	}
	if len(o.namespaces) > 0 {
		o.config.Namespaces = o.namespaces
	}
	switch {
	case o.natsURL != "":
		o.config.NATSURL = o.natsURL
	case os.Getenv("NATS_URL") == "":
		o.config.NATSURL = ""
	}
	return misused(o.check())
}

func (o *allOptions) check() error {
	if o.scan < minInterval || o.sweep < minInterval {
		return fmt.Errorf("--scan-interval and --sweep-interval are at least %s", minInterval)
	}
	if o.natsPort < 0 || o.natsPort > 65535 {
		return fmt.Errorf("--nats-port %d is no port", o.natsPort)
	}
	if o.natsPort != 0 && o.config.NATSURL != "" {
		return errors.New("--nats-port goes with the embedded NATS server only, and another one is given")
	}
	c := o.config
	if c.NATSURL == "" {
		c.NATSURL = "nats://" + loopback
	}
	return errors.Join(checkPorts(o.ports), c.Validate())
}

func (o *allOptions) openState() (*state, error) {
	dir := o.stateDir
	if dir == "" {
		var err error
		if dir, err = stateHome("all"); err != nil {
			return nil, err
		}
	}
	return openState(dir)
}

// tellReady says that everything works, and where, in the one line others wait for.
func tellReady(w io.Writer, r *running) {
	words := []string{"READY", "nats=" + r.NATS.ConnectedUrlRedacted()}
	for _, f := range r.functions {
		words = append(words, f.name+"="+f.url)
	}
	_, _ = fmt.Fprintln(w, strings.Join(words, " "))
}
