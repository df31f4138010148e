// Package pipelines tries what a pipeline does, as a pipeline may: with the rights at NATS that
// charts/certloop gives to a publisher, or over HTTP alone. It runs the examples in
// docs/pipelines and `certloop publish --wait` against the function enroll, a CA and an API server.
package pipelines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// Exit codes of publish.
const (
	done        = 0
	failed      = 1
	rejected    = 3
	parked      = 4
	timedOut    = 5
	interrupted = 130
)

// site is a namespace that the function enroll serves.
type site struct {
	world    *rig.World
	ca       *rig.Responder
	function string // its URL
	pipeline string // URL of NATS for a publisher of this namespace
}

// newSite starts the function and waits for the identity that signs requests.
func newSite(t *testing.T) *site {
	t.Helper()
	w := rig.NewWorld(t)
	s := &site{world: w, ca: rig.StartResponder(t, responder.Config{})}
	address := startNATS(t, w.Namespace)
	s.pipeline = "nats://pipeline:of-pipeline@" + address
	_, s.function = rig.StartFunction(t, w, "enroll", "nats://root:of-root@"+address)
	w.Bootstrap(t, s.ca.CA)
	s.want(t, done, s.publish(t, rig.Issuer(s.ca.CA)+"---\n"+rig.Identity(), "--wait"))
	return s
}

// startNATS starts a server with certloop's streams, for one who may do everything and for a
// publisher of a namespace.
func startNATS(t *testing.T, namespace string) (address string) {
	t.Helper()
	all := &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{">"}}, Subscribe: &server.SubjectPermission{Allow: []string{">"}}}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{
			{Username: "root", Password: "of-root", Permissions: all},
			{Username: "pipeline", Password: "of-pipeline", Permissions: publisher(t, namespace)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(rig.Patience) {
		t.Fatal("the NATS server does not start")
	}
	rig.OpenBus(t, "nats://root:of-root@"+s.Addr().String()).ApplyStreams(t)
	return s.Addr().String()
}

// publisher are the rights that the chart gives.
func publisher(t *testing.T, namespace string) *server.Permissions {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rig.Root(t), "charts", "certloop", "files", "nats.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(text), "\npublisher:\n")
	if !ok {
		t.Fatal("charts/certloop/files/nats.yaml has no publisher")
	}
	var subjects []string
	for line := range strings.Lines(list) {
		subject, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !ok {
			break
		}
		subjects = append(subjects, strings.ReplaceAll(subject, "NAMESPACE", namespace))
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: subjects},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_pipeline.>", model.FactFilter(namespace), model.DeadFilter(namespace)}},
	}
}

// ended is a program that has ended.
type ended struct {
	code           int
	stdout, stderr string
}

// result is what `certloop publish -o json` prints of an event, as far as it matters here.
type result struct {
	Subject, Outcome, Reason, Message string
	Fields                            []string
	Generation                        int64
	NextAttempt                       time.Time
	Certificate                       model.CertificateFact
}

func (e ended) results(t *testing.T) (all []result) {
	t.Helper()
	if err := json.Unmarshal([]byte(e.stdout), &all); err != nil {
		t.Fatalf("%v in %q", err, e.stdout)
	}
	return all
}

// publish publishes documents over NATS, as the pipeline.
func (s *site) publish(t *testing.T, documents string, args ...string) ended {
	t.Helper()
	args = append([]string{"publish", "-f", "-", "-n", s.world.Namespace, "-o", "json", "--nats-url", s.pipeline}, args...)
	return run(t, s.command(t, documents, args...))
}

// command is certloop in an empty directory, with the environment of a pipeline: no cluster, no NATS.
func (s *site) command(t *testing.T, stdin string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, rig.Binary(t, "certloop"), args...) // #nosec G204 -- a program of ours
	cmd.Dir, cmd.Stdin = t.TempDir(), strings.NewReader(stdin)
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH")}
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) ended {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (s *site) want(t *testing.T, code int, got ended) {
	t.Helper()
	if got.code != code {
		t.Fatalf("exit code %d, want %d\n%s%s", got.code, code, got.stdout, got.stderr)
	}
	if strings.Contains(got.stdout+got.stderr, "\x1b") {
		t.Errorf("colours where no terminal is: %q", got.stdout+got.stderr)
	}
}

// interrupt sends SIGINT once ready says so.
func interrupt(t *testing.T, cmd *exec.Cmd, ready func(stderr string) bool) ended {
	t.Helper()
	log := filepath.Join(t.TempDir(), "stderr")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	rig.Eventually(t, rig.Patience, "there is something to interrupt", func() error {
		if text := read(); !ready(text) {
			return errors.New(text)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its code is what matters
	return ended{cmd.ProcessState.ExitCode(), out.String(), read()}
}
