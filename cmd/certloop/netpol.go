package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/cmd/certloop/netpol"
)

//go:embed netpol_oci.sh
var ociScript string

// Exit codes of netpol audit.
const (
	exitFindings = 1
	exitUnjudged = 3 // a cluster could not be read
)

// netpolOptions are the flags of netpol audit.
type netpolOptions struct {
	files       []string
	values      []string
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
  L3  a Pod of certloop reaches, or is reached by, somebody it has nothing to do with, the
      internet foremost; or cannot reach or be reached by somebody it has to
  L5  a namespace whose certificates certloop keeps has no NetworkPolicy (live clusters)

For L3, NATS, DNS, Knative and the monitoring are where the chart's values.yaml says. --values
takes the values that certloop was installed with, which know better. The API server's
addresses are known in live clusters, or by values; CAs by values. Where they are not known,
what all functions may reach on 6443 or 443 is the API server, and what only enroll and
renew may reach is a CA.

The namespaces of Kubernetes itself are not judged. What is judged is what the objects
say; whether the cluster's network enforces them, only a probe shows (helm test).

Exit codes: 0 nothing found but warnings, 1 findings, 2 wrong command line or file, 3 a
cluster could not be read, whatever was found in others.`,
		Example: `  certloop netpol audit                                   # the current context
  certloop netpol audit --kubeconfig a --kubeconfig b --all-contexts -o sarif
  helm template certloop charts/certloop -n certloop -f my.yaml | certloop netpol audit -n certloop -f - --values my.yaml
  helm get values certloop -n certloop --all -o yaml | certloop netpol audit --values -
  certloop netpol audit --oci-script > audit-all-clusters.sh`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t, cmd.InOrStdin())
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "`file` of manifests to judge in place of a cluster; - is standard input; may be repeated")
	f.StringArrayVar(&o.values, "values", nil, "`file` of values of certloop's chart, which say where its neighbours are; - is standard input; may be repeated")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "`namespace` of manifests that name none")
	f.StringArrayVar(&o.kubeconfigs, "kubeconfig", nil, "`file` with clusters; may be repeated (default: KUBECONFIG, ~/.kube/config)")
	f.StringArrayVar(&o.contexts, "context", nil, "`name` of a context to judge; may be repeated (default: the current one)")
	f.BoolVar(&o.allContexts, "all-contexts", false, "judge every context")
	f.StringSliceVar(&o.exclude, "exclude", nil, "further `namespaces` that are not judged, besides "+strings.Join(netpol.DefaultExclusions(), ", "))
	addFormat(cmd, &o.format, netpol.Formats())
	f.BoolVar(&o.ociScript, "oci-script", false, "print a shell script that does this for every OKE cluster of every compartment of a tenancy")
	_ = cmd.RegisterFlagCompletionFunc("context", o.completeContext)
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
	neighbours, err := o.neighbours(stdin)
	if err != nil {
		return misused(err)
	}
	clusters, unread := o.clusters(ctx, stdin)
	if len(clusters) == 0 {
		return unread
	}
	var reports []*netpol.Report
	for _, c := range clusters {
		reports = append(reports, netpol.Audit(c, slices.Concat(netpol.DefaultExclusions(), o.exclude), neighbours))
	}
	if err := netpol.Write(t.out, o.format, reports); err != nil {
		return err
	}
	if unread == nil && slices.ContainsFunc(reports, (*netpol.Report).Failed) {
		return &exitError{exitFindings, "the audit has findings"}
	}
	return unread
}

// neighbours are those of the chart, and what values say of them.
func (o *netpolOptions) neighbours(stdin io.Reader) (*netpol.Neighbours, error) {
	n := netpol.DefaultNeighbours()
	for _, name := range o.values {
		content, err := readValues(name, stdin)
		if err == nil {
			err = n.Values(content)
		}
		if err != nil {
			return nil, fmt.Errorf("--values %s: %w", name, err)
		}
	}
	return n, nil
}

func readValues(name string, stdin io.Reader) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the user names the file
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		stdin = f
	}
	return io.ReadAll(io.LimitReader(stdin, netpol.MaxManifestBytes))
}

func (o *netpolOptions) check() error {
	if err := checkFormat(o.format, netpol.Formats()); err != nil {
		return err
	}
	switch {
	case len(o.files) > 0 && (len(o.kubeconfigs)+len(o.contexts) > 0 || o.allContexts):
		return errors.New("-f judges manifests, --kubeconfig and contexts name clusters: give one of the two")
	case slices.Contains(o.files, "-") && slices.Contains(o.values, "-"):
		return errors.New("-f - and --values - both read standard input: give one of them a file")
	case o.allContexts && len(o.contexts) > 0:
		return errors.New("--all-contexts goes without --context")
	default:
		return nil
	}
}

// clusters are those that could be read. The error tells of the others.
func (o *netpolOptions) clusters(ctx context.Context, stdin io.Reader) ([]*netpol.Cluster, error) {
	if len(o.files) > 0 {
		c, err := o.manifests(stdin)
		if err != nil {
			return nil, misused(err)
		}
		return []*netpol.Cluster{c}, nil
	}
	named, err := o.named()
	if err != nil {
		return nil, err
	}
	var all []*netpol.Cluster
	var unread []string
	for _, one := range named {
		cfg, err := one.config()
		if err != nil {
			return nil, err
		}
		c, err := netpol.Load(ctx, one.name(), cfg)
		if err != nil {
			unread = append(unread, err.Error())
			continue
		}
		all = append(all, c)
	}
	if len(unread) > 0 {
		return all, &exitError{exitUnjudged, "not judged: " + strings.Join(unread, "; ")}
	}
	return all, nil
}

// named are the clusters that the command line names.
func (o *netpolOptions) named() (all []*cluster, err error) {
	kubeconfigs := o.kubeconfigs
	if len(kubeconfigs) == 0 {
		kubeconfigs = []string{""}
	}
	for _, file := range kubeconfigs {
		contexts, err := o.contextsOf(file)
		if err != nil {
			return nil, err
		}
		for _, name := range contexts {
			all = append(all, &cluster{file, name})
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
	c, err := netpol.Parse(strings.Join(o.files, ","), io.MultiReader(all...), o.namespace)
	if err == nil && len(c.Namespaces) == 0 {
		err = fmt.Errorf("-f %s: no namespace, no workload and no NetworkPolicy is in it: what was to write it may have failed", c.Name)
	}
	return c, err
}

// contextsOf are the contexts of a kubeconfig to judge; "" is the current one.
func (o *netpolOptions) contextsOf(kubeconfig string) ([]string, error) {
	if !o.allContexts {
		if len(o.contexts) > 0 {
			return o.contexts, nil
		}
		return []string{""}, nil
	}
	names, err := contexts(kubeconfig)
	if err != nil {
		return nil, misused(err)
	}
	if len(names) == 0 {
		return nil, misused(errors.New("no context: give --kubeconfig or set KUBECONFIG"))
	}
	return names, nil
}

// contexts are the names of those in a kubeconfig.
func contexts(kubeconfig string) ([]string, error) {
	c := cluster{kubeconfig: kubeconfig}
	raw, err := c.loader().RawConfig()
	return slices.Sorted(maps.Keys(raw.Contexts)), err
}

// name is that of the context.
func (c *cluster) name() string {
	if raw, err := c.loader().RawConfig(); err == nil && c.context == "" {
		return raw.CurrentContext
	}
	return c.context
}

// completeContext offers the contexts of the kubeconfigs given so far.
func (o *netpolOptions) completeContext(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(o.kubeconfigs) == 0 {
		return offerContexts("")
	}
	return offerContexts(o.kubeconfigs...)
}

// offerContexts offers the contexts of some kubeconfigs; the empty name is the usual one.
func offerContexts(kubeconfigs ...string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var all []cobra.Completion
	for _, file := range kubeconfigs {
		names, err := contexts(file)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}
