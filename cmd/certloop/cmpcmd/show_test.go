package cmpcmd

import (
	goflag "flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

var update = goflag.Bool("update", false, "write the golden files anew")

// TestShow describes messages that OpenSSL made.
func TestShow(t *testing.T) {
	t.Setenv("OPENSSL_CONF", "")
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 16 {
		t.Fatalf("%d messages, %v, want 16", len(files), err)
	}
	got := run1(t, "-show", "-reqin", strings.Join(files, ","))
	const golden = "testdata/show.golden"
	if *update {
		writeTestFile(t, golden, got.out)
	}
	if want := readTestFile(t, golden); got.out != want {
		t.Errorf("shown otherwise than in %s (use -update after checking):\n%s", golden, got.out)
	}
	checkError(t, got.err, "")
}

func TestShowIsHarmless(t *testing.T) {
	m, der, err := message("testdata/error.txt")
	if err != nil {
		t.Fatal(err)
	}
	m.Header.FreeText = []string{"\x1b[2J\u202egnp", "line\nline"}
	text := describe(m, len(der))
	if strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(text, "line\nline") {
		t.Errorf("control characters are shown as they are: %q", text)
	}
}

func TestShowRefuses(t *testing.T) {
	t.Setenv("OPENSSL_CONF", "")
	garbage := filepath.Join(t.TempDir(), "garbage")
	writeTestFile(t, garbage, "0123456789")
	checkError(t, run1(t, "-show").err, "there is no -reqin, -rspin or -cmd")
	checkError(t, run1(t, "-show", "-rspin", garbage).err, garbage)
}

func FuzzShow(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		_, der, err := message(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		m, err := cmp.ParseMessage(der)
		if err != nil {
			return
		}
		if text := describe(m, len(der)); len(text) > 64*len(der)+4096 {
			t.Errorf("%d bytes are described in %d", len(der), len(text))
		}
	})
}
