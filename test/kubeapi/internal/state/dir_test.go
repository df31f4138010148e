package state_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/test/kubeapi/internal/state"
)

var anyAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6443}

func TestOpenHoldsTheDirectoryUntilClose(t *testing.T) {
	path := t.TempDir()
	first := open(t, path)
	if _, err := state.Open(path); !errors.Is(err, state.ErrInUse) {
		t.Fatalf("second Open: got %v, want ErrInUse", err)
	}
	if err := first.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	again, err := state.Open(path)
	if err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	closeDir(t, again)
}

func TestOpenKeepsCredentials(t *testing.T) {
	path := t.TempDir()
	first := reopen(t, path)
	if again := reopen(t, path); !bytes.Equal(again, first) {
		t.Error("got another kubeconfig from the second start, want that of the first")
	}
	if other := reopen(t, t.TempDir()); bytes.Equal(other, first) {
		t.Error("got the same kubeconfig in another directory")
	}
}

func TestOpenFinishesWhatAKilledStartLeft(t *testing.T) {
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "pki.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "pki.tmp", "ca.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if kubeconfig := reopen(t, path); bytes.Contains(kubeconfig, []byte("half")) {
		t.Error("got credentials of the killed start, want new ones")
	}
}

func TestOpenLetsOnlyTheOwnerIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "state")
	closeDir(t, open(t, path))
	err := filepath.Walk(path, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: got mode %v, want nothing for others", p, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestServingCertificateIsTrustedByTheKubeconfig(t *testing.T) {
	d := open(t, t.TempDir())
	defer closeDir(t, d)
	pair, err := tls.LoadX509KeyPair(d.Path("pki/server.crt"), d.Path("pki/server.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(d.Path("pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("pki/ca.crt: got no certificate, want the CA's")
	}
	if embedded := base64.StdEncoding.EncodeToString(ca); !bytes.Contains(d.Kubeconfig(anyAddr), []byte(embedded)) {
		t.Error("the kubeconfig does not hold pki/ca.crt")
	}
	for _, name := range []string{"127.0.0.1", "localhost", "kubernetes.default.svc"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
}

func TestListen(t *testing.T) {
	d := open(t, t.TempDir())
	defer closeDir(t, d)

	first := listen(t, d, 0)
	port := portOf(first)
	busy := listen(t, d, 0) // the remembered port is taken: another one
	if portOf(busy) == port {
		t.Fatalf("got port %d twice at once", port)
	}
	closeAll(t, first, busy)

	remembered := listen(t, d, 0)
	if got, want := portOf(remembered), portOf(busy); got != want {
		t.Errorf("restart: got port %d, want that of the last start, %d", got, want)
	}
	if _, err := d.Listen(t.Context(), portOf(remembered)); err == nil {
		t.Error("a taken port asked for by number: got a listener, want an error")
	}
	closeAll(t, remembered)

	chosen := listen(t, d, port)
	if got := portOf(chosen); got != port {
		t.Errorf("got port %d, want %d", got, port)
	}
	closeAll(t, chosen)
}

func TestListenIgnoresAnUnreadableNote(t *testing.T) {
	for name, note := range map[string]string{"empty": "", "words": "no port", "too large": "65536", "negative": "-1"} {
		t.Run(name, func(t *testing.T) {
			d := open(t, t.TempDir())
			defer closeDir(t, d)
			if err := os.WriteFile(d.Path("port"), []byte(note), 0o600); err != nil {
				t.Fatal(err)
			}
			closeAll(t, listen(t, d, 0))
		})
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	d := open(t, t.TempDir())
	defer closeDir(t, d)
	token, err := os.ReadFile(d.Path("pki/token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(format, d), string(token)) {
			t.Errorf("%s of a Dir shows its token", format)
		}
	}
}

func open(tb testing.TB, path string) *state.Dir {
	tb.Helper()
	d, err := state.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// reopen returns the kubeconfig of a start on path that has ended again.
func reopen(tb testing.TB, path string) []byte {
	tb.Helper()
	d := open(tb, path)
	defer closeDir(tb, d)
	return d.Kubeconfig(anyAddr)
}

func closeDir(tb testing.TB, d *state.Dir) {
	tb.Helper()
	if err := d.Close(); err != nil {
		tb.Error(err)
	}
}

func listen(tb testing.TB, d *state.Dir, port int) net.Listener {
	tb.Helper()
	l, err := d.Listen(tb.Context(), port)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func closeAll(tb testing.TB, all ...net.Listener) {
	tb.Helper()
	for _, l := range all {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	}
}
