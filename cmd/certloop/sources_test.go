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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	obj := certificate("web", map[string]any{"observedGeneration": int64(2)})
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
func certificate(name string, status map[string]any) *unstructured.Unstructured {
	return object(model.CertificateKind, name, status)
}

func object(kind, name string, status map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "certloop.io/v1alpha1", "kind": kind,
		"metadata": map[string]any{"namespace": "demo", "name": name, "uid": "uid-" + name, "resourceVersion": "5", "generation": int64(2)},
		"spec":     map[string]any{"output": map[string]any{"secretName": name + "-tls"}},
		"status":   status,
	}}
}

func condition(kind string) map[string]any {
	return map[string]any{"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-11-21T10:00:00Z"}
}

func TestSettled(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		obj  *unstructured.Unstructured
		want bool
	}{
		{"nobody looked yet", certificate("c", nil), false},
		{"ready", certificate("c", map[string]any{"observedGeneration": int64(2), "conditions": []any{condition("Ready")}}), true},
		{"ready before it changed", certificate("c", map[string]any{"observedGeneration": int64(1), "conditions": []any{condition("Ready")}}), false},
		{"ready, renewal under way", certificate("c", map[string]any{"observedGeneration": int64(2), "conditions": []any{condition("Ready"), condition("Reconciling")}}), false},
		{"an alarm is set", certificate("c", map[string]any{"observedGeneration": int64(2), "nextAttempt": "2026-11-21T12:00:01Z"}), true},
		{"the alarm has passed", certificate("c", map[string]any{"observedGeneration": int64(2), "nextAttempt": "2026-11-21T11:59:59Z"}), false},
		{"stalled", certificate("c", map[string]any{"observedGeneration": int64(2), "conditions": []any{condition("Stalled")}}), true},
		{"an issuer looked at", object(model.IssuerKind, "ca", map[string]any{"observedGeneration": int64(2)}), true},
		{"an issuer not looked at", object(model.IssuerKind, "ca", nil), false},
		{"a status that makes no sense", certificate("c", map[string]any{"observedGeneration": "two"}), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := settled(tt.obj, now); got != tt.want {
				t.Errorf("settled: %t, want %t", got, tt.want)
			}
		})
	}
}

func TestLargeObjectsStillFitIntoAnEvent(t *testing.T) {
	long := strings.Repeat("x", model.MaxEventBytes)
	tests := []struct {
		name  string
		path  []string
		keeps bool // the specification
	}{
		{"much noted about fields", []string{"metadata", "managedFields"}, true},
		{"long annotations", []string{"metadata", "annotations"}, true},
		{"a long specification", []string{"spec", "subject"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			obj := certificate("web", map[string]any{"observedGeneration": int64(2)})
			if err := unstructured.SetNestedField(obj.Object, long, tt.path...); err != nil {
				t.Fatal(err)
			}
			e := testSources().resourceEvent(model.ResourceAdd, model.CertificateResource, obj)
			if n := len(e.Data()); n > model.MaxEventBytes-attributeBytes {
				t.Errorf("%d bytes of data", n)
			}
			data := dataOf(t, e)
			if _, kept := data["spec"]; kept != tt.keeps {
				t.Errorf("the specification is kept: %t, want %t", kept, tt.keeps)
			}
			if data["status"] == nil || data["metadata"] == nil {
				t.Errorf("status or metadata were dropped: %v", data)
			}
			if _, intact, _ := unstructured.NestedString(obj.Object, tt.path...); !intact {
				t.Error("the object itself was changed")
			}
		})
	}
}
