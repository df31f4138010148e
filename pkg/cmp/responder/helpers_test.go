package responder

import "testing"

func start(t testing.TB, cfg Config) *Running {
	t.Helper()
	ca, err := Start(cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Errorf("closing the CA: %v", err)
		}
	})
	return ca
}
