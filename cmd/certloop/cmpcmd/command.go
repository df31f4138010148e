package cmpcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/pkg/cmp"
)

// New returns the command. It reads its arguments itself, since options have
// one hyphen and long names, as in OpenSSL. An error means exit code 1.
func New() *cobra.Command {
	return &cobra.Command{
		Use:                "cmp [options]",
		Short:              "Send CMP requests, with the options of openssl cmp",
		Long:               helpText(),
		DisableFlagParsing: true,

		DisableFlagsInUseLine: true,
		SilenceUsage:          true,
		SilenceErrors:         true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return execute(cmd.Context(), args, streams{in: cmd.InOrStdin(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()})
		},
		Example: `  certloop cmp -cmd ir -server 127.0.0.1:8829/pkix/ -ref 1234 -secret env:SECRET -mac hmacWithSHA256 \
    -newkey key.pem -subject /CN=web -certout cert.pem -cacertsout ca.pem
  certloop cmp -cmd kur -server 127.0.0.1:8829/pkix/ -trusted ca.pem -cert cert.pem -key key.pem \
    -newkey new.pem -certout cert.pem
  certloop cmp -reqin request.der -show`,
	}
}

// streams are where a run reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is one invocation of the command.
type run struct {
	*settings
	log       *reporter
	out       io.Writer
	now       func() time.Time
	sequences *sequences
}

// execute runs one command line.
func execute(ctx context.Context, args []string, s streams) error {
	if len(args) == 0 {
		_, _ = io.WriteString(s.err, helpText())
		return errors.New("cmp: there are no options")
	}
	if slices.ContainsFunc(args, func(a string) bool { return a == "-help" || a == "--help" || a == "-h" }) {
		_, err := io.WriteString(s.out, helpText())
		return err
	}
	settings, err := readSettings(args)
	if err != nil {
		return fmt.Errorf("cmp: %w", err)
	}
	r := &run{settings: settings, out: s.out, now: time.Now}
	r.log = &reporter{to: s.err, level: settings.number("verbosity", levelInfo)}
	for _, note := range settings.notes {
		r.log.info("%s", note)
	}
	if err := r.do(ctx, s); err != nil {
		return fmt.Errorf("cmp: %w", err)
	}
	return nil
}

// do shows files, or makes the request as often as -repeat says.
func (r *run) do(ctx context.Context, s streams) error {
	if r.only("show", "reqin", "rspin", "verbosity") && r.has("show") {
		return r.showFiles()
	}
	if err := r.checkFormats(); err != nil {
		return err
	}
	switch command, known := r.values["cmd"], commands[r.values["cmd"]]; {
	case command == "":
		return errors.New("-cmd is missing: ir, cr, kur, p10cr, rr or genm")
	case known == 0 && command != "ir":
		return fmt.Errorf("-cmd %.40s is unknown: use ir, cr, kur, p10cr, rr or genm", command)
	case !r.has("server") && !r.has("rspin") && !r.has("reqout_only"):
		return errors.New("-server is missing")
	}
	b := &builder{settings: r.settings, log: r.log, now: r.now, secrets: newPasswords(s.in, s.err, r.has("batch"), r.log)}
	p, err := b.build()
	if err != nil {
		return err
	}
	if p.client != nil {
		defer p.client.CloseIdleConnections()
	}
	r.sequences = &sequences{reqin: r.list("reqin"), reqout: r.list("reqout"), rspin: r.list("rspin"), rspout: r.list("rspout")}
	for range r.number("repeat", 1) {
		if err := r.once(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// checkFormats checks the names of formats.
func (r *run) checkFormats() error {
	for _, option := range []string{"certform", "crlform", "keyform"} {
		switch format := strings.ToUpper(r.values[option]); {
		case format == "" || format == "PEM" || format == "DER":
		case option == "keyform" && format == "P12":
		default:
			return fmt.Errorf("-%s %.20s is not supported: use PEM or DER", option, r.values[option])
		}
	}
	return nil
}

// once makes the request once and saves what it brings.
func (r *run) once(ctx context.Context, p *plan) error {
	if p.client != nil && !r.has("reqout_only") {
		r.log.info("will contact %s", p.client.URL)
	}
	o, err := r.newExchange(p).run(ctx)
	if err != nil {
		r.explain(err)
		if o.answer != nil {
			err = errors.Join(err, r.saveOrDelete("srvcertout", "validated server", o.signer))
		}
		return err
	}
	if o.saved {
		return nil
	}
	r.report(o)
	return r.save(p, o)
}

// maxTextShown bounds what is shown of the texts in a status, in characters.
const maxTextShown = 1024

// report tells what the server has granted.
func (r *run) report(o *outcome) {
	if rep, ok := o.answer.Body.(*cmp.RevRep); ok {
		r.log.info("received PKIStatus: %s %.*q", rep.Status[0].Status, maxTextShown, strings.Join(rep.Status[0].Text, "; "))
	}
	if o.issued == nil {
		return
	}
	text := strings.Join(o.issued.Text, "; ")
	if o.issued.Status == cmp.StatusAccepted {
		r.log.info("received PKIStatus: accepted %q", text)
	} else {
		r.log.warn("received PKIStatus: %s %q", o.issued.Status, text)
	}
	for _, d := range o.issued.Differences {
		r.log.warn("the certificate differs: %s", d)
	}
}

// explain adds what may help with an error that comes from differences to OpenSSL.
func (r *run) explain(err error) {
	var reply *cmp.ReplyError
	if errors.As(err, &reply) && reply.Field == "certificate" && !r.has("out_trusted") {
		r.log.info("new certificates must lead to -out_trusted, and without it to -trusted")
	}
	var refusal *cmp.Error
	if errors.As(err, &refusal) {
		r.explainRefusal(refusal)
	}
	if errors.As(err, &refusal) && refusal.Failure.Has(cmp.FailBadMessageCheck) && r.has("secret") && !r.has("mac") {
		r.log.info("the default of -mac is hmac-sha1, as in OpenSSL: the server may want -mac hmacWithSHA256")
	}
}

// explainRefusal names the bits of failInfo with their numbers, and says what
// can be done about them. The texts beside them are in the error.
func (r *run) explainRefusal(refusal *cmp.Error) {
	advice := map[cmp.Class]string{
		cmp.ClassPermanent: "the same request will be refused again",
		cmp.ClassRetryable: "the same request may be granted later",
		cmp.ClassSecurity:  "the server does not trust us, or what reached it was altered",
	}
	var bits []string
	for n := range 32 {
		if bit := cmp.FailureInfo(1) << n; refusal.Failure.Has(bit) {
			bits = append(bits, fmt.Sprintf("%s (%d)", bit, n))
		}
	}
	class := refusal.Failure.Class()
	switch {
	case !refusal.Verified:
		r.log.warn("the refusal is not protected, or not verifiably: anybody may have sent it")
	case bits == nil:
		r.log.warn("PKIStatus: %s, without PKIFailureInfo", refusal.Status)
	default:
		r.log.warn("PKIStatus: %s, PKIFailureInfo: %s; %s: %s", refusal.Status, strings.Join(bits, ", "), class, advice[class])
	}
}
