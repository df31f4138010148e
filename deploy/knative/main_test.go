package knative_test

import (
	"os"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
