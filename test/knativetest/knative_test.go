//go:build linux

package knativetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

const patience = 3 * time.Minute

func gvr(group, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group + ".knative.dev", Version: "v1", Resource: resource}
}

// One installation serves all: it is what takes long.
func TestKnative(t *testing.T) {
	i := install(t)
	ca := rig.StartResponder(t, responder.Config{})
	bus := rig.OpenBus(t, "nats://"+natsAddress+":4222")
	i.waitReady(t, gvr("eventing", "brokers"), gvr("eventing", "triggers"), gvr("sources", "pingsources"), gvr("sources", "apiserversources"))

	i.schedule(t, "certloop-scan", never) // it would find what the sources are to tell of
	i.delivers(t)

	t.Run("an object reaches enroll through the ApiServerSource", func(t *testing.T) { i.object(t, ca) })
	i.unwatched(t)
	t.Run("an event reaches enroll through the Broker", i.pipeline)
	t.Run("what nobody can deliver is dead-lettered", func(t *testing.T) { i.undeliverable(t, bus) })
	t.Run("a PingSource reaches expiry-scan", func(t *testing.T) { i.ping(t, bus) })
	t.Run("a deleted Secret is restored", func(t *testing.T) { i.deleted(t, bus) })
	t.Run("and also while nobody watches, by the sweep", i.missed)
	i.untold(t)
	t.Run("a certificate that is due is renewed", i.due)
	t.Run("without work there are no Pods, and the next event starts one", i.zero)
	t.Run("functions and dispatch die under load", func(t *testing.T) { i.storm(t, bus) })
	t.Run("what was declared while nobody watched is enrolled by a scan", i.scanned)
	t.Run("nobody lacked a right", i.rights)
	t.Run("and everybody was himself", i.identities)
	t.Run("who was told to stop did", i.stopped)
}

// delivers waits until the adapter of the ApiServerSource, the Broker's ingress and its filter hand
// events on. Their ready conditions do not say so, and of objects that are there when the adapter
// begins to watch it tells nothing: a scan finds them.
func (i *installation) delivers(t *testing.T) {
	t.Helper()
	n := 0
	rig.Eventually(t, patience, "an object is looked at", func() error {
		n++
		name := fmt.Sprint("probe-", n)
		i.World.Apply(t, rig.EndEntity(name, "paused: true"))
		time.Sleep(2 * time.Second) // a Pod starts in less
		if len(i.World.Certificate(t, name).Status.Conditions) == 0 {
			return errors.New(name + " has no status")
		}
		return nil
	})
}

func (i *installation) object(t *testing.T, ca *rig.Responder) {
	i.World.Bootstrap(t, ca.CA)
	i.World.Apply(t, rig.EndEntity("web"), rig.Identity(), rig.Issuer(ca.CA)) // in the wrong order
	i.WaitReady(t, patience, rig.IdentityName, "web")
	secret := i.Secret(t, "web-tls")
	rig.Pair(t, secret)
	rig.OpenSSLVerify(t, secret, ca.Roots)
	if i.node.started("certloop-enroll") == 0 {
		t.Error("no Pod of enroll was started")
	}
}

// ingress is where the Broker receives events.
const ingress = "http://broker-ingress." + eventing + ".svc.cluster.local/" + home + "/certloop"

func post(t *testing.T, e event.Event) {
	t.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, patience, "the Broker accepts an event", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, ingress, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.Body.Close() != nil || resp.StatusCode != http.StatusAccepted {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func (i *installation) pipeline(t *testing.T) {
	post(t, rig.Event(t, model.ConfigCreated, i.Key("pipeline"), rig.EndEntity("pipeline")))
	i.WaitFact(t, "pipeline")
}

// WaitFact waits for a certificate that an event declares: first for its configuration.
func (i *installation) WaitFact(t *testing.T, name string) {
	t.Helper()
	i.waitThere(t, name)
	i.WaitReady(t, patience, name)
}

func (i *installation) waitThere(t *testing.T, name string) {
	t.Helper()
	resource := model.GroupVersion.WithResource(model.CertificateResource)
	rig.Eventually(t, patience, "CMPCertificate "+name, func() error {
		_, err := i.objects.Resource(resource).Namespace(home).Get(t.Context(), name, metav1.GetOptions{})
		return err
	})
}

// The function refuses the event and dead-letters it; the Broker, told that nobody will
// take it, hands it to its dead-letter sink, which keeps it too.
func (i *installation) undeliverable(t *testing.T, bus *rig.Bus) {
	wrong := rig.Event(t, model.ConfigCreated, i.Key("wrong"), strings.Replace(rig.EndEntity("wrong"), "issuerRef", "issuerReference", 1))
	post(t, wrong)
	for _, verb := range []model.Verb{model.Enroll, model.Scan} {
		rig.Eventually(t, patience, "the dead letter of "+string(verb), func() error {
			dead := bus.Messages(t, model.DeadStream, model.DeadSubject(verb, i.Key("wrong")))
			if len(dead) == 0 {
				return errors.New("there is none")
			}
			return nil
		})
	}
}

// schedule changes when a PingSource ticks. Six fields begin with seconds.
func (i *installation) schedule(t *testing.T, name, schedule string) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"schedule":%q}}`, schedule)
	_, err := i.objects.Resource(gvr("sources", "pingsources")).Namespace(home).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

const (
	everyTwoSeconds = "*/2 * * * * *"
	never           = "0 0 1 1 *"
)

func (i *installation) ping(t *testing.T, bus *rig.Bus) {
	i.schedule(t, "certloop-scan", everyTwoSeconds)
	defer i.schedule(t, "certloop-scan", never)
	e := bus.WaitFact(t, patience, model.ScanCompleted, types.NamespacedName{})
	if !strings.HasSuffix(e.Source(), "/certloop/expiry-scan") {
		t.Errorf("told by %s", e.Source())
	}
	if i.node.started("pingsource-mt-adapter") == 0 || i.node.started("certloop-expiry-scan") == 0 {
		t.Error("the adapter or the function was not started")
	}
}

func (i *installation) deleted(t *testing.T, bus *rig.Bus) {
	before := i.Secret(t, "web-tls")
	i.Delete(t, "Secret", "web-tls")
	i.waitBack(t, "web-tls", before.Data)
	bus.WaitFact(t, patience, model.SecretDeleted, i.Key("web"))
}

func (i *installation) waitBack(t *testing.T, name string, want map[string][]byte) {
	t.Helper()
	rig.Eventually(t, patience, "Secret "+name+" is back", func() error {
		s := i.Secret(t, name)
		if s == nil || !maps.EqualFunc(s.Data, want, bytes.Equal) {
			return errors.New("it is not")
		}
		return nil
	})
}

func (i *installation) missed(t *testing.T) {
	adapter := i.adapterOf(t, "certloop-secrets")
	adapter.hold()
	before := i.Secret(t, "pipeline-tls")
	i.Delete(t, "Secret", "pipeline-tls")
	i.schedule(t, "certloop-sweep", everyTwoSeconds)
	defer i.schedule(t, "certloop-sweep", never)
	i.waitBack(t, "pipeline-tls", before.Data)
	adapter.release()
}

// unwatched declares a certificate while the adapter of the ApiServerSource is away. When it is a
// minute old, a scan finds it.
func (i *installation) unwatched(t *testing.T) {
	t.Helper()
	adapter := i.adapterOf(t, "certloop-certificates")
	adapter.hold()
	i.World.Apply(t, rig.EndEntity("unwatched"))
	adapter.release()
}

// untold holds as long as no scan has looked for what is due.
func (i *installation) untold(t *testing.T) {
	t.Helper()
	if status := i.World.Certificate(t, "unwatched").Status; status.ObservedGeneration != 0 {
		t.Errorf("a source has told of what was there before: its status is %+v", status)
	}
}

func (i *installation) scanned(t *testing.T) {
	i.schedule(t, "certloop-scan", everyTwoSeconds)
	defer i.schedule(t, "certloop-scan", never)
	i.WaitReady(t, patience, "unwatched")
}

// adapterOf is the receive adapter that Knative made for an ApiServerSource.
func (i *installation) adapterOf(t *testing.T, source string) *deployment {
	t.Helper()
	list, err := i.node.kube.AppsV1().Deployments(home).List(t.Context(), metav1.ListOptions{LabelSelector: "eventing.knative.dev/sourceName=" + source})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%d adapters of %s, %v", len(list.Items), source, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.deployments[list.Items[0].Name]
}

// due enrolls a certificate that has to be renewed after half a minute, a third of its life: a scan finds
// that, and tells renew.
func (i *installation) due(t *testing.T) {
	i.World.Apply(t, rig.EndEntity("brief", "validity: 90s", "renewBefore: 80s"))
	i.WaitReady(t, patience, "brief")
	first := rig.Pair(t, i.Secret(t, "brief-tls")).SerialNumber
	i.schedule(t, "certloop-scan", everyTwoSeconds)
	defer i.schedule(t, "certloop-scan", never)
	rig.Eventually(t, patience, "another certificate", func() error {
		if rig.Pair(t, i.Secret(t, "brief-tls")).SerialNumber.Cmp(first) == 0 {
			return errors.New("it is the same")
		}
		return nil
	})
	if i.node.started("certloop-renew") == 0 {
		t.Error("renew was not started")
	}
	i.Delete(t, model.CertificateKind, "brief") // lest it is renewed for ever
}

func (i *installation) zero(t *testing.T) {
	rig.Eventually(t, patience, "no Pod of any function", func() error {
		i.mu.Lock()
		defer i.mu.Unlock()
		for host, s := range i.services {
			s.mu.Lock()
			up := s.process != nil
			s.mu.Unlock()
			if up {
				return errors.New(host + " has one")
			}
		}
		return nil
	})
	before := i.node.started("certloop-enroll")
	i.World.Apply(t, rig.EndEntity("later"))
	i.WaitReady(t, patience, "later")
	if i.node.started("certloop-enroll") == before {
		t.Error("enroll was not started again")
	}
}

// stormPeriod is how often somebody dies in the storm, on average.
const stormPeriod = 700 * time.Millisecond

// storm enrolls many certificates while functions and dispatch are killed at random.
func (i *installation) storm(t *testing.T, bus *rig.Bus) {
	dead := len(bus.Messages(t, model.DeadStream, model.DeadSubjects))
	var names []string
	for n := range *storm {
		names = append(names, fmt.Sprintf("storm-%04d", n))
	}
	stop := make(chan struct{})
	var killer sync.WaitGroup
	kills := 0
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.Float64() * 2 * float64(stormPeriod))):
				i.killSomebody()
				kills++
			}
		}
	})
	began := time.Now()
	for _, name := range names {
		i.World.Apply(t, rig.EndEntity(name))
	}
	i.WaitReady(t, 10*time.Minute, names...)
	close(stop)
	killer.Wait()
	took := time.Since(began)
	if kills == 0 {
		t.Error("nobody was killed")
	}
	serials := map[string]bool{}
	for _, name := range names {
		serials[rig.Pair(t, i.Secret(t, rig.SecretName(name))).SerialNumber.String()] = true
	}
	if len(serials) != *storm {
		t.Errorf("%d different certificates, want %d", len(serials), *storm)
	}
	if now := len(bus.Messages(t, model.DeadStream, model.DeadSubjects)); now != dead {
		t.Errorf("%d events were dead-lettered", now-dead)
	}
	t.Logf("%d certificates in %s, %d kills; enroll was started %d times, dispatch %d", *storm, took.Round(time.Second), kills,
		i.node.started("certloop-enroll"), i.node.started("certloop-dispatch"))
}

func (i *installation) killSomebody() {
	i.mu.Lock()
	victims := []func(){i.deployments["certloop-dispatch"].killOne}
	for _, host := range slices.Sorted(maps.Keys(i.services)) {
		victims = append(victims, i.services[host].killOne)
	}
	i.mu.Unlock()
	victims[rand.IntN(len(victims))]()
}

func (i *installation) rights(t *testing.T) { i.content(t, 5) }

// content says that nobody complains in its log that it lacks a right. There are so many logs at least.
func (i *installation) content(t *testing.T, least int) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(i.node.logs, home+".*.log"))
	if err != nil || len(logs) < least {
		t.Fatalf("%d logs, want %d, %v", len(logs), least, err)
	}
	for _, path := range logs {
		for line := range strings.Lines(string(readFile(t, path))) {
			if strings.Contains(strings.ToLower(line), "forbidden") {
				t.Errorf("%s: %s", filepath.Base(path), line)
				break
			}
		}
	}
}

// The rights of a Pod are those of its service account: nobody was an administrator.
func (i *installation) identities(t *testing.T) {
	for _, account := range []string{"certloop-enroll", "certloop-renew", "certloop-watch-secrets", "certloop-expiry-scan", "certloop-certificate-source", "certloop-secret-source"} {
		cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(i.node.logs, home+"."+account+".kubeconfig"))
		if err != nil {
			t.Error(err) // it never ran
			continue
		}
		client, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		self, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil || self.Status.UserInfo.Username != "system:serviceaccount:"+home+":"+account {
			t.Errorf("%s: got %v, %v", account, self.Status.UserInfo, err)
		}
		if _, err := client.CoreV1().Secrets(eventing).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("%s lists the Secrets of another namespace: %v", account, err)
		}
	}
}

// Functions that were stopped for want of work ended by themselves.
func (i *installation) stopped(t *testing.T) {
	i.node.mu.Lock()
	defer i.node.mu.Unlock()
	if i.node.drained == 0 {
		t.Error("none was stopped")
	}
	for _, err := range i.node.stubborn {
		t.Error(err)
	}
}
