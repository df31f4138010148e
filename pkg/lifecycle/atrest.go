package lifecycle

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/certloop/certloop/pkg/model"
)

// AtRest tells from a configuration alone, as somebody shows it, that there is nothing to do for
// it now: its status is about what it says now, and says that all is well, or when somebody comes
// back, or that a person has to. Most of what a watch shows is the echo of our own status.
func AtRest(c *model.CMPCertificate, now time.Time) bool {
	st := &c.Status
	if c.DeletionTimestamp != nil || st.ObservedGeneration == 0 || st.ObservedGeneration != c.Generation || len(annotated(c)) > 0 {
		return false
	}
	waits := st.NextAttempt != nil && st.NextAttempt.After(now)
	ready := meta.IsStatusConditionTrue(st.Conditions, model.Ready) && !meta.IsStatusConditionTrue(st.Conditions, model.Reconciling)
	return waits || ready || meta.IsStatusConditionTrue(st.Conditions, model.Stalled)
}

// IssuerAtRest is [AtRest] for an issuer.
func IssuerAtRest(i *model.CMPIssuer) bool {
	return i.Generation != 0 && i.Status.ObservedGeneration == i.Generation
}
