// Package e2e holds the end-to-end tests: what certloop promises, tried on real
// parts. See package rig for what they need.
package e2e

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

// together is how many tests run at once, unless -parallel says otherwise. They wait
// for clocks far more than they compute.
const together = 12

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(together))
	}
	os.Exit(kubetest.Main(m))
}
