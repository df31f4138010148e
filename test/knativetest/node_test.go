//go:build linux

package knativetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// node stands in for the nodes of a cluster and for Knative Serving: it runs the
// container of a Pod template as a process, with the environment and the service account
// the template gives it.
type node struct {
	tb       testing.TB
	config   *rest.Config
	kube     *kubernetes.Clientset
	programs map[string]string // paths by image
	logs     string            // directory
	ctx      context.Context   // of everything that runs
	running  sync.WaitGroup

	mu       sync.Mutex
	count    map[string]int // processes started, by name
	drained  int            // functions that were stopped
	stubborn []error        // of those that did not stop as they should
}

// elsewhere is the program of an image that somebody else runs.
const elsewhere = ""

// pod is what is run.
type pod struct {
	namespace, name string
	spec            corev1.PodSpec
	port            int // that the program is told to listen on; 0 for none
}

// process is a running pod.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	killed atomic.Bool // by the test, which may not have come to its end yet
}

func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill()
}

// grace is how long a process may take to end when it is asked to: a Pod's, unless it says otherwise.
const grace = 30 * time.Second

// stop asks for the end, and returns when it has come. It is an error when it did not come by itself.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("after SIGTERM: %s", p.cmd.ProcessState)
		}
		return nil
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("it still ran %s after SIGTERM", grace)
	}
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// run starts a pod.
func (n *node) run(p pod) (*process, error) {
	c := p.spec.Containers[0]
	path, ok := n.programs[c.Image]
	if !ok {
		return nil, fmt.Errorf("%s/%s: no program for image %s", p.namespace, p.name, c.Image)
	}
	env, err := n.environment(p)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(n.logOf(p), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(n.ctx, path, c.Args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.count[p.name]++
	n.mu.Unlock()
	running := &process{cmd: cmd, ended: make(chan struct{})}
	n.running.Go(func() {
		_ = cmd.Wait() // how it ended is in its log
		close(running.ended)
	})
	return running, nil
}

// started is how many processes a pod's name has had.
func (n *node) started(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count[name]
}

func (n *node) logOf(p pod) string { return filepath.Join(n.logs, p.namespace+"."+p.name+".log") }

func (n *node) environment(p pod) ([]string, error) {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.logs}
	for _, e := range p.spec.Containers[0].Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			value = map[string]string{"metadata.namespace": p.namespace, "metadata.name": p.name}[e.ValueFrom.FieldRef.FieldPath]
		}
		env = append(env, e.Name+"="+value)
	}
	if p.port != 0 {
		env = append(env, fmt.Sprint("PORT=", p.port))
	}
	if p.spec.AutomountServiceAccountToken != nil && !*p.spec.AutomountServiceAccountToken {
		return env, nil
	}
	kubeconfig, err := n.identity(p.namespace, p.spec.ServiceAccountName)
	return append(env, "KUBECONFIG="+kubeconfig), err
}

// identity writes a kubeconfig with a token of a service account: whoever uses it has
// that account's rights and no others.
func (n *node) identity(namespace, account string) (string, error) {
	if account == "" {
		account = "default"
	}
	token, err := n.kube.CoreV1().ServiceAccounts(namespace).CreateToken(n.ctx, account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: n.config.Host, CertificateAuthorityData: n.config.CAData, CertificateAuthority: n.config.CAFile}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: namespace}
	c.CurrentContext = "x"
	path := filepath.Join(n.logs, namespace+"."+account+".kubeconfig")
	return path, clientcmd.WriteToFile(*c, path)
}

// deployment keeps a number of processes of a pod running, as a ReplicaSet does.
type deployment struct {
	node     *node
	pod      pod
	replicas int

	mu      sync.Mutex
	held    bool // nothing is started
	running []*process
}

// reconcile starts what is missing.
func (d *deployment) reconcile() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.running[:0]
	for _, p := range d.running {
		if !p.over() {
			kept = append(kept, p)
		}
	}
	d.running = kept
	if path, known := d.node.programs[d.pod.spec.Containers[0].Image]; known && path == elsewhere {
		return nil
	}
	for !d.held && len(d.running) < d.replicas {
		next := d.pod
		if strings.HasPrefix(next.spec.Containers[0].Image, "certloop/") {
			next.port = freePort(d.node.ctx)
		}
		p, err := d.node.run(next)
		if err != nil {
			return err
		}
		d.running = append(d.running, p)
	}
	return nil
}

// hold kills what runs and starts nothing until release.
func (d *deployment) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
	for _, p := range d.running {
		p.kill()
		<-p.ended
	}
}

func (d *deployment) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
}

// killOne kills one of the processes, if there is any.
func (d *deployment) killOne() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.running) > 0 {
		d.running[0].kill()
	}
}

// freePort is a port that nobody listens on. In a namespace of our own nobody takes it.
func freePort(ctx context.Context) int {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// Times of a Knative Service, far shorter than Knative's own.
const (
	idleAfter  = 4 * time.Second // without a request until the Pod is stopped
	readyAfter = time.Minute     // at most
)

// service is a Knative Service: its Pod is started by the first request, and stopped when
// none has come for a while. It has at most one Pod.
type service struct {
	node *node
	pod  pod

	mu      sync.Mutex
	backend *url.URL
	process *process
	active  int
	used    time.Time
}

// ServeHTTP is the way through the activator.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	backend, err := s.wake(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer s.done()
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(backend)
		p.Out.Host = p.In.Host
	}}
	proxy.ServeHTTP(w, r)
}

func (s *service) wake(ctx context.Context) (*url.URL, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || s.process.over() {
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	s.active++
	return s.backend, nil
}

func (s *service) start(ctx context.Context) error {
	p := s.pod
	p.port = freePort(ctx)
	running, err := s.node.run(p)
	if err != nil {
		return err
	}
	s.process, s.backend = running, &url.URL{Scheme: "http", Host: fmt.Sprint("127.0.0.1:", p.port)}
	for deadline := time.Now().Add(readyAfter); time.Now().Before(deadline) && !running.over() && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if ready(ctx, s.backend.String()+p.spec.Containers[0].ReadinessProbe.HTTPGet.Path) {
			return nil
		}
	}
	running.kill()
	return fmt.Errorf("%s did not become ready (see %s)", p.name, s.node.logOf(p))
}

func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func (s *service) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.used = time.Now()
}

// reap stops a Pod that nobody uses. While it drains the next request starts another one.
func (s *service) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil && s.active == 0 && time.Since(s.used) > idleAfter {
		idle := s.process
		s.node.running.Go(func() { s.node.drain(s.pod.name, idle) })
		s.process = nil
	}
}

// drain stops a Pod that has nothing to do, as a kubelet would.
func (n *node) drain(name string, p *process) {
	err := p.stop()
	if p.killed.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drained++
	if err != nil && n.ctx.Err() == nil {
		n.stubborn = append(n.stubborn, fmt.Errorf("%s: %w", name, err))
	}
}

func (s *service) killOne() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.kill()
	}
}
