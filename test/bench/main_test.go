// Package bench measures certloop as `make bench` prints it: what an enrolment costs,
// how long a certificate takes from its event to its Secret, how much memory the
// all-in-one has, how large the binaries are; and what ten thousand certificates beside
// change about it, which -certificates makes fewer. Ratios are taken within one run, so
// that they mean the same on any machine.
package bench

import (
	"os"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
