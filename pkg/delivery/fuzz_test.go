package delivery

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/certloop/certloop/pkg/model"
)

// FuzzDecodeEvent: whatever arrives, over either transport, is an event or a
// refusal. An event that came in goes out, and then in and out again, unchanged;
// and the object it is about is a name that Kubernetes would take.
func FuzzDecodeEvent(f *testing.F) {
	for _, tt := range conformance {
		if len(tt.body) < 1000 {
			f.Add(headerText(tt.header), []byte(tt.body))
		}
	}
	f.Add("ce-specversion: 0.3\nce-id: 1\nce-source: /s\nce-type: t\nce-schemaurl: http://x/", []byte("x"))
	f.Add("ce-specversion: 1.0\nce-: x\nce-id: 1\nce-source: %zz\nce-type: t\nce-time: now", []byte{0xff})
	f.Add("", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AAEC","n":1,"b":true,"time":"2030-01-02T03:04:05Z"}`))
	f.Add("", []byte(`{"specversion":"0.3","id":"1","source":"/s","type":"t","datacontentencoding":"base64","data":"AAEC"}`))
	f.Add("", []byte("{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"d\xe8tacontentencoding\":\"base64\",\"data\":\"AAEC\"}"))
	f.Fuzz(func(t *testing.T, headers string, body []byte) {
		header := parseHeader(headers)
		checkEvent(t, header, body)
		_, err := part{header: http.Header(header), body: body}.decode(t.Context())
		checkRefusal(t, err)
	})
}

func checkEvent(t *testing.T, header nats.Header, body []byte) {
	ctx := t.Context()
	e, err := decode(ctx, header, body)
	if err != nil {
		checkRefusal(t, err)
		return
	}
	if key, err := keyOf(e); err == nil && key.Name != "" && len(validation.IsDNS1123Subdomain(key.Name)) > 0 {
		t.Errorf("the name %q is accepted", key.Name)
	}
	once, err := encode(ctx, e)
	if err != nil {
		if size(header, body) < model.MaxEventBytes/8 {
			t.Errorf("a small event comes in and cannot go out: %v", err)
		}
		return
	}
	again, err := decode(ctx, once.Header, once.Data)
	if err != nil {
		t.Fatalf("what was encoded is refused: %v\n%q", err, once.Header)
	}
	twice, err := encode(ctx, again)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(once.Header, twice.Header, func(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }) {
		t.Errorf("headers\n%q\n%q", once.Header, twice.Header)
	}
	if !bytes.Equal(once.Data, twice.Data) {
		t.Errorf("data\n%q\n%q", once.Data, twice.Data)
	}
}

func checkRefusal(t *testing.T, err error) {
	if err == nil {
		return
	}
	why, ok := errors.AsType[*refusal](err)
	if !ok {
		t.Fatalf("%v is no refusal", err)
	}
	if status, _ := headline(why.reason); status/100 != 4 || why.Error() == "" {
		t.Errorf("refusal %q of reason %s is answered %d", why, why.reason, status)
	}
}

func headerText(header map[string]string) string {
	var b strings.Builder
	for name, value := range header {
		b.WriteString(name + ": " + value + "\n")
	}
	return b.String()
}

func parseHeader(text string) nats.Header {
	header := nats.Header{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		header[name] = append(header[name], value)
	}
	return header
}
