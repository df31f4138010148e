package rig

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/test/freeport"
)

// AllInOne is `certloop all` for one World.
type AllInOne struct {
	*Process
	StateDir string

	command Command
}

// StartAll starts `certloop all` with a state directory of its own, acting on
// nothing but its World. args are further arguments.
func StartAll(tb testing.TB, w *World, args ...string) *AllInOne {
	tb.Helper()
	return StartAllWith(tb, w, nil, args...)
}

// StartAllWith is [StartAll] with variables, NAME=value, in its environment.
func StartAllWith(tb testing.TB, w *World, env []string, args ...string) *AllInOne {
	tb.Helper()
	a := &AllInOne{StateDir: filepath.Join(tb.TempDir(), "state")}
	a.command = Command{
		Name: "certloop", Path: Binary(tb, "certloop"), Logs: tb.TempDir(), Env: env,
		Args: append([]string{
			"all", "--kubeconfig", w.Cluster.Kubeconfig(), "--state-dir", a.StateDir, "--namespaces", w.Namespace,
			"--scan-interval", "2s", "--sweep-interval", "5s",
		}, args...),
	}
	a.Restart(tb)
	return a
}

// Restart starts it again on the same state, after it has ended.
func (a *AllInOne) Restart(tb testing.TB) {
	tb.Helper()
	a.Process = Start(tb, a.command)
}

// Bus connects to its NATS server, also through its restarts.
func (a *AllInOne) Bus(tb testing.TB) *Bus {
	tb.Helper()
	return OpenBus(tb, a.Ready["nats"])
}

// StartFunction starts the binary of one function and returns it with its address when it is ready.
func StartFunction(tb testing.TB, w *World, name, natsURL string) (p *Process, url string) {
	tb.Helper()
	address := freeport.Address(tb)
	p = Launch(tb, Command{Name: name, Path: Binary(tb, name), Logs: tb.TempDir(), Env: []string{
		"CERTLOOP_LISTEN=" + address, "NATS_URL=" + natsURL, "KUBECONFIG=" + w.Cluster.Kubeconfig(), "CERTLOOP_NAMESPACES=" + w.Namespace,
	}})
	url = "http://" + address
	Eventually(tb, Patience, name+" is ready", func() error {
		select {
		case <-p.Ended():
			tb.Fatalf("%s has ended: %v\n%s", name, p.Wait(), tail(p.Log))
		default:
		}
		return probe(tb.Context(), url+"/health/readiness")
	})
	return p, url
}

func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Answer is what a function answered over HTTP.
type Answer struct {
	Status      int
	ContentType string
	Body        string
}

// Post sends a body with headers to a function.
func Post(tb testing.TB, url string, header http.Header, body string) Answer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		tb.Fatal(err)
	}
	return Answer{resp.StatusCode, resp.Header.Get("Content-Type"), string(text)}
}

// PostBinary sends an event in the binary mode of the HTTP protocol binding.
func PostBinary(tb testing.TB, url string, e event.Event) Answer {
	tb.Helper()
	h := http.Header{}
	for name, values := range binary(e) {
		h.Set(name, values[0])
	}
	return Post(tb, url, h, string(e.Data()))
}

// PostStructured sends an event in structured mode.
func PostStructured(tb testing.TB, url string, e event.Event) Answer {
	tb.Helper()
	text, err := e.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return Post(tb, url, http.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}, string(text))
}
