package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// recorder takes the errors of a test that is expected to fail.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (*recorder) Helper() {}

func TestFaultsInLogs(t *testing.T) {
	tests := []struct {
		name, log string
		want      int
	}{
		{"healthy", `{"level":"WARN","msg":"event","err":"no answer: do not panic: it comes again"}` + "\n", 0},
		{"crash at once", "panic: runtime error: index out of range\n\ngoroutine 1 [running]:\n", 1},
		{"crash", "READY nats=x\npanic: nil map\n", 1},
		{"fatal", "READY nats=x\nfatal error: concurrent map writes\n", 1},
		{"a handler that panicked", `{"msg":"event","stack":"goroutine 7"}` + "\n", 1},
		{"race", "==================\nWARNING: DATA RACE\nWrite at 0x1\n", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := &Process{name: "program", Log: filepath.Join(t.TempDir(), "log")}
			if err := os.WriteFile(p.Log, []byte(test.log), 0o600); err != nil {
				t.Fatal(err)
			}
			r := &recorder{TB: t}
			p.checkLog(r)
			if len(r.errors) != test.want {
				t.Errorf("%d faults found, want %d: %q", len(r.errors), test.want, r.errors)
			}
		})
	}
}

func TestReadyWords(t *testing.T) {
	got := words("http://127.0.0.1:1/pkix/ ca=/tmp/a=b/ca.crt\n")
	if got["url"] != "http://127.0.0.1:1/pkix/" || got["ca"] != "/tmp/a=b/ca.crt" || len(got) != 2 {
		t.Errorf("got %q", got)
	}
}

func TestLogAttributes(t *testing.T) {
	got := attributes(`time=1 sender="CN=web, O=Example" oldcert=0A error=""` + "\n")
	want := map[string]string{"time": "1", "sender": "CN=web, O=Example", "oldcert": "0A", "error": ""}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
