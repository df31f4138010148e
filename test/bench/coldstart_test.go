package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/freeport"
	"github.com/certloop/certloop/test/kubetest"
)

// goal is how many times the size or the cold start of a bare net/http program a function
// should have at most.
const goal = 1.35

// starts is how often each program is started; the bare one and the function take turns, so
// that both meet the same machine.
const starts = 15

// build builds programs of this module with the flags of the Makefile and returns their directory.
func build(b *testing.B, packages ...string) (dir string) {
	b.Helper()
	dir = b.TempDir()
	for _, p := range packages {
		cmd := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, filepath.Base(p)), p) // #nosec G204 -- of this module
		cmd.Dir, cmd.Env = rig.Root(b), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s: %v\n%s", p, err, out)
		}
	}
	return dir
}

const bare = "./test/bench/testdata/bare"

func functions() []string {
	return []string{"./functions/enroll", "./functions/renew", "./functions/watch-secrets", "./functions/expiry-scan"}
}

// verdict tells a ratio to the bare program, and whether it is within the goal.
func verdict(b *testing.B, what string, ratio float64) {
	b.Helper()
	b.ReportMetric(ratio, what+"/bare")
	word := "holds"
	if ratio > goal {
		word = "is missed"
	}
	b.Logf("%s: %.2f × a bare net/http program; the goal of %.2f %s", what, ratio, goal, word)
}

// BenchmarkImageSize tells what a node pulls for each function, compressed, beside the image of
// a bare program.
func BenchmarkImageSize(b *testing.B) {
	dir := build(b, append(functions(), bare)...)
	args := []string{"run", ".", "-out", b.TempDir(), "-tag", "bench", filepath.Join(dir, "bare")}
	for _, f := range functions() {
		args = append(args, filepath.Join(dir, filepath.Base(f)))
	}
	cmd := exec.CommandContext(b.Context(), "go", args...) // #nosec G204 -- of this project
	cmd.Dir = filepath.Join(rig.Root(b), "tools", "images")
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	sizes := map[string]float64{}
	for line := range strings.Lines(string(out)) { // NAME PLATFORM SIZE MB DIGEST
		if words := strings.Fields(line); len(words) == 5 {
			sizes[words[0]], _ = strconv.ParseFloat(words[2], 64)
		}
	}
	for _, f := range functions() {
		name := filepath.Base(f)
		b.Run(name, func(b *testing.B) {
			if sizes[name] == 0 || sizes["bare"] == 0 {
				b.Fatalf("no sizes in\n%s", out)
			}
			for b.Loop() {
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(sizes[name], "MB")
			}
			verdict(b, "size", sizes[name]/sizes["bare"])
		})
	}
}

// BenchmarkColdStart tells how long each function takes from its exec to the answer that the
// first event is handled, its questions to the API server and its connection to NATS included,
// and how much processor time that costs, beside a bare program that asks the API server the same.
func BenchmarkColdStart(b *testing.B) {
	w := rig.NewWorld(b)
	nats := rig.StartNATS(b)
	dir := build(b, append(functions(), bare)...)
	events := map[string]event.Event{
		"enroll":        rig.Event(b, model.EnrollmentRequested, w.Key("absent"), ""),
		"renew":         rig.Event(b, model.RenewalRequested, w.Key("absent"), ""),
		"watch-secrets": secretEvent(b, w),
		"expiry-scan":   rig.Event(b, model.Ping, w.Key(""), `{"scan": "expiry"}`),
	}
	server := w.Cluster.Config()
	env := append(os.Environ(), "NATS_URL="+nats.URL, "KUBECONFIG="+w.Cluster.Kubeconfig(), "CERTLOOP_NAMESPACES="+w.Namespace, "CERTLOOP_LOG_LEVEL=error",
		"CERTLOOP_CONSUME=false", // as where Knative starts it, because of the event
		"BARE_CA="+string(server.CAData), "BARE_TOKEN="+server.BearerToken)
	for _, f := range functions() {
		name := filepath.Base(f)
		b.Run(name, func(b *testing.B) {
			asked := questions(b, w.Cluster, filepath.Join(dir, name), env, events[name])
			b.Logf("asks the API server: %s", asked)
			env := append(env, "BARE_URLS="+strings.Join(asked, " "))
			for b.Loop() {
				var least, function [2][]time.Duration // wall time and processor time
				for range starts {
					wall, used := coldStart(b, filepath.Join(dir, "bare"), env, events[name])
					least[0], least[1] = append(least[0], wall), append(least[1], used)
					wall, used = coldStart(b, filepath.Join(dir, name), env, events[name])
					function[0], function[1] = append(function[0], wall), append(function[1], used)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(milliseconds(median(function[0])), "ms")
				b.ReportMetric(milliseconds(median(least[0])), "bare-ms")
				b.ReportMetric(milliseconds(median(function[1])), "CPU-ms")
				verdict(b, "start", float64(median(function[0]))/float64(median(least[0])))
				verdict(b, "CPU", float64(median(function[1]))/float64(median(least[1])))
			}
		})
	}
}

// questions are the URLs that a function asks the API server for until its first event is
// handled, as somebody sees them who stands between the two.
func questions(b *testing.B, cluster *kubetest.Cluster, path string, env []string, e event.Event) (asked []string) {
	b.Helper()
	transport, err := rest.TransportFor(cluster.Config())
	if err != nil {
		b.Fatal(err)
	}
	target, err := url.Parse(cluster.Config().Host)
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	server := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		mu.Lock()
		defer mu.Unlock()
		p.SetURL(target)
		if p.In.Method != http.MethodGet {
			b.Errorf("%s %s is no question", p.In.Method, p.In.RequestURI)
		}
		asked = append(asked, p.Out.URL.String())
	}})
	defer server.Close()
	kubeconfig := filepath.Join(b.TempDir(), "kubeconfig")
	between := api.Config{
		Clusters:       map[string]*api.Cluster{"between": {Server: server.URL}},
		Contexts:       map[string]*api.Context{"between": {Cluster: "between"}},
		CurrentContext: "between",
	}
	if err := clientcmd.WriteToFile(between, kubeconfig); err != nil {
		b.Fatal(err)
	}
	coldStart(b, path, append(slices.Clone(env), "KUBECONFIG="+kubeconfig), e)
	if len(asked) == 0 {
		b.Fatal("it asks the API server nothing")
	}
	return asked
}

// secretEvent is that of an ApiServerSource about a Secret that does not exist.
func secretEvent(b *testing.B, w *rig.World) event.Event {
	b.Helper()
	e := rig.Event(b, model.RefDelete, w.Key("absent"), fmt.Sprintf("{apiVersion: v1, kind: Secret, namespace: %s, name: absent}", w.Namespace))
	for name, value := range map[string]string{"apiversion": "v1", "kind": "Secret", "namespace": w.Namespace, "name": "absent"} {
		e.SetExtension(name, value)
	}
	return e
}

// coldStart starts a program, sends it an event until it says that it is handled, and ends it.
func coldStart(b *testing.B, path string, env []string, e event.Event) (wall, used time.Duration) {
	b.Helper()
	address := freeport.Address(b)
	body, err := e.MarshalJSON()
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), rig.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path) // #nosec G204 -- was built here
	cmd.Env = append(slices.Clone(env), "CERTLOOP_LISTEN="+address)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var last string
	for last = post(ctx, address, body); last != ""; last = post(ctx, address, body) {
		if ctx.Err() != nil {
			b.Fatalf("%s handles no event: %s", filepath.Base(path), last)
		}
		time.Sleep(500 * time.Microsecond)
	}
	wall = time.Since(began)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// post sends an event once and returns why it is not handled, "" when it is.
func post(ctx context.Context, address string, body []byte) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address, bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusAccepted {
		return resp.Status
	}
	return ""
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
