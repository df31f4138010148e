package kubetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Requests a second to the API server, and how many at once, before client-go
// slows a test down.
const (
	qps   = 1000
	burst = 2000
)

// Cluster is a running API server and its administrator.
type Cluster struct {
	kubeconfig string
	config     *rest.Config
	server     *server // nil when the cluster is somebody else's
}

// start returns the cluster of kubeconfig or, when that is empty, a new one. It
// ends the test when there is no server to start.
func start(tb testing.TB, kubeconfig string, flags ...string) (*Cluster, error) {
	tb.Helper()
	if kubeconfig != "" {
		return connect(kubeconfig, nil)
	}
	if os.Getenv("CERTLOOP_REQUIRE") == "none" {
		tb.Skipf("NOT TESTED: CERTLOOP_REQUIRE=none, and this needs an API server")
	}
	return launch(find(tb, "kubeapi", "CERTLOOP_KUBEAPI"), flags...)
}

// launch starts a new server in a directory that may outlive the test.
func launch(binary string, flags ...string) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "certloop-kubeapi-")
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, dir: dir, flags: flags}
	path, err := s.start()
	if err != nil {
		return nil, fmt.Errorf("%w (see %s)", err, s.logPath())
	}
	return connect(path, s)
}

func connect(kubeconfig string, s *server) (*Cluster, error) {
	path, err := filepath.Abs(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.UserAgent = "kubetest"
	cfg.QPS, cfg.Burst = qps, burst
	return &Cluster{kubeconfig: path, config: cfg, server: s}, nil
}

// Config is a new copy of what clients connect with, as cluster administrator.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig is the path of the same for other programs.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// KubeconfigAs is the path of a kubeconfig by which the administrator acts as another user, with that user's
// rights alone.
func (c *Cluster) KubeconfigAs(tb testing.TB, user string) string {
	tb.Helper()
	cfg, err := clientcmd.LoadFromFile(c.kubeconfig)
	if err != nil {
		tb.Fatal(err)
	}
	for _, admin := range cfg.AuthInfos {
		admin.Impersonate = user
	}
	path := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Stop kills the server as a crash would, and returns when it is gone.
func (c *Cluster) Stop(tb testing.TB) {
	tb.Helper()
	c.mustOwn(tb).stop()
}

// Restart starts the server again after Stop and returns when it is ready. Its
// address, its data and everything in Config are the same.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	path, err := c.mustOwn(tb).start()
	if err != nil {
		tb.Fatalf("restarting the API server: %v (see %s)", err, c.server.logPath())
	}
	if again, err := clientcmd.BuildConfigFromFlags("", path); err != nil || again.Host != c.config.Host {
		tb.Fatalf("restarting the API server: got %v, %v, want it at %s again", again, err, c.config.Host)
	}
}

func (c *Cluster) mustOwn(tb testing.TB) *server {
	tb.Helper()
	if c.server == nil {
		tb.Fatal("the cluster of CERTLOOP_TEST_KUBECONFIG is not ours to stop: use StartOwn")
	}
	return c.server
}

func (c *Cluster) close() {
	if c.server != nil {
		c.server.stop()
		_ = os.RemoveAll(c.server.dir) // it is in the temporary directory
	}
}
