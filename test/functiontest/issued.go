package functiontest

import (
	"log/slog"
	"testing"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Issue has certificates issued and delivered, without a process: what enroll would
// have done before the function under test was started. documents are further
// certificates, such as [rig.EndEntity] gives.
func Issue(tb testing.TB, w *rig.World, ca rig.CA, documents ...string) {
	tb.Helper()
	store, err := ledger.Open(w.Cluster.Config())
	if err != nil {
		tb.Fatal(err)
	}
	o := &lifecycle.Obtainer{Ledger: store, Holder: tb.Name(), Log: slog.New(slog.DiscardHandler)}
	w.Bootstrap(tb, ca)
	w.Apply(tb, append([]string{rig.Issuer(ca), rig.Identity()}, documents...)...)
	identity := w.Key(rig.IdentityName)
	if _, err := o.Enroll(tb.Context(), model.NewEvent(model.EnrollmentRequested, identity, nil)); err != nil {
		tb.Fatal(err)
	}
	err = store.Certificates(tb.Context(), ledger.Query{Namespace: w.Namespace}, func(c *model.CMPCertificate) error {
		_, err := o.Enroll(tb.Context(), model.NewEvent(model.EnrollmentRequested, w.Key(c.Name), nil))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}
