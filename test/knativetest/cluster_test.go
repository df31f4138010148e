//go:build linux

package knativetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/kubetest"
)

// Names of the installation in deploy/knative.
const (
	home            = "certloop-system"
	eventing        = "knative-eventing"
	serving         = "knative-serving"
	eventingModule  = "knative.dev/eventing"
	servingModule   = "knative.dev/serving"
	controlAccount  = "eventing-controller"
	webhookPort     = "443" // where the API server looks for a webhook's Service, on loopback
	fieldManager    = "knativetest"
	reconcilePeriod = 100 * time.Millisecond
)

// installation is a cluster with Knative Eventing and certloop.
type installation struct {
	*rig.World
	cluster *kubetest.Cluster
	node    *node
	objects dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper

	helmProgram string // that installs charts

	mu          sync.Mutex
	deployments map[string]*deployment
	services    map[string]*service // by host name
	jobs        map[types.UID]bool
}

func servingGVR() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: "services"}
}

// newCluster makes a cluster with nothing but NATS in it, where what is applied runs.
func newCluster(tb testing.TB) *installation {
	tb.Helper()
	startNATS(tb)
	return emptyCluster(tb)
}

// emptyCluster makes a cluster with nothing in it. flags are further ones of kube-apiserver.
func emptyCluster(tb testing.TB, flags ...string) *installation {
	tb.Helper()
	images := programs(tb)
	startDNS(tb)
	i := &installation{helmProgram: "helm", deployments: map[string]*deployment{}, services: map[string]*service{}, jobs: map[types.UID]bool{}}
	i.connect(tb, kubetest.StartOwn(tb, flags...), images)
	i.serve(tb)
	for _, name := range []string{eventing, serving, "nats"} {
		i.applyText(tb, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}")
	}
	return i
}

// install makes the cluster, with everything in it running.
func install(tb testing.TB) *installation {
	tb.Helper()
	i := newCluster(tb)
	i.installEventing(tb)
	i.startControl(tb)
	i.installCertloop(tb)
	i.World = rig.WorldIn(tb, i.cluster, home)
	return i
}

func startNATS(tb testing.TB) {
	tb.Helper()
	s, err := server.NewServer(&server.Options{Host: natsAddress, Port: 4222, JetStream: true, StoreDir: tb.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	tb.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(rig.Patience) {
		tb.Fatal("the NATS server does not start")
	}
}

func (i *installation) connect(tb testing.TB, cluster *kubetest.Cluster, images map[string]string) {
	tb.Helper()
	i.cluster = cluster
	cfg := cluster.Config()
	cfg.WarningHandler = rest.NoWarnings{}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if i.objects, err = dynamic.NewForConfig(cfg); err != nil {
		tb.Fatal(err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	i.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	i.node = &node{tb: tb, config: cfg, kube: kube, programs: images, logs: logs(tb), ctx: ctx, count: map[string]int{}}
	var all sync.WaitGroup
	all.Go(func() { i.reconcile(ctx) })
	tb.Cleanup(func() { cancel(); all.Wait(); i.node.running.Wait() })
}

// logs is a directory that is kept when the test fails.
func logs(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "certloop-knative-") //nolint:usetesting // it outlives a test that failed
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log("logs are in ", dir)
			return
		}
		_ = os.RemoveAll(dir) // it is in the temporary directory
	})
	return dir
}

// programs are what runs for an image.
func programs(tb testing.TB) map[string]string {
	tb.Helper()
	all := map[string]string{
		"ko://" + eventingModule + "/cmd/mtping":         knativeProgram(tb, "mtping"),
		"ko://" + eventingModule + "/cmd/broker/ingress": knativeProgram(tb, "ingress"),
		"ko://" + eventingModule + "/cmd/broker/filter":  knativeProgram(tb, "filter"),
		"ko://" + eventingModule + "/cmd/webhook":        knativeProgram(tb, "eventing-webhook"),
		"ko://" + servingModule + "/cmd/webhook":         knativeProgram(tb, "serving-webhook"),
		"kncontrol":                                      knativeProgram(tb, "kncontrol"),
		"apiserver_receive_adapter":                      knativeProgram(tb, "apiserver_receive_adapter"),
		// Runs in kncontrol.
		"ko://" + eventingModule + "/cmd/in_memory/channel_dispatcher": elsewhere,
	}
	for _, name := range []string{"certloop", "enroll", "renew", "watch-secrets", "expiry-scan"} {
		all["certloop/"+name+":"+chartVersion(tb)] = rig.Binary(tb, name)
		for _, release := range releases() {
			all["certloop/"+name+"@"+digest(release)] = rig.Binary(tb, name)
		}
	}
	return all
}

// knativeProgram is the path of one of Knative's programs.
func knativeProgram(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(rig.Root(tb), "bin", "knative", name)
	if _, err := os.Stat(path); err != nil {
		rig.Missing(tb, path+" is not there: run `make knative`")
	}
	return path
}

// chartVersion is the tag of the images in deploy/knative.
func chartVersion(tb testing.TB) string {
	tb.Helper()
	var chart struct {
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(readFile(tb, filepath.Join(rig.Root(tb), "charts", "certloop", "Chart.yaml")), &chart); err != nil {
		tb.Fatal(err)
	}
	return chart.AppVersion
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return content
}

// serve is the way of HTTP in the cluster: to a Knative Service, to Knative's own
// programs, or to a channel, by the name that was asked for.
func (i *installation) serve(tb testing.TB) {
	tb.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", backendOf(p.In.Host), p.In.Host
	}}
	s := &http.Server{Addr: httpAddress + ":80", ReadHeaderTimeout: rig.Patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		target := i.services[r.Host]
		i.mu.Unlock()
		if target != nil {
			target.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() {
		if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
	}()
	tb.Cleanup(func() { _ = s.Close() })
}

// Ports of Knative's programs, which share one network here.
const (
	dispatcherPort = "8080" // of in-memory channels: a constant of Knative
	ingressPort    = "18081"
	filterPort     = "18082"
)

func backendOf(host string) string {
	switch {
	case strings.HasPrefix(host, "broker-ingress."+eventing+"."):
		return "127.0.0.1:" + ingressPort
	case strings.HasPrefix(host, "broker-filter."+eventing+"."):
		return "127.0.0.1:" + filterPort
	default:
		return "127.0.0.1:" + dispatcherPort
	}
}

// installEventing applies Knative Eventing's own manifests.
func (i *installation) installEventing(tb testing.TB) {
	tb.Helper()
	config := filepath.Join(moduleDir(tb, eventingModule), "config")
	i.applyFiles(tb, plain, config+"/core/resources/*.yaml", config+"/channels/in-memory-channel/resources/*.yaml",
		filepath.Join(rig.Root(tb), "test", "chart", "testdata", "knative", "serving-*.yaml"))
	i.mapper.Reset()
	i.applyFiles(tb, plain, config+"/core/configmaps/*.yaml", config+"/channels/in-memory-channel/configmaps/*.yaml",
		config+"/core/2*.yaml", config+"/core/roles/*.yaml", config+"/channels/in-memory-channel/2*.yaml", config+"/channels/in-memory-channel/roles/*.yaml",
		config+"/brokers/mt-channel-broker/roles/*.yaml", config+"/core/webhooks/secret.yaml", config+"/channels/in-memory-channel/deployments/dispatcher-service.yaml")
	i.applyFiles(tb, ports, config+"/core/deployments/pingsource-mt-adapter.yaml", config+"/channels/in-memory-channel/deployments/dispatcher.yaml", config+"/brokers/mt-channel-broker/deployments/broker-*.yaml")
	i.applyFiles(tb, plain, config+"/core/webhooks/defaulting.yaml", config+"/core/webhooks/resource-validation.yaml")
}

// moduleDir is the source of a module that test/knative pins.
func moduleDir(tb testing.TB, module string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = filepath.Join(rig.Root(tb), "test", "knative")
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("go list -m %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}

func plain(u *unstructured.Unstructured) *unstructured.Unstructured {
	// Conversion webhooks of kinds that have one version in use.
	if u.GetKind() == "CustomResourceDefinition" {
		_ = unstructured.SetNestedMap(u.Object, map[string]any{"strategy": "None"}, "spec", "conversion")
	}
	return u
}

// ports gives programs that share one network ports of their own, where that is possible,
// and takes the parts away that belong to a kubelet.
func ports(u *unstructured.Unstructured) *unstructured.Unstructured {
	switch u.GetKind() {
	case "Deployment":
	case "Service":
		return u
	default:
		return nil // autoscalers and their like
	}
	setEnv(u, map[string]string{"INGRESS_PORT": ingressPort, "FILTER_PORT": filterPort, "INGRESS_PORT_HTTPS": "18441", "FILTER_PORT_HTTPS": "18442"})
	return u
}

// setEnv replaces what a Deployment sets in the environment already.
func setEnv(u *unstructured.Unstructured, own map[string]string) {
	containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		env, _, _ := unstructured.NestedSlice(c.(map[string]any), "env")
		for _, e := range env {
			if port, ok := own[fmt.Sprint(e.(map[string]any)["name"])]; ok {
				e.(map[string]any)["value"] = port
			}
		}
		_ = unstructured.SetNestedSlice(c.(map[string]any), env, "env")
	}
	_ = unstructured.SetNestedSlice(u.Object, containers, "spec", "template", "spec", "containers")
}

func (i *installation) applyFiles(tb testing.TB, change func(*unstructured.Unstructured) *unstructured.Unstructured, patterns ...string) {
	tb.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			tb.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			for document := range bytes.SplitSeq(readFile(tb, file), []byte("\n---")) {
				u := &unstructured.Unstructured{}
				if err := yaml.Unmarshal(document, &u.Object); err != nil {
					tb.Fatalf("%s: %v", file, err)
				}
				if len(u.Object) == 0 {
					continue
				}
				if u = change(u); u != nil {
					i.apply(tb, u)
				}
			}
		}
	}
}

func (i *installation) applyText(tb testing.TB, text string) {
	tb.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		tb.Fatal(err)
	}
	i.apply(tb, u)
}

// apply applies an object, server-side. What is refused because a controller or a webhook is
// not there yet is tried again.
func (i *installation) apply(tb testing.TB, u *unstructured.Unstructured) {
	tb.Helper()
	rig.Eventually(tb, rig.Patience, u.GetKind()+" "+u.GetName()+" is applied", func() error {
		m, err := i.mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
		if err != nil {
			i.mapper.Reset()
			return err
		}
		var client dynamic.ResourceInterface = i.objects.Resource(m.Resource)
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			client = i.objects.Resource(m.Resource).Namespace(u.GetNamespace())
		}
		_, err = client.Apply(tb.Context(), u.GetName(), u, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		return err
	})
}

// startControl starts Knative's controllers and waits for the webhook that judges its objects.
func (i *installation) startControl(tb testing.TB) {
	tb.Helper()
	i.applyText(tb, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: kncontrol},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin},
subjects: [{kind: ServiceAccount, name: `+controlAccount+`, namespace: `+eventing+`}]}`)
	control := pod{namespace: eventing, name: "kncontrol", spec: corev1.PodSpec{
		ServiceAccountName: controlAccount,
		Containers:         []corev1.Container{{Image: "kncontrol", Env: []corev1.EnvVar{{Name: "WEBHOOK_PORT", Value: webhookPort}, {Name: "SYSTEM_NAMESPACE", Value: eventing}}}},
	}}
	if _, err := i.node.run(control); err != nil {
		tb.Fatal(err)
	}
	rig.Eventually(tb, rig.Patience, "Knative's webhook", func() error {
		hook, err := i.node.kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(tb.Context(), "validation.webhook.eventing.knative.dev", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(hook.Webhooks[0].ClientConfig.CABundle) == 0 || len(hook.Webhooks[0].Rules) == 0 {
			return errors.New("it is not configured yet")
		}
		return nil
	})
}

// installCertloop applies deploy/knative, as docs/install.md says.
func (i *installation) installCertloop(tb testing.TB) {
	tb.Helper()
	dir := filepath.Join(rig.Root(tb), "deploy", "knative")
	i.applyFiles(tb, same, dir+"/namespace.yaml", dir+"/crds/*.yaml", dir+"/policies/*.yaml")
	i.mapper.Reset()
	i.applyFiles(tb, same, dir+"/certloop.yaml")
}

func same(u *unstructured.Unstructured) *unstructured.Unstructured { return u }

// reconcile makes processes of what is in the cluster.
func (i *installation) reconcile(ctx context.Context) {
	for ctx.Err() == nil {
		err := errors.Join(i.reconcileDeployments(ctx), i.reconcileServices(ctx), i.reconcileJobs(ctx), i.reconcileEndpoints(ctx))
		if err != nil && ctx.Err() == nil {
			i.node.tb.Log("node: ", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconcilePeriod):
		}
	}
}

func (i *installation) reconcileDeployments(ctx context.Context) error {
	list, err := i.node.kube.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	there := map[string]bool{}
	for n := range list.Items {
		d := &list.Items[n]
		there[d.Name] = true
		replicas := 1
		if d.Spec.Replicas != nil {
			replicas = int(*d.Spec.Replicas)
		}
		running := i.deploymentOf(d, replicas)
		errs = append(errs, running.reconcile(), i.available(ctx, d, replicas, running))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	removeOthers(i.deployments, there)
	return errors.Join(errs...)
}

// removeOthers takes away what is not there any more.
func removeOthers[T interface{ remove() }](all map[string]T, there map[string]bool) {
	for name, what := range all {
		if !there[name] {
			what.remove()
			delete(all, name)
		}
	}
}

func (i *installation) deploymentOf(d *appsv1.Deployment, replicas int) *deployment {
	i.mu.Lock()
	defer i.mu.Unlock()
	known := i.deployments[d.Name]
	if known == nil {
		known = &deployment{node: i.node}
		i.deployments[d.Name] = known
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	known.pod, known.replicas = pod{namespace: d.Namespace, name: d.Name, spec: d.Spec.Template.Spec}, replicas
	return known
}

// available says in the status of a Deployment how many of its Pods are ready.
func (i *installation) available(ctx context.Context, d *appsv1.Deployment, replicas int, running *deployment) error {
	ready := int32(replicas)
	if running.pod.ours() {
		ready = int32(min(replicas, running.ready()))
	}
	if d.Status.ObservedGeneration == d.Generation && d.Status.AvailableReplicas == ready {
		return nil
	}
	now := metav1.Now()
	d.Status = appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, Replicas: int32(replicas), ReadyReplicas: ready, AvailableReplicas: ready, UpdatedReplicas: int32(replicas),
		Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable", LastUpdateTime: now, LastTransitionTime: now}},
	}
	_, err := i.node.kube.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	return err
}

// reconcileServices makes Knative Services reachable, and their status say so.
func (i *installation) reconcileServices(ctx context.Context) error {
	list, err := i.objects.Resource(servingGVR()).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil // before there is such a resource
	}
	var errs []error
	there := map[string]bool{}
	for n := range list.Items {
		u := &list.Items[n]
		host := fmt.Sprintf("%s.%s.svc.cluster.local", u.GetName(), u.GetNamespace())
		there[host] = true
		s, err := i.serviceOf(u, host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.scale(ctx)
		if generation, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration"); generation != u.GetGeneration() {
			errs = append(errs, i.reachable(ctx, u, host))
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	removeOthers(i.services, there)
	return errors.Join(errs...)
}

func (i *installation) serviceOf(u *unstructured.Unstructured, host string) (*service, error) {
	raw, _, err := unstructured.NestedMap(u.Object, "spec", "template", "spec")
	if err != nil {
		return nil, err
	}
	var spec corev1.PodSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &spec); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.services[host] == nil {
		i.services[host] = &service{node: i.node}
	}
	s := i.services[host]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pod = pod{namespace: u.GetNamespace(), name: u.GetName(), spec: spec}
	least, _, _ := unstructured.NestedString(u.Object, "spec", "template", "metadata", "annotations", "autoscaling.knative.dev/min-scale")
	s.alwaysUp = least != "" && least != "0"
	return s, nil
}

func (i *installation) reachable(ctx context.Context, u *unstructured.Unstructured, host string) error {
	now := time.Now().UTC().Format(time.RFC3339)
	var conditions []any
	for _, kind := range []string{"Ready", "ConfigurationsReady", "RoutesReady"} {
		conditions = append(conditions, map[string]any{"type": kind, "status": "True", "lastTransitionTime": now})
	}
	u.Object["status"] = map[string]any{
		"observedGeneration": u.GetGeneration(), "conditions": conditions,
		"url": "http://" + host, "address": map[string]any{"url": "http://" + host},
	}
	_, err := i.objects.Resource(servingGVR()).Namespace(u.GetNamespace()).UpdateStatus(ctx, u, metav1.UpdateOptions{})
	return err
}

// reconcileJobs runs each Job until it has succeeded.
func (i *installation) reconcileJobs(ctx context.Context) error {
	list, err := i.node.kube.BatchV1().Jobs("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for n := range list.Items {
		j := &list.Items[n]
		if i.jobs[j.UID] {
			continue
		}
		done, err := i.runJob(j)
		if err != nil {
			return err
		}
		if !done {
			continue
		}
		if err := i.complete(ctx, j); err != nil {
			return err
		}
		i.jobs[j.UID] = true
	}
	return nil
}

// complete says in the status of a Job that it has succeeded: Helm waits for that.
func (i *installation) complete(ctx context.Context, j *batchv1.Job) error {
	now := metav1.Now()
	j.Status.StartTime, j.Status.CompletionTime, j.Status.Succeeded = &now, &now, 1
	for _, kind := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now, LastProbeTime: now})
	}
	_, err := i.node.kube.BatchV1().Jobs(j.Namespace).UpdateStatus(ctx, j, metav1.UpdateOptions{})
	return err
}

func (i *installation) runJob(j *batchv1.Job) (bool, error) {
	p, err := i.node.run(pod{namespace: j.Namespace, name: j.Name, spec: j.Spec.Template.Spec})
	if err != nil {
		return false, err
	}
	<-p.ended
	return p.cmd.ProcessState.Success(), nil
}

// reconcileEndpoints gives Services with a selector an endpoint, by which controllers see
// that somebody is behind them.
func (i *installation) reconcileEndpoints(ctx context.Context) error {
	list, err := i.node.kube.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range list.Items {
		if len(s.Spec.Selector) == 0 {
			continue
		}
		slices := i.node.kube.DiscoveryV1().EndpointSlices(s.Namespace)
		if _, err := slices.Get(ctx, s.Name, metav1.GetOptions{}); err == nil {
			continue
		}
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		}
		for _, p := range s.Spec.Ports {
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port})
		}
		_, err := slices.Create(ctx, slice, metav1.CreateOptions{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// waitReady waits until Knative says that its objects are ready.
func (i *installation) waitReady(tb testing.TB, resources ...schema.GroupVersionResource) {
	tb.Helper()
	for _, gvr := range resources {
		rig.Eventually(tb, 3*time.Minute, gvr.Resource+" are ready", func() error {
			list, err := i.objects.Resource(gvr).Namespace(home).List(tb.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			if len(list.Items) == 0 {
				return errors.New("there are none")
			}
			var waiting []string
			for _, u := range list.Items {
				if why := notReady(&u); why != "" {
					waiting = append(waiting, u.GetName()+": "+why)
				}
			}
			if len(waiting) > 0 {
				return errors.New(strings.Join(waiting, "; "))
			}
			return nil
		})
	}
}

// notReady says why an object is not; "" when it is.
func notReady(u *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	at := slices.IndexFunc(conditions, func(c any) bool { return c.(map[string]any)["type"] == "Ready" })
	if at < 0 {
		return "no condition Ready"
	}
	if c := conditions[at].(map[string]any); c["status"] != "True" {
		return fmt.Sprint(c["status"], " ", c["reason"], " ", c["message"])
	}
	return ""
}
