package lifecycle_test

import (
	"os"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

// TestMain runs the tests, and judges whether they have provoked every reason there is.
func TestMain(m *testing.M) { os.Exit(provoked.judge(kubetest.Main(m), everyTest(), os.Stderr)) }
