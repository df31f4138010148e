package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/cmd/certloop/netpol"
)

//go:embed netpol_oci.sh
var ociScript string

// netpolOptions are the flags of netpol audit.
type netpolOptions struct {
	files       []string
	namespace   string
	kubeconfigs []string
	contexts    []string
	allContexts bool
	exclude     []string
	format      string
	ociScript   bool
}

func newNetpol(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "netpol",
		Short:   "Judge NetworkPolicies",
		Example: `  certloop netpol audit --all-contexts`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(errors.New("say what to do: " + cmd.CommandPath() + " audit"))
		},
	}
	cmd.AddCommand(newNetpolAudit(t))
	return cmd
}

func newNetpolAudit(t *terminal) *cobra.Command {
	o := &netpolOptions{}
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Tell what NetworkPolicies leave open, in clusters or in manifests",
		Long: `Tell what NetworkPolicies leave open, in live clusters or in rendered manifests:

  L0  a namespace has no NetworkPolicy at all
  L1  a Pod is not isolated in both directions: having a policy in its namespace is not enough
  L2  a rule allows everything: no peers, every Pod of the cluster, every address, every port
  L3  a function of certloop reaches the internet or may be reached by anybody, or cannot reach DNS

The namespaces of Kubernetes itself are not judged. What is judged is what the objects
say; whether the cluster's network enforces them, only a probe shows (helm test).

Exit codes: 0 nothing found but warnings, 1 findings or failure, 2 wrong command line.`,
		Example: `  certloop netpol audit                                   # the current context
  certloop netpol audit --kubeconfig a --kubeconfig b --all-contexts -o sarif
  helm template certloop charts/certloop -n certloop | certloop netpol audit -n certloop -f -
  certloop netpol audit --oci-script > audit-all-clusters.sh`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t, cmd.InOrStdin())
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "`file` of manifests to judge in place of a cluster; - is standard input; may be repeated")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "`namespace` of manifests that name none")
	f.StringArrayVar(&o.kubeconfigs, "kubeconfig", nil, "`file` with clusters; may be repeated (default: KUBECONFIG, ~/.kube/config)")
	f.StringArrayVar(&o.contexts, "context", nil, "`name` of a context to judge; may be repeated (default: the current one)")
	f.BoolVar(&o.allContexts, "all-contexts", false, "judge every context")
	f.StringSliceVar(&o.exclude, "exclude", nil, "further `namespaces` that are not judged, besides "+strings.Join(netpol.DefaultExclusions(), ", "))
	f.StringVarP(&o.format, "output", "o", netpol.FormatTable, "output `format`: "+strings.Join(netpol.Formats(), ", "))
	f.BoolVar(&o.ociScript, "oci-script", false, "print a shell script that does this for every OKE cluster of every compartment of a tenancy")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(netpol.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *netpolOptions) run(ctx context.Context, t *terminal, stdin io.Reader) error {
	if o.ociScript {
		_, err := io.WriteString(t.out, ociScript)
		return err
	}
	if err := o.check(); err != nil {
		return misused(err)
	}
	clusters, err := o.clusters(ctx, stdin)
	if err != nil {
		return err
	}
	var reports []*netpol.Report
	for _, c := range clusters {
		reports = append(reports, netpol.Audit(c, slices.Concat(netpol.DefaultExclusions(), o.exclude)))
	}
	if err := netpol.Write(t.out, o.format, reports); err != nil {
		return err
	}
	if slices.ContainsFunc(reports, (*netpol.Report).Failed) {
		return errors.New("the audit has findings")
	}
	return nil
}

func (o *netpolOptions) check() error {
	switch {
	case !slices.Contains(netpol.Formats(), o.format):
		return fmt.Errorf("-o %s is not one of %s", o.format, strings.Join(netpol.Formats(), ", "))
	case len(o.files) > 0 && (len(o.kubeconfigs)+len(o.contexts) > 0 || o.allContexts):
		return errors.New("-f judges manifests, --kubeconfig and contexts name clusters: give one of the two")
	case o.allContexts && len(o.contexts) > 0:
		return errors.New("--all-contexts goes without --context")
	default:
		return nil
	}
}

func (o *netpolOptions) clusters(ctx context.Context, stdin io.Reader) ([]*netpol.Cluster, error) {
	if len(o.files) > 0 {
		c, err := o.manifests(stdin)
		return []*netpol.Cluster{c}, misused(err)
	}
	kubeconfigs := o.kubeconfigs
	if len(kubeconfigs) == 0 {
		kubeconfigs = []string{""}
	}
	var all []*netpol.Cluster
	for _, file := range kubeconfigs {
		contexts, err := o.contextsOf(file)
		if err != nil {
			return nil, err
		}
		for _, name := range contexts {
			c, err := loadCluster(ctx, cluster{file, name})
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// manifests reads all files as those of one cluster.
func (o *netpolOptions) manifests(stdin io.Reader) (*netpol.Cluster, error) {
	var all []io.Reader
	for _, name := range o.files {
		if name == "-" {
			all = append(all, stdin)
			continue
		}
		f, err := os.Open(name) //nolint:gosec // the user names the file
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		all = append(all, f, strings.NewReader("\n---\n"))
	}
	return netpol.Parse(strings.Join(o.files, ","), io.MultiReader(all...), o.namespace)
}

// contextsOf are the contexts of a kubeconfig to judge; "" is the current one.
func (o *netpolOptions) contextsOf(kubeconfig string) ([]string, error) {
	if !o.allContexts {
		if len(o.contexts) > 0 {
			return o.contexts, nil
		}
		return []string{""}, nil
	}
	c := cluster{kubeconfig: kubeconfig}
	raw, err := c.loader().RawConfig()
	if err != nil {
		return nil, misused(err)
	}
	var names []string
	for name := range raw.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, misused(errors.New("no context: give --kubeconfig or set KUBECONFIG"))
	}
	return names, nil
}

func loadCluster(ctx context.Context, c cluster) (*netpol.Cluster, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	name := c.context
	if raw, err := c.loader().RawConfig(); err == nil && name == "" {
		name = raw.CurrentContext
	}
	return netpol.Load(ctx, name, cfg)
}
