package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/cmd/certloop/zpr"
)

//go:embed zpr/testdata/ca-by-address.yaml
var zprExample string

// zprOptions are the flags of zpr's commands.
type zprOptions struct {
	file    string
	format  string
	formats []string
	edition string
}

func newZPR(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "zpr",
		Short: "Plan Oracle Cloud's Zero Trust Packet Routing around a cluster",
		Long: `Plan Oracle Cloud's Zero Trust Packet Routing (ZPR) around an OKE cluster that runs
certloop. A plan is a file that describes the cluster; zpr example prints one.

ZPR attaches attributes to node pools: it cannot tell one function from another. That is
what NetworkPolicies are for; ZPR is a second fence around the node pool that talks to CAs.`,
		Example: `  certloop zpr example > plan.yaml
  certloop zpr check -f plan.yaml
  certloop zpr generate -f plan.yaml -o terraform > zpr.tf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(errors.New("say what to do: " + cmd.CommandPath() + " example, check or generate"))
		},
	}
	cmd.AddCommand(newZPRExample(t), newZPRCheck(t), newZPRGenerate(t))
	return cmd
}

func newZPRExample(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a plan to begin with",
		Example: `  certloop zpr example > plan.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(t.out, zprExample)
			return err
		},
	}
}

func newZPRCheck(t *terminal) *cobra.Command {
	o := &zprOptions{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell what of a plan ZPR or OKE would refuse, or what would be cut off",
		Long: `Tell what of a plan ZPR or OKE would refuse: Kubernetes before 1.32, flannel, virtual nodes,
more than five attributes on one resource, names with spaces or periods; and what would
be cut off: a Pod with attributes whose names are resolved, whose NATS or whose part of
Knative runs where the plan does not say, a resource with an attribute that no statement is
about.

With -o json or yaml the result is {valid, problems: [{field, reason}]}.

Exit codes: 0 the plan can be carried out, 1 it cannot, 2 it cannot be read.`,
		Example: `  certloop zpr check -f plan.yaml
  certloop zpr check -f plan.yaml -o json | jq -r '.problems[].field'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.check(t, cmd.InOrStdin())
		},
	}
	o.addFlags(cmd, zpr.ReportFormats())
	return cmd
}

func newZPRGenerate(t *terminal) *cobra.Command {
	o := &zprOptions{}
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Print attributes, IAM and ZPR statements and the order to introduce them in",
		Long: `Print what a plan needs: security attributes, IAM policy statements, ZPR policy statements
with who needs each, and the order to introduce them in, node replacement included; or the
same as Terraform for the provider oracle/oci, JSON or YAML. The same plan always gives the same output.`,
		Example: `  certloop zpr generate -f plan.yaml
  certloop zpr generate -f plan.yaml -o terraform > zpr.tf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.generate(t, cmd.InOrStdin())
		},
	}
	o.addFlags(cmd, zpr.Formats())
	cmd.Flags().StringVar(&o.edition, "edition", string(zpr.EditionCurrent), "`edition` of Oracle's documentation whose words are used: "+strings.Join(editions(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("edition", cobra.FixedCompletions(editions(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func editions() (all []string) {
	for _, e := range zpr.Editions() {
		all = append(all, string(e))
	}
	return all
}

func (o *zprOptions) addFlags(cmd *cobra.Command, formats []string) {
	o.formats = formats
	cmd.Flags().StringVarP(&o.file, "filename", "f", "", "`file` with the plan; - is standard input")
	_ = cmd.MarkFlagFilename("filename", "yaml", "json")
	addFormat(cmd, &o.format, formats)
}

func (o *zprOptions) plan(stdin io.Reader) (*zpr.Plan, error) {
	var content []byte
	var err error
	switch o.file {
	case "":
		return nil, errors.New("name the plan with -f FILE; certloop zpr example prints one to begin with")
	case "-":
		content, err = io.ReadAll(io.LimitReader(stdin, maxPlanBytes))
	default:
		content, err = os.ReadFile(o.file)
	}
	if err != nil {
		return nil, err
	}
	p, err := zpr.ParsePlan(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	return p, nil
}

const maxPlanBytes = 1 << 20

func (o *zprOptions) check(t *terminal, stdin io.Reader) error {
	p, err := o.read(stdin)
	if err != nil {
		return misused(err)
	}
	problems := p.Problems()
	if o.format != zpr.FormatText {
		if err := zpr.Report(t.out, o.format, problems); err != nil || len(problems) == 0 {
			return err
		}
		return errors.New("the plan cannot be carried out")
	}
	if len(problems) > 0 {
		return p.Check()
	}
	_, err = fmt.Fprintln(t.out, "the plan can be carried out")
	return err
}

func (o *zprOptions) generate(t *terminal, stdin io.Reader) error {
	if !slices.Contains(editions(), o.edition) {
		return misused(fmt.Errorf("--edition %s is not one of %s", o.edition, strings.Join(editions(), ", ")))
	}
	p, err := o.read(stdin)
	if err != nil {
		return misused(err)
	}
	if err := p.Check(); err != nil {
		return err
	}
	return zpr.Generate(t.out, p, o.format, zpr.Edition(o.edition))
}

// read reads the plan, for output in a format that there is.
func (o *zprOptions) read(stdin io.Reader) (*zpr.Plan, error) {
	if err := checkFormat(o.format, o.formats); err != nil {
		return nil, err
	}
	return o.plan(stdin)
}
