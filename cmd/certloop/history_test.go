package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// brokerWithStreams gives the URL of a NATS server that certloop may use, and a bus on it.
func brokerWithStreams(t *testing.T) (url string, bus *delivery.Bus) {
	t.Helper()
	b := openBroker(t, filepath.Join(t.TempDir(), "nats"))
	t.Cleanup(b.stop)
	if code, _, stderr := run(t, "bus", "apply", "--nats-url", b.url()); code != exitDone {
		t.Fatal(stderr)
	}
	conn, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if bus, err = delivery.NewBus(conn, "/clusters/test/certloop"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	return b.url(), bus
}

// at is an event about an object at the n-th minute.
func at(n int, eventType string, key types.NamespacedName, data any) event.Event {
	e := model.NewEvent(eventType, key, data)
	e.SetTime(time.Date(2026, 11, 22, 9, n, 0, 0, time.UTC))
	e.SetExtension(model.CorrelationID, "c-"+key.Name)
	return e
}

func TestHistory(t *testing.T) {
	url, bus := brokerWithStreams(t)
	web, api, ca := types.NamespacedName{Namespace: "shop", Name: "web"}, types.NamespacedName{Namespace: "core", Name: "api.v2"}, types.NamespacedName{Name: "ca"}
	end := metav1.NewTime(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	err := bus.Publish(t.Context(),
		at(0, model.IssuerReady, ca, model.IssuerFact{Reason: "Ready", Message: "the CA answers"}),
		at(1, model.ConfigApplied, web, model.ChangeFact{Generation: 1, Effect: model.EffectReissue}),
		at(2, model.CertificateFailed, web, model.AttemptFact{Reason: "CAUnreachable", Message: "connection\nrefused", NextAttempt: &end}),
		at(3, model.CertificateIssued, api, model.CertificateFact{Serial: "0a", NotAfter: end, SecretName: "api-tls", Differences: []string{"validity"}}),
		at(4, model.SecretDeleted, web, model.SecretFact{SecretName: "web-tls", Cause: "it is gone"}),
		at(5, model.ScanCompleted, types.NamespacedName{}, model.ScanFact{Looked: 3, Expiring: 1, Unread: []string{"dark"}}),
		at(6, model.ScanCompleted, types.NamespacedName{}, model.ScanFact{Looked: 3, Seconds: 0.1}),
	)
	if err != nil {
		t.Fatal(err)
	}
	const header = "TIME                   OBJECT                         FACT                      WHAT\n"
	row := map[string]string{
		"issuer":  "2026-11-22T09:00:00Z   /ca                            issuer.ready              Ready; the CA answers\n",
		"applied": "2026-11-22T09:01:00Z   shop/web                       config.applied            a certificate is obtained\n",
		"failed":  "2026-11-22T09:02:00Z   shop/web                       certificate.failed        CAUnreachable; connection refused; again at 2027-01-01T00:00:00Z\n",
		"issued":  "2026-11-22T09:03:00Z   core/api.v2                    certificate.issued        Secret api-tls; serial 0a; until 2027-01-01T00:00:00Z; granted otherwise: validity\n",
		"deleted": "2026-11-22T09:04:00Z   shop/web                       secret.deleted            Secret web-tls; it is gone\n",
		"scan":    "2026-11-22T09:05:00Z   -                              scan.completed            looked at 3, 1 expiring, 0 expired, 0 pending, 0 changed; may not read dark\n",
	}
	tests := map[string]struct {
		args []string
		want string
	}{
		"everything":        {[]string{"-A"}, header + row["issuer"] + row["applied"] + row["failed"] + row["issued"] + row["deleted"] + row["scan"]},
		"a namespace":       {[]string{"-n", "shop"}, header + row["applied"] + row["failed"] + row["deleted"]},
		"a certificate":     {[]string{"api.v2", "-n", "core"}, header + row["issued"]},
		"a cluster issuer":  {[]string{"ca"}, header + row["issuer"]},
		"nothing":           {[]string{"other", "-n", "shop"}, ""},
		"nothing, as JSON":  {[]string{"other", "-o", "json"}, "[]\n"},
		"all of this hour":  {[]string{"-A", "--since", "1h"}, header + row["issuer"] + row["applied"] + row["failed"] + row["issued"] + row["deleted"] + row["scan"]},
		"with correlations": {[]string{"api.v2", "-n", "core", "-o", "wide"}, "certificate.issued        c-api.v2 "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, append([]string{"history", "--nats-url", url}, tt.args...)...)
			if code != exitDone || stdout != tt.want && (name != "with correlations" || !strings.Contains(stdout, tt.want)) {
				t.Errorf("exit code %d; got\n%swant\n%s%s", code, stdout, tt.want, stderr)
			}
		})
	}
	_, stdout, _ := run(t, "history", "-A", "-o", "json", "--nats-url", url)
	var batch []event.Event
	if err := json.Unmarshal([]byte(stdout), &batch); err != nil || len(batch) != 7 || batch[4].Type() != model.SecretDeleted {
		t.Errorf("%v: got %s", err, stdout)
	}
	if _, stdout, _ := run(t, "history", "web", "-n", "shop", "-o", "yaml", "--nats-url", url); strings.Count(stdout, "---\n") != 3 || !strings.Contains(stdout, "subject: shop/web\n") {
		t.Errorf("got %s", stdout)
	}
}

func TestHistoryRefuses(t *testing.T) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"web", "-A"}, "-A goes with neither a name nor -n"},
		{[]string{"--since", "-1h"}, "--since -1h0m0s is not positive"},
		{[]string{"-o", "xml"}, "-o xml is not one of table, wide, json, yaml"},
	} {
		if code, _, stderr := run(t, append([]string{"history"}, tt.args...)...); code != exitUsage || !strings.Contains(stderr, tt.says) {
			t.Errorf("%v: exit code %d: %s", tt.args, code, stderr)
		}
	}
}

// A dead letter is listed, shown, corrected at its root, and replayed.
func TestDeadLetters(t *testing.T) {
	url, bus := brokerWithStreams(t)
	receiver := &delivery.Receiver{Verb: model.Enroll, Mux: delivery.Mux{}, Bus: bus, Log: slog.New(slog.DiscardHandler)}
	function := httptest.NewServer(receiver)
	defer function.Close()
	web := types.NamespacedName{Namespace: "shop", Name: "web"}
	for _, e := range []event.Event{
		at(0, model.ConfigDeleted, web, nil),
		at(1, model.ConfigDeleted, types.NamespacedName{Namespace: "core", Name: "api"}, nil),
		at(2, "com.example.order.v1", types.NamespacedName{}, map[string]string{"a": "b"}),
	} {
		if e.Source() == "" {
			e.SetSource("/test")
		}
		if err := delivery.Post(t.Context(), http.DefaultClient, function.URL, e); err == nil {
			t.Fatalf("%s is accepted", e.Type())
		}
	}
	dead := func(args ...string) (code int, stdout, stderr string) {
		return run(t, append([]string{"dead-letters", "--nats-url", url}, args...)...)
	}
	_, stdout, _ := dead("list", "-o", "wide")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "NUMBER   AGE") {
		t.Fatalf("got\n%s", stdout)
	}
	for i, want := range []string{"1 enroll config.deleted shop/web unknown-type 1", "2 enroll config.deleted core/api unknown-type 1", "3 enroll com.example.order.v1 - unknown-type 1"} {
		words := strings.Fields(lines[i+1])
		if got := strings.Join(append(words[:1], words[2:7]...), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if _, stdout, _ = dead("list", "-n", "core"); strings.Count(stdout, "\n") != 2 || !strings.Contains(stdout, "core/api") {
		t.Errorf("of one namespace: %s", stdout)
	}
	if _, stdout, _ = dead("show", "3"); !strings.Contains(stdout, "reason: unknown-type\n") || !strings.Contains(stdout, "type: com.example.order.v1\n") {
		t.Errorf("got %s", stdout)
	}

	if _, stdout, _ = run(t, "__complete", "dead-letters", "show", "--nats-url", url, ""); !strings.HasPrefix(stdout, "1\tconfig.deleted shop/web\n2\t") {
		t.Errorf("the shell is offered %q", stdout)
	}

	code, stdout, stderr := dead("replay", "--all")
	if want := "replayed 1: config.deleted shop/web\nreplayed 2: config.deleted core/api\n"; code != exitFailed || stdout != want || !strings.Contains(stderr, "3: no function of this version takes an event of type com.example.order.v1") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	stream, err := streamsOf(t, url).Stream(t.Context(), model.WorkStream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), model.WorkSubject(model.Enroll, web))
	if err != nil || msg.Header.Get("ce-type") != model.ConfigDeleted {
		t.Errorf("%v: got %v", err, msg)
	}
	if code, stdout, _ = dead("drop", "3"); code != exitDone || stdout != "dropped 3: com.example.order.v1 -\n" {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	if code, _, stderr = dead("drop", "3"); code != exitFailed || !strings.Contains(stderr, "3: no such dead letter") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr = dead("list"); code != exitDone || stdout != "" || stderr != "No dead letters.\n" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestDeadLettersRefuse(t *testing.T) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{nil, "say what to do: certloop dead-letters list, show, replay or drop"},
		{[]string{"show", "web"}, `"web" is not the number of a dead letter`},
		{[]string{"replay"}, "give numbers, or --all"},
		{[]string{"drop", "1", "--all"}, "give numbers, or --all"},
		{[]string{"drop", "1", "-n", "shop"}, "give numbers, or --all"},
		{[]string{"list", "-o", "name"}, "-o name is not one of"},
	} {
		if code, _, stderr := run(t, append([]string{"dead-letters"}, tt.args...)...); code != exitUsage || !strings.Contains(stderr, tt.says) {
			t.Errorf("%v: exit code %d: %s", tt.args, code, stderr)
		}
	}
}
