package chart

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	eventingconfig "knative.dev/eventing/pkg/apis/config"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/apis/eventing/v1beta3"
	"knative.dev/eventing/pkg/apis/feature"
	sourcesv1 "knative.dev/eventing/pkg/apis/sources/v1"
	"knative.dev/pkg/apis"
	servingconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/certloop/certloop/pkg/model"
)

// knativeType is what Knative's webhooks do with an object before it is stored.
type knativeType interface {
	apis.Defaultable
	apis.Validatable
}

func knativeObject(t *testing.T, u *unstructured.Unstructured) knativeType {
	t.Helper()
	switch u.GetAPIVersion() + " " + u.GetKind() {
	case "serving.knative.dev/v1 Service":
		return new(decode[servingv1.Service](t, u.Object))
	case "eventing.knative.dev/v1 Broker":
		return new(decode[eventingv1.Broker](t, u.Object))
	case "eventing.knative.dev/v1 Trigger":
		return new(decode[eventingv1.Trigger](t, u.Object))
	case "eventing.knative.dev/v1beta3 EventType":
		return new(decode[v1beta3.EventType](t, u.Object))
	case "sources.knative.dev/v1 PingSource":
		return new(decode[sourcesv1.PingSource](t, u.Object))
	case "sources.knative.dev/v1 ApiServerSource":
		return new(decode[sourcesv1.ApiServerSource](t, u.Object))
	}
	return nil
}

// Knative's own code finds nothing wrong, neither unknown fields nor unfit values.
func TestKnativeAccepts(t *testing.T) {
	for _, a := range arrangements() {
		for name, overlay := range map[string]string{"": "{}", "-everything": secrets, "-without-broker": "broker: {enabled: false}"} {
			t.Run(a.String()+name, func(t *testing.T) {
				found := map[string]int{}
				for _, u := range a.objects(t, overlay) {
					o := knativeObject(t, u)
					if o == nil {
						continue
					}
					found[u.GetKind()]++
					ctx := apis.WithinCreate(asConfigured(t))
					o.SetDefaults(ctx)
					if err := o.Validate(ctx); err != nil {
						t.Errorf("%s %s: %v", u.GetKind(), u.GetName(), err)
					}
				}
				if want := a.profile != "plain"; (found["Service"] == 4 && found["PingSource"] == 2) != want {
					t.Errorf("Knative's objects are %v", found)
				}
			})
		}
	}
}

// secrets is what can be set without feature flags of Knative.
const secrets = `
nats:
  urlSecret: nats-urls
  credentialsSecret: nats-credentials
  tls: {caSecret: nats-ca, clientSecret: nats-client}
pod: {labels: {team: pki}}
broker: {class: MTChannelBasedBroker, deadLetterSink: {uri: "https://dead.example.org/"}}
`

// asConfigured is what Knative's ConfigMaps say when nobody has changed them.
func asConfigured(t *testing.T) context.Context {
	t.Helper()
	defaults, err := servingconfig.NewDefaultsConfigFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	features, err := servingconfig.NewFeaturesConfigFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := feature.NewFlagsConfigFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	brokers, err := eventingconfig.NewDefaultsConfigFromMap(map[string]string{"default-br-config": brokers})
	if err != nil {
		t.Fatal(err)
	}
	ctx := servingconfig.ToContext(t.Context(), &servingconfig.Config{Defaults: defaults, Features: features})
	return eventingconfig.ToContext(feature.ToContext(ctx, flags), &eventingconfig.Config{Defaults: brokers})
}

const brokers = `
clusterDefault:
  brokerClass: MTChannelBasedBroker
  apiVersion: v1
  kind: ConfigMap
  name: config-br-default-channel
  namespace: knative-eventing
`

// docs/lifecycle.md says how long what no source told of waits for a scan and for a sweep.
func TestTicks(t *testing.T) {
	text := string(read(t, root+"/docs/lifecycle.md"))
	for _, profile := range []string{"knative", "knative-direct"} {
		longest := map[string]time.Duration{}
		for _, u := range of(arrangement{profile, "dedicated"}.objects(t), "PingSource") {
			longest[u.GetName()] = pause(t, decode[sourcesv1.PingSource](t, u.Object).Spec.Schedule)
		}
		want := map[string]time.Duration{release + "-scan": time.Minute, release + "-sweep": 15 * time.Minute}
		if !maps.Equal(longest, want) || !strings.Contains(text, "scan every minute") || !strings.Contains(text, "the sweep, 15 minutes at most") {
			t.Errorf("%s: between two ticks lie %v, want %v as docs/lifecycle.md says", profile, longest, want)
		}
	}
}

// pause is the longest time between two ticks of a schedule in a day.
func pause(t *testing.T, schedule string) (longest time.Duration) {
	t.Helper()
	ticks, err := cron.ParseStandard(schedule)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for at := ticks.Next(begin); at.Before(begin.AddDate(0, 0, 1)); {
		next := ticks.Next(at)
		longest, at = max(longest, next.Sub(at)), next
	}
	return longest
}

// Every type that a function acts on comes to it through one Trigger, and no other type does.
func TestTriggers(t *testing.T) {
	routed := map[string][]string{}
	for _, u := range of(arrangement{"knative", "dedicated"}.objects(t), "Trigger") {
		trigger := decode[eventingv1.Trigger](t, u.Object)
		for _, filter := range trigger.Spec.Filters[0].Any {
			routed[filter.Exact["type"]] = append(routed[filter.Exact["type"]], trigger.Spec.Subscriber.Ref.Name)
		}
		if trigger.Spec.Delivery.DeadLetterSink == nil || *trigger.Spec.Delivery.Retry == 0 {
			t.Errorf("%s gives up at once, or loses what it gives up", u.GetName())
		}
	}
	for _, k := range model.Kinds() {
		var want []string
		for _, v := range k.Consumers {
			if k.Type != model.Ping { // a PingSource names its function
				want = append(want, release+"-"+names()[v])
			}
		}
		if !slices.Equal(routed[k.Type], want) {
			t.Errorf("%s goes to %q, want %q", k.Type, routed[k.Type], want)
		}
		delete(routed, k.Type)
	}
	if len(routed) > 0 {
		t.Errorf("no event is of the types %v", routed)
	}
}

// What no attempt delivered is kept: the function that is given it handles none of it, and
// what a function does not handle it keeps as a dead letter.
func TestTheDeadLetterSinkHandlesNothing(t *testing.T) {
	all := arrangement{"knative", "dedicated"}.objects(t)
	broker := decode[eventingv1.Broker](t, named(t, all, "Broker", "certloop").Object)
	sink := broker.Spec.Delivery.DeadLetterSink.Ref.Name
	for _, u := range of(all, "Trigger") {
		trigger := decode[eventingv1.Trigger](t, u.Object)
		if trigger.Spec.Subscriber.Ref.Name == sink || trigger.Spec.Delivery.DeadLetterSink.Ref.Name != sink {
			t.Errorf("%s: its subscriber is %s, its dead-letter sink %s", u.GetName(), trigger.Spec.Subscriber.Ref.Name, trigger.Spec.Delivery.DeadLetterSink.Ref.Name)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
