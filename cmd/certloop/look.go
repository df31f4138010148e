package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

const readEvery = time.Second // at what is declared, in the cluster

// look follows by the objects in the cluster, for those who have no NATS. A broker accepts what
// a function will refuse: that is seen by nothing but the time that passes.
func (p *pursuit) look(store *ledger.Store) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, a := range p.aims {
			if !a.open() {
				continue
			}
			s, err := a.inCluster(ctx, store)
			switch {
			case errors.Is(err, ledger.ErrNotFound):
				continue // not yet
			case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
				return err
			case err != nil:
				s = standing{Outcome: isWaiting, Reason: "Unknown", Message: err.Error()} // the API server may come back
			}
			if s.Outcome != "" {
				p.mu.Lock()
				p.take(a, s)
				p.mu.Unlock()
			}
		}
		wait(ctx, readEvery)
		return nil
	}
}

// inCluster is how the object stands, once it holds what was declared.
func (a *aim) inCluster(ctx context.Context, store *ledger.Store) (standing, error) {
	if a.issuer() {
		return a.issuerInCluster(ctx, store)
	}
	var want model.CMPCertificate
	if err := a.event.DataAs(&want); err != nil {
		return standing{}, err
	}
	c, err := store.Certificate(ctx, a.key)
	if err != nil || !holds(c.Spec, want.Spec) {
		return standing{}, err
	}
	st := &c.Status
	s := conditionStanding(st.Conditions, st.ObservedGeneration == c.Generation)
	if s.NextAttempt = st.NextAttempt; s.Outcome == isReady && st.NotAfter != nil {
		s.Reason, s.Message = "", ""
		s.Certificate = &model.CertificateFact{
			Serial: st.Serial, Fingerprint: st.Fingerprint, NotBefore: orZero(st.NotBefore), NotAfter: *st.NotAfter,
			RenewalTime: orZero(st.RenewalTime), Revision: st.Revision, SecretName: c.Spec.Output.SecretName,
			Differences: st.Differences, Generation: c.Generation,
		}
	}
	return s, nil
}

func orZero(t *metav1.Time) metav1.Time {
	if t == nil {
		return metav1.Time{}
	}
	return *t
}

func (a *aim) issuerInCluster(ctx context.Context, store *ledger.Store) (standing, error) {
	var want model.CMPIssuer
	if err := a.event.DataAs(&want); err != nil {
		return standing{}, err
	}
	i, err := store.Issuer(ctx, a.key)
	if err != nil || !holds(i.Spec, want.Spec) {
		return standing{}, err
	}
	return conditionStanding(i.Status.Conditions, i.Status.ObservedGeneration == i.Generation), nil
}

// conditionStanding reads the conditions of an object. current: they are those of its present
// configuration.
func conditionStanding(conditions []metav1.Condition, current bool) standing {
	ready := meta.FindStatusCondition(conditions, model.Ready)
	if !current || ready == nil {
		return standing{Outcome: isApplied}
	}
	s := standing{Outcome: isWaiting, Reason: ready.Reason, Message: ready.Message}
	switch {
	case ready.Status == metav1.ConditionTrue:
		s.Outcome = isReady
	case meta.IsStatusConditionTrue(conditions, model.Stalled):
		s.Outcome = isParked
	}
	return s
}

// holds tells whether a specification says all that another one says; the API server adds
// defaults.
func holds(has, want any) bool { return contains(plainJSON(has), plainJSON(want)) }

func plainJSON(v any) (out any) {
	js, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(js, &out)
	}
	if err != nil {
		panic(fmt.Sprintf("certloop: %T is no JSON: %v", v, err)) // it came from JSON
	}
	return out
}

func contains(has, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		has, ok := has.(map[string]any)
		for k, v := range want {
			ok = ok && contains(has[k], v)
		}
		return ok
	case []any:
		has, ok := has.([]any)
		ok = ok && len(has) == len(want)
		for i := range want {
			ok = ok && contains(has[i], want[i])
		}
		return ok
	default:
		return has == want
	}
}
