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
	"reflect"
	"slices"
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
	drained  int            // programs of ours that were stopped
	stubborn []error        // of those that did not stop as they should, or whose probes failed
	pods     int            // that got an address
}

// elsewhere is the program of an image that somebody else runs.
const elsewhere = ""

// pod is what is run.
type pod struct {
	namespace, name string
	spec            corev1.PodSpec
	port            int    // that the program is told to listen on; 0 for none
	ip              string // of programs that listen on every address of their Pod; they share one network here
}

// ours says that the program is certloop's.
func (p pod) ours() bool { return strings.HasPrefix(p.spec.Containers[0].Image, "certloop/") }

// process is a running pod.
type process struct {
	pod    pod
	cmd    *exec.Cmd
	ended  chan struct{}
	killed atomic.Bool // by the test, which may not have come to its end yet
	ready  atomic.Bool // by its probes
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
	arguments, err := n.mounted(p, env)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(n.logOf(p), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(n.ctx, path, arguments...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.count[p.name]++
	n.mu.Unlock()
	running := &process{pod: p, cmd: cmd, ended: make(chan struct{})}
	n.running.Go(func() {
		_ = cmd.Wait() // how it ended is in its log
		close(running.ended)
	})
	n.running.Go(func() { n.probe(running) })
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
		value, err := n.value(p, e)
		if err != nil {
			return nil, err
		}
		env = append(env, e.Name+"="+value)
	}
	if p.port != 0 {
		env = append(env, fmt.Sprint("PORT=", p.port))
	}
	if mounted, err := n.automounted(p); err != nil || !mounted {
		return env, err
	}
	kubeconfig, err := n.identity(p.namespace, p.spec.ServiceAccountName)
	if p.ours() {
		env = append(env, "CERTLOOP_NAMESPACE="+p.namespace) // which they read beside the token, in a file
	}
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

// reconcile starts what is missing, and replaces one after the other what runs from another template.
func (d *deployment) reconcile() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = slices.DeleteFunc(d.running, (*process).over)
	if path, known := d.node.programs[d.pod.spec.Containers[0].Image]; d.held || known && path == elsewhere {
		return nil
	}
	for len(d.running) < d.replicas {
		if err := d.start(); err != nil {
			return err
		}
	}
	old := slices.IndexFunc(d.running, d.outdated)
	if old < 0 || !d.pod.ours() {
		return nil
	}
	if len(d.running) == d.replicas {
		return d.start()
	}
	if !slices.ContainsFunc(d.running, (*process).unready) {
		d.node.dismiss(d.running[old])
		d.running = slices.Delete(d.running, old, old+1)
	}
	return nil
}

func (d *deployment) start() error {
	next := d.pod
	switch {
	case !next.ours():
	case slices.Contains(next.spec.Containers[0].Args, everyAddress):
		next.ip = d.node.address()
	default:
		next.port = freePort(d.node.ctx)
	}
	p, err := d.node.run(next)
	if err != nil {
		return err
	}
	d.running = append(d.running, p)
	return nil
}

func (d *deployment) outdated(p *process) bool { return !reflect.DeepEqual(p.pod.spec, d.pod.spec) }

// ready is how many processes are.
func (d *deployment) ready() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.running {
		if !p.over() && !p.unready() {
			n++
		}
	}
	return n
}

// remove stops everything, as when the Deployment was deleted.
func (d *deployment) remove() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
	for _, p := range d.running {
		d.node.dismiss(p)
	}
	d.running = nil
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
// none has come for a while, unless it is always up. It has at most one Pod.
type service struct {
	node     *node
	pod      pod
	alwaysUp bool // autoscaling.knative.dev/min-scale

	starting sync.Mutex // held by whoever starts a Pod

	mu      sync.Mutex
	backend *url.URL
	process *process
	active  int
	used    time.Time
	removed bool // and nothing is started any more
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

// wake has a Pod ready for a request, which is done when done is called.
func (s *service) wake(ctx context.Context) (*url.URL, error) {
	s.mu.Lock()
	s.active++
	s.mu.Unlock()
	s.starting.Lock()
	defer s.starting.Unlock()
	backend, err := s.up(ctx)
	if err != nil {
		s.done()
	}
	return backend, err
}

// up starts a Pod unless there is one.
func (s *service) up(ctx context.Context) (*url.URL, error) {
	s.mu.Lock()
	next, backend := s.pod, s.backend
	alive, removed := s.process != nil && !s.process.over(), s.removed
	s.mu.Unlock()
	switch {
	case alive:
		return backend, nil
	case removed:
		return nil, errors.New(next.name + " was deleted")
	default:
		return s.start(ctx, next)
	}
}

func (s *service) start(ctx context.Context, p pod) (*url.URL, error) {
	p.port = freePort(ctx)
	running, err := s.node.run(p)
	if err != nil {
		return nil, err
	}
	backend := &url.URL{Scheme: "http", Host: fmt.Sprint("127.0.0.1:", p.port)}
	s.mu.Lock()
	s.process, s.backend, s.used = running, backend, time.Now()
	if s.removed {
		s.node.dismiss(running)
	}
	s.mu.Unlock()
	for deadline := time.Now().Add(readyAfter); time.Now().Before(deadline) && !running.over() && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if ready(ctx, backend.String()+p.spec.Containers[0].ReadinessProbe.HTTPGet.Path) {
			return backend, nil
		}
	}
	running.kill()
	return nil, fmt.Errorf("%s did not become ready (see %s)", p.name, s.node.logOf(p))
}

// scale has the Pod run that has to run always, stops the one that nobody uses, and replaces the one of a
// revision that is not the newest.
func (s *service) scale(ctx context.Context) {
	s.mu.Lock()
	runs := s.process != nil && !s.process.over()
	missing, outdated := s.alwaysUp && !runs, runs && s.outdated()
	idle := !s.alwaysUp
	s.mu.Unlock()
	switch {
	case missing || outdated:
		if s.starting.TryLock() {
			s.node.running.Go(func() {
				defer s.starting.Unlock()
				s.revise(ctx)
			})
		}
	case idle:
		s.reap()
	}
}

func (s *service) outdated() bool { return !reflect.DeepEqual(s.process.pod.spec, s.pod.spec) }

// revise starts a Pod of the newest revision, and then ends that of the one before. Why it does not start
// is in its log.
func (s *service) revise(ctx context.Context) {
	s.mu.Lock()
	next, old := s.pod, s.process
	current := s.removed || old != nil && !old.over() && !s.outdated()
	s.mu.Unlock()
	if current {
		return
	}
	if _, err := s.start(ctx, next); err == nil && old != nil {
		s.node.dismiss(old)
	}
}

// remove stops the Pod, as when the Service was deleted.
func (s *service) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
	if s.process != nil {
		s.node.dismiss(s.process)
		s.process = nil
	}
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
		s.node.dismiss(s.process)
		s.process = nil
	}
}

// dismiss stops a Pod, as a kubelet would, and returns at once.
func (n *node) dismiss(p *process) { n.running.Go(func() { n.drain(p) }) }

func (n *node) drain(p *process) {
	dead := p.over() // before it was asked to end
	err := p.stop()
	if dead || p.killed.Load() || !p.pod.ours() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drained++
	if err != nil && n.ctx.Err() == nil {
		n.stubborn = append(n.stubborn, fmt.Errorf("%s: %w", p.pod.name, err))
	}
}

func (s *service) killOne() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.kill()
	}
}
