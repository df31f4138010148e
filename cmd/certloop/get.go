package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// getOptions are the flags of get.
type getOptions struct {
	cluster
	ns     string
	all    bool
	format string
}

func newGet(t *terminal) *cobra.Command {
	o := &getOptions{}
	cmd := &cobra.Command{
		Use:   "get [NAME]",
		Short: "List certificates and how they are",
		Long: `List certificates: whether they are ready and if not why, where they are delivered,
when they end and when they are renewed.`,
		Example: `  certloop get                  # the certificates of the current namespace
  certloop get -A -o wide       # of all namespaces, with issuer, serial number and message
  certloop get web -n shop -o yaml
  certloop get -A -o name`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), t, args)
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.ns, "namespace", "n", "", "`namespace` to look in (default: that of the context)")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "look in all namespaces")
	addFormat(cmd, &o.format, formats())
	return cmd
}

func (o *getOptions) run(ctx context.Context, t *terminal, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	certs, err := o.certificates(ctx, args)
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && (o.format == formatJSON || o.format == formatYAML):
		return printObject(t.out, o.format, &certs[0])
	case len(certs) == 0 && (o.format == formatTable || o.format == formatWide):
		_, err := fmt.Fprintln(t.err, "No certificates found.")
		return err
	default:
		return o.print(t, certs)
	}
}

func (o *getOptions) check(args []string) error {
	if err := checkFormat(o.format, formats()); err != nil {
		return err
	}
	if o.all && (len(args) > 0 || o.ns != "") {
		return misused(errors.New("-A goes with neither a name nor -n"))
	}
	return nil
}

func (o *getOptions) certificates(ctx context.Context, args []string) ([]model.CMPCertificate, error) {
	store, err := o.store()
	if err != nil {
		return nil, err
	}
	ns := o.ns
	if ns == "" && !o.all {
		if ns, err = o.namespace(); err != nil {
			return nil, err
		}
	}
	if len(args) == 1 {
		c, err := store.Certificate(ctx, types.NamespacedName{Namespace: ns, Name: args[0]})
		return []model.CMPCertificate{*c}, err
	}
	return list(ctx, store, ns)
}

// list reads all certificates of a namespace, or of all when it is empty, in the order
// of the API server: namespace, then name.
func list(ctx context.Context, store *ledger.Store, ns string) ([]model.CMPCertificate, error) {
	certs := []model.CMPCertificate{}
	err := store.Certificates(ctx, ledger.Query{Namespace: ns}, func(c *model.CMPCertificate) error {
		certs = append(certs, *c)
		return nil
	})
	return certs, err
}

func (o *getOptions) print(t *terminal, certs []model.CMPCertificate) error {
	switch o.format {
	case formatName:
		return printNames(t.out, certs)
	case formatJSON, formatYAML:
		l := &model.CMPCertificateList{Items: certs}
		for i := range l.Items {
			l.Items[i].TypeMeta = typeMeta("")
		}
		l.TypeMeta = typeMeta("List")
		return printerOf(o.format).PrintObj(l, t.out)
	default:
		return table{color: t.colors(), wide: o.format == formatWide, namespace: o.all, now: time.Now()}.print(t.out, certs)
	}
}

func printObject(w io.Writer, format string, c *model.CMPCertificate) error {
	c.TypeMeta = typeMeta("")
	return printerOf(format).PrintObj(c, w)
}

// printerOf leaves out what the API server notes about the owners of fields, as kubectl does.
func printerOf(format string) printers.ResourcePrinter {
	if format == formatYAML {
		return &printers.OmitManagedFieldsPrinter{Delegate: &printers.YAMLPrinter{}}
	}
	return &printers.OmitManagedFieldsPrinter{Delegate: &printers.JSONPrinter{}}
}

func typeMeta(suffix string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: model.GroupVersion.String(), Kind: model.CertificateKind + suffix}
}

func printNames(w io.Writer, certs []model.CMPCertificate) error {
	for i := range certs {
		if _, err := fmt.Fprintf(w, "cmpcertificate.%s/%s\n", model.GroupVersion.Group, certs[i].Name); err != nil {
			return err
		}
	}
	return nil
}

// complete offers the names of certificates to the shell.
func (o *getOptions) complete(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	certs, err := o.certificates(cmd.Context(), nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for i := range certs {
		if strings.HasPrefix(certs[i].Name, prefix) {
			names = append(names, certs[i].Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
