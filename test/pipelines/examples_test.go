package pipelines

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/e2e/rig"
)

// example reads a file of docs/pipelines, for the namespace of a site in place of demo.
func (s *site) example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rig.Root(t), "docs", "pipelines", name)) // #nosec G304 -- of this project
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("namespace: demo", "namespace: "+s.world.Namespace, "web.demo", "web."+s.world.Namespace).Replace(string(text))
}

// strict decodes YAML; a field that the type has not is an error.
func strict[T any](t *testing.T, text string) (into T) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), &into); err != nil {
		t.Fatal(err)
	}
	return into
}

// checkout is a directory as a runner finds it: with a certificate in certificates/.
func (s *site) checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "certificates"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"certificates/web.yaml", "certificates.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(s.example(t, "certificate.yaml")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sh runs the lines of a job as a runner does: the first that fails ends it. Our certloop is
// the one that is installed.
func (s *site) sh(t *testing.T, dir, script string, env ...string) ended {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", script) // #nosec G204 -- what the examples show
	cmd.Dir = dir
	cmd.Env = append([]string{"HOME=" + dir, "PATH=" + filepath.Dir(rig.Binary(t, "certloop")) + ":" + os.Getenv("PATH"), "NATS_URL=" + s.pipeline}, env...)
	return run(t, cmd)
}

// wantDelivered wants the certificate of certificate.yaml, and the job to fail when there can be none.
func (s *site) wantDelivered(t *testing.T, job func() ended) {
	t.Helper()
	s.want(t, done, job())
	leaf := rig.Pair(t, s.world.Secret(t, "web-tls"))
	if want := "web." + s.world.Namespace + ".svc"; leaf.Subject.CommonName != want {
		t.Errorf("the certificate is for %s, want %s", leaf.Subject.CommonName, want)
	}
	s.world.Apply(t, strings.Replace(rig.EndEntity("web"), "commonName: web", "commonName: mine, organization: mine", 1))
	s.want(t, rejected, job())
}

// install is the only way to certloop that the examples show: a command of this module.
func install(t *testing.T, line string) {
	t.Helper()
	const module = "go install github.com/certloop/certloop/"
	path, ok := strings.CutPrefix(line, module)
	if _, err := os.Stat(filepath.Join(rig.Root(t), strings.TrimSuffix(path, "@latest"), "main.go")); !ok || err != nil {
		t.Errorf("%q installs no command of ours: %v", line, err)
	}
}

// What is used here of the syntax of GitHub's workflows.
type workflow struct {
	Name string `json:"name"`
	On   struct {
		Push struct {
			Branches []string `json:"branches"`
			Paths    []string `json:"paths"`
		} `json:"push"`
	} `json:"on"`
	Permissions map[string]string `json:"permissions"`
	Concurrency string            `json:"concurrency"`
	Jobs        map[string]struct {
		RunsOn  []string `json:"runs-on"`
		Timeout int      `json:"timeout-minutes"`
		Steps   []struct {
			Name string            `json:"name"`
			Uses string            `json:"uses"`
			Env  map[string]string `json:"env"`
			Run  string            `json:"run"`
		} `json:"steps"`
	} `json:"jobs"`
}

func TestGitHubActions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// YAML 1.1 takes the key on for true.
	w := strict[workflow](t, strings.Replace(s.example(t, "github-actions.yaml"), "\non:\n", "\n\"on\":\n", 1))
	if !slices.Equal(w.On.Push.Paths, []string{"certificates/**"}) || w.Permissions["contents"] != "read" {
		t.Errorf("it runs for %q with the rights %v", w.On.Push.Paths, w.Permissions)
	}
	steps := w.Jobs["publish"].Steps
	if len(steps) != 3 || !strings.HasPrefix(steps[0].Uses, "actions/checkout@") || steps[2].Env["NATS_URL"] != "${{ secrets.CERTLOOP_NATS_URL }}" {
		t.Fatalf("got %+v", steps)
	}
	install(t, steps[1].Run)
	dir := s.checkout(t)
	s.wantDelivered(t, func() ended { return s.sh(t, dir, steps[2].Run) })
}

// What is used here of the syntax of GitLab's jobs.
type job struct {
	Stage string `json:"stage"`
	Image string `json:"image"`
	Rules []struct {
		If      string   `json:"if"`
		Changes []string `json:"changes"`
	} `json:"rules"`
	ResourceGroup string   `json:"resource_group"`
	Timeout       string   `json:"timeout"`
	BeforeScript  []string `json:"before_script"`
	Script        []string `json:"script"`
	Artifacts     struct {
		When  string   `json:"when"`
		Paths []string `json:"paths"`
	} `json:"artifacts"`
}

func TestGitLabCI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	j := strict[map[string]job](t, s.example(t, "gitlab-ci.yaml"))["certificates"]
	for _, line := range j.BeforeScript {
		install(t, line)
	}
	dir := s.checkout(t)
	s.wantDelivered(t, func() ended { return s.sh(t, dir, strings.Join(j.Script, "\n")) })
	for _, artifact := range j.Artifacts.Paths {
		text, err := os.ReadFile(filepath.Join(dir, artifact)) // #nosec G304 -- in a temporary directory
		if r := (ended{stdout: string(text)}).results(t); err != nil || len(r) != 1 || r[0].Outcome != "rejected" {
			t.Errorf("%s: got %v %s", artifact, err, text)
		}
	}
}

// What is used here of a Task of tekton.dev/v1; its steps are containers with a script besides.
type task struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Params []struct {
			Name    string `json:"name"`
			Type    string `json:"type"`
			Default string `json:"default"`
		} `json:"params"`
		Workspaces []struct {
			Name        string `json:"name"`
			Description string `json:"description"`
		} `json:"workspaces"`
		Steps []corev1.Container `json:"steps"`
	} `json:"spec"`
}

var variable = regexp.MustCompile(`\$\([^)]+\)`)

func TestTektonTask(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k := strict[task](t, s.example(t, "tekton-task.yaml"))
	if k.APIVersion != "tekton.dev/v1" || k.Kind != "Task" || len(k.Spec.Steps) != 1 {
		t.Fatalf("got %+v", k)
	}
	dir := s.checkout(t)
	known := map[string]string{"$(workspaces." + k.Spec.Workspaces[0].Name + ".path)": dir}
	for _, p := range k.Spec.Params {
		known["$(params."+p.Name+")"] = p.Default
	}
	resolve := func(text string) string {
		return variable.ReplaceAllStringFunc(text, func(v string) string {
			value, ok := known[v]
			if !ok {
				t.Errorf("%s is neither a parameter nor a workspace", v)
			}
			return value
		})
	}
	step := k.Spec.Steps[0]
	if !slices.Equal(step.Command, []string{"/certloop"}) || resolve(step.WorkingDir) != dir || !strings.Contains(resolve(step.Image), "/certloop:") {
		t.Errorf("it runs %q in %q", step.Command, step.Image)
	}
	if ref := step.Env[0].ValueFrom; step.Env[0].Name != "NATS_URL" || ref == nil || ref.SecretKeyRef == nil || ref.SecretKeyRef.Name != "certloop-nats" {
		t.Errorf("got the environment %+v", step.Env)
	}
	args := make([]string, len(step.Args))
	for i, a := range step.Args {
		args[i] = resolve(a)
	}
	s.wantDelivered(t, func() ended {
		cmd := s.command(t, "", args...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Env, "NATS_URL="+s.pipeline)
		return run(t, cmd)
	})
}

// The script declares over HTTP, once however often it runs, and prints why it is refused.
func TestCurl(t *testing.T) {
	t.Parallel()
	rig.Tool(t, "curl")
	s := newSite(t)
	script := filepath.Join(rig.Root(t), "docs", "pipelines", "publish.sh")
	dir := t.TempDir()
	subject := s.world.Key("web").String()
	post := func(old, new string) ended {
		t.Helper()
		js, err := yaml.YAMLToJSON([]byte(s.example(t, "certificate.yaml")))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "certificate.json"), []byte(strings.Replace(string(js), old, new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.sh(t, dir, `"`+script+`" `+subject+` certificate.json `+s.function, "EVENT_ID=4b825dc642cb6eb9a060e54bf8d69288fbee4904")
	}
	for range 2 {
		s.want(t, done, post("", ""))
	}
	s.world.WaitReady(t, rig.Patience, "web")
	rig.Pair(t, s.world.Secret(t, "web-tls"))
	if n := len(s.ca.Issued()); n != 2 {
		t.Errorf("the CA issued %d certificates, want the identity and one", n)
	}
	refused := post("validity", "validty")
	var problem struct{ Detail string }
	if err := json.Unmarshal([]byte(refused.stdout), &problem); err != nil || refused.code != 22 || !strings.Contains(problem.Detail, "validty") {
		t.Errorf("got %+v, %v", refused, err)
	}
}

// The script shows the token of a file, over TLS, to a receiver that asks for one.
func TestCurlWithToken(t *testing.T) {
	t.Parallel()
	rig.Tool(t, "curl")
	broker := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer shibboleth" || r.Header.Get("Ce-Subject") != "demo/web" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer broker.Close()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"token": "shibboleth\n", "certificate.json": "{}",
		"ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: broker.Certificate().Raw})),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for token, want := range map[string]int{"TOKEN_FILE=token": 0, "TOKEN_FILE=": 22} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(rig.Root(t), "docs", "pipelines", "publish.sh"), "demo/web", "certificate.json", broker.URL) // #nosec G204 -- of this project
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CA_FILE=ca.crt", token)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			t.Errorf("%s: %v, want exit code %d: %s", token, err, want, out)
		}
	}
}
