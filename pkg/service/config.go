package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Config is what a process reads from its environment. Secrets are files.
type Config struct {
	// Port to listen on, on all interfaces: Knative sets it.
	Port int `envconfig:"PORT" default:"8080" desc:"port to listen on, on all interfaces"`
	// Listen is a host:port to listen on instead. Default none.
	Listen string `envconfig:"CERTLOOP_LISTEN" desc:"host:port to listen on instead of PORT"`

	// NATSURL is one or more servers, separated by commas. Without a server the process is not ready.
	NATSURL string `envconfig:"NATS_URL" default:"nats://127.0.0.1:4222" desc:"NATS servers, separated by commas"`
	// NATSCreds is a file with a user's JWT and seed. Default none.
	NATSCreds string `envconfig:"NATS_CREDS" desc:"file with the credentials for NATS"`
	// NATSCA is a PEM file with the roots for the servers' TLS certificates. Default the system's roots.
	NATSCA string `envconfig:"NATS_CA" desc:"PEM file with the roots of the NATS servers' certificates"`
	// NATSCert and NATSKey are PEM files for TLS with a client certificate. Default none; both or neither.
	NATSCert string `envconfig:"NATS_CERT" desc:"PEM file with the client certificate for NATS"`
	NATSKey  string `envconfig:"NATS_KEY" desc:"PEM file with its key"`
	// NATSInbox is what the subjects begin with on which answers and work come back; the user has to be let listen
	// there, and nobody else should be. Default _INBOX_USER for a user that NATS_URL names, else _INBOX.
	NATSInbox string `envconfig:"NATS_INBOX_PREFIX" desc:"prefix of the inboxes; _INBOX_USER for a user in NATS_URL, else _INBOX, when empty"`

	// Kubeconfig is the path of one or more kubeconfig files, as kubectl reads it. Default the Pod's service account.
	Kubeconfig string `envconfig:"KUBECONFIG" desc:"kubeconfig; empty inside a cluster"`
	// Namespaces the process may read. Default all, which needs cluster-wide rights.
	Namespaces []string `envconfig:"CERTLOOP_NAMESPACES" desc:"namespaces to read, separated by commas; all when empty"`

	// Namespace is certloop's own, where the Secrets are that a CMPClusterIssuer names. Default the Pod's.
	Namespace string `envconfig:"CERTLOOP_NAMESPACE" desc:"namespace of the Secrets that cluster issuers name; the Pod's when empty"`

	// Consume says whether work is pulled from JetStream too. False when somebody else pulls and POSTs.
	Consume bool `envconfig:"CERTLOOP_CONSUME" default:"true" desc:"pull work from JetStream, besides receiving it over HTTP"`
	// Concurrency is how many handlers run at once, for each transport. More asks more of the CA.
	Concurrency int `envconfig:"CERTLOOP_CONCURRENCY" default:"16" desc:"handlers at once, for each transport"`
	// HandlerTimeout is the deadline of one handler, at most 10 minutes (Knative's own limit). After it the event comes again.
	HandlerTimeout time.Duration `envconfig:"CERTLOOP_HANDLER_TIMEOUT" default:"2m" desc:"deadline of one handler"`
	// DrainTimeout is what handlers still get after SIGTERM. Keep it below the Pod's terminationGracePeriodSeconds.
	DrainTimeout time.Duration `envconfig:"CERTLOOP_DRAIN_TIMEOUT" default:"25s" desc:"what handlers still get after SIGTERM"`

	// LogFormat is json, text, or auto: text on a terminal.
	LogFormat string `envconfig:"CERTLOOP_LOG_FORMAT" default:"auto" desc:"json, text, or auto: text on a terminal"`
	// LogLevel is debug, info, warn or error.
	LogLevel slog.Level `envconfig:"CERTLOOP_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`

	// Cluster names this cluster in the source of events: /clusters/NAME/certloop/FUNCTION.
	Cluster string `envconfig:"CERTLOOP_CLUSTER" default:"default" desc:"name of this cluster in the source of events"`
}

// Bounds of a configuration.
const (
	maxConcurrency    = 1000
	maxHandlerTimeout = 10 * time.Minute
)

// FromEnvironment reads and validates a configuration. The error names every
// variable that is wrong, one a line.
func FromEnvironment() (Config, error) {
	var c Config
	var errs []error
	all := reflect.ValueOf(&c).Elem()
	for i := range all.NumField() {
		// One field at a time: the library stops at the first that does not parse.
		value, err := read("", all.Type().Field(i))
		if err != nil {
			errs = append(errs, unparsable(err))
			value = defaultOf(all.Type().Field(i))
		}
		all.Field(i).Set(value)
	}
	return c, errors.Join(append(errs, c.Validate())...)
}

func read(prefix string, field reflect.StructField) (reflect.Value, error) {
	one := reflect.New(reflect.StructOf([]reflect.StructField{field}))
	err := envconfig.Process(prefix, one.Interface())
	return one.Elem().Field(0), err
}

// defaultOf reads a field from a variable that nobody sets. A default that does
// not parse is found by the tests.
func defaultOf(field reflect.StructField) reflect.Value {
	field.Tag = reflect.StructTag(fmt.Sprintf("default:%q", field.Tag.Get("default")))
	value, _ := read("certloop_default_of", field)
	return value
}

func unparsable(err error) error {
	if e, ok := errors.AsType[*envconfig.ParseError](err); ok {
		return fmt.Errorf("%s=%q is no %s", e.KeyName, e.Value, e.TypeName)
	}
	return err
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	return errors.Join(slices.Concat(c.checkAddresses(), c.checkFiles(), c.checkNames(), c.checkLimits())...)
}

func (c Config) checkAddresses() (errs []error) {
	if c.Port < 1 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("PORT=%d is not within 1 to 65535", c.Port))
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf("CERTLOOP_LISTEN=%q is not host:port", c.Listen))
		}
	}
	for i, server := range strings.Split(c.NATSURL, ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			// Not repeated: it may hold a password.
			errs = append(errs, fmt.Errorf("NATS_URL: server %d is not nats://, tls://, ws:// or wss:// and a host", i+1))
		}
	}
	if _, err := InboxPrefix(c.NATSInbox, c.NATSURL); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func (c Config) checkFiles() (errs []error) {
	for _, f := range []struct{ name, path string }{
		{"NATS_CREDS", c.NATSCreds}, {"NATS_CA", c.NATSCA}, {"NATS_CERT", c.NATSCert}, {"NATS_KEY", c.NATSKey},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	if files := filepath.SplitList(c.Kubeconfig); len(files) > 0 && !slices.ContainsFunc(files, exists) {
		errs = append(errs, fmt.Errorf("KUBECONFIG: %s does not exist", c.Kubeconfig))
	}
	if (c.NATSCert == "") != (c.NATSKey == "") {
		errs = append(errs, errors.New("NATS_CERT and NATS_KEY: set both or neither"))
	}
	return errs
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (c Config) checkNames() (errs []error) {
	for _, ns := range c.Namespaces {
		if len(validation.IsDNS1123Label(ns)) > 0 {
			errs = append(errs, fmt.Errorf("CERTLOOP_NAMESPACES: %q is no namespace", ns))
		}
	}
	if c.Namespace != "" && len(validation.IsDNS1123Label(c.Namespace)) > 0 {
		errs = append(errs, fmt.Errorf("CERTLOOP_NAMESPACE=%q is no namespace", c.Namespace))
	}
	if !slices.Contains([]string{"auto", "json", "text"}, c.LogFormat) {
		errs = append(errs, fmt.Errorf("CERTLOOP_LOG_FORMAT=%q is not json, text or auto", c.LogFormat))
	}
	if len(validation.IsDNS1123Subdomain(c.Cluster)) > 0 {
		errs = append(errs, fmt.Errorf("CERTLOOP_CLUSTER=%q holds more than a-z, 0-9, dashes and dots", c.Cluster))
	}
	return errs
}

func (c Config) checkLimits() (errs []error) {
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("CERTLOOP_CONCURRENCY=%d is not within 1 to %d", c.Concurrency, maxConcurrency))
	}
	if c.HandlerTimeout < time.Second || c.HandlerTimeout > maxHandlerTimeout {
		errs = append(errs, fmt.Errorf("CERTLOOP_HANDLER_TIMEOUT=%s is not within 1s to %s", c.HandlerTimeout, maxHandlerTimeout))
	}
	if c.DrainTimeout < time.Second || c.DrainTimeout > maxHandlerTimeout {
		errs = append(errs, fmt.Errorf("CERTLOOP_DRAIN_TIMEOUT=%s is not within 1s to %s", c.DrainTimeout, maxHandlerTimeout))
	}
	return errs
}

// podNamespace is where the kubelet tells a Pod its namespace.
const podNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// OwnNamespace is where the Secrets of cluster issuers are: as configured, or the Pod's; empty
// when neither says.
func (c Config) OwnNamespace() string {
	if c.Namespace != "" {
		return c.Namespace
	}
	told, err := os.ReadFile(podNamespace)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(told))
}

// String leaves out what a NATS URL may hold before its host: a password.
func (c Config) String() string {
	type plain Config
	c.NATSURL = servers(c.NATSURL)
	return fmt.Sprintf("%+v", plain(c))
}

// GoString is String: %#v shows no more.
func (c Config) GoString() string { return c.String() }

// LogValue is String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// address to listen on.
func (c Config) address() string {
	if c.Listen != "" {
		return c.Listen
	}
	return net.JoinHostPort("", strconv.Itoa(c.Port))
}

// describe writes the environment variables, for people. The library's own table would do, but
// is made by text/template, which finds methods by name: whatever is linked with it keeps all
// the methods of all its types, and becomes a quarter larger.
func describe(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for field := range reflect.TypeFor[Config]().Fields() {
		_, _ = fmt.Fprintf(table, "  %s\t%s\t%s\n", field.Tag.Get("envconfig"), field.Tag.Get("default"), field.Tag.Get("desc"))
	}
	return table.Flush()
}
