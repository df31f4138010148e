package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/functiontest"
)

const patience = time.Minute

// natsServer runs a server with the users that an arrangement renders, and one who may do
// everything.
func natsServer(t *testing.T, a arrangement, overlays ...string) string {
	t.Helper()
	config := named(t, a.objects(t, overlays...), "ConfigMap", release+"-nats-authorization")
	users, _, err := unstructured.NestedString(config.Object, "data", "authorization.conf")
	if err != nil {
		t.Fatal(err)
	}
	users = strings.Replace(users, "users: [", "users: [\n{ user: root, password: root }\n", 1)
	path := filepath.Join(t.TempDir(), "nats.conf")
	content := fmt.Sprintf("host: 127.0.0.1\nport: -1\njetstream { store_dir: %q }\nauthorization {\n%s\n}\n", t.TempDir(), users)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"enroll", "renew", "watch_secrets", "expiry_scan", "dispatch", "setup", "all", "pipeline", "edge_pipeline", "ops"} {
		t.Setenv("CERTLOOP_"+strings.ToUpper(user)+"_PASSWORD", password(user))
	}
	return started(t, path)
}

// started is the URL of a server that runs with a configuration.
func started(t *testing.T, path string) string {
	t.Helper()
	options, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatalf("%v in\n%s", err, read(t, path))
	}
	options.NoSigs, options.NoLog = true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	return s.ClientURL()
}

func password(user string) string { return "of-" + strings.ReplaceAll(user, "-", "_") }

func connect(t *testing.T, url, user string) *nats.Conn {
	t.Helper()
	secret := password(user)
	if user == "root" {
		secret = user
	}
	// The server's objections are read from LastError.
	conn, err := nats.Connect(url, nats.UserInfo(user, secret), nats.CustomInboxPrefix("_INBOX_"+user), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func users(profile string) []string {
	switch profile {
	case "knative":
		return []string{"dispatch", "enroll", "expiry-scan", "renew", "setup", "watch-secrets"}
	case "knative-direct":
		return []string{"enroll", "expiry-scan", "renew", "setup", "watch-secrets"}
	default:
		return []string{"all"}
	}
}

// probes are subjects of every kind, each with what it stands for.
func probes() map[string]string {
	key := types.NamespacedName{Namespace: "core", Name: "amf"}
	all := map[string]string{"certloop.other": "other", "orders.created": "other", "$SYS.REQ.SERVER.PING": "system"}
	for _, v := range []model.Verb{model.Enroll, model.Renew, model.Watch, model.Scan} {
		all[model.WorkSubject(v, key)] = "work " + string(v)
		all[model.ScheduleSubject(v, key)] = "sched " + string(v)
		all[model.DeadSubject(v, key)] = "dead " + string(v)
		consumer := model.WorkStream + "." + string(v)
		for _, kind := range []string{"CREATE", "DELETE", "INFO", "MSG.NEXT", "PAUSE", "DURABLE.CREATE"} {
			suffix := map[string]string{"CREATE": ".certloop.work." + string(v) + ".x"}[kind]
			all["$JS.API.CONSUMER."+kind+"."+consumer+suffix] = "consumer " + kind + " " + string(v)
		}
		all["$JS.ACK."+consumer+".1.2.3.4.5"] = "ack " + string(v)
	}
	for _, k := range model.Kinds() {
		if k.Fact {
			all[model.FactSubject(k.Type, key)] = "fact " + k.Type
		}
	}
	for _, stream := range []string{model.WorkStream, model.EventsStream, model.DeadStream, "ORDERS"} {
		for _, kind := range []string{"CREATE", "UPDATE", "DELETE", "INFO", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE"} {
			all["$JS.API.STREAM."+kind+"."+stream] = "stream " + kind + " " + stream
		}
		all["$JS.API.DIRECT.GET."+stream] = "stream DIRECT.GET " + stream
		if stream != model.WorkStream {
			for _, kind := range []string{"CREATE", "DELETE", "INFO", "MSG.NEXT", "PAUSE", "DURABLE.CREATE"} {
				all["$JS.API.CONSUMER."+kind+"."+stream+".reader"] = "consumer " + kind + " of " + stream
			}
		}
	}
	return all
}

// expected says who may publish what, from what each of them does.
func expected(t *testing.T, profile string) map[string]map[string]bool {
	t.Helper()
	all := map[string]map[string]bool{}
	for _, user := range append(users(profile), "ops") {
		all[user] = map[string]bool{}
	}
	give := func(user string, what ...string) {
		for _, w := range what {
			all[user][w] = true
		}
	}
	for _, f := range functions.All(nil) {
		teller, puller := f.Name, f.Name
		switch profile {
		case "knative":
			puller = "dispatch"
		case "plain":
			teller, puller = "all", "all"
		}
		v := string(f.Verb)
		give(teller, "dead "+v)
		give(puller, "dead "+v, "consumer CREATE "+v, "consumer MSG.NEXT "+v, "ack "+v)
		for _, eventType := range functiontest.Events(t, filepath.Join(root, "functions", f.Name, "README.md"), "events out") {
			k, _ := model.KindOf(eventType)
			if k.Fact {
				give(teller, "fact "+eventType)
			}
			for _, c := range k.Consumers {
				give(teller, "work "+string(c), "sched "+string(c))
			}
		}
	}
	for _, v := range []model.Verb{model.Enroll, model.Renew, model.Watch, model.Scan} {
		give("ops", "work "+string(v))
	}
	for _, stream := range []string{model.EventsStream, model.DeadStream} {
		give("ops", "consumer CREATE of "+stream, "consumer MSG.NEXT of "+stream, "consumer DELETE of "+stream)
	}
	give("ops", "stream INFO "+model.DeadStream, "stream MSG.GET "+model.DeadStream, "stream MSG.DELETE "+model.DeadStream)
	setup := "setup"
	if profile == "plain" {
		setup = "all"
		for _, k := range model.Kinds() {
			for _, v := range k.Consumers {
				if ofSources(k) {
					give("all", "work "+string(v), "sched "+string(v))
				}
			}
		}
	}
	for _, stream := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		give(setup, "stream CREATE "+stream, "stream UPDATE "+stream, "stream INFO "+stream)
	}
	return all
}

// publishers are two users of others, and one who looks after certloop.
const publishers = "nats: {authorization: {publishers: [{name: pipeline, namespaces: [core]}, {name: edge-pipeline, namespaces: [edge]}], operators: [ops]}}"

// Every user tries every subject: nobody may more than he needs, and nobody less.
func TestNATSUsers(t *testing.T) {
	for _, profile := range []string{"knative", "knative-direct", "plain"} {
		t.Run(profile, func(t *testing.T) {
			url := natsServer(t, arrangement{profile, "dedicated"}, publishers)
			all := append(users(profile), "pipeline", "edge-pipeline", "ops")
			for _, user := range all {
				own := "_INBOX_" + user
				for _, owner := range append(slices.Clone(all), "root", user+"-2") {
					for _, inbox := range []string{"_INBOX_" + owner + ".>", "_INBOX_" + owner + ".abc", "_INBOX_" + owner + ".*.1"} {
						if got, want := maySubscribe(t, url, user, inbox), owner == user; got != want {
							t.Errorf("%s may listen to %s: %v, want %v", user, inbox, got, want)
						}
					}
				}
				for _, inbox := range []string{"_INBOX.>", "_INBOX.abc.*", "_INBOX.abc", "*.>", "*.abc", "*.*", own, ">"} {
					if maySubscribe(t, url, user, inbox) {
						t.Errorf("%s may listen to %s", user, inbox)
					}
				}
			}
			want := expected(t, profile)
			for _, user := range append(users(profile), "ops") {
				for subject, what := range probes() {
					if got, want := mayPublish(t, url, user, subject), want[user][what]; got != want {
						t.Errorf("%s may publish %s (%s): %v, want %v", user, subject, what, got, want)
					}
				}
				for _, subject := range []string{model.WorkSubjects, model.FactSubjects, model.DeadSubjects, ">", "$JS.EVENT.>", "$SYS.>"} {
					if maySubscribe(t, url, user, subject) {
						t.Errorf("%s may listen to %s", user, subject)
					}
				}
			}
		})
	}
}

func mayPublish(t *testing.T, url, user, subject string) bool {
	t.Helper()
	return allowed(t, url, user, func(c *nats.Conn) error { return c.Publish(subject, nil) })
}

func maySubscribe(t *testing.T, url, user, subject string) bool {
	t.Helper()
	return allowed(t, url, user, func(c *nats.Conn) error {
		_, err := c.SubscribeSync(subject)
		return err
	})
}

// allowed tells whether the server objects. It does so before it answers a PING.
func allowed(t *testing.T, url, user string, do func(*nats.Conn) error) bool {
	t.Helper()
	c := connect(t, url, user)
	defer c.Close()
	if err := do(c); err != nil {
		t.Fatal(err)
	}
	if err := c.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	return c.LastError() == nil
}

// What the users may do is enough for certloop's own code: to apply the streams, to publish
// every event that a function tells, at once and later, and to have it pulled, settled and
// dead-lettered.
func TestNATSUsersCanWork(t *testing.T) {
	for _, profile := range []string{"knative", "knative-direct", "plain"} {
		t.Run(profile, func(t *testing.T) {
			url := natsServer(t, arrangement{profile, "dedicated"})
			setup, puller := "setup", func(string) string { return "dispatch" }
			teller := func(function string) string { return function }
			switch profile {
			case "knative-direct":
				puller = teller
			case "plain":
				setup, teller = "all", func(string) string { return "all" }
				puller = teller
			}
			all := []*nats.Conn{connect(t, url, setup)}
			js, err := jetstream.New(all[0])
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // created, and updated
				if err := delivery.Apply(t.Context(), js, 1); err != nil {
					t.Fatal(err)
				}
			}
			if profile == "plain" {
				all = append(all, connect(t, url, "all"))
				tellSources(t, all[1])
			}
			for _, f := range functions.All(nil) {
				c := connect(t, url, teller(f.Name))
				tell(t, c, f.Name)
				p := connect(t, url, puller(f.Name))
				work(t, p, f.Verb, connect(t, url, "root"))
				all = append(all, c, p)
			}
			for _, c := range all {
				if err := c.LastError(); err != nil {
					t.Errorf("refused: %v", err)
				}
			}
		})
	}
}

// tell publishes each event that a function tells, now and later.
func tell(t *testing.T, c *nats.Conn, function string) {
	t.Helper()
	bus, err := delivery.NewBus(c, "/test/"+function)
	if err != nil {
		t.Fatal(err)
	}
	for _, eventType := range functiontest.Events(t, filepath.Join(root, "functions", function, "README.md"), "events out") {
		e := model.NewEvent(eventType, types.NamespacedName{Namespace: "core", Name: "amf.example"}, nil)
		later := model.Delay(model.NewEvent(eventType, types.NamespacedName{Namespace: "core", Name: "amf.example"}, nil), time.Now().Add(time.Hour))
		if err := bus.Publish(t.Context(), e, later); err != nil {
			t.Errorf("%s cannot tell %s: %v", function, eventType, err)
		}
	}
}

// tellSources publishes what Knative's sources tell, where nobody but certloop itself does.
func tellSources(t *testing.T, c *nats.Conn) {
	t.Helper()
	bus, err := delivery.NewBus(c, "/test/sources")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range model.Kinds() {
		if !ofSources(k) {
			continue
		}
		e := model.NewEvent(k.Type, types.NamespacedName{}, nil)
		if k.Type != model.Ping {
			e.SetExtension("namespace", "core")
			e.SetExtension("name", "amf")
		}
		if err := bus.Publish(t.Context(), e, model.Delay(e.Clone(), time.Now().Add(time.Hour))); err != nil {
			t.Errorf("cannot tell %s: %v", k.Type, err)
		}
	}
}

// work pulls one event that is handled and one that never can be.
func work(t *testing.T, c *nats.Conn, v model.Verb, root *nats.Conn) {
	t.Helper()
	publisher, err := delivery.NewBus(root, "/test/root")
	if err != nil {
		t.Fatal(err)
	}
	kind := model.KindsFor(v)[0]
	key := types.NamespacedName{Namespace: "core", Name: "amf"}
	if kind.Type == model.Ping {
		key = types.NamespacedName{}
	}
	e := model.NewEvent(kind.Type, key, nil)
	e.SetExtension("namespace", "core") // as an ApiServerSource does
	e.SetExtension("name", "amf")
	if err := publisher.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := root.Publish(model.WorkSubject(v, key), []byte("no event at all")); err != nil {
		t.Fatal(err)
	}
	bus, err := delivery.NewBus(c, "/test/"+string(v))
	if err != nil {
		t.Fatal(err)
	}
	pull(t, bus, v)
	js, err := jetstream.New(root)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("the work of %s is settled, and a dead letter kept", v), func() bool {
		work, err := js.Consumer(t.Context(), model.WorkStream, string(v))
		if err != nil {
			return false
		}
		deadStream, err := js.Stream(t.Context(), model.DeadStream)
		if err != nil {
			return false
		}
		info, err := deadStream.Info(t.Context(), jetstream.WithSubjectFilter("certloop.dead."+string(v)+".>"))
		if err != nil {
			return false
		}
		state := work.CachedInfo()
		return state.NumPending == 0 && state.NumAckPending == 0 && len(info.State.Subjects) > 0
	})
}

// pull handles the events of a function until the test ends.
func pull(t *testing.T, bus *delivery.Bus, v model.Verb) {
	t.Helper()
	handle := func(context.Context, event.Event) ([]event.Event, error) { return nil, nil }
	mux := delivery.Mux{}
	for _, k := range model.KindsFor(v) {
		mux[k.Type] = delivery.Route{Handle: handle}
	}
	r := &delivery.Receiver{Verb: v, Mux: mux, Bus: bus, Log: slog.New(slog.DiscardHandler), Concurrency: 1}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Consume(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// Others may declare what is theirs, in the namespaces that are named.
func TestNATSPublishers(t *testing.T) {
	url := natsServer(t, arrangement{"knative", "dedicated"}, publishers)
	root := connect(t, url, "root")
	js, err := jetstream.New(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := delivery.Apply(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	c := connect(t, url, "pipeline")
	bus, err := delivery.NewBus(c, "/pipelines/test")
	if err != nil {
		t.Fatal(err)
	}
	for _, eventType := range []string{model.ConfigCreated, model.ConfigDeleted, model.IssuerUpdated, model.RenewalRequested} {
		if err := bus.Publish(t.Context(), model.NewEvent(eventType, types.NamespacedName{Namespace: "core", Name: "amf"}, nil)); err != nil {
			t.Errorf("%s: %v", eventType, err)
		}
	}
	for subject, want := range map[string]bool{
		"certloop.work.enroll.core.amf": true, "certloop.work.enroll.edge.amf": false,
		"certloop.evt.config.created.core.amf": true, "certloop.evt.config.created.edge.amf": false,
		"certloop.evt.certificate.issued.core.amf": false, "certloop.work.watch.core.amf": false,
		"certloop.sched.enroll.core.amf": false, "certloop.dead.enroll.core.amf": false,
	} {
		if got := mayPublish(t, url, "pipeline", subject); got != want {
			t.Errorf("%s: %v, want %v", subject, got, want)
		}
	}
	// What becomes of what is theirs they may hear, as `certloop publish --wait` does.
	for subject, want := range map[string]bool{
		model.FactFilter("core"): true, model.DeadFilter("core"): true, model.FactFilter("edge"): false, model.DeadFilter("edge"): false,
		model.FactSubjects: false, model.WorkSubjects: false, model.WorkSubject(model.Enroll, types.NamespacedName{Namespace: "core", Name: "amf"}): false,
	} {
		if got := maySubscribe(t, url, "pipeline", subject); got != want {
			t.Errorf("listening to %s: %v, want %v", subject, got, want)
		}
	}
}

// A user logs in by nkey where there is one.
func TestNATSNkeys(t *testing.T) {
	const nkey = "UAHWI3JWBJUYGAU4SFQCYBCTOMGBUJTLSBJCRIASQYCAYEZGSXLCZZTA"
	config := named(t, arrangement{"plain", "dedicated"}.objects(t, "nats: {authorization: {nkeys: {all: "+nkey+"}}}"), "ConfigMap", release+"-nats-authorization")
	text, _, _ := unstructured.NestedString(config.Object, "data", "authorization.conf")
	if !strings.Contains(text, "nkey: "+nkey) || strings.Contains(text, "password:") {
		t.Errorf("got\n%s", text)
	}
}

// Every Pod has the inboxes of its own user, where the release holds the users.
func TestNATSInboxes(t *testing.T) {
	for _, a := range arrangements() {
		for values, want := range map[string]bool{"": true, "nats: {authorization: {render: false}}": false, "profile: plain\nplain: {embeddedNATS: true, replicas: 1}": false} {
			for component, env := range environments(t, a.objects(t, values)) {
				got, given := env["NATS_INBOX_PREFIX"]
				if given != want || given && got != "_INBOX_"+component {
					t.Errorf("%s, %s with %q: %s has the inboxes %q", a, component, values, component, got)
				}
			}
		}
	}
}

// environments are the variables of each component's container that have a value.
func environments(t *testing.T, all []*unstructured.Unstructured) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	for _, u := range all {
		component, ok, _ := unstructured.NestedString(u.Object, "spec", "template", "metadata", "labels", "app.kubernetes.io/component")
		if !ok {
			continue
		}
		found[component] = map[string]string{}
		containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		for _, c := range containers {
			variables, _, _ := unstructured.NestedSlice(c.(map[string]any), "env")
			for _, v := range variables {
				if value, ok := v.(map[string]any)["value"].(string); ok {
					found[component][v.(map[string]any)["name"].(string)] = value
				}
			}
		}
	}
	if len(found) == 0 {
		t.Fatal("there are no Pods")
	}
	return found
}

// Two releases at one server have an account each, where their users log in by nkeys: neither hears
// the other, and both have users of the same names.
func TestNATSAccounts(t *testing.T) {
	dir, accounts, keys := t.TempDir(), "", map[string]nkeys.KeyPair{}
	for _, release := range []string{"core", "edge"} {
		overlay := "nats: {authorization: {nkeys: {"
		for _, user := range users("knative-direct") {
			pair, err := nkeys.CreateUser()
			if err != nil {
				t.Fatal(err)
			}
			public, err := pair.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			keys[release+" "+user] = pair
			overlay += user + ": " + public + ", "
		}
		config := named(t, arrangement{"knative-direct", "dedicated"}.objects(t, overlay+"}}}"), "ConfigMap", "certloop-nats-authorization")
		text, _, _ := unstructured.NestedString(config.Object, "data", "authorization.conf")
		if err := os.WriteFile(filepath.Join(dir, release+".conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		accounts += release + " { jetstream: enabled\n include " + release + ".conf\n }\n"
	}
	path := filepath.Join(dir, "nats.conf")
	content := fmt.Sprintf("host: 127.0.0.1\nport: -1\njetstream { store_dir: %q }\naccounts {\n%s}\n", t.TempDir(), accounts)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	url := started(t, path)
	login := func(who string) *nats.Conn {
		public, err := keys[who].PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		_, user, _ := strings.Cut(who, " ")
		conn, err := nats.Connect(url, nats.Nkey(public, keys[who].Sign), nats.CustomInboxPrefix("_INBOX_"+user))
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	for _, release := range []string{"core", "edge"} {
		js, err := jetstream.New(login(release + " setup"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Stream(t.Context(), model.WorkStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("%s sees a stream before its own is made: %v", release, err)
		}
		if err := delivery.Apply(t.Context(), js, 1); err != nil {
			t.Fatal(err)
		}
		tell(t, login(release+" enroll"), "enroll")
	}
}

// An operator may do what `certloop history` and `certloop dead-letters` do.
func TestNATSOperator(t *testing.T) {
	url := natsServer(t, arrangement{"knative", "dedicated"}, publishers)
	root, err := jetstream.New(connect(t, url, "root"))
	if err != nil {
		t.Fatal(err)
	}
	if err := delivery.Apply(t.Context(), root, 1); err != nil {
		t.Fatal(err)
	}
	key := types.NamespacedName{Namespace: "core", Name: "amf"}
	tell(t, connect(t, url, "enroll"), "enroll")
	dead := nats.NewMsg(model.DeadSubject(model.Enroll, key))
	dead.Header = nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/test"}, "ce-type": {model.ConfigDeleted}, "ce-subject": {"core/amf"}, delivery.ReasonHeader: {string(delivery.Exhausted)}}
	if _, err := root.PublishMsg(t.Context(), dead); err != nil {
		t.Fatal(err)
	}

	c := connect(t, url, "ops")
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	bus, err := delivery.NewBus(c, "/test/ops")
	if err != nil {
		t.Fatal(err)
	}
	facts := 0
	for _, s := range []delivery.Selection{{}, {Subjects: []string{model.FactFilter("core")}}, {Since: time.Now().Add(-time.Hour)}} {
		if err := delivery.History(t.Context(), js, s, func(event.Event) error { facts++; return nil }); err != nil {
			t.Error(err)
		}
	}
	if facts == 0 {
		t.Error("no history is found")
	}
	var letters []delivery.DeadLetter
	if err := delivery.DeadLetters(t.Context(), js, delivery.Selection{Subjects: []string{model.DeadFilter("core")}}, func(l delivery.DeadLetter) error {
		letters = append(letters, l)
		return nil
	}); err != nil || len(letters) != 1 {
		t.Fatalf("%v: found %v", err, letters)
	}
	l, err := delivery.FindDeadLetter(t.Context(), js, letters[0].Sequence)
	if err == nil {
		err = errors.Join(bus.Replay(t.Context(), l), delivery.DropDeadLetter(t.Context(), js, l.Sequence))
	}
	if err = errors.Join(err, c.LastError()); err != nil {
		t.Error(err)
	}
}
