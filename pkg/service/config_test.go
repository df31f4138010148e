package service

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// clearEnvironment unsets every variable of a Config until the test ends.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for field := range reflect.TypeFor[Config]().Fields() {
		name := field.Tag.Get("envconfig")
		t.Setenv(name, "") // so that it is put back
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDefaults(t *testing.T) {
	clearEnvironment(t)
	got, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Port: 8080, NATSURL: "nats://127.0.0.1:4222", Consume: true, Concurrency: 16,
		HandlerTimeout: 2 * time.Minute, DrainTimeout: 25 * time.Second, LogFormat: "auto", LogLevel: slog.LevelInfo, Cluster: "default",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := got.address(), ":8080"; got != want {
		t.Errorf("address %q, want %q", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("CERTLOOP_LISTEN", "127.0.0.1:9090")
	t.Setenv("CERTLOOP_NAMESPACES", "shop,core")
	t.Setenv("CERTLOOP_CONSUME", "false")
	t.Setenv("CERTLOOP_HANDLER_TIMEOUT", "30s")
	t.Setenv("CERTLOOP_LOG_LEVEL", "debug")
	t.Setenv("NATS_URL", "tls://a:4222, wss://b")
	got, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if got.address() != "127.0.0.1:9090" || fmt.Sprint(got.Namespaces) != "[shop core]" || got.Consume ||
		got.HandlerTimeout != 30*time.Second || got.LogLevel != slog.LevelDebug {
		t.Errorf("got %v", got)
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	clearEnvironment(t)
	wrong := map[string]string{
		"PORT":                     "http",
		"CERTLOOP_LISTEN":          "localhost",
		"NATS_URL":                 "nats://user:hunter2@a b:4222",
		"NATS_CREDS":               "/nowhere/creds",
		"NATS_INBOX_PREFIX":        "_INBOX.>",
		"NATS_CERT":                "/nowhere/cert",
		"KUBECONFIG":               "/nowhere/kubeconfig",
		"CERTLOOP_NAMESPACES":      "shop,Not_A_Namespace",
		"CERTLOOP_CONSUME":         "perhaps",
		"CERTLOOP_CONCURRENCY":     "0",
		"CERTLOOP_HANDLER_TIMEOUT": "1h",
		"CERTLOOP_DRAIN_TIMEOUT":   "1ms",
		"CERTLOOP_LOG_FORMAT":      "xml",
		"CERTLOOP_LOG_LEVEL":       "loud",
		"CERTLOOP_CLUSTER":         "a/b",
	}
	for name, value := range wrong {
		t.Setenv(name, value)
	}
	_, err := FromEnvironment()
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	for name := range wrong {
		n := 0
		for _, line := range lines {
			if strings.HasPrefix(line, name) {
				n++
			}
		}
		if want := 1; n != want && name != "NATS_CERT" || n == 0 {
			t.Errorf("%s is reported %d times, want %d:\n%v", name, n, want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error repeats a password: %v", err)
	}
}

func TestAPasswordIsNotPrinted(t *testing.T) {
	c := Config{NATSURL: "nats://user:hunter2@a:4222,nats://token@b:4222,nats://u:p@hunter2@c"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c)
	for _, printed := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %s", c, c, c), fmt.Sprintf("%#v", c), log.String(), fmt.Sprint(&Env{Config: c})} {
		if strings.Contains(printed, "hunter2") || strings.Contains(printed, "token") {
			t.Errorf("printed: %s", printed)
		}
	}
}

func TestExecute(t *testing.T) {
	f := Function{Name: "enroll", Verb: model.Enroll, Wire: func(*Env) (delivery.Mux, error) { return delivery.Mux{}, nil }}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	const cluster = `{"clusters":[{"name":"c","cluster":{"server":"https://127.0.0.1:1"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`
	if err := os.WriteFile(kubeconfig, []byte(cluster), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args   []string
		env    map[string]string
		want   int
		stdout string
		stderr string
	}{
		"help":              {args: []string{"--help"}, want: 0, stdout: "CERTLOOP_HANDLER_TIMEOUT  2m"},
		"version":           {args: []string{"--version"}, want: 0, stdout: "enroll "},
		"unknown flag":      {args: []string{"--fast"}, want: 2, stderr: "--help"},
		"an argument":       {args: []string{"now"}, want: 2, stderr: `"now"`},
		"bad environment":   {env: map[string]string{"PORT": "x"}, want: 2, stderr: `enroll: PORT="x" is no int`},
		"no cluster":        {want: 2, stderr: "enroll: KUBECONFIG is not set"},
		"drained":           {env: map[string]string{"KUBECONFIG": kubeconfig, "CERTLOOP_LISTEN": "127.0.0.1:0"}, want: 0, stderr: `"timeout":25}`},
		"cannot listen":     {env: map[string]string{"KUBECONFIG": kubeconfig, "CERTLOOP_LISTEN": "192.0.2.1:1"}, want: 1, stderr: "192.0.2.1"},
		"credentials empty": {env: map[string]string{"KUBECONFIG": kubeconfig, "NATS_CA": kubeconfig}, want: 2, stderr: "NATS"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			clearEnvironment(t)
			t.Setenv("NATS_URL", "nats://127.0.0.1:1")
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // the signal has come already
			var stdout, stderr bytes.Buffer
			if got := execute(ctx, f, tt.args, &stdout, &stderr); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
			if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("stdout %q, stderr %q; want %q and %q in them", &stdout, &stderr, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestHelpNamesEveryVariable(t *testing.T) {
	var help bytes.Buffer
	if err := describe(&help); err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[Config]().Fields() {
		if name := field.Tag.Get("envconfig"); !strings.Contains(help.String(), "  "+name+" ") || field.Tag.Get("desc") == "" {
			t.Errorf("%s is not described in\n%s", name, &help)
		}
	}
}

func TestInboxPrefix(t *testing.T) {
	for name, tt := range map[string]struct{ configured, urls, want string }{
		"nobody":                   {"", "nats://127.0.0.1:4222", "_INBOX"},
		"a user":                   {"", "nats://pipeline:secret@127.0.0.1:4222", "_INBOX_pipeline"},
		"a user of several":        {"", "nats://one:4222, nats://pipeline:secret@two:4222", "_INBOX_pipeline"},
		"a token":                  {"", "nats://s3cr3t@127.0.0.1:4222", "_INBOX"},
		"a name that is no word":   {"", "nats://a.%3E:secret@127.0.0.1:4222", "_INBOX"},
		"configured":               {"_INBOX_enroll", "nats://127.0.0.1:4222", "_INBOX_enroll"},
		"configured beside a user": {"replies.enroll", "nats://pipeline:secret@127.0.0.1:4222", "replies.enroll"},
	} {
		if got, err := InboxPrefix(tt.configured, tt.urls); got != tt.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tt.want)
		}
	}
	for _, wrong := range []string{">", "_INBOX.*", "_INBOX.", "a b", "ü"} {
		if got, err := InboxPrefix(wrong, ""); err == nil {
			t.Errorf("%q is taken as %q", wrong, got)
		}
	}
}
