package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// sources stand in for Knative's ApiServerSource and PingSource where there is no
// Knative: they tell of changes in the cluster and of time passing, in the same events.
//
// Nothing is cached, and of Secrets only metadata is ever asked for. What changes while
// nobody watches is not told; a sweep finds it, at the start and after every gap.
type sources struct {
	Kube       *rest.Config
	Bus        delivery.Publisher
	Log        *slog.Logger
	Namespaces []string // none: all
	Scan       time.Duration
	Sweep      time.Duration
	Now        func() time.Time
	// Watching is called once, when changes are told from then on.
	Watching func()
}

// What the two kinds of ticks carry.
const (
	scanExpiry = "expiry"
	scanSweep  = "sweep"
)

// run tells events until ctx ends.
func (s *sources) run(ctx context.Context) error {
	feeds, err := s.feeds()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var toList atomic.Int64
	toList.Store(int64(len(feeds)))
	for _, f := range feeds {
		f.listed = func(ctx context.Context) {
			if toList.Add(-1) == 0 {
				s.Watching()
				s.sweep(ctx)
			}
		}
		all.Go(func() { f.run(ctx) })
	}
	all.Go(func() { s.tick(ctx, s.Scan, scanExpiry) })
	all.Go(func() { s.tick(ctx, s.Sweep, scanSweep) })
	all.Wait()
	return nil
}

// sweep asks for a look at everything.
func (s *sources) sweep(ctx context.Context) { s.publish(ctx, s.ping(scanSweep)) }

// watchedSecrets selects what we write, and what people marked as the input of an issuer.
const watchedSecrets = model.RoleLabel + " in (" + model.RoleRecord + "," + model.RoleOutput + "," + model.RoleInput + ")"

// feeds are what is watched: our custom resources and the Secrets we manage.
func (s *sources) feeds() ([]*feed, error) {
	objects, err := dynamic.NewForConfig(s.Kube)
	if err != nil {
		return nil, err
	}
	secrets, err := metadata.NewForConfig(s.Kube)
	if err != nil {
		return nil, err
	}
	namespaces := s.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var all []*feed
	for _, ns := range namespaces {
		for _, resource := range []string{model.IssuerResource, model.CertificateResource} {
			client := objects.Resource(model.GroupVersion.WithResource(resource)).Namespace(ns)
			all = append(all, s.own(resource, ns, listWatch(client, "")))
		}
		client := secrets.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(ns)
		all = append(all, s.secrets(ns, listWatch(client, watchedSecrets)))
	}
	if len(s.Namespaces) == 0 { // otherwise cluster issuers are not ours to watch
		client := objects.Resource(model.GroupVersion.WithResource(model.ClusterIssuerResource))
		all = append(all, s.own(model.ClusterIssuerResource, "", listWatch(client, "")))
	}
	return all, nil
}

// listerWatcher is what the clients have in common.
type listerWatcher[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func listWatch[L runtime.Object](client listerWatcher[L], selector string) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.LabelSelector = selector
			return client.List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector = selector
			return client.Watch(ctx, opts)
		},
	}
}

// own follows one of our custom resources, as an ApiServerSource in Resource mode.
func (s *sources) own(resource, ns string, objects *cache.ListWatch) *feed {
	return &feed{
		resource: ns + "/" + resource, objects: objects, publish: s.publish, log: s.Log,
		exists: func(obj runtime.Object) (event.Event, bool) {
			u, ok := obj.(*unstructured.Unstructured)
			if !ok || settled(u, s.Now()) {
				return event.Event{}, false
			}
			return s.resourceEvent(model.ResourceAdd, resource, u), true
		},
		changed: func(change watch.EventType, obj runtime.Object) (event.Event, bool) {
			u, ok := obj.(*unstructured.Unstructured)
			eventType := resourceTypes()[change]
			if !ok || eventType == "" {
				return event.Event{}, false
			}
			return s.resourceEvent(eventType, resource, u), true
		},
	}
}

// secrets follows the Secrets we manage, as an ApiServerSource in Reference mode.
func (s *sources) secrets(ns string, objects *cache.ListWatch) *feed {
	return &feed{
		resource: ns + "/secrets", objects: objects, publish: s.publish, log: s.Log,
		changed: func(change watch.EventType, obj runtime.Object) (event.Event, bool) {
			m, ok := obj.(*metav1.PartialObjectMetadata)
			eventType := refTypes()[change]
			// A record changes with every step that certloop takes, and by nobody else.
			if !ok || eventType == "" || (change != watch.Deleted && m.Labels[model.RoleLabel] == model.RoleRecord) {
				return event.Event{}, false
			}
			return s.refEvent(eventType, m), true
		},
		missed: s.sweep,
	}
}

func resourceTypes() map[watch.EventType]string {
	return map[watch.EventType]string{
		watch.Added: model.ResourceAdd, watch.Modified: model.ResourceUpdate, watch.Deleted: model.ResourceDelete,
	}
}

func refTypes() map[watch.EventType]string {
	return map[watch.EventType]string{
		watch.Added: model.RefAdd, watch.Modified: model.RefUpdate, watch.Deleted: model.RefDelete,
	}
}

// resourceEvent tells of one of our objects; the data are the object.
func (s *sources) resourceEvent(eventType, resource string, obj *unstructured.Unstructured) event.Event {
	path := "/apis/" + obj.GetAPIVersion() + "/"
	if ns := obj.GetNamespace(); ns != "" {
		path += "namespaces/" + ns + "/"
	}
	path += resource + "/" + obj.GetName()
	return s.objectEvent(eventType, path, obj.GetAPIVersion(), obj.GetKind(), obj, content(obj))
}

// refEvent tells of a Secret; the data only name it.
func (s *sources) refEvent(eventType string, m *metav1.PartialObjectMetadata) event.Event {
	const apiVersion, kind = "v1", "Secret"
	ref := model.ObjectReference{APIVersion: apiVersion, Kind: kind, Namespace: m.Namespace, Name: m.Name}
	return s.objectEvent(eventType, "/apis/v1/namespaces/"+m.Namespace+"/secrets/"+m.Name, apiVersion, kind, m, ref)
}

// objectEvent has the attributes that an ApiServerSource gives an event. Its id is the
// same whoever tells of this state of the object, and how often.
func (s *sources) objectEvent(eventType, path, apiVersion, kind string, obj metav1.Object, data any) event.Event {
	e := model.NewEvent(eventType, types.NamespacedName{}, data)
	e.SetID(model.DerivedID(eventType, string(obj.GetUID()), obj.GetResourceVersion()))
	e.SetSource(s.Kube.Host)
	e.SetSubject(path)
	e.SetExtension("kind", kind)
	if ns := obj.GetNamespace(); ns != "" {
		e.SetExtension("namespace", ns)
	}
	e.SetExtension("name", obj.GetName())
	e.SetExtension("apiversion", apiVersion)
	return e
}

// attributeBytes is room for the attributes of an event, within [model.MaxEventBytes].
const attributeBytes = 4 << 10

// content is an object as JSON. One that would not fit into an event loses first what
// the API server notes about its fields, then its specification: whoever handles the
// event reads the object again.
func content(obj *unstructured.Unstructured) json.RawMessage {
	trims := [][]string{{"metadata", "managedFields"}, {"metadata", "annotations"}, {"spec"}, {"status", "conditions"}}
	for {
		js, err := obj.MarshalJSON()
		if err == nil && len(js)+attributeBytes <= model.MaxEventBytes {
			return js
		}
		if len(trims) == 0 {
			return json.RawMessage(`{}`)
		}
		obj = obj.DeepCopy()
		unstructured.RemoveNestedField(obj.Object, trims[0]...)
		trims = trims[1:]
	}
}

// settled: the object says itself that there is nothing to do now, so that starting
// beside thousands of certificates that are well costs nothing.
func settled(obj *unstructured.Unstructured, now time.Time) bool {
	var seen struct {
		Status model.CMPCertificateStatus `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &seen); err != nil {
		return false
	}
	st := &seen.Status
	if st.ObservedGeneration == 0 || st.ObservedGeneration != obj.GetGeneration() {
		return false
	}
	if kind := obj.GetKind(); kind == model.IssuerKind || kind == model.ClusterIssuerKind {
		return true
	}
	ready := meta.IsStatusConditionTrue(st.Conditions, model.Ready) && !meta.IsStatusConditionTrue(st.Conditions, model.Reconciling)
	waits := st.NextAttempt != nil && st.NextAttempt.After(now)
	return ready || waits || meta.IsStatusConditionTrue(st.Conditions, model.Stalled)
}

// tick tells that time has passed, on every multiple of the interval, so that of
// several processes on one broker the ticks are the same event.
func (s *sources) tick(ctx context.Context, every time.Duration, scan string) {
	for {
		now := s.Now()
		next := now.Truncate(every).Add(every)
		if !wait(ctx, next.Sub(now)) {
			return
		}
		e := s.ping(scan)
		e.SetID(model.DerivedID(model.Ping, scan, next.UTC().Format(time.RFC3339Nano)))
		s.publish(ctx, e)
	}
}

// ping is the event of a PingSource.
func (s *sources) ping(scan string) event.Event {
	e := model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": scan})
	e.SetSource("/apis/v1/namespaces/certloop/pingsources/" + scan + "-scan")
	return e
}

// publish returns when the event is stored or ctx has ended. While the broker is away
// the feeds wait, and with them the API server, which remembers.
func (s *sources) publish(ctx context.Context, e event.Event) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.Bus.Publish(ctx, e)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.Log.WarnContext(ctx, "cannot publish yet", "type", e.Type(), "subject", e.Subject(), "err", err)
		if !wait(ctx, pause) {
			return
		}
	}
}
