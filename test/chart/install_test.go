package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// commands are those that a document shows.
func commands(t *testing.T, document string) (all [][]string) {
	t.Helper()
	for n, block := range strings.Split(string(read(t, document)), "\n```console\n") {
		if n == 0 {
			continue
		}
		text, _, _ := strings.Cut(block, "\n```")
		for line := range strings.Lines(text) {
			all = append(all, strings.Fields(line))
		}
	}
	return all
}

// Every command of docs/install.md works: what Helm is told renders, and what is named exists.
func TestInstallDocument(t *testing.T) {
	helm := 0
	for _, command := range commands(t, root+"/docs/install.md") {
		t.Run(strings.Join(command[:min(len(command), 6)], " "), func(t *testing.T) {
			switch command[0] + " " + command[1] {
			case "helm install", "helm upgrade", "helm template":
				helm++
				shown(t, command[2:])
			case "helm uninstall":
				if !slices.Equal(command[2:], []string{release, "--namespace", "core"}) {
					t.Errorf("another release is uninstalled than is installed: %q", command)
				}
			case "make images":
				if !strings.Contains(string(read(t, root+"/Makefile")), "\nimages:") {
					t.Error("there is no such target")
				}
			case "skopeo copy":
				name := strings.TrimPrefix(command[2], "oci:bin/images/")
				if _, err := os.Stat(filepath.Join(root, "functions", name)); err != nil {
					t.Error(err)
				}
			case "kubectl -n": // run by TestFirstCertificate of docs
				for i, argument := range command {
					if argument != "-f" {
						continue
					}
					for _, u := range documents(t, command[i+1], read(t, filepath.Join(root, command[i+1]))) {
						if u.GetAPIVersion() != "certloop.io/v1alpha1" || u.GetNamespace() != "" {
							t.Errorf("%s %s is no object for any namespace", u.GetKind(), u.GetName())
						}
					}
				}
			case "kubectl apply":
				kustomized(t, filepath.Join(root, command[slices.Index(command, "-k")+1]))
			case "kubectl delete":
				for _, name := range command[3:] {
					named(t, arrangement{"plain", "dedicated"}.objects(t), "CustomResourceDefinition", name)
				}
			default:
				t.Errorf("no test tries %q", command)
			}
		})
	}
	if helm < 6 {
		t.Errorf("%d commands of Helm were found, want more", helm)
	}
}

// shown renders the chart as a command says, with the API server that a cluster would name.
func shown(t *testing.T, arguments []string) {
	t.Helper()
	v := map[string]any{}
	namespace := ""
	for i := 0; i < len(arguments); i++ {
		switch argument := arguments[i]; argument {
		case release, "charts/certloop", "--create-namespace", "--reset-then-reuse-values", "--dry-run=server":
			continue
		case "--show-only":
			read(t, filepath.Join(chartDir, arguments[i+1]))
		case "--namespace":
			namespace = arguments[i+1]
		case "-f": // what `make images` writes
			digest := "sha256:" + strings.Repeat("0", 64)
			if err := strvals.ParseInto("image.digests.enroll="+digest, v); err != nil {
				t.Fatal(err)
			}
		case "--set":
			if err := strvals.ParseInto(arguments[i+1], v); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("no test knows the flag %s", argument)
		}
		i++
	}
	if slices.Contains(arguments, "--reset-then-reuse-values") {
		if err := strvals.ParseInto("networkPolicy.ca[0].name=a,networkPolicy.ca[0].cidrs={192.0.2.10/32},networkPolicy.ca[0].port=829", v); err != nil {
			t.Fatal(err)
		}
	}
	if err := strvals.ParseInto("networkPolicy.apiServer.cidrs={198.51.100.1/32}", v); err != nil {
		t.Fatal(err)
	}
	if _, err := render(namespace, v); err != nil {
		t.Error(err)
	}
}

// kustomized finds every file of a kustomization, and every manifest of its directory in it.
func kustomized(t *testing.T, dir string) {
	t.Helper()
	var k struct {
		Resources []string `json:"resources"`
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(dir, "kustomization.yaml")), &k); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"crds/*.yaml", "policies/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name := strings.TrimPrefix(file, filepath.Clean(dir)+"/"); !slices.Contains(k.Resources, name) {
				t.Errorf("the kustomization leaves out %s", name)
			}
		}
	}
	for _, name := range k.Resources {
		if len(documents(t, name, read(t, filepath.Join(dir, name)))) == 0 {
			t.Errorf("%s holds nothing", name)
		}
	}
}

var valueName = regexp.MustCompile("`([a-z][A-Za-z]+(?:\\.[a-zA-Z]+)+)(?:=[^`]*)?`")

// The values that documents name exist.
func TestDocumentsNameValues(t *testing.T) {
	var defaults map[string]any
	if err := yaml.Unmarshal(read(t, chartDir+"/values.yaml"), &defaults); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, document := range []string{"install.md", "network.md"} {
		for _, m := range valueName.FindAllStringSubmatch(string(read(t, root+"/docs/"+document)), -1) {
			path := strings.Split(m[1], ".")
			if _, ours := defaults[path[0]]; !ours {
				continue // a key of a Secret, a file
			}
			var v any = defaults
			for _, name := range path {
				section, ok := v.(map[string]any)
				if v, ok = section[name], ok && section[name] != nil; !ok {
					t.Errorf("docs/%s names %s, which is no value", document, m[1])
					break
				}
			}
			found++
		}
	}
	if found < 12 {
		t.Errorf("%d values were found in the documents, want more", found)
	}
}

// The versions that docs/install.md says are tested are those of the modules the tests are made of.
func TestVersionsDocument(t *testing.T) {
	document := string(read(t, root+"/docs/install.md"))
	for _, tt := range []struct {
		row, module, path string
		older             int // by so much is the minor version of a module below that of the product
	}{
		{"Kubernetes", "test/kubeapi", "k8s.io/kubernetes", 0},
		{"Knative", "test/knative", "knative.dev/eventing", 27},
		{"NATS", "test/chart", "github.com/nats-io/nats-server/v2", 0},
		{"Helm", "test/chart", "helm.sh/helm/v4", 0},
		{"Helm", "test/chart", "helm.sh/helm/v3", 0},
	} {
		mod := string(read(t, filepath.Join(root, tt.module, "go.mod")))
		m := regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(tt.path) + ` v(\d+)\.(\d+)\.`).FindStringSubmatch(mod)
		if m == nil {
			t.Fatalf("%s does not name %s", tt.module, tt.path)
		}
		version := m[1] + "." + m[2]
		if tt.older > 0 { // before 1.0
			minor, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			version = fmt.Sprintf("1.%d", minor-tt.older)
		}
		_, row, _ := strings.Cut(document, "\n| "+tt.row+" | ")
		tested, _, _ := strings.Cut(row, " | ")
		if !slices.Contains(strings.FieldsFunc(tested, func(r rune) bool { return r == ' ' || r == ',' || r == ';' }), version) {
			t.Errorf("docs/install.md says that %s is tested with %q, and it is with %s", tt.row, tested, version)
		}
	}
}
