package eventtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/eventtest"
)

var amf = types.NamespacedName{Namespace: "core", Name: "amf"}

func TestJudge(t *testing.T) {
	fact := model.CertificateFact{Serial: "1", Fingerprint: "2", NotBefore: metav1.Now(), NotAfter: metav1.NewTime(time.Now().Add(time.Hour)), RenewalTime: metav1.Now(), Revision: 1, SecretName: "amf-tls"}
	good := map[string]any{"spec": map[string]any{"issuerRef": map[string]any{"name": "ca"}, "output": map[string]any{"secretName": "a"}}}
	bad := map[string]any{"spec": map[string]any{"issuerRef": map[string]any{"nam": "ca"}, "output": map[string]any{"secretName": "a"}}}
	for _, tc := range []struct {
		name string
		e    event.Event
		want string // in the error; empty when there is none
	}{
		{"fact", model.NewEvent(model.CertificateIssued, amf, fact), ""},
		{"work with data", model.NewEvent(model.RenewalRequested, amf, model.Work{Reason: model.WorkManual}), ""},
		{"work without", model.NewEvent(model.RenewalRequested, amf, nil), ""},
		{"none", model.NewEvent(model.ConfigDeleted, amf, nil), ""},
		{"configuration", model.NewEvent(model.ConfigCreated, amf, good), ""},
		{"misspelt", model.NewEvent(model.ConfigCreated, amf, bad), "additional properties 'nam' not allowed"},
		{"unknown type", model.NewEvent("io.certloop.nothing.v1", amf, nil), "no such type"},
		{"no subject", model.NewEvent(model.CertificateIssued, types.NamespacedName{}, fact), "not namespace/name"},
		{"no data", model.NewEvent(model.CertificateIssued, amf, nil), "no data"},
		{"a field is missing", model.NewEvent(model.CertificateIssued, amf, map[string]any{"serial": "1"}), "missing properties"},
		{"a time is none", model.NewEvent(model.CertificateWaiting, amf, map[string]any{"reason": "a", "message": "b", "nextAttempt": "soon"}), "date-time"},
		{"a pattern", model.NewEvent(model.ConfigCreated, amf, map[string]any{"spec": map[string]any{"issuerRef": map[string]any{"name": "A B"}, "output": map[string]any{"secretName": "a"}}}), "does not match pattern"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := eventtest.Judge(tc.e)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// The events that the functions' READMEs show are as the schemas say.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../functions/*/testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var e event.Event
		if err := e.UnmarshalJSON(text); err != nil {
			t.Fatal(err)
		}
		eventtest.Check(t, e)
	}
}

// Every schema compiles.
func TestSchemas(t *testing.T) {
	for _, k := range model.Kinds() {
		if data, _ := model.Payload(k.Type); data == nil || !strings.HasPrefix(k.Type, "io.certloop.") {
			continue
		}
		e := model.NewEvent(k.Type, amf, map[string]any{"notAField": 1})
		if err := eventtest.Judge(e); err == nil || !strings.Contains(err.Error(), "jsonschema") {
			t.Errorf("%s: got %v, want its schema to refuse a field that is none", k.Type, err)
		}
	}
}
