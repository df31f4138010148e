package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// sources stand in for Knative's ApiServerSource and PingSource where there is no
// Knative: they tell of changes in the cluster and of time passing, in the same events.
//
// Nothing is cached, and of Secrets only metadata is ever asked for. At the start and after every
// gap they tell of the configurations for which nothing was ever issued, and of every issuer; whatever
// else has changed while nobody watched is left to a sweep, soon after. So starting beside thousands
// of certificates that are well costs nothing, and delays none that is waiting.
//
// Of what they see they tell what somebody may have to act on, and not the echo of our own writes.
type sources struct {
	Kube       *rest.Config
	Bus        delivery.Publisher
	Log        *slog.Logger
	Namespaces []string // none: all
	// ClusterIssuers are watched where all namespaces are; elsewhere it takes a right of its own.
	ClusterIssuers bool
	Scan           time.Duration
	Sweep          time.Duration
	Now            func() time.Time
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
				s.sweepSoon(ctx)
			}
		}
		all.Go(func() { f.run(ctx) })
	}
	all.Go(func() { s.tick(ctx, s.Scan, scanExpiry) })
	all.Go(func() { s.tick(ctx, s.Sweep, scanSweep) })
	all.Wait()
	return nil
}

// gapSweep is how long a sweep waits after a start or a gap: for what is new to be under way, and for
// other gaps, which end at about the same time.
const gapSweep = 5 * time.Second

// sweepSoon asks for a look at everything. Whoever asks meanwhile asks for the same one.
func (s *sources) sweepSoon(ctx context.Context) {
	s.publish(ctx, model.Delay(s.ping(scanSweep), s.Now().Add(gapSweep)))
}

// watchedSecrets selects what we write, and what people marked as the input of an issuer.
const watchedSecrets = model.RoleLabel + " in (" + model.RoleRecord + "," + model.RoleOutput + "," + model.RoleInput + ")"

// feeds are what is watched: our custom resources and the Secrets we manage.
func (s *sources) feeds() ([]*feed, error) {
	objects, err := ownClient(s.Kube)
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
	own := func(resource, ns string) {
		everything := func(*metav1.ListOptions) {}
		all = append(all, s.own(resource, ns, cache.NewFilteredListWatchFromClient(objects, resource, ns, everything)))
	}
	for _, ns := range namespaces {
		own(model.IssuerResource, ns)
		own(model.CertificateResource, ns)
		client := secrets.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(ns)
		all = append(all, s.secrets(ns, selected(client, watchedSecrets)))
	}
	if s.ClusterIssuers || len(s.Namespaces) == 0 {
		own(model.ClusterIssuerResource, "")
	}
	return all, nil
}

// ownClient reads our custom resources.
func ownClient(kube *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := model.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c := rest.CopyConfig(kube)
	c.GroupVersion, c.APIPath = &model.GroupVersion, "/apis"
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientFor(c)
}

// selected lists and watches the metadata of what a label selector selects.
func selected(client metadata.ResourceInterface, selector string) *cache.ListWatch {
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

// object is one of our custom resources.
type object interface {
	runtime.Object
	metav1.Object
}

// neverIssued selects the configurations for which nothing was ever issued.
const neverIssued = "status.renewalDay="

// own follows one of our custom resources, as an ApiServerSource in Resource mode.
func (s *sources) own(resource, ns string, objects *cache.ListWatch) *feed {
	f := &feed{
		resource: ns + "/" + resource, objects: objects, publish: s.publish, log: s.Log,
		exists: func(obj runtime.Object) (event.Event, bool) {
			o, ok := obj.(object)
			if !ok || s.atRest(o) {
				return event.Event{}, false
			}
			return s.resourceEvent(model.ResourceAdd, resource, o), true
		},
		changed: func(change watch.EventType, obj runtime.Object) (event.Event, bool) {
			o, ok := obj.(object)
			eventType := resourceTypes()[change]
			if !ok || eventType == "" || change != watch.Deleted && s.atRest(o) || change == watch.Added && declaring(o) {
				return event.Event{}, false
			}
			return s.resourceEvent(eventType, resource, o), true
		},
		missed: s.sweepSoon,
	}
	if resource == model.CertificateResource {
		f.only = neverIssued
	}
	return f
}

// atRest: the object says itself that there is nothing to do now.
func (s *sources) atRest(obj object) bool {
	switch o := obj.(type) {
	case *model.CMPCertificate:
		return lifecycle.AtRest(o, s.Now())
	case *model.CMPIssuer:
		return lifecycle.IssuerAtRest(o)
	case *model.CMPClusterIssuer:
		return lifecycle.IssuerAtRest((*model.CMPIssuer)(o))
	default:
		return false
	}
}

// declaring: the configuration has come as an event, and who handles that event is at work on
// it; it is delivered until that is done. What is forgotten all the same the next scan finds.
func declaring(obj object) bool {
	c, ok := obj.(*model.CMPCertificate)
	return ok && c.Status.ObservedGeneration == 0 && slices.ContainsFunc(c.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == model.EventFieldManager
	})
}

// secrets follows the Secrets we manage, as an ApiServerSource in Reference mode.
func (s *sources) secrets(ns string, objects *cache.ListWatch) *feed {
	return &feed{
		resource: ns + "/secrets", objects: objects, publish: s.publish, log: s.Log,
		changed: func(change watch.EventType, obj runtime.Object) (event.Event, bool) {
			m, ok := obj.(*metav1.PartialObjectMetadata)
			eventType := refTypes()[change]
			if !ok || eventType == "" || change != watch.Deleted && ownWrite(m) {
				return event.Event{}, false
			}
			return s.refEvent(eventType, m), true
		},
		missed: s.sweepSoon,
	}
}

// ownWrite: a record changes with every step that certloop takes, and by nobody else; an output
// tells by its metadata.
func ownWrite(m *metav1.PartialObjectMetadata) bool {
	return m.Labels[model.RoleLabel] == model.RoleRecord || ledger.AsWritten(m)
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
func (s *sources) resourceEvent(eventType, resource string, obj object) event.Event {
	apiVersion, kind := model.GroupVersion.String(), kinds()[resource]
	path := "/apis/" + apiVersion + "/"
	if ns := obj.GetNamespace(); ns != "" {
		path += "namespaces/" + ns + "/"
	}
	path += resource + "/" + obj.GetName()
	return s.objectEvent(eventType, path, apiVersion, kind, obj, content(obj, kind))
}

// kinds are those of our custom resources.
func kinds() map[string]string {
	return map[string]string{
		model.CertificateResource: model.CertificateKind, model.IssuerResource: model.IssuerKind, model.ClusterIssuerResource: model.ClusterIssuerKind,
	}
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

// content is an object as JSON, without what the API server notes about its fields. One that
// would not fit into an event loses first its specification: whoever handles the event reads the
// object again.
func content(obj object, kind string) json.RawMessage {
	obj.SetManagedFields(nil)
	obj.GetObjectKind().SetGroupVersionKind(model.GroupVersion.WithKind(kind))
	js, err := json.Marshal(obj)
	for _, part := range [][]string{{"spec"}, {"metadata", "annotations"}, {"status", "conditions"}} {
		if err == nil && len(js)+attributeBytes <= model.MaxEventBytes {
			return js
		}
		js, err = without(js, part...)
	}
	if err != nil || len(js)+attributeBytes > model.MaxEventBytes {
		return json.RawMessage(`{}`)
	}
	return js
}

// without is an object in JSON that lacks a field.
func without(js []byte, path ...string) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(js, &fields); err != nil {
		return nil, err
	}
	unstructured.RemoveNestedField(fields, path...)
	return json.Marshal(fields)
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
