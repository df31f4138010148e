package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/freeport"
)

// sleeper is a function that is not there until somebody needs it, and that dies now and
// then in the middle of its work.
type sleeper struct {
	mu    sync.Mutex
	asked int
	seen  map[string]bool
}

func (s *sleeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.asked%5 == 0 {
		panic(http.ErrAbortHandler)
	}
	s.seen[r.Header.Get("Ce-Subject")] = true
	w.WriteHeader(http.StatusAccepted)
}

func (s *sleeper) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

func TestDispatchWakesAFunction(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	b := openBroker(t, filepath.Join(t.TempDir(), "nats"))
	defer b.stop()
	address, probes := freeport.Address(t), freeport.Address(t)
	t.Setenv("NATS_URL", b.url())
	t.Setenv("CERTLOOP_LISTEN", probes)
	t.Setenv(targetsVariable, "renew=http://"+address)
	const events = 40
	publishWork(t, b.url(), events)

	ctx, stop := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	dispatch := newCommandLine([]string{"dispatch"}, &out, &errs)
	ended := make(chan int)
	go func() { ended <- dispatch.execute(ctx) }()
	eventually(t, "readiness", func() bool { return answers(t, "http://"+probes+"/health/readiness") })

	function := &sleeper{seen: map[string]bool{}}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: function, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	eventually(t, "every event", func() bool { return function.count() == events })
	eventually(t, "settlement", func() bool {
		stream, err := streamsOf(t, b.url()).Stream(t.Context(), model.WorkStream)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
	stop()
	if code := <-ended; code != exitDone {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

func publishWork(t *testing.T, url string, n int) {
	t.Helper()
	if _, err := applyStreams(t.Context(), streamsOf(t, url), 1); err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	bus, err := delivery.NewBus(conn, "/test")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		key := types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("web-", i)}
		if err := bus.Publish(t.Context(), model.NewEvent(model.RenewalRequested, key, nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func answers(t *testing.T, url string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func TestDispatchNamesWhatIsWrong(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	for args, says := range map[string]string{
		"dispatch":                           "no function is named: use --target FUNCTION=URL or CERTLOOP_TARGETS",
		"dispatch --target enrol=http://a":   "target enrol is none of the functions enroll, renew, watch-secrets, expiry-scan",
		"dispatch --target renew=nats://a":   "target renew is not http:// or https:// and a host",
		"dispatch --target renew=http://a b": "unknown command",
	} {
		if code, _, stderr := run(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d, want %d; stderr %q, want %q in it", args, code, exitUsage, stderr, says)
		}
	}
	t.Setenv(targetsVariable, "enroll")
	if code, _, stderr := run(t, "dispatch"); code != exitUsage || !strings.Contains(stderr, `"enroll" is not FUNCTION=URL`) {
		t.Errorf("exit code %d; stderr %q", code, stderr)
	}
}

// A shell proposes the functions, and waits for the host.
func TestDispatchCompletion(t *testing.T) {
	const want = "enroll=http://\nrenew=http://\nwatch-secrets=http://\nexpiry-scan=http://\n:6\n"
	if _, stdout, _ := run(t, "__complete", "dispatch", "--target", ""); stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
}
