package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/pkg/model"
)

// busAppliedAs applies the streams again, and reads what a program would.
func busAppliedAs(t *testing.T, url string) {
	t.Helper()
	want := busApplied{[]appliedStream{{model.WorkStream, 1}, {model.EventsStream, 1}, {model.DeadStream, 1}}}
	for format, read := range map[string]func([]byte, any) error{
		formatJSON: json.Unmarshal,
		formatYAML: func(content []byte, into any) error { return yaml.UnmarshalStrict(content, into) },
	} {
		code, stdout, stderr := run(t, "bus", "apply", "--nats-url", url, "-o", format)
		var got busApplied
		if err := read([]byte(stdout), &got); code != exitDone || err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("-o %s: exit code %d, %v, %+v from %q%s, want %+v", format, code, err, got, stdout, stderr, want)
		}
	}
}

func TestBusFormats(t *testing.T) {
	code, _, stderr := run(t, "bus", "apply", "--nats-url", "nats://127.0.0.1:1", "-o", "xml")
	if code != exitUsage || !strings.Contains(stderr, "-o xml is not one of table, json, yaml") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if _, stdout, _ := run(t, cobra.ShellCompRequestCmd, "bus", "apply", "-o", ""); stdout != "table\njson\nyaml\n:4\n" {
		t.Errorf("a shell proposes %q", stdout)
	}
}
