package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/certloop/certloop/test/e2e/rig"
)

const (
	// firstSecret is what is promised for a start after the first one.
	firstSecret = 10 * time.Second
	// tour bounds one demonstration; it waits for a renewal of a certificate of one minute.
	tour = 4 * time.Minute
)

// Check 1: `certloop dev --once` sees all of it work, on new state and again on the
// same. It is not parallel: how fast it is, is part of it.
func TestDevOnce(t *testing.T) {
	state := filepath.Join(t.TempDir(), "dev")
	for _, name := range []string{"new state", "same state"} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			out := devOnce(t, state)
			took, first := time.Since(began), firstSecretIn(t, out)
			t.Logf("first Secret after %s, all of it seen after %.1f s", first, took.Seconds())
			if name == "same state" && first > firstSecret {
				t.Errorf("first Secret after %s, want within %s\n%s", first, firstSecret, out)
			}
			nothingLeft(t, out)
		})
	}
}

func devOnce(t *testing.T, state string) string {
	t.Helper()
	server := os.Getenv("CERTLOOP_KUBEAPI")
	if server == "" {
		server = rig.Binary(t, "kubeapi")
	}
	return rig.Run(t, tour, rig.Command{
		Name: "dev", Path: rig.Binary(t, "certloop"), Logs: t.TempDir(),
		Args: []string{"dev", "--once", "--state-dir", state, "--kubeapi", server},
	})
}

var (
	firstLine   = regexp.MustCompile(`first certificate in its Secret ([0-9.]+) s after the start`)
	serverInUse = regexp.MustCompile(`https://(127\.0\.0\.1:[0-9]+)`)
)

// firstSecretIn reads the figure from what the demonstration told.
func firstSecretIn(t *testing.T, out string) time.Duration {
	t.Helper()
	found := firstLine.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("the demonstration does not tell when the first Secret was there:\n%s", out)
	}
	seconds, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// nothingLeft checks that the API server has ended with the demonstration.
func nothingLeft(t *testing.T, out string) {
	t.Helper()
	found := serverInUse.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("the demonstration does not tell where its API server is:\n%s", out)
	}
	rig.Eventually(t, 10*time.Second, "the API server is gone", func() error {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", found[1])
		if err == nil {
			return errors.Join(errors.New("it still listens"), conn.Close())
		}
		return nil
	})
}
