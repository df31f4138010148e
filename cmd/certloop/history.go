package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// historyOptions are the flags of history.
type historyOptions struct {
	busOptions
	cluster
	ns     string
	all    bool
	since  time.Duration
	follow bool
	format string
}

func historyFormats() []string { return []string{formatTable, formatWide, formatJSON, formatYAML} }

func newHistory(t *terminal) *cobra.Command {
	o := &historyOptions{}
	cmd := &cobra.Command{
		Use:   "history [NAME]",
		Short: "Tell what happened to certificates and issuers",
		Long: `Tell what happened to a certificate or an issuer, or to all of a namespace, the oldest
first: what was declared, issued, renewed, put back, refused and why. certloop keeps these
facts in JetStream for 90 days.

As JSON they are CloudEvents: an array of them (the batch format), or one each line with
--follow. The tables leave out scans that found nothing to do.`,
		Example: `  certloop history web -n shop
  certloop history -A --since 1h
  certloop history -A --follow             # what happens from now on
  certloop history web -n shop -o json | jq '.[] | select(.type | endswith("failed.v1")).data.message'`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			certificates := getOptions{cluster: o.cluster, ns: o.ns}
			return certificates.complete(cmd, args, prefix)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), t, args)
		},
	}
	o.busOptions.addFlags(cmd)
	o.cluster.addFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.ns, "namespace", "n", "", "`namespace` of the object (default: that of the context)")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "all namespaces, and cluster issuers")
	f.DurationVar(&o.since, "since", 0, "only what happened in this `time`, such as 90m (default: all of it, with --follow and without a name nothing)")
	f.BoolVar(&o.follow, "follow", false, "go on with what happens, until Ctrl-C")
	addFormat(cmd, &o.format, historyFormats())
	return cmd
}

func (o *historyOptions) run(ctx context.Context, t *terminal, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	filter, err := o.filter(args)
	if err != nil {
		return err
	}
	return o.withStreams(func(js jetstream.JetStream) error {
		p := o.printer(t)
		err := delivery.History(ctx, js, delivery.Selection{Subjects: filter, Since: o.from(args), Follow: o.follow}, p.print)
		if o.follow && errors.Is(err, context.Canceled) {
			err = nil // Ctrl-C is how following ends
		}
		return errors.Join(err, p.end())
	})
}

func (o *historyOptions) check(args []string) error {
	switch {
	case o.all && (len(args) > 0 || o.ns != ""):
		return misused(errors.New("-A goes with neither a name nor -n"))
	case o.since < 0:
		return misused(fmt.Errorf("--since %s is not positive", o.since))
	}
	return checkFormat(o.format, historyFormats())
}

// filter are the subjects of the facts that are asked for. A CMPClusterIssuer is of no namespace.
func (o *historyOptions) filter(args []string) ([]string, error) {
	if o.all {
		return nil, nil
	}
	ns := o.ns
	if ns == "" {
		var err error
		if ns, err = o.namespace(); err != nil {
			return nil, err
		}
	}
	if len(args) == 0 {
		return []string{model.FactFilter(ns)}, nil
	}
	return []string{
		model.ObjectFactFilter(types.NamespacedName{Namespace: ns, Name: args[0]}),
		model.ObjectFactFilter(types.NamespacedName{Name: args[0]}),
	}, nil
}

func (o *historyOptions) from(args []string) time.Time {
	if o.since > 0 || o.follow && len(args) == 0 {
		return time.Now().Add(-o.since)
	}
	return time.Time{}
}

// factPrinter writes facts one by one: a history may be long.
type factPrinter struct {
	out     io.Writer
	format  string
	color   bool
	stream  bool // there is no end
	printed int
}

func (o *historyOptions) printer(t *terminal) *factPrinter {
	return &factPrinter{out: t.out, format: o.format, color: t.colors(), stream: o.follow}
}

func (p *factPrinter) print(e event.Event) error {
	if p.table() && e.Type() == model.ScanCompleted && idle(e) {
		return nil
	}
	text, err := p.text(e)
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.out, p.before()+text)
	p.printed++
	return err
}

func (p *factPrinter) table() bool { return p.format == formatTable || p.format == formatWide }

// idle tells of a scan that it found nothing to do.
func idle(e event.Event) bool {
	var f model.ScanFact
	return e.DataAs(&f) == nil && f.Expiring+f.Expired+f.Pending+f.Drifted+len(f.Unread) == 0
}

// before is what comes before a fact.
func (p *factPrinter) before() string {
	switch {
	case p.format == formatYAML:
		return "---\n"
	case p.format == formatJSON && p.stream:
		return ""
	case p.format == formatJSON && p.printed > 0:
		return ",\n"
	case p.format == formatJSON:
		return "[\n"
	case p.printed == 0:
		return p.line(plain, "TIME", "OBJECT", "FACT", "CORRELATION", "WHAT")
	default:
		return ""
	}
}

// end is what comes after the last fact.
func (p *factPrinter) end() error {
	text := ""
	switch {
	case p.format == formatJSON && !p.stream && p.printed == 0:
		text = "[]\n"
	case p.format == formatJSON && !p.stream:
		text = "\n]\n"
	}
	_, err := io.WriteString(p.out, text)
	return err
}

func (p *factPrinter) text(e event.Event) (string, error) {
	if p.table() {
		return p.line(factColor(e.Type()), e.Time().UTC().Format(time.RFC3339), orDash(e.Subject()), short(e.Type()), model.Correlation(e), inBrief(e)), nil
	}
	js, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	if p.format == formatYAML {
		text, err := yaml.JSONToYAML(js)
		return string(text), err
	}
	if p.stream {
		js = append(js, '\n')
	}
	return string(js), nil
}

// line has columns of a fixed width: what comes later is not known yet.
func (p *factPrinter) line(color, at, object, fact, correlation, what string) string {
	fact = fmt.Sprintf("%-23s", fact)
	if p.color {
		fact = color + fact + plain
	}
	if p.format == formatWide {
		fact += "   " + fmt.Sprintf("%-36s", correlation)
	}
	return strings.TrimRight(fmt.Sprintf("%-20s   %-28s   %s   %s", at, object, fact, what), " ") + "\n"
}

func factColor(eventType string) string {
	switch eventType {
	case model.CertificateIssued, model.CertificateRenewed, model.CertificateReady, model.CertificateRestored, model.CertificateAdopted, model.IssuerReady, model.IssuerAvailable:
		return green
	case model.CertificateFailed, model.CertificateParked, model.CertificateExpired, model.ConfigRejected, model.IssuerFailed, model.IssuerUnavailable, model.SecretContended, model.IssuanceMaybeOrphan:
		return red
	case model.CertificateWaiting, model.CertificateExpiring, model.SecretModified, model.SecretDeleted, model.ScanHeld:
		return yellow
	default:
		return plain
	}
}

// brief is what matters of the data of any fact, to somebody who reads one line.
type brief struct {
	Reason         string   `json:"reason"`
	Message        string   `json:"message"`
	Cause          string   `json:"cause"`
	NextAttempt    string   `json:"nextAttempt"`
	SecretName     string   `json:"secretName"`
	Serial         string   `json:"serial"`
	NotAfter       string   `json:"notAfter"`
	TransactionID  string   `json:"transactionID"`
	DeletionPolicy string   `json:"deletionPolicy"`
	Deleted        []string `json:"deleted"`
	Differences    []string `json:"differences"`
	Waiting        int      `json:"waiting"`
}

// inBrief says what matters of a fact in one line.
func inBrief(e event.Event) string {
	switch e.Type() {
	case model.ConfigCreated, model.ConfigUpdated, model.IssuerCreated, model.IssuerUpdated:
		return "by " + e.Source()
	case model.ConfigApplied:
		var f model.ChangeFact
		_ = e.DataAs(&f) // absent data say nothing more, here and below
		return effectText(f)
	case model.ScanCompleted:
		var f model.ScanFact
		_ = e.DataAs(&f)
		return scanText(f)
	case model.ScanHeld:
		var f model.HeldFact
		_ = e.DataAs(&f)
		return fmt.Sprintf("%d due at once, %d asked to be renewed now", f.Due, f.Told)
	default:
		var f brief
		_ = e.DataAs(&f)
		return f.String()
	}
}

func scanText(f model.ScanFact) string {
	text := fmt.Sprintf("looked at %d, %d expiring, %d expired, %d pending, %d changed", f.Looked, f.Expiring, f.Expired, f.Pending, f.Drifted)
	if len(f.Unread) > 0 {
		text += "; may not read " + strings.Join(f.Unread, ", ")
	}
	return text
}

func (f brief) String() string {
	var parts []string
	for _, part := range [][2]string{
		{"", f.Reason},
		{"", f.Message},
		{"again at ", f.NextAttempt},
		{"Secret ", f.SecretName},
		{"", f.Cause},
		{"serial ", f.Serial},
		{"until ", f.NotAfter},
		{"granted otherwise: ", strings.Join(f.Differences, ", ")},
		{"transaction ", f.TransactionID},
		{"deletionPolicy ", f.DeletionPolicy},
		{"deleted ", strings.Join(f.Deleted, ", ")},
	} {
		if part[1] != "" {
			parts = append(parts, part[0]+oneLine(part[1]))
		}
	}
	if f.Waiting > 0 {
		parts = append(parts, fmt.Sprintf("%d certificates wait", f.Waiting))
	}
	return strings.Join(parts, "; ")
}
