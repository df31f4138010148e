package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/pkg/cmp/responder"
)

// caOptions are the flags of ca.
type caOptions struct {
	logging
	config     responder.Config
	keyType    string
	listen     string
	secrets    []string
	wait       int
	checkAfter time.Duration
	misbehave  []string
	only       []string
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
the middle of a transaction too.

With --misbehave it does what a client should survive; BITS are names of failInfo as
RFC 9810 has them, separated by commas, TIME is like 2s:

` + strings.TrimRight(misbehaviourHelp(), "\n"),
		Example: `  certloop ca --secret ref=file:secret.txt
  certloop ca --dir /tmp/ca --listen 127.0.0.1:8829 --secret ref=env:CA_SECRET --validity 24h
  certloop ca --secret ref=file:secret.txt --key-type RSA-3072 --pss --dir /tmp/rsa
  certloop ca --secret ref=file:secret.txt --crl-distribution-point http://127.0.0.1:8829/crl
  certloop ca --secret ref=file:secret.txt --wait 3 --check-after 2s   # answers "waiting" first
  certloop ca --secret ref=file:secret.txt --misbehave reject=badPOP,badAlg
  certloop ca --secret ref=file:secret.txt --misbehave drop=1 --only ip --only pkiconf`,
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
	f.StringVar(&o.keyType, "key-type", "", "`type` of the keys of a new CA: "+keyTypes()+" (default P-256)")
	f.BoolVar(&o.config.PSS, "pss", false, "sign certificates, CRLs and answers with RSASSA-PSS; a new CA has keys of RSA-3072 then")
	f.BoolVar(&o.config.Successor, "successor", false, "make a root that follows that of a new CA, and answer rootCaCert with it")
	f.StringArrayVar(&o.config.CRLDistributionPoints, "crl-distribution-point", nil, "`URL` of the CRL, put into certificates; the CA has its CRL at every path that ends in /crl (repeatable)")
	f.BoolVar(&o.config.AllowSHA1, "allow-sha1", false, "accept HMAC-SHA1, the default of OpenSSL's client")
	f.DurationVar(&o.config.Validity, "validity", responder.DefaultValidity, "longest lifetime that is granted, and the one of who asks for none")
	f.DurationVar(&o.config.ConfirmWait, "confirm-wait", responder.DefaultConfirmWait, "how long a certificate may stay unconfirmed before it is revoked")
	f.IntVar(&o.wait, "wait", 0, "answer waiting this many `times` before issuing; negative: for ever")
	f.DurationVar(&o.checkAfter, "check-after", 2*time.Second, "with --wait and wait-confirm: when clients shall ask again")
	f.StringArrayVar(&o.misbehave, "misbehave", nil, "do `NAME` or NAME=VALUE of the list above (repeatable)")
	f.StringArrayVar(&o.only, "only", nil, "with --misbehave: spoil answers of this `type` only: "+answerNames()+" (repeatable)")
	o.completions(cmd)
	return cmd
}

func (o *caOptions) completions(cmd *cobra.Command) {
	for flag, values := range map[string][]string{"key-type": texts(responder.KeyTypes()), "only": texts(answerTypes())} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = cmd.RegisterFlagCompletionFunc("misbehave", completeMisbehaviour)
}

// keyTypes are what --key-type takes.
func keyTypes() string { return strings.Join(texts(responder.KeyTypes()), ", ") }

// answerNames are what --only takes.
func answerNames() string { return strings.Join(texts(answerTypes()), ", ") }

// texts are how values are written on the command line.
func texts[T any](all []T) []string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = fmt.Sprint(one)
	}
	return names
}

func (o *caOptions) run(ctx context.Context, t *terminal) error {
	if err := o.complete(t); err != nil {
		return err
	}
	ca, err := responder.New(o.config)
	if err != nil {
		return fmt.Errorf("%w: correct what is in %s, or give another directory with --dir", err, o.config.Dir)
	}
	if err := o.fits(ca.IssuingCertificate()); err != nil {
		return misused(err)
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
	return misused(errors.Join(o.completeKeys(), o.completePoints(), o.completeBehaviour(), o.completeSecrets()))
}

func (o *caOptions) completeKeys() error {
	o.config.KeyType = responder.KeyType(o.keyType)
	switch {
	case o.keyType == "" && o.config.PSS:
		o.config.KeyType = responder.RSA3072
	case o.keyType != "" && !slices.Contains(responder.KeyTypes(), o.config.KeyType):
		return fmt.Errorf("--key-type %s is not one of %s", o.keyType, keyTypes())
	case o.config.PSS && !strings.HasPrefix(o.keyType, "RSA"):
		return fmt.Errorf("--pss is for RSA keys, and --key-type is %s", o.keyType)
	}
	return nil
}

func (o *caOptions) completePoints() error {
	for _, point := range o.config.CRLDistributionPoints {
		if u, err := url.Parse(point); err != nil || u.Scheme == "" {
			return fmt.Errorf("--crl-distribution-point %s is not a URL", point)
		}
	}
	return nil
}

func (o *caOptions) completeBehaviour() (err error) {
	o.config.Behaviour, err = behaviour(o.misbehave, o.only)
	o.config.Behaviour.Wait, o.config.Behaviour.CheckAfter = o.wait, o.checkAfter
	return err
}

func (o *caOptions) completeSecrets() (err error) {
	o.config.SharedSecrets, err = sharedSecrets(o.secrets)
	return err
}

// fits: a CA that was there keeps its keys, so that what is asked of them may not hold.
func (o *caOptions) fits(ca *x509.Certificate) error {
	has := keyTypeOf(ca.PublicKey)
	_, isRSA := ca.PublicKey.(*rsa.PublicKey)
	switch {
	case o.keyType != "" && o.keyType != has:
		return fmt.Errorf("--key-type %s: the CA in %s has a key of %s: give another directory with --dir", o.keyType, o.config.Dir, has)
	case o.config.PSS && !isRSA:
		return fmt.Errorf("--pss: the CA in %s has a key of %s: give another directory with --dir", o.config.Dir, has)
	}
	return nil
}

func keyTypeOf(key any) string {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", key.N.BitLen())
	}
	return string(responder.Ed25519)
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
