package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	diff "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/model"
)

// recorder is a Publisher that keeps what it is given.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Publish(_ context.Context, events ...event.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, events...)
	return nil
}

// subjects are the types and subjects of what was published, in order.
func (r *recorder) subjects() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		all = append(all, e.Type()+" "+e.Subject())
	}
	return all
}

func testSources() *sources {
	return &sources{Kube: &rest.Config{Host: "https://127.0.0.1:6443"}, Now: time.Now}
}

// readSample reads an event that the functions are documented and tested with.
func readSample(tb testing.TB, path string) event.Event {
	tb.Helper()
	js, err := os.ReadFile("../../functions/" + path)
	if err != nil {
		tb.Fatal(err)
	}
	var e event.Event
	if err := json.Unmarshal(js, &e); err != nil {
		tb.Fatal(err)
	}
	return e
}

// attributes are those that do not change with each event.
func attributes(e event.Event) map[string]any {
	all := map[string]any{
		"type": e.Type(), "source": e.Source(), "subject": e.Subject(), "datacontenttype": e.DataContentType(),
	}
	maps.Copy(all, e.Extensions())
	return all
}

func dataOf(tb testing.TB, e event.Event) (data map[string]any) {
	tb.Helper()
	if err := e.DataAs(&data); err != nil {
		tb.Fatalf("data of %s: %v", e.Type(), err)
	}
	return data
}

func TestEventsAreThoseOfTheKnativeSources(t *testing.T) {
	s := testSources()
	secret := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web-tls", UID: "u", ResourceVersion: "7"}}
	tests := []struct {
		name string
		got  event.Event
		want string
	}{
		{"a Secret changed", s.refEvent(model.RefUpdate, secret), "watch-secrets/testdata/ref-update.json"},
		{"time for a scan", s.ping(scanExpiry), "expiry-scan/testdata/ping.json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := readSample(t, tt.want)
			if d := diff.Diff(attributes(want), attributes(tt.got)); d != "" {
				t.Errorf("attributes (-sample +ours):\n%s", d)
			}
			if d := diff.Diff(dataOf(t, want), dataOf(t, tt.got)); d != "" {
				t.Errorf("data (-sample +ours):\n%s", d)
			}
			if err := tt.got.Validate(); tt.got.ID() == "" || err != nil && !strings.Contains(err.Error(), "time") {
				t.Errorf("not a CloudEvent: id %q, %v", tt.got.ID(), err)
			}
		})
	}
}

func TestResourceEvent(t *testing.T) {
	s := testSources()
	obj := certificate("web", seen(2))
	e := s.resourceEvent(model.ResourceUpdate, model.CertificateResource, obj)
	want := map[string]any{
		"type": "dev.knative.apiserver.resource.update", "source": "https://127.0.0.1:6443",
		"subject":         "/apis/certloop.io/v1alpha1/namespaces/demo/cmpcertificates/web",
		"datacontenttype": "application/json",
		"kind":            "CMPCertificate", "namespace": "demo", "name": "web", "apiversion": "certloop.io/v1alpha1",
	}
	if d := diff.Diff(want, attributes(e)); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	var got model.CMPCertificate
	if err := e.DataAs(&got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "web" || got.Generation != 2 || got.Status.ObservedGeneration != 2 {
		t.Errorf("the data are %+v, not the object", got)
	}
	if key, err := model.ObjectOf(e); err != nil || key != (types.NamespacedName{Namespace: "demo", Name: "web"}) {
		t.Errorf("a handler takes it to be about %v (%v)", key, err)
	}
}

func TestEventIDFollowsTheStateOfTheObject(t *testing.T) {
	s := testSources()
	id := func(eventType, uid, version string) string {
		m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "x", UID: types.UID(uid), ResourceVersion: version}}
		return s.refEvent(eventType, m).ID()
	}
	first := id(model.RefUpdate, "u", "7")
	if again := id(model.RefUpdate, "u", "7"); again != first {
		t.Errorf("the same state told twice has ids %s and %s", first, again)
	}
	for name, other := range map[string]string{
		"another version": id(model.RefUpdate, "u", "8"), "another life": id(model.RefUpdate, "v", "7"), "another change": id(model.RefDelete, "u", "7"),
	} {
		if other == first {
			t.Errorf("%s has the same id", name)
		}
	}
}

func TestRecordsAreNotToldUntilTheyAreGone(t *testing.T) {
	f := testSources().secrets("", nil)
	labelled := func(role string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: "demo", Name: "x", Labels: map[string]string{model.RoleLabel: role},
		}}
	}
	tests := []struct {
		role   string
		change watch.EventType
		want   bool
	}{
		{model.RoleOutput, watch.Added, true}, {model.RoleOutput, watch.Modified, true}, {model.RoleOutput, watch.Deleted, true},
		{model.RoleRecord, watch.Added, false}, {model.RoleRecord, watch.Modified, false}, {model.RoleRecord, watch.Deleted, true},
		{model.RoleOutput, watch.Bookmark, false},
	}
	for _, tt := range tests {
		if _, got := f.changed(tt.change, labelled(tt.role)); got != tt.want {
			t.Errorf("%s of a Secret with role %s is told: %t, want %t", tt.change, tt.role, got, tt.want)
		}
	}
}

// certificate is one at generation 2.
func certificate(name string, status model.CMPCertificateStatus) *model.CMPCertificate {
	return &model.CMPCertificate{ObjectMeta: described(name), Spec: model.CMPCertificateSpec{Output: model.Output{SecretName: name + "-tls"}}, Status: status}
}

func described(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "demo", Name: name, UID: types.UID("uid-" + name), ResourceVersion: "5", Generation: 2}
}

// seen is a status about a generation, with conditions that hold.
func seen(generation int64, conditions ...string) model.CMPCertificateStatus {
	st := model.CMPCertificateStatus{ObservedGeneration: generation}
	for _, c := range conditions {
		st.Conditions = append(st.Conditions, metav1.Condition{Type: c, Status: metav1.ConditionTrue, Reason: "R", Message: "m"})
	}
	return st
}

// What says of itself that there is nothing to do is not told, neither when it is found nor when
// it changes; what has come as an event is not told to who is handling that event.
func TestOnlyWhatNeedsWorkIsTold(t *testing.T) {
	ready, s := seen(2, model.Ready), testSources()
	asked := certificate("c", ready)
	asked.Annotations = map[string]string{model.RenewAnnotation: "now"}
	ending := certificate("c", ready)
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	byEvent, changedByEvent := certificate("c", seen(0)), certificate("c", seen(1, model.Ready))
	for _, c := range []*model.CMPCertificate{byEvent, changedByEvent} {
		c.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: model.EventFieldManager}}
	}
	tests := []struct {
		name                   string
		obj                    object
		found, added, modified bool
	}{
		{"nobody looked yet", certificate("c", seen(0)), true, true, true},
		{"nobody looked yet, declared by an event", byEvent, true, false, true},
		{"ready", certificate("c", ready), false, false, false},
		{"ready before it changed", certificate("c", seen(1, model.Ready)), true, true, true},
		{"ready before an event changed it", changedByEvent, true, true, true},
		{"ready, renewal under way", certificate("c", seen(2, model.Ready, model.Reconciling)), true, true, true},
		{"ready, and renewal asked for", asked, true, true, true},
		{"ready, and to be deleted", ending, true, true, true},
		{"stalled", certificate("c", seen(2, model.Stalled)), false, false, false},
		{"an issuer looked at", &model.CMPIssuer{ObjectMeta: described("ca"), Status: model.CMPIssuerStatus{ObservedGeneration: 2}}, false, false, false},
		{"an issuer not looked at", &model.CMPIssuer{ObjectMeta: described("ca")}, true, true, true},
		{"a cluster issuer looked at", &model.CMPClusterIssuer{ObjectMeta: described("ca"), Status: model.CMPIssuerStatus{ObservedGeneration: 2}}, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := s.own(model.CertificateResource, "demo", nil)
			if _, got := f.exists(tt.obj.DeepCopyObject()); got != tt.found {
				t.Errorf("told when found: %t, want %t", got, tt.found)
			}
			for change, want := range map[watch.EventType]bool{watch.Added: tt.added, watch.Modified: tt.modified, watch.Deleted: true, watch.Bookmark: false} {
				if _, got := f.changed(change, tt.obj.DeepCopyObject()); got != want {
					t.Errorf("told when %s: %t, want %t", change, got, want)
				}
			}
		})
	}
}

func TestLargeObjectsStillFitIntoAnEvent(t *testing.T) {
	long := strings.Repeat("x", model.MaxEventBytes)
	tests := map[string]struct {
		grow  func(*model.CMPCertificate)
		keeps string
	}{
		"much noted about fields": {func(c *model.CMPCertificate) { c.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: long}} }, "spec"},
		"a long specification":    {func(c *model.CMPCertificate) { c.Spec.Output.SecretName = long }, "metadata"},
		"long annotations":        {func(c *model.CMPCertificate) { c.Annotations = map[string]string{"a": long} }, "metadata"},
		"long messages":           {func(c *model.CMPCertificate) { c.Status.Conditions[0].Message = long }, "metadata"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			obj := certificate("web", seen(2, model.Ready))
			tt.grow(obj)
			e := testSources().resourceEvent(model.ResourceAdd, model.CertificateResource, obj)
			if n := len(e.Data()); n > model.MaxEventBytes-attributeBytes {
				t.Errorf("%d bytes of data", n)
			}
			if data := dataOf(t, e); data["status"] == nil || data[tt.keeps] == nil {
				t.Errorf("status or %s were dropped: %v", tt.keeps, data)
			}
		})
	}
}

// Cluster issuers are watched by whoever may, and not only by who watches everything.
func TestFeeds(t *testing.T) {
	for name, tt := range map[string]struct {
		namespaces     []string
		clusterIssuers bool
		want           []string
	}{
		"everything":                      {nil, false, []string{"/cmpissuers", "/cmpcertificates", "/secrets", "/cmpclusterissuers"}},
		"a namespace":                     {[]string{"core"}, false, []string{"core/cmpissuers", "core/cmpcertificates", "core/secrets"}},
		"a namespace and cluster issuers": {[]string{"core"}, true, []string{"core/cmpissuers", "core/cmpcertificates", "core/secrets", "/cmpclusterissuers"}},
	} {
		s := testSources()
		s.Namespaces, s.ClusterIssuers = tt.namespaces, tt.clusterIssuers
		feeds, err := s.feeds()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range feeds {
			got = append(got, f.resource)
		}
		if d := diff.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
