package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/pkg/cmp/responder"
)

// caOptions are the flags of ca.
type caOptions struct {
	logging
	config     responder.Config
	listen     string
	secrets    []string
	wait       int
	checkAfter time.Duration
}

func newCA(t *terminal) *cobra.Command {
	o := &caOptions{}
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Run a small CA that speaks CMP, for tests and demonstrations",
		Long: `Run a small certification authority that speaks CMPv2 over HTTP. It believes whoever
knows a shared secret or signs with a certificate it issued, and issues what is asked
for: it is meant for tests and demonstrations.

When it answers it prints one line: READY url=… ca=…, the URL to send requests to and
the file with its certificate. A start on the same directory continues where it was, in
the middle of a transaction too.`,
		Example: `  certloop ca --secret ref=file:secret.txt
  certloop ca --dir /tmp/ca --listen 127.0.0.1:8829 --secret ref=env:CA_SECRET --validity 24h
  certloop ca --secret ref=file:secret.txt --wait 3 --check-after 2s   # answers "waiting" first`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t)
		},
	}
	o.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.config.Dir, "dir", "", "`directory` of keys, certificates and transactions (default: certloop/ca in the user's state directory)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8829", "`address` to listen on; port 0 takes a free one")
	f.StringArrayVar(&o.secrets, "secret", nil, "`REF=SECRET` that authenticates requests; SECRET may be file:PATH or env:NAME, which keeps it out of the list of processes (repeatable)")
	f.StringVar(&o.config.Name, "name", responder.DefaultName, "common `name` of a new CA")
	f.BoolVar(&o.config.Intermediate, "intermediate", false, "put an issuing CA under the root of a new CA")
	f.BoolVar(&o.config.AllowSHA1, "allow-sha1", false, "accept HMAC-SHA1, the default of OpenSSL's client")
	f.DurationVar(&o.config.Validity, "validity", responder.DefaultValidity, "longest lifetime that is granted, and the one of who asks for none")
	f.DurationVar(&o.config.ConfirmWait, "confirm-wait", responder.DefaultConfirmWait, "how long a certificate may stay unconfirmed before it is revoked")
	f.IntVar(&o.wait, "wait", 0, "answer waiting this many `times` before issuing")
	f.DurationVar(&o.checkAfter, "check-after", 2*time.Second, "with --wait: when clients shall ask again")
	return cmd
}

func (o *caOptions) run(ctx context.Context, t *terminal) error {
	if err := o.complete(t); err != nil {
		return err
	}
	ca, err := responder.New(o.config)
	if err != nil {
		return fmt.Errorf("%w: correct what is in %s, or give another directory with --dir", err, o.config.Dir)
	}
	running, err := ca.Start(o.listen) //nolint:contextcheck // it listens until Close
	if err != nil {
		return fmt.Errorf("%w: choose another address with --listen", err)
	}
	end := running.Close
	_, err = fmt.Fprintf(t.out, "READY url=%s ca=%s\n", running.URL, filepath.Join(o.config.Dir, "ca.crt"))
	if err == nil {
		<-ctx.Done()
	}
	return errors.Join(err, end())
}

// complete turns the flags into the configuration.
func (o *caOptions) complete(t *terminal) (err error) {
	if o.config.Log, err = o.logger(t.err); err != nil {
		return err
	}
	if o.config.Dir == "" {
		if o.config.Dir, err = stateHome("ca"); err != nil {
			return err
		}
	}
	if o.config.Dir, err = filepath.Abs(o.config.Dir); err != nil {
		return misused(err)
	}
	o.config.Behaviour.Wait, o.config.Behaviour.CheckAfter = o.wait, o.checkAfter
	o.config.SharedSecrets, err = sharedSecrets(o.secrets)
	return misused(err)
}

// sharedSecrets reads REF=SECRET pairs. No error repeats a secret.
func sharedSecrets(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, errors.New("--secret REF=SECRET is needed: without one nobody could authenticate")
	}
	all := map[string]string{}
	for i, pair := range pairs {
		reference, source, ok := strings.Cut(pair, "=")
		if !ok || reference == "" {
			return nil, fmt.Errorf("--secret number %d is not REF=SECRET", i+1)
		}
		secret, err := readSecret(source)
		if err != nil {
			return nil, fmt.Errorf("--secret %s: %w", reference, err)
		}
		all[reference] = secret
	}
	return all, nil
}

// readSecret takes a secret from where source says: file:PATH without the line's end,
// env:NAME, or source itself.
func readSecret(source string) (string, error) {
	kind, where, _ := strings.Cut(source, ":")
	secret := source
	switch kind {
	case "file":
		text, err := os.ReadFile(where) //nolint:gosec // the user named it
		if err != nil {
			return "", err
		}
		secret = strings.TrimRight(string(text), "\r\n")
	case "env":
		secret = os.Getenv(where)
	}
	if secret == "" {
		return "", errors.New("the secret is empty")
	}
	return secret, nil
}
