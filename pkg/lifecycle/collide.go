package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// prepare does what comes before the decision what to do next. done says that there is
// nothing to decide.
func (a *attempt) prepare(ctx context.Context) (done bool, err error) {
	if a.rec.Lease != nil {
		return false, nil // somebody is at work
	}
	for _, step := range []func(context.Context) (bool, error){a.recovery, a.revocation, a.applied, a.taken, a.adoption, a.leftToOthers, a.replacement} {
		if done, err = step(ctx); done || err != nil {
			break
		}
	}
	if why, ok := asUnmet(err); ok {
		a.withheld = true
		return true, a.unmet(ctx, why)
	}
	if err == nil && !done && a.purpose == ledger.ForRenewal {
		err = a.recallKey(ctx)
	}
	return done, err
}

// taken refuses an output that another configuration holds, or is to hold because it is
// the older one. It is looked for while a configuration is new to us.
func (a *attempt) taken(ctx context.Context) (bool, error) {
	st := &a.cert.Status
	if st.ObservedGeneration == a.cert.Generation && !refusedFor(st, model.ReasonOutputTaken) {
		return false, nil
	}
	rivals, err := a.rivals(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range rivals {
		if wins(r.Certificate, a.cert, r.SecretName) {
			return false, &unmetError{model.ReasonOutputTaken, fmt.Sprintf("Secret %s is the output of CMPCertificate %s: name another one, or withdraw %s", r.SecretName, r.Certificate.Name, r.Certificate.Name)}
		}
	}
	return false, nil
}

func (a *attempt) rivals(ctx context.Context) ([]ledger.Rival, error) {
	if a.seen.listed {
		return a.seen.rivals, nil
	}
	return a.o.Ledger.Rivals(ctx, a.cert)
}

func refusedFor(st *model.CMPCertificateStatus, reason string) bool {
	return slices.ContainsFunc(st.Conditions, func(c metav1.Condition) bool { return c.Type == model.Ready && c.Reason == reason })
}

// wins tells which of two configurations that name the same Secret may have it: the one that
// delivers there already, else the older one.
func wins(rival, own *model.CMPCertificate, secret string) bool {
	_, theirs := rival.Status.Secrets[secret]
	_, ours := own.Status.Secrets[secret]
	switch {
	case theirs != ours:
		return theirs
	case !rival.CreationTimestamp.Equal(&own.CreationTimestamp):
		return rival.CreationTimestamp.Before(&own.CreationTimestamp)
	default:
		return rival.UID < own.UID
	}
}

// adoption takes over what is in the output of a configuration that says so.
func (a *attempt) adoption(ctx context.Context) (bool, error) {
	if !a.cert.Spec.Adopts() || a.rec.Current != nil || a.rec.Flight != nil {
		return false, nil
	}
	return false, a.adoptOrigin(ctx)
}

// replacement looks first at what somebody has put into the output: it may be just what
// an expired certificate, or one that the CA does not renew, was waiting for.
func (a *attempt) replacement(ctx context.Context) (bool, error) {
	if a.in.Type() != model.SecretModified || a.rec.Current == nil || a.rec.Flight != nil || !a.wasDelivered() {
		return false, nil
	}
	found, err := a.outputs(ctx)
	if err != nil {
		return false, err
	}
	_, err = a.adoptReplacement(ctx, found)
	return false, err
}

// How often others may rewrite an output before it is left to them, within which time, and
// for how long it must be quiet before it is taken back.
const (
	contestRounds = 5
	contestWindow = 10 * time.Minute
)

// contested counts that somebody has rewritten the output. After too many rounds it is left
// to them: stop says that this is reported. Otherwise repairs are what is to be told of it.
func (a *attempt) contested(ctx context.Context, found ledger.Outputs, repairs []event.Event) (stop bool, err error) {
	if refusedFor(&a.cert.Status, model.ReasonOutputConflict) {
		return false, nil // what was never put there nobody has rewritten
	}
	c, now := &a.rec.Contest, a.o.now()
	c.Rewrites = append(slices.DeleteFunc(c.Rewrites, func(t time.Time) bool { return now.Sub(t) > contestWindow }), now)
	if len(c.Rewrites) <= contestRounds {
		for _, e := range repairs {
			a.keepFact(e)
		}
		return false, a.save(ctx, "contest")
	}
	c.Stopped, c.Seen, c.Config = now, versions(found), a.cert.Generation
	e := model.NewEvent(model.SecretContended, a.key, model.SecretFact{SecretName: strings.Join(slices.Sorted(maps.Keys(found)), ","), Cause: a.contestMessage()})
	e.SetID(model.DerivedID(model.SecretContended, string(a.cert.UID), c.Seen))
	a.tellKept(e)
	if err := a.save(ctx, "contest"); err != nil {
		return true, err
	}
	return true, a.reportContest(ctx)
}

// leftToOthers rests while the output is left to others. A changed configuration and a
// person's request take it back, and so does quiet: then one more rewrite is one too many.
func (a *attempt) leftToOthers(ctx context.Context) (bool, error) {
	c := &a.rec.Contest
	if c.Stopped.IsZero() {
		return false, nil
	}
	if c.Config != a.cert.Generation || a.demand.fresh || a.demand.pressed {
		a.rec.Contest = ledger.Contest{}
		return false, a.save(ctx, "contest")
	}
	if a.o.now().Before(c.Stopped.Add(contestWindow)) {
		return true, a.reportContest(ctx)
	}
	found, err := a.outputs(ctx)
	if err != nil {
		return false, err
	}
	if seen := versions(found); seen != c.Seen {
		c.Seen, c.Stopped = seen, a.o.now()
		if err := a.save(ctx, "contest"); err != nil {
			return true, err
		}
		return true, a.reportContest(ctx)
	}
	now := a.o.now()
	*c = ledger.Contest{Rewrites: slices.Repeat([]time.Time{now}, contestRounds-1)}
	return false, a.save(ctx, "contest")
}

func (a *attempt) contestMessage() string {
	return fmt.Sprintf("somebody else has rewritten the output %d times within %s; it is left to them until it stays the same for that long, the configuration changes, or a renewal or recreation is asked for: find out who writes it", contestRounds+1, contestWindow)
}

func (a *attempt) reportContest(ctx context.Context) error {
	next := a.rec.Contest.Stopped.Add(contestWindow)
	a.withheld = true
	a.later(next, model.Work{Reason: model.WorkDependency})
	return a.report(ctx, outcome{reason: model.ReasonSecretContended, message: a.contestMessage(), next: next, parked: true})
}

// versions identifies the state of Secrets.
func versions(found ledger.Outputs) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, name+"="+found[name].ResourceVersion)
	}
	return strings.Join(all, ",")
}

func asUnmet(err error) (*unmetError, bool) {
	var why *unmetError
	return why, errors.As(err, &why)
}

// ignoreUnmet: what is missing in an issuer is told when it is needed.
func ignoreUnmet(err error) error {
	if _, ok := asUnmet(err); ok {
		return nil
	}
	return err
}
