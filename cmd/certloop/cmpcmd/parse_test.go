package cmpcmd

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadSettings(t *testing.T) {
	t.Setenv("OPENSSL_CONF", "")
	file := filepath.Join(t.TempDir(), "certloop.cnf")
	writeTestFile(t, file, `
ref = from the top
[default]
days = 9
[cmp]
cmd = ir
server = ca.example
trusted = ca.pem
implicit_confirm = 1
[kur]
cmd = kur
trusted =
[bad]
days = many
[flag]
batch = yes
[engine]
engine = pkcs11
[reset]
engine =
`)
	tests := []struct {
		name string
		args string
		want values
		fail string
	}{
		{"one hyphen", "-cmd ir -days 5", values{"cmd": "ir", "days": "5"}, ""},
		{"two hyphens", "--cmd ir", values{"cmd": "ir"}, ""},
		{"equals sign", "-cmd=ir -subject=/CN=a=b", values{"cmd": "ir", "subject": "/CN=a=b"}, ""},
		{"the last counts", "-cmd ir -cmd cr", values{"cmd": "cr"}, ""},
		{"a flag", "-batch -cmd ir", values{"cmd": "ir", "batch": "1"}, ""},
		{"a value with a hyphen", "-popo -1", values{"popo": "-1"}, ""},
		{"unknown", "-frobnicate x", nil, "there is no option -frobnicate"},
		{"no option", "-batch ir", nil, "argument 2: an option is expected"},
		{"only hyphens", "--", nil, "an option is expected"},
		{"value missing", "-cmd", nil, "-cmd needs a value"},
		{"value of a flag", "-batch=1", nil, "-batch takes no value"},
		{"no number", "-days five", nil, `-days needs a number, not "five"`},
		{"negative", "-days -5", nil, "-days must not be negative"},
		{"not positive", "-repeat 0", nil, "-repeat must be positive"},
		{"huge number", "-days 99999999999", nil, "-days needs a number"},
		{"popo out of range", "-popo -2", nil, "-popo must be between -1 and 2"},
		{"keyEncipherment", "-popo 2", nil, "-popo 2 is not supported"},
		{"no such reason", "-revreason 7", nil, "-revreason 7 is not a reason"},
		{"verbosity out of range", "-verbosity 9", nil, "-verbosity must be between 0 and 8"},
		{"persistence required", "-keep_alive 2", values{"keep_alive": "2"}, ""},
		{"persistence beyond that", "-keep_alive 3", nil, "-keep_alive must be between 0 and 2"},
		{"times that contradict", "-msg_timeout 9 -total_timeout 3", nil, "-msg_timeout 9 is above -total_timeout 3"},
		{"refused", "-use_mock_srv", nil, "-use_mock_srv is not supported: there is no mock server here"},

		{"the default section", "-config FILE", values{"cmd": "ir", "server": "ca.example", "trusted": "ca.pem", "implicit_confirm": "1", "days": "9", "ref": "from the top"}, ""},
		{"several sections", "-config FILE -section cmp,kur", values{"cmd": "kur", "server": "ca.example", "implicit_confirm": "1", "days": "9", "ref": "from the top"}, ""},
		{"the command line wins", "-config FILE -section kur -days 1 -cmd rr", values{"cmd": "rr", "days": "1", "ref": "from the top"}, ""},
		{"[default] only", "-config FILE -section EMPTY", values{"days": "9", "ref": "from the top"}, ""},
		{"no file at all", "-config EMPTY -cmd ir", values{"cmd": "ir"}, ""},
		{"no such section", "-config FILE -section nosuch", nil, "there is no section [nosuch]"},
		{"no such file", "-config /absent/file", nil, "/absent/file"},
		{"no number in a section", "-config FILE -section bad", nil, `-days needs a number, not "many"`},
		{"no flag in a section", "-config FILE -section flag", nil, `-batch needs a number, not "yes"`},
		{"refused in a section", "-config FILE -section engine", nil, "-engine is not supported"},
		{"empty in a section", "-config FILE -section engine,reset", values{"days": "9", "ref": "from the top"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.NewReplacer("FILE", file, "EMPTY", "").Replace(args[i])
			}
			got, err := readSettings(args)
			checkError(t, err, tt.fail)
			if err == nil && !maps.Equal(got.values, tt.want) {
				t.Errorf("values %q, want %q", map[string]string(got.values), map[string]string(tt.want))
			}
		})
	}
}

// TestArgumentsAreNotRepeated: a secret in the wrong place is not shown.
func TestArgumentsAreNotRepeated(t *testing.T) {
	t.Setenv("OPENSSL_CONF", "")
	for _, line := range []string{"-ref 1 pass:hunter2", "-secret:pass:hunter2", "-frobnicate=pass:hunter2", "-batch=hunter2", "-cmd ir -secret pass:hunter2 -days x"} {
		if _, err := readSettings(strings.Fields(line)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want one without the secret", line, err)
		}
	}
	given, err := parseArguments([]string{"-secret", "pass:hunter2"})
	v := values{"secret": "pass:hunter2"}
	if text := fmt.Sprintf("%v %+v %#v %s", given, v, settings{values: v}, v); err != nil || strings.Contains(text, "hunter2") {
		t.Errorf("printed as %s, %v", text, err)
	}
}

func TestConfigurationFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "certloop.cnf")
	writeTestFile(t, file, "[cmp]\ncmd = genm\n")
	t.Setenv("OPENSSL_CONF", file)
	got, err := readSettings([]string{"-days", "1"})
	if err != nil || got.values["cmd"] != "genm" {
		t.Errorf("-cmd is %q, %v, want genm", got.values["cmd"], err)
	}
}

// TestOptionTable checks the table itself: names are unique, each option that
// works says what it does, and each other one is refused with its reason.
func TestOptionTable(t *testing.T) {
	seen := map[string]bool{}
	help := helpText()
	for _, g := range groups {
		for _, o := range g.options {
			if seen[o.name] {
				t.Errorf("-%s is there twice", o.name)
			}
			seen[o.name] = true
			if (o.help == "") == (o.reason == "") {
				t.Errorf("-%s has neither help nor reason, or both", o.name)
			}
			if got, want := strings.Contains(help, "\n -"+o.name+" "), o.reason == ""; got != want {
				t.Errorf("-%s in the help: %t, want %t", o.name, got, want)
			}
			if o.reason == "" {
				continue
			}
			if err := (values{}).set(o, "1"); err == nil || !strings.Contains(err.Error(), "-"+o.name+" is not supported: "+o.reason) {
				t.Errorf("-%s: error %v, want its reason", o.name, err)
			}
		}
	}
	for _, u := range uses {
		for _, name := range slices.Concat(strings.Fields(u.options)) {
			if !seen[name] {
				t.Errorf("there is no -%s that could be of use to %s", name, u.commands)
			}
		}
	}
}

func TestConf(t *testing.T) {
	t.Setenv("CERTLOOP_TEST_HOST", "ca.example")
	text := strings.Join([]string{
		"# a comment",
		"dir = /etc/pki # another",
		"[ cmp ]",
		"trusted = $dir/ca.pem",
		`subject = "/CN=a # b"`,
		"server = ${ENV::CERTLOOP_TEST_HOST}:80",
		`path = a\#b\n`,
		"cert = $(dir)/c.pem, ${other::name}x$other::name",
		"long = one \\",
		"  two",
		"single = 'it is $dir'",
		"repeated = 1",
		"repeated = 2",
		"empty =",
		"elsewhere::name = set",
		`backslash = a\\`,
	}, "\r\n")
	text = "[other]\nname = o\n[default]\n" + text
	c, err := parseConf(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"trusted": "/etc/pki/ca.pem", "subject": "/CN=a # b", "server": "ca.example:80", "path": "a#b\n", "cert": "/etc/pki/c.pem, oxo",
		"long": "one   two", "single": "it is $dir", "repeated": "2", "empty": "", "backslash": `a\`, "dir": "/etc/pki",
	} {
		if got, ok := c.find([]string{"cmp"}, name); got != want || !ok {
			t.Errorf("%s = %q (%t), want %q", name, got, ok, want)
		}
	}
	if got, _ := c.lookup("elsewhere", "name"); got != "set" {
		t.Errorf("elsewhere::name = %q, want set", got)
	}
	if got, ok := c.find([]string{"cmp"}, "absent"); ok {
		t.Errorf("absent = %q, want none", got)
	}
}

func TestConfRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, fail string }{
		"no equals sign":    {"a = b\nfrobnicate", "line 2: neither a [section] nor name = value"},
		"open section":      {"[cmp", "line 1: not a [section]"},
		"text behind":       {"[cmp] x", "line 1: not a [section]"},
		"open quotation":    {`a = "b`, "without its second"},
		"open brace":        {"a = ${b", "without a closing brace"},
		"unknown variable":  {"[cmp]\na = $b", "line 2: variable $cmp::b has no value"},
		"not in the env":    {"a = $ENV::CERTLOOP_ABSENT", "variable $ENV::CERTLOOP_ABSENT has no value"},
		"pragma":            {".pragma = dollarid:on", `".pragma" is not supported`},
		"absent include":    {".include /absent/file", "/absent/file"},
		"include of none":   {".include =", ".include names no file"},
		"variables explode": {"a = " + strings.Repeat("x", 1000) + "\nb = " + strings.Repeat("$a", 60) + "\nc = $b$b", "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConf(tt.text)
			checkError(t, err, tt.fail)
		})
	}
}

func FuzzConf(f *testing.F) {
	f.Add("[cmp]\na = $b\\\n c\n# d\n'e' = \"f\"")
	f.Add("a = ${x}$(y)$z::w\\")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, ".include") {
			t.Skip("files of this machine")
		}
		c, err := parseConf(text)
		if err != nil {
			return
		}
		for _, entries := range c.sections {
			for _, e := range entries {
				if _, err := c.extension(e); err == nil && len(e.value) == 0 {
					t.Errorf("an empty value is an extension: %v", e)
				}
			}
		}
	})
}

// TestInclude: files, directories, relative to OPENSSL_CONF_INCLUDE, and what is in them counts in the section they end in.
func TestInclude(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("OPENSSL_CONF_INCLUDE", dir)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.cnf": "ref = top\n[cmp]\n.include = sub.cnf\ncmd = ir\n.include d\n", "sub.cnf": "days = 3\n[other]\ndays = 4\n",
		"d/a.cnf": "mac = first\n", "d/b.conf": "mac = second\n", "d/c.txt": "mac = none\n", "loop.cnf": "\n.include loop.cnf\n",
	} {
		writeTestFile(t, filepath.Join(dir, name), text)
	}
	c, err := loadConf(filepath.Join(dir, "main.cnf"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]entry{
		"default": {{"ref", "top"}}, "cmp": {{"days", "3"}}, "other": {{"days", "4"}, {"cmd", "ir"}, {"mac", "second"}},
	}
	if !maps.EqualFunc(c.sections, want, slices.Equal) {
		t.Errorf("sections %v, want %v", c.sections, want)
	}
	_, err = loadConf(filepath.Join(dir, "loop.cnf"))
	checkError(t, err, "more than 64 files")
}

func TestPasswords(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	writeTestFile(t, file, "first line\nsecond line\n")
	empty := filepath.Join(dir, "empty")
	writeTestFile(t, empty, "")
	long := filepath.Join(dir, "long")
	writeTestFile(t, long, strings.Repeat("x", maxSecret+1))
	t.Setenv("CERTLOOP_TEST_SECRET", "from the environment")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := w.WriteString("from a descriptor\nrest"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, source, want, fail string }{
		{"pass", "pass:a:b c", "a:b c", ""},
		{"empty pass", "pass:", "", ""},
		{"env", "env:CERTLOOP_TEST_SECRET", "from the environment", ""},
		{"env absent", "env:CERTLOOP_ABSENT", "", "no environment variable CERTLOOP_ABSENT"},
		{"file", "file:" + file, "first line", ""},
		{"file absent", "file:/absent/file", "", "/absent/file"},
		{"file empty", "file:" + empty, "", "nothing to read"},
		{"file with a long line", "file:" + long, "", "more than 1024 bytes"},
		{"fd", "fd:" + decimal(r.Fd()), "from a descriptor", ""},
		{"fd that is none", "fd:x", "", "not a file descriptor"},
		{"stdin", "stdin", "typed", ""},
		{"stdin again", "stdin", "typed next", ""},
		{"stdin at its end", "stdin", "", "nothing to read"},
		{"no source", "plain", "plain", ""},
	}
	var log strings.Builder
	p := newPasswords(strings.NewReader("typed\ntyped next"), &log, true, &reporter{to: &log, level: levelInfo})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := p.from(tt.name, tt.source)
			checkError(t, err, tt.fail)
			if err == nil && string(got) != tt.want {
				t.Errorf("secret %q, want %q", got, tt.want)
			}
		})
	}
	if again, err := p.from("stdin", "stdin"); err != nil || string(again) != "typed" {
		t.Errorf("a second file with the same option needs another pass phrase: %q, %v", again, err)
	}
	if got := log.String(); strings.Contains(got, "plain\n") || !strings.Contains(got, "-no source names no source") {
		t.Errorf("log %q should warn of a secret without a source, and not show it", got)
	}
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]string{
		"ca.example":                              "http://ca.example:80/",
		"ca.example/pkix/":                        "http://ca.example:80/pkix/",
		"127.0.0.1:8080/a?b=c#d":                  "http://127.0.0.1:8080/a?b=c",
		"http://user:pass@ca.example:1/x":         "http://ca.example:1/x",
		"https://ca.example":                      "https://ca.example:443/",
		"https://[::1]/.well-known/cmp/p/profile": "https://[::1]:443/.well-known/cmp/p/profile",
		"[::1]:829":                               "http://[::1]:829/",
	} {
		got, err := parseServer(text)
		if err != nil || got.String() != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "http://", "ca.example:0", "ca.example:x", "ca.example:99999", "a b", "ftp://ca.example", "::1"} {
		if got, err := parseServer(text); err == nil {
			t.Errorf("%q: %s, want an error", text, got)
		}
	}
}

// TestDocumentation: docs/cmp-command.md has the table of options as it is.
func TestDocumentation(t *testing.T) {
	const path, begin, end = "../../../docs/cmp-command.md", "-update -->\n", "<!-- end -->"
	text := readTestFile(t, path)
	before, rest, found := strings.Cut(text, begin)
	old, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", path)
	}
	table := optionTable(opensslOptions(t))
	if *update {
		writeTestFile(t, path, before+begin+table+end+after)
	} else if old != table {
		t.Errorf("%s has another table of options: write it anew with -update", path)
	}
}

// opensslOptions are the versions of openssl cmp that have an option, by name.
func opensslOptions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(readTestFile(t, "testdata/openssl.options")) {
		versions, names, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		for name := range strings.FieldsSeq(names) {
			all[name] = versions
		}
	}
	return all
}

func optionTable(versions map[string]string) string {
	var b strings.Builder
	b.WriteString("\n| option | OpenSSL | what it does, or why it is refused |\n|---|---|---|\n")
	row := func(names []string, has, text string) {
		only := map[string]string{"3.0 3.5": "", "3.0": "3.0", "3.5": "3.5", "": "not there"}[has]
		text = strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(text)
		fmt.Fprintf(&b, "| `-%s` | %s | %s |\n", strings.Join(names, "` `-"), only, text)
	}
	for _, g := range groups {
		var same []string // refused for one reason
		for i, o := range g.options {
			if o.reason == "" {
				row([]string{o.name}, versions[o.name], o.help)
				continue
			}
			same = append(same, o.name)
			if i+1 < len(g.options) && g.options[i+1].reason == o.reason && versions[g.options[i+1].name] == versions[o.name] {
				continue
			}
			row(same, versions[o.name], "**refused**: "+o.reason)
			same = nil
		}
	}
	return b.String() + "\n"
}

// TestOptionsOfOpenSSL: none of its options is unknown here, neither those of
// the versions we know nor those of the one at hand.
func TestOptionsOfOpenSSL(t *testing.T) {
	for name := range opensslOptions(t) {
		if _, ok := lookup(name); !ok {
			t.Errorf("-%s is not known", name)
		}
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "cmp", "-help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(line, " -"); ok {
			found++
			name = strings.Fields(name)[0]
			if _, ok := lookup(name); !ok {
				t.Errorf("-%s of the openssl at hand is not known", name)
			}
		}
	}
	if found < 100 {
		t.Errorf("openssl cmp -help shows %d options, want more than 100", found)
	}
}
