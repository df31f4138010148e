//go:build linux

package knativetest

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// unserved is a namespace that no release serves.
const unserved = "other"

// deployed is a release of the chart in a profile and a model.
type deployed struct {
	*installation
	arrangement
	chart  string
	ca     *rig.Responder
	bus    *rig.Bus // nil where NATS is inside the Pod, and nobody else can look
	served []*rig.World
	before map[string]any // of the namespace that is not served
	witnesses
	embedded bool // NATS is inside the Pod
}

// TestProfiles enrolls certificates through the chart's manifests in every profile and both models: Helm
// installs them, each process has the token of its own service account and the NATS user that the chart
// renders for it, and nothing else. What was refused to them is in the audit log of the API server and in
// the log of nats-server.
func TestProfiles(t *testing.T) {
	audit := filepath.Join(t.TempDir(), "audit.log")
	i := emptyCluster(t, "--audit-policy-file="+auditPolicy(t), "--audit-log-path="+audit)
	i.installEventing(t)
	i.startControl(t)
	i.applyText(t, apiServer)
	for _, name := range []string{home, "core", "edge", unserved} {
		i.applyText(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}")
	}
	chart := i.packaged(t, filepath.Join(rig.Root(t), "charts", "certloop"))
	ca := rig.StartResponder(t, responder.Config{})
	for _, profile := range []string{"plain", "knative-direct", "knative"} {
		for _, model := range []string{"dedicated", "shared"} {
			t.Run(profile+"-"+model, func(t *testing.T) {
				d := &deployed{installation: i, arrangement: arrangement{profile, model}, chart: chart, ca: ca, witnesses: witnesses{audit: audit}}
				d.live(t)
			})
		}
	}
	t.Run("plain with a NATS server of its own", func(t *testing.T) {
		d := &deployed{installation: i, arrangement: arrangement{"plain", "dedicated"}, chart: chart, ca: ca, witnesses: witnesses{audit: audit}, embedded: true}
		d.live(t)
	})
}

// live is the life of a release: from NATS without it to the API server without it.
func (d *deployed) live(t *testing.T) {
	defer d.clear(t)
	d.begin(t)
	d.install(t)
	brief := d.declare(t)
	d.share(t)
	d.restore(t)
	d.upgrade(t)
	d.due(t, brief)
	d.untouched(t)
	d.refusals(t)
	d.leave(t)
}

// settings are the values that docs/install.md says have to be given, and a clock that ticks often.
func (d *deployed) settings(t *testing.T) string {
	t.Helper()
	path := d.values(t)
	more := fmt.Sprintf("nats: {urlSecret: %s}\nscan: {interval: 2s, schedule: %q}\n", natsUsers, everyTwoSeconds)
	if d.embedded {
		more = "plain: {embeddedNATS: true, replicas: 1}\nscan: {interval: 2s}\n"
	}
	if err := os.WriteFile(path, append(readFile(t, path), more...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// begin makes what is there before certloop: declarations, where it serves and where it does not, and
// NATS with the users that the chart renders.
func (d *deployed) begin(t *testing.T) {
	t.Helper()
	d.served = []*rig.World{rig.WorldIn(t, d.cluster, home)}
	if d.model == "shared" {
		d.served = []*rig.World{rig.WorldIn(t, d.cluster, "core"), rig.WorldIn(t, d.cluster, "edge")}
	}
	d.World = d.served[0]
	if !d.embedded {
		d.startNATS(t)
		d.bus = d.openBus(t)
	}
	d.listen(t)
}

// install installs the chart and waits until its programs are ready.
func (d *deployed) install(t *testing.T) {
	t.Helper()
	d.silently(t, "install", "certloop", d.chart, "--namespace", home, "-f", d.settings(t))
	// The definitions came with the chart.
	other := rig.WorldIn(t, d.cluster, unserved)
	other.Bootstrap(t, d.ca.CA)
	other.Apply(t, rig.Issuer(d.ca.CA), rig.Identity(), rig.EndEntity("web"))
	d.before = d.contents(t, unserved)
	rig.Eventually(t, patience, "Deployments are available", func() error { return d.unavailable(t) })
	if d.profile != "plain" {
		d.waitReady(t, gvr("eventing", "brokers"), gvr("eventing", "triggers"), gvr("sources", "pingsources"), gvr("sources", "apiserversources"))
		d.delivers(t)
	}
}

// unavailable says which Deployment of the chart has fewer Pods ready than it wants.
func (d *deployed) unavailable(t *testing.T) error {
	t.Helper()
	list, err := d.node.kube.AppsV1().Deployments(home).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=certloop"})
	if err != nil {
		return err
	}
	for _, d := range list.Items {
		if *d.Spec.Replicas != d.Status.AvailableReplicas || d.Status.ObservedGeneration != d.Generation {
			return fmt.Errorf("of %s %d of %d Pods are ready", d.Name, d.Status.AvailableReplicas, *d.Spec.Replicas)
		}
	}
	return nil
}

// declare declares certificates in each served namespace, and waits until workloads can mount them. One of them is due
// soon; its serial number is returned.
func (d *deployed) declare(t *testing.T) *big.Int {
	t.Helper()
	for _, w := range d.served {
		w.Bootstrap(t, d.ca.CA)
		w.Apply(t, rig.EndEntity("web"), rig.Identity(), rig.Issuer(d.ca.CA)) // in the wrong order
	}
	d.World.Apply(t, rig.EndEntity("brief", "validity: 60s", "renewBefore: 55s"))
	for _, w := range d.served {
		w.WaitReady(t, patience, rig.IdentityName, "web")
		rig.Pair(t, w.Secret(t, "web-tls"))
		rig.OpenSSLVerify(t, w.Secret(t, "web-tls"), d.ca.Roots)
	}
	d.World.WaitReady(t, patience, "brief")
	return serial(t, d.Secret(t, "brief-tls"))
}

// ofCluster makes a declaration refer to the CMPClusterIssuer.
func ofCluster(document string) string {
	return strings.Replace(document, "issuerRef: {name: "+rig.IssuerName+"}", "issuerRef: {kind: CMPClusterIssuer, name: operator-ca}", 1)
}

// share declares an issuer for all namespaces, whose Secrets are in the release's own, and in each that is served a
// certificate from it. It signs by an identity that is declared too, or, where the release's own namespace is
// not served, by one that was obtained elsewhere.
func (d *deployed) share(t *testing.T) {
	t.Helper()
	own := rig.WorldIn(t, d.cluster, home)
	own.ApplySecret(t, "operator-trust", map[string]string{"ca.crt": string(d.ca.Roots)})
	way := "initialAuthentication: {mac: {secretName: ca-bootstrap}}"
	if d.model == "dedicated" {
		own.Apply(t, ofCluster(rig.EndEntity("operator", "type: cmpIdentity")))
	} else {
		way = "renewal: {signedBy: cmpIdentity}"
		identity := d.Secret(t, rig.SecretName(rig.IdentityName)).Data
		own.ApplySecret(t, rig.SecretName("operator"), map[string]string{"tls.crt": string(identity["tls.crt"]), "tls.key": string(identity["tls.key"])})
	}
	d.applyText(t, `apiVersion: certloop.io/v1alpha1
kind: CMPClusterIssuer
metadata: {name: operator-ca}
spec:
  server: `+d.ca.URL+`
  authentication: {secretName: `+rig.SecretName("operator")+`}
  trust: {secretName: operator-trust}
  `+way+`
`)
	for _, w := range d.served {
		w.Apply(t, ofCluster(rig.EndEntity("shared")))
	}
	for _, w := range d.served {
		w.WaitReady(t, patience, "shared")
		rig.Pair(t, w.Secret(t, "shared-tls"))
		rig.OpenSSLVerify(t, w.Secret(t, "shared-tls"), d.ca.Roots)
	}
}

// restore deletes what workloads mount.
func (d *deployed) restore(t *testing.T) {
	t.Helper()
	for _, w := range d.served {
		before := w.Secret(t, "web-tls").Data
		w.Delete(t, "Secret", "web-tls")
		d.World = w
		d.waitBack(t, "web-tls", before)
		if d.bus != nil {
			d.bus.WaitFact(t, patience, model.SecretDeleted, w.Key("web"))
		}
	}
	d.World = d.served[0]
}

// due waits until the certificate that is due is renewed because a scan has found it.
func (d *deployed) due(t *testing.T, first *big.Int) {
	t.Helper()
	rig.Eventually(t, patience, "another certificate", func() error {
		if serial(t, d.Secret(t, "brief-tls")).Cmp(first) == 0 {
			return errors.New("it is the same")
		}
		return nil
	})
	if d.bus != nil {
		told := d.bus.WaitFact(t, patience, model.CertificateExpiring, d.Key("brief"))
		if !strings.HasSuffix(told.Source(), "/certloop/expiry-scan") {
			t.Errorf("that it is due was told by %s", told.Source())
		}
	}
	d.Delete(t, model.CertificateKind, "brief") // lest it is renewed for ever
}

// serial is that of the certificate in a Secret.
func serial(t *testing.T, s *corev1.Secret) *big.Int {
	t.Helper()
	if s == nil {
		t.Fatal("there is no Secret")
	}
	return rig.Certificates(t, s.Data[corev1.TLSCertKey])[0].SerialNumber
}

// pace is how often a certificate is declared while programs are replaced.
const pace = 200 * time.Millisecond

// upgrade has Helm bring other images, and declares certificates until each program was replaced: it is asked
// to end by SIGTERM, and nothing is asked of the CA twice.
func (d *deployed) upgrade(t *testing.T) {
	t.Helper()
	second := images(t, "second")
	helm := make(chan error, 1)
	go func() {
		_, stderr, err := d.helm(t, "upgrade", "certloop", d.chart, "--namespace", home, "--reset-then-reuse-values", "-f", second)
		if err != nil || stderr != "" {
			err = fmt.Errorf("helm upgrade: %w\n%s", err, stderr)
		}
		helm <- err
	}()
	var names []string
	for over := false; !over; over = len(helm) > 0 && d.unavailable(t) == nil && d.replaced() == nil {
		names = append(names, fmt.Sprintf("%s-%s-%t-%d", d.profile, d.model, d.embedded, len(names)))
		for _, w := range d.served {
			w.Apply(t, rig.EndEntity(names[len(names)-1]))
		}
		if len(names) > 1000 {
			t.Fatal(errors.Join(d.unavailable(t), d.replaced()))
		}
		time.Sleep(pace)
	}
	if err := <-helm; err != nil {
		t.Fatal(err)
	}
	for _, w := range d.served {
		w.WaitReady(t, patience, names...)
	}
	d.once(t, names)
	t.Logf("%d certificates declared meanwhile", len(names)*len(d.served))
}

// replaced says what still runs that Helm has replaced.
func (d *deployed) replaced() error {
	for _, p := range d.processes() {
		if image := p.pod.spec.Containers[0].Image; !strings.HasSuffix(image, digest("second")) {
			return fmt.Errorf("%s of %s runs", p.pod.name, image)
		}
	}
	return nil
}

// processes are those of the chart that run.
func (i *installation) processes() (all []*process) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, d := range i.deployments {
		d.mu.Lock()
		all = append(all, d.running...)
		d.mu.Unlock()
	}
	for _, s := range i.services {
		s.mu.Lock()
		if s.process != nil {
			all = append(all, s.process)
		}
		s.mu.Unlock()
	}
	return slices.DeleteFunc(all, func(p *process) bool { return !p.pod.ours() || p.over() })
}

// once counts what the CA has issued by these names: one for each namespace.
func (d *deployed) once(t *testing.T, names []string) {
	t.Helper()
	count := map[string]int{}
	for _, issued := range d.ca.Issued() {
		certificate, err := x509.ParseCertificate(issued.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		count[certificate.Subject.CommonName]++
	}
	for _, name := range names {
		if count[name] != len(d.served) {
			t.Errorf("of %s %d certificates were issued, want %d", name, count[name], len(d.served))
		}
	}
}

// contents are the versions of what is declared in a namespace, and of its Secrets.
func (d *deployed) contents(t *testing.T, namespace string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, resource := range []schema.GroupVersionResource{
		corev1.SchemeGroupVersion.WithResource("secrets"), model.GroupVersion.WithResource(model.CertificateResource), model.GroupVersion.WithResource(model.IssuerResource),
	} {
		list, err := d.objects.Resource(resource).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list.Items {
			all[resource.Resource+"/"+u.GetName()] = u.Object
		}
	}
	return all
}

// untouched looks at the namespace that is not served: nobody has written there.
func (d *deployed) untouched(t *testing.T) {
	t.Helper()
	now := d.contents(t, unserved)
	if !slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(d.before))) {
		t.Errorf("in the namespace that is not served there are %q, want %q", slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(d.before)))
	}
	for name, object := range d.before {
		if !reflect.DeepEqual(now[name], object) {
			t.Errorf("in the namespace that is not served %s was changed to %v", name, now[name])
		}
	}
}

// leave does what docs/install.md says of being rid of everything.
func (d *deployed) leave(t *testing.T) {
	t.Helper()
	for _, w := range d.served {
		d.deleteAll(t, w.Namespace, model.CertificateResource)
	}
	for _, w := range d.served {
		d.deleteAll(t, w.Namespace, model.IssuerResource)
	}
	d.deleteAll(t, "", model.ClusterIssuerResource)
	d.silently(t, "uninstall", "certloop", "--namespace", home)
	rig.Eventually(t, patience, "nothing runs any more", func() error {
		if left := d.processes(); len(left) > 0 {
			return fmt.Errorf("%d processes, %s among them", len(left), left[0].pod.name)
		}
		return nil
	})
	d.stopped(t)
}

// deleteAll deletes all of a collection in a namespace and waits until they are gone. Issuers can be deleted a
// moment after their last certificate.
func (d *deployed) deleteAll(t *testing.T, namespace, resource string) {
	t.Helper()
	client := d.objects.Resource(model.GroupVersion.WithResource(resource)).Namespace(namespace)
	rig.Eventually(t, rig.Patience, resource+" are gone from "+namespace, func() error {
		if err := client.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			return err
		}
		list, err := client.List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d are there, %s among them", len(list.Items), list.Items[0].GetName())
		}
		return err
	})
}

// clear leaves nothing of a release to the next one, whatever has come of it.
func (d *deployed) clear(t *testing.T) {
	t.Helper()
	if t.Failed() {
		_, _, _ = d.helm(t, "uninstall", "certloop", "--namespace", home)
	}
	for _, namespace := range []string{home, "core", "edge", unserved} {
		for _, resource := range []schema.GroupVersionResource{
			model.GroupVersion.WithResource(model.CertificateResource), model.GroupVersion.WithResource(model.IssuerResource), corev1.SchemeGroupVersion.WithResource("secrets"),
		} {
			d.purge(t, resource, namespace)
		}
	}
	d.purge(t, model.GroupVersion.WithResource(model.ClusterIssuerResource), "")
	rig.Eventually(t, patience, "the adapters are gone", func() error {
		list, err := d.node.kube.AppsV1().Deployments(home).List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = errors.New(list.Items[0].Name + " is there")
		}
		return err
	})
	d.putAway(t)
}

// purge deletes without asking finalizers.
func (d *deployed) purge(t *testing.T, resource schema.GroupVersionResource, namespace string) {
	t.Helper()
	client := d.objects.Resource(resource).Namespace(namespace)
	list, err := client.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return // it may not have been defined yet
	}
	for _, u := range list.Items {
		if len(u.GetFinalizers()) > 0 {
			_, _ = client.Patch(t.Context(), u.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		}
		_ = client.Delete(t.Context(), u.GetName(), metav1.DeleteOptions{})
	}
}

// putAway keeps the logs of a release apart from those of the next.
func (d *deployed) putAway(t *testing.T) {
	t.Helper()
	dir := filepath.Join(d.node.logs, filepath.Base(t.Name()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(d.node.logs, home+".*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Rename(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
}
