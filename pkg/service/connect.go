package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/certloop/certloop/pkg/delivery"
)

const (
	reconnectWait = time.Second // between attempts to reach a NATS server
	flushTimeout  = 5 * time.Second

	// Requests a second to the API server, and how many at once: it has its own
	// fairness, this keeps one process from a storm.
	kubeQPS   = 1000
	kubeBurst = 2000
)

// Env is what a function is wired from.
type Env struct {
	Config

	Log  *slog.Logger
	Kube *rest.Config
	NATS *nats.Conn
	Bus  *delivery.Bus
	Now  func() time.Time
}

// Connect makes an Env from a configuration. It waits neither for NATS nor for
// the API server; its errors are errors of the configuration.
func Connect(ctx context.Context, c Config, log *slog.Logger) (*Env, error) {
	kube, err := kubeConfig(c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	env, err := ConnectBus(ctx, c, log)
	if err != nil {
		return nil, err
	}
	env.Kube = kube
	return env, nil
}

// ConnectBus makes an Env without a cluster, for a process that only moves events.
func ConnectBus(ctx context.Context, c Config, log *slog.Logger) (*Env, error) {
	conn, err := connectNATS(ctx, c, log)
	if err != nil {
		return nil, err
	}
	env := &Env{Config: c, Log: log, NATS: conn, Now: time.Now}
	if env.Bus, err = env.bus(""); err != nil {
		conn.Close()
		return nil, err
	}
	return env, nil
}

// Close closes the connection to NATS. Call it after every [Run] has returned.
func (e *Env) Close() { e.NATS.Close() }

// bus is a Bus whose events come from a function; "" for the process itself.
func (e *Env) bus(function string) (*delivery.Bus, error) {
	source := "/clusters/" + e.Cluster + "/certloop"
	if function != "" {
		source += "/" + function
	}
	bus, err := delivery.NewBus(e.NATS, source)
	if err != nil {
		return nil, err
	}
	bus.Now = e.Now
	return bus, nil
}

// of is the same environment for one function: log and source say its name.
func (e *Env) of(f Function) (*Env, error) {
	own := *e
	own.Log = e.Log.With("function", f.Name)
	bus, err := own.bus(f.Name)
	if err != nil {
		return nil, err
	}
	own.Bus = bus
	return &own, nil
}

func kubeConfig(files string) (*rest.Config, error) {
	kube, err := loadKubeConfig(files)
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("KUBECONFIG is not set, and this is no Pod in a cluster")
	}
	if err != nil {
		return nil, fmt.Errorf("KUBECONFIG: %w", err)
	}
	kube.QPS, kube.Burst = kubeQPS, kubeBurst
	kube.UserAgent = "certloop/" + version()
	kube.DisableCompression = true // of lists: within a cluster it costs more than it saves
	return kube, nil
}

func loadKubeConfig(files string) (*rest.Config, error) {
	if files == "" {
		return rest.InClusterConfig()
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(files)}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
}

func connectNATS(ctx context.Context, c Config, log *slog.Logger) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("certloop"),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		// Credentials may be put right while we wait.
		nats.IgnoreAuthErrorAbort(),
		// An event is stored or it is not: nothing is kept back for a better time.
		nats.ReconnectBufSize(-1),
	}
	inbox, err := InboxPrefix(c.NATSInbox, c.NATSURL)
	if err != nil {
		return nil, err
	}
	opts = append(opts, nats.CustomInboxPrefix(inbox))
	opts = append(opts, credentials(c)...)
	opts = append(opts, tell(context.WithoutCancel(ctx), log)...)
	conn, err := nats.Connect(c.NATSURL, opts...)
	if err != nil {
		return nil, fmt.Errorf("NATS: %w", err)
	}
	return conn, nil
}

// defaultInbox is NATS's own, which all users share who have no other.
const defaultInbox = "_INBOX"

// inboxPrefix is what may stand before the dot of an inbox: a subject without wildcards.
var inboxPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// InboxPrefix is what the inboxes of a connection begin with. An inbox receives work and answers, so that each
// user has a prefix of his own, and nobody else is let listen there: the one that is configured, or _INBOX_USER for the
// user that a server's URL names with a password. A name alone is a token, and secret.
func InboxPrefix(configured, urls string) (string, error) {
	if configured != "" {
		if !inboxPrefix.MatchString(configured) {
			return "", fmt.Errorf("NATS_INBOX_PREFIX=%q is no prefix: letters, digits, _ and -, with dots between them", configured)
		}
		return configured, nil
	}
	for server := range strings.SplitSeq(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil || u.User == nil {
			continue
		}
		_, hasPassword := u.User.Password()
		if prefix := defaultInbox + "_" + u.User.Username(); hasPassword && inboxPrefix.MatchString(prefix) {
			return prefix, nil
		}
	}
	return defaultInbox, nil
}

func credentials(c Config) (opts []nats.Option) {
	if c.NATSCreds != "" {
		opts = append(opts, nats.UserCredentials(c.NATSCreds))
	}
	if c.NATSCA != "" {
		opts = append(opts, nats.RootCAs(c.NATSCA))
	}
	if c.NATSCert != "" {
		opts = append(opts, nats.ClientCert(c.NATSCert, c.NATSKey))
	}
	return opts
}

// tell logs the ups and downs of the connection.
func tell(ctx context.Context, log *slog.Logger) []nats.Option {
	up := func(conn *nats.Conn) {
		log.InfoContext(ctx, "NATS is connected", "server", conn.ConnectedUrlRedacted())
	}
	return []nats.Option{
		nats.ConnectHandler(up),
		nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.WarnContext(ctx, "NATS is away", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.WarnContext(ctx, "NATS has a complaint", "err", err)
		}),
	}
}

// servers are the NATS servers without what a URL says before the host.
func servers(urls string) string {
	var all []string
	for server := range strings.SplitSeq(urls, ",") {
		all = append(all, strings.TrimSpace(server[strings.LastIndexByte(server, '@')+1:]))
	}
	return strings.Join(all, ",")
}
