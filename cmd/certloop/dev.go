package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

// devOptions are the flags of dev.
type devOptions struct {
	stateDir   string
	kubeconfig string
	embedded   bool // run a Kubernetes API server of our own
	namespace  string
	program    string // of the API server
	once       bool
	verbose    bool
}

func newDev(t *terminal) *cobra.Command {
	o := &devOptions{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "See all of certloop work on this machine",
		Long: `See certificates being issued, stored, repaired and renewed, on real parts: a Kubernetes
API server (unless a cluster is given), a NATS server with JetStream, a CA that really
signs, and the four functions. Nothing listens beyond this machine.

Then everything keeps running, to be tried, until Ctrl-C. The next start on the same
state directory continues where this one ended.

A cluster given by --kubeconfig or KUBECONFIG gets the custom resource definitions and
the namespace of the demonstration. --kubeconfig="" runs an API server of its own in any case.`,
		Example: `  certloop dev
  certloop dev --once                    # ends after the tour; exit code 0 when all of it was seen to work
  certloop dev --kubeconfig ~/.kube/config --namespace certloop-demo
  certloop dev --state-dir /tmp/demo --verbose`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.embedded = o.kubeconfig == "" && (os.Getenv("KUBECONFIG") == "" || cmd.Flags().Changed("kubeconfig"))
			return o.run(cmd.Context(), t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.stateDir, "state-dir", "", "`directory` of everything that is kept (default: .certloop/dev in the source of certloop, else certloop/dev in the user's state directory)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` with the cluster to use (default: KUBECONFIG, else an API server of our own)")
	f.StringVarP(&o.namespace, "namespace", "n", "demo", "`namespace` of the demonstration")
	f.StringVar(&o.program, "kubeapi", os.Getenv("CERTLOOP_KUBEAPI"), "`program` that is the Kubernetes API server (default: CERTLOOP_KUBEAPI, else the one beside this program, built if need be)")
	f.BoolVar(&o.once, "once", false, "end after the tour, with exit code 0 when everything was seen to work")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log to stderr instead of certloop.log in the state directory")
	return cmd
}

func (o *devOptions) run(ctx context.Context, t *terminal) error {
	root := sourceRoot()
	dir, err := o.directory(root)
	if err != nil {
		return err
	}
	st, err := openState(dir)
	if err != nil {
		return err
	}
	defer st.close()
	log, closeLog, err := o.log(t, st)
	if err != nil {
		return err
	}
	defer closeLog()
	d := &demo{options: *o, root: root, state: st, log: log, show: newDisplay(t)}
	err = d.run(ctx)
	if err != nil && !o.verbose {
		err = fmt.Errorf("%w (the log is %s)", err, st.path(devLog))
	}
	return err
}

func (o *devOptions) directory(root string) (string, error) {
	switch {
	case o.stateDir != "":
		return o.stateDir, nil
	case root != "":
		return filepath.Join(root, ".certloop", "dev"), nil
	default:
		return stateHome("dev")
	}
}

const devLog = "certloop.log"

// log is where the parts log to, client-go among them.
func (o *devOptions) log(t *terminal, st *state) (*slog.Logger, func(), error) {
	log, done := slog.New(slog.NewTextHandler(t.err, nil)), func() {}
	if !o.verbose {
		f, err := os.Create(st.path(devLog))
		if err != nil {
			return nil, nil, err
		}
		log, done = slog.New(slog.NewTextHandler(f, nil)), func() { _ = f.Close() }
	}
	klog.SetSlogLogger(log.With("from", "client-go"))
	return log, done, nil
}

// kubectl is how to call kubectl on the demonstration's cluster.
func (d *demo) kubectl() string {
	if d.kubeconfig == "" {
		return "kubectl -n " + d.options.namespace
	}
	return "kubectl --kubeconfig " + quote(d.kubeconfig) + " -n " + d.options.namespace
}

// quote makes a path one word of a shell.
func quote(path string) string {
	if strings.ContainsAny(path, " \t'\"$`\\*?[]{}()<>|&;!#~") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
