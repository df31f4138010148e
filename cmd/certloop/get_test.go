package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

// certificates as a cluster might hold them at noon.
func certificates(noon time.Time) []model.CMPCertificate {
	at := func(d time.Duration) *metav1.Time {
		t := metav1.NewTime(noon.Add(d))
		return &t
	}
	web := model.CMPCertificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	web.Spec.Output.SecretName, web.Spec.IssuerRef.Name = "web-tls", "ca"
	web.Status = model.CMPCertificateStatus{
		Conditions: []metav1.Condition{{Type: model.Ready, Status: "True", Reason: "Issued", Message: "all is well"}},
		NotAfter:   at(90 * 24 * time.Hour), RenewalTime: at(60 * 24 * time.Hour), Serial: "0a1b", Revision: 3,
	}
	old := model.CMPCertificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "old"}}
	old.Spec.Output.SecretName, old.Spec.IssuerRef.Name = "old-tls", "ca"
	old.Status = model.CMPCertificateStatus{
		Conditions: []metav1.Condition{
			{Type: model.Ready, Status: "False", Reason: "RejectedByCA", Message: "rejection:\n  badPOP"},
			{Type: model.Stalled, Status: "True"},
		},
		NotAfter: at(-90 * time.Second), RenewalTime: at(-time.Hour), Revision: 1,
	}
	fresh := model.CMPCertificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "fresh"}}
	fresh.Spec.Output.SecretName, fresh.Spec.IssuerRef.Name = "fresh-tls", "ca"
	return []model.CMPCertificate{web, old, fresh}
}

func TestTable(t *testing.T) {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		table
		want []string
	}{
		{"narrow", table{now: noon}, []string{
			"NAME    READY     REASON         SECRET      EXPIRES           RENEWAL       REV",
			"web     True      Issued         web-tls     in 90d            in 60d        3",
			"old     False     RejectedByCA   old-tls     expired 90s ago   due 60m ago   1",
			"fresh   Unknown   NotSeen        fresh-tls   -                 -             0",
		}},
		{"wide, with namespaces", table{now: noon, wide: true, namespace: true}, []string{
			"NAMESPACE   NAME    READY     REASON         SECRET      EXPIRES           RENEWAL       REV   ISSUER   SERIAL   MESSAGE",
			"shop        web     True      Issued         web-tls     in 90d            in 60d        3     ca       0a1b     all is well",
			"shop        old     False     RejectedByCA   old-tls     expired 90s ago   due 60m ago   1     ca       -        rejection: badPOP",
			"shop        fresh   Unknown   NotSeen        fresh-tls   -                 -             0     ca       -        certloop has not looked at it yet",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := tt.print(&b, certificates(noon)); err != nil {
				t.Fatal(err)
			}
			if d := diff.Diff(tt.want, strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestColoursDoNotMoveColumns(t *testing.T) {
	noon := time.Now()
	var without, with bytes.Buffer
	if err := (table{now: noon}).print(&without, certificates(noon)); err != nil {
		t.Fatal(err)
	}
	if err := (table{now: noon, color: true}).print(&with, certificates(noon)); err != nil {
		t.Fatal(err)
	}
	colored := with.String()
	for _, c := range []string{green + "True", red + "False", yellow + "Unknown"} {
		if !strings.Contains(colored, c) {
			t.Errorf("%q is missing", c)
		}
	}
	stripped := strings.NewReplacer(plain, "", red, "", green, "", yellow, "").Replace(colored)
	if d := diff.Diff(without.String(), stripped); d != "" {
		t.Errorf("(-without +with colours):\n%s", d)
	}
}

// fakeCluster answers lists of certificates, one to a page.
func fakeCluster(tb testing.TB, paths *[]string) (kubeconfig string) {
	tb.Helper()
	all := certificates(time.Now())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*paths = append(*paths, r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/web") {
			_ = json.NewEncoder(w).Encode(withType(all[0]))
			return
		}
		i := len(r.URL.Query().Get("continue"))
		l := model.CMPCertificateList{TypeMeta: typeMeta("List"), Items: all[i : i+1]}
		l.Continue = strings.Repeat("x", (i+1)%len(all))
		_ = json.NewEncoder(w).Encode(l)
	}))
	tb.Cleanup(server.Close)
	kubeconfig = filepath.Join(tb.TempDir(), "kubeconfig")
	writeFile(tb, kubeconfig, kubeconfigFor(server.URL))
	return kubeconfig
}

func withType(c model.CMPCertificate) model.CMPCertificate {
	c.TypeMeta = typeMeta("")
	return c
}

func TestGet(t *testing.T) {
	noCluster(t)
	var paths []string
	kubeconfig := fakeCluster(t, &paths)
	tests := []struct {
		name string
		args string
		path string // first asked for
		want []string
	}{
		{"the context's namespace", "get -o name", "/namespaces/shop/cmpcertificates",
			[]string{"cmpcertificate.certloop.io/web\n", "cmpcertificate.certloop.io/old\n", "cmpcertificate.certloop.io/fresh\n"}},
		{"another namespace", "get -n core", "/namespaces/core/cmpcertificates", []string{"NAME ", "web-tls"}},
		{"all namespaces", "get -A", "/v1alpha1/cmpcertificates", []string{"NAMESPACE", "shop "}},
		{"a list as JSON", "get -o json", "/namespaces/shop/cmpcertificates", []string{`"kind": "CMPCertificateList"`, `"kind": "CMPCertificate"`}},
		{"one as YAML", "get web -o yaml", "/namespaces/shop/cmpcertificates/web", []string{"kind: CMPCertificate\n", "name: web\n", "serial: 0a1b\n"}},
		{"one as a table", "get web", "/namespaces/shop/cmpcertificates/web", []string{"web-tls"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			paths = nil
			code, stdout, stderr := run(t, append(strings.Fields(tt.args), "--kubeconfig", kubeconfig)...)
			if code != exitDone {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			if len(paths) == 0 || !strings.HasSuffix(paths[0], tt.path) {
				t.Errorf("asked for %q, want …%s", paths, tt.path)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("%q is missing from\n%s", want, stdout)
				}
			}
			if strings.Contains(stdout, "\x1b") {
				t.Errorf("colours in what is no terminal: %q", stdout)
			}
		})
	}
}
