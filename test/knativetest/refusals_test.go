//go:build linux

package knativetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/e2e/rig"
)

// witnesses are the logs of those who refuse.
type witnesses struct {
	audit string // of the API server
	heard int    // bytes of it that were there before the release
	nats  string // of nats-server
}

// natsUsers is a Secret with the URL of each NATS user.
const natsUsers = "nats-users"

// auditPolicy has the API server write down whatever a service account of the release asks.
func auditPolicy(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.yaml")
	text := `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, userGroups: ["system:serviceaccounts:` + home + `"]}, {level: None}]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// listen remembers what the API server has written down already.
func (w *witnesses) listen(t *testing.T) {
	t.Helper()
	w.heard = len(readFile(t, w.audit))
}

// request is what the audit log says of one.
type request struct {
	Verb       string `json:"verb"`
	RequestURI string `json:"requestURI"`
	User       struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource  string `json:"resource"`
		Namespace string `json:"namespace"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

func (r *request) String() string {
	return fmt.Sprintf("%s %s %s: %d", strings.TrimPrefix(r.User.Username, "system:serviceaccount:"+home+":"), r.Verb, r.RequestURI, r.ResponseStatus.Code)
}

// requests are those of the release.
func (w *witnesses) requests(t *testing.T) (all []request) {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, w.audit)[w.heard:])) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var r request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// refusals finds what a process asked and was refused, by the API server or by NATS, and what it asked of
// a namespace that is not served.
func (d *deployed) refusals(t *testing.T) {
	t.Helper()
	asked := map[string]bool{}
	namespaced := []string{"secrets", "cmpcertificates", "cmpissuers"}
	for _, r := range d.requests(t) {
		asked[r.User.Username] = true
		everywhere := slices.Contains(namespaced, r.ObjectRef.Resource) && r.ObjectRef.Namespace == ""
		if r.ResponseStatus.Code == 401 || r.ResponseStatus.Code == 403 || r.ObjectRef.Namespace == unserved || everywhere {
			t.Errorf("it was asked: %s", &r)
		}
	}
	accounts := []string{"enroll", "renew", "watch-secrets", "expiry-scan", "certificate-source", "secret-source"}
	if d.profile == "plain" {
		accounts = []string{"all"}
	}
	for k, name := range accounts {
		accounts[k] = "system:serviceaccount:" + home + ":certloop-" + name
	}
	slices.Sort(accounts)
	if got := slices.Sorted(maps.Keys(asked)); !slices.Equal(got, accounts) {
		t.Errorf("the API server was asked by %q, want %q", got, accounts)
	}
	d.content(t, len(accounts))
	if d.embedded {
		return
	}
	for line := range strings.Lines(string(readFile(t, d.nats))) {
		if lower := strings.ToLower(line); strings.Contains(lower, "violation") || strings.Contains(lower, "authorization") || strings.Contains(lower, "authentication") {
			t.Errorf("nats-server: %s", line)
		}
	}
}

// natsUser is one in the configuration that the chart renders.
var natsUser = regexp.MustCompile(`user: (\S+)\s+password: \$(\S+)`)

// startNATS starts nats-server with the users that the chart renders, each with a password, which a Secret has in
// its URL; and with one who may do everything, for the test.
func (d *deployed) startNATS(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	rendered := d.silently(t, "template", "certloop", d.chart, "--namespace", home, "--dry-run=server", "-f", d.settings(t), "--show-only", "templates/nats-authorization.yaml")
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(rendered), &u.Object); err != nil {
		t.Fatal(err)
	}
	users, _, _ := unstructured.NestedString(u.Object, "data", "authorization.conf")
	urls := map[string]string{}
	for _, found := range natsUser.FindAllStringSubmatch(users, -1) {
		user, variable := found[1], found[2]
		password := "of-" + user
		t.Setenv(variable, password)
		urls[user+".url"] = (&url.URL{Scheme: "nats", User: url.UserPassword(user, password), Host: natsHost[:len(natsHost)-1] + ":4222"}).String()
	}
	rig.WorldIn(t, d.cluster, home).ApplySecret(t, natsUsers, urls)
	d.nats = filepath.Join(dir, "nats.log")
	config := fmt.Sprintf("host: %s\nport: 4222\nlog_file: %q\njetstream { store_dir: %q }\nauthorization {\n%s\n}\n",
		natsAddress, d.nats, dir, strings.Replace(users, "users: [", "users: [\n{ user: root, password: root }\n", 1))
	path := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatalf("%v in\n%s", err, config)
	}
	options.NoSigs = true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.ConfigureLogger()
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(rig.Patience) {
		t.Fatal("the NATS server does not start")
	}
}

// openBus looks at the streams as somebody who may.
func (d *deployed) openBus(t *testing.T) *rig.Bus {
	t.Helper()
	return rig.OpenBus(t, "nats://root:root@"+natsAddress+":4222")
}
