// Package kubetest gives tests a real Kubernetes API server: one for a test binary, a
// namespace for each test.
//
// The server is bin/kubeapi (make bin/kubeapi), started in a directory of its own and
// ended with the test binary. Where CERTLOOP_TEST_KUBECONFIG names a kubeconfig, that
// cluster is used instead. Where there is neither, tests are skipped with the remedy;
// CERTLOOP_REQUIRE=all turns the skip into a failure.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// startTimeout is generous: a quiet machine takes 3 s, a busy one has taken 15.
const startTimeout = 3 * time.Minute

// Cluster is the API server of a test binary.
type Cluster struct {
	kubeconfig string
	config     *rest.Config
	client     kubernetes.Interface

	crds sync.Once
}

// shared is the one server of this test binary.
var shared struct {
	sync.Mutex
	cluster *Cluster
	server  *server
	err     error
}

// Main runs the tests of a package, then ends the server they started. It returns the
// exit code.
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.end()
		if err := os.RemoveAll(filepath.Dir(shared.server.dir)); err != nil {
			fmt.Fprintln(os.Stderr, "kubetest:", err)
		}
	}
	return code
}

// errAbsent says that there is no server to start.
var errAbsent = errors.New("no Kubernetes API server: run `make bin/kubeapi`, or set CERTLOOP_TEST_KUBECONFIG")

// Start gives the API server, starting it for the first test that asks.
func Start(tb testing.TB) *Cluster {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = open()
	}
	switch {
	case errors.Is(shared.err, errAbsent) && os.Getenv("CERTLOOP_REQUIRE") != "all":
		tb.Skip(shared.err)
	case shared.err != nil:
		tb.Fatal(shared.err)
	}
	return shared.cluster
}

func open() (*Cluster, error) {
	kubeconfig := os.Getenv("CERTLOOP_TEST_KUBECONFIG")
	if kubeconfig == "" {
		s, err := startServer()
		if err != nil {
			return nil, err
		}
		shared.server, kubeconfig = s, s.kubeconfig
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{kubeconfig: kubeconfig, config: config, client: client}, nil
}

// Config is how to connect, as an administrator.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig is the path of a kubeconfig for other programs.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// Namespace makes a namespace for a test. It is deleted afterwards, without waiting.
func (c *Cluster) Namespace(tb testing.TB) string {
	tb.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	ns, err := c.client.CoreV1().Namespaces().Create(tb.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			tb.Log(err)
		}
	})
	return ns.Name
}

// Kubectl runs kubectl against the cluster and returns what it printed; an exit code
// other than 0 fails the test.
func (c *Cluster) Kubectl(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.KubectlInput(tb, "", args...)
}

// KubectlInput is Kubectl with something on standard input.
func (c *Cluster) KubectlInput(tb testing.TB, stdin string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "kubectl", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		tb.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// ApplyCRDs applies the custom resource definitions in the YAML files of a directory,
// once for the cluster, and waits until they are served.
func (c *Cluster) ApplyCRDs(tb testing.TB, dir string) {
	tb.Helper()
	c.crds.Do(func() {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			tb.Fatalf("no YAML in %s: %v", dir, err)
		}
		crds := dynamic.NewForConfigOrDie(c.config).Resource(crdResource)
		for _, file := range files {
			applyCRD(tb, crds, file)
		}
	})
}

func applyCRD(tb testing.TB, crds dynamic.ResourceInterface, file string) {
	tb.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // a file of the source tree
	if err != nil {
		tb.Fatal(err)
	}
	var crd unstructured.Unstructured
	if err := yaml.Unmarshal(text, &crd.Object); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	if _, err := crds.Apply(tb.Context(), crd.GetName(), &crd, metav1.ApplyOptions{FieldManager: "kubetest", Force: true}); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	waitEstablished(tb, crds, crd.GetName())
}

func waitEstablished(tb testing.TB, crds dynamic.ResourceInterface, name string) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		crd, err := crds.Get(tb.Context(), name, metav1.GetOptions{})
		if err != nil {
			tb.Fatal(err)
		}
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, c := range conditions {
			if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
				return
			}
		}
	}
	tb.Fatalf("%s is not served after a minute", name)
}

// server is a kubeapi process.
type server struct {
	dir        string
	kubeconfig string
	cmd        *exec.Cmd
	stdin      io.Closer // its end is the server's end, also when this process is killed
}

func startServer() (*server, error) {
	binary, err := findBinary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "certloop-kubeapi-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: filepath.Join(dir, "state")}
	logFile, err := os.Create(filepath.Join(dir, "log")) //nolint:gosec // our own directory
	if err != nil {
		return nil, err
	}
	defer logFile.Close() //nolint:errcheck // the child has its own descriptor
	// The server outlives the test that asks first: it ends with its standard input.
	s.cmd = exec.Command(binary, "-dir", s.dir, "-stop-on-stdin-eof") //nolint:gosec,noctx // our own binary
	s.cmd.Stderr = logFile
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if s.kubeconfig, err = waitReady(stdout); err != nil {
		s.end()
		return nil, fmt.Errorf("%s: %w (log: %s)", binary, err, logFile.Name())
	}
	return s, nil
}

// waitReady reads the line that says that the server is ready, and where its kubeconfig is.
func waitReady(stdout io.Reader) (string, error) {
	lines := make(chan string, 1)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			if strings.HasPrefix(in.Text(), "READY ") {
				lines <- in.Text()
				_, _ = io.Copy(io.Discard, stdout)
				return
			}
		}
	}()
	select {
	case line, ok := <-lines:
		if _, path, found := strings.Cut(line, "kubeconfig="); ok && found {
			return path, nil
		}
		return "", errors.New("ended before it was ready")
	case <-time.After(startTimeout):
		return "", fmt.Errorf("not ready after %v", startTimeout)
	}
}

func (s *server) end() {
	_ = s.stdin.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func findBinary() (string, error) {
	if path := os.Getenv("CERTLOOP_KUBEAPI"); path != "" {
		return path, nil
	}
	dir, err := os.Getwd() // a test runs in the directory of its package
	for ; err == nil; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "kubeapi")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return "", errAbsent
}
