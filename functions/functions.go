// Package functions wires the four functions: which event goes to which handler. The
// binaries below it and the all-in-one run the same wiring.
package functions

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/pkg/service"
)

// All are the four functions, in the order of a certificate's life. trace is told of
// every step that enroll and renew take; nil when nobody looks.
func All(trace func(lifecycle.Step)) []service.Function {
	return []service.Function{Enroll(trace), Renew(trace), WatchSecrets(), ExpiryScan()}
}

// Enroll obtains a certificate for every configuration that lacks one, and puts back
// outputs that were changed or deleted.
func Enroll(trace func(lifecycle.Step)) service.Function {
	return service.Function{Name: "enroll", Verb: model.Enroll, Wire: func(env *service.Env) (delivery.Mux, error) {
		o, err := obtainer(env, trace)
		if err != nil {
			return nil, err
		}
		s := scope(env.Namespaces)
		certificate := s.declared(model.CheckCertificateEvent, o.ConfigDeclared)
		issuer := s.declared(model.CheckIssuerEvent, o.IssuerDeclared)
		return delivery.Mux{
			model.ConfigCreated:       certificate,
			model.ConfigUpdated:       certificate,
			model.ConfigDeleted:       s.about(o.ConfigWithdrawn),
			model.IssuerCreated:       issuer,
			model.IssuerUpdated:       issuer,
			model.IssuerDeleted:       s.about(o.IssuerWithdrawn),
			model.ResourceAdd:         s.about(o.Observed),
			model.ResourceUpdate:      s.about(o.Observed),
			model.ResourceDelete:      s.about(o.Observed),
			model.EnrollmentRequested: s.about(o.Enroll),
			model.RecreationRequested: s.about(o.Enroll),
			model.IssuerProbe:         s.about(o.Probe),
			model.IssuerRelease:       s.about(o.Release),
			model.IssuerCheck:         s.about(o.Check),
			model.InputChanged:        s.about(o.InputChanged),
			model.SecretModified:      s.about(o.Enroll),
			model.SecretDeleted:       s.about(o.Enroll),
		}, nil
	}}
}

// Renew replaces certificates that are due.
func Renew(trace func(lifecycle.Step)) service.Function {
	return service.Function{Name: "renew", Verb: model.Renew, Wire: func(env *service.Env) (delivery.Mux, error) {
		o, err := obtainer(env, trace)
		if err != nil {
			return nil, err
		}
		s := scope(env.Namespaces)
		return delivery.Mux{
			model.CertificateExpiring: s.about(o.Renew),
			model.CertificateExpired:  s.about(o.Renew),
			model.RenewalRequested:    s.about(o.Renew),
			model.RevocationRequested: s.about(o.Renew),
		}, nil
	}}
}

// WatchSecrets tells which outputs no longer hold what was delivered.
func WatchSecrets() service.Function {
	return service.Function{Name: "watch-secrets", Verb: model.Watch, Wire: func(env *service.Env) (delivery.Mux, error) {
		w, err := watcher(env)
		if err != nil {
			return nil, err
		}
		s := scope(env.Namespaces)
		return delivery.Mux{
			model.RefAdd:    s.about(w.Changed),
			model.RefUpdate: s.about(w.Changed),
			model.RefDelete: s.about(w.Changed),
			model.Ping:      s.about(w.Sweep),

			model.SweepContinued: s.about(w.Sweep),
		}, nil
	}}
}

// ExpiryScan asks for the renewal of what is due. It needs no right to any Secret.
func ExpiryScan() service.Function {
	return service.Function{Name: "expiry-scan", Verb: model.Scan, Wire: func(env *service.Env) (delivery.Mux, error) {
		w, err := watcher(env)
		if err != nil {
			return nil, err
		}
		return delivery.Mux{model.Ping: scope(env.Namespaces).about(w.Scan)}, nil
	}}
}

type handler = func(context.Context, event.Event) ([]event.Event, error)

// scope is the namespaces an installation serves; all of them when empty.
type scope []string

// about is a route whose event needs to name its object and nothing more.
func (s scope) about(handle handler) delivery.Route { return s.checked(model.CheckSubject, handle) }

// declared is a route of declarations: that one is refused is told to whoever listens.
func (s scope) declared(check func(event.Event) error, handle handler) delivery.Route {
	route := s.checked(check, handle)
	route.Refused = func(in event.Event, why error) []event.Event {
		if s.lacks(in) != nil {
			return nil // no more say there by what we tell
		}
		return lifecycle.Rejected(in, why)
	}
	return route
}

// checked is a route that refuses what check refuses, and every object outside the
// scope: whoever may publish to one installation has no say in the others' namespaces.
func (s scope) checked(check func(event.Event) error, handle handler) delivery.Route {
	return delivery.Route{Handle: handle, Check: func(in event.Event) error {
		if err := s.lacks(in); err != nil {
			return err
		}
		return check(in)
	}}
}

// lacks is the error of an event about an object outside the scope.
func (s scope) lacks(in event.Event) error {
	key, err := model.ObjectOf(in)
	if err != nil || len(s) == 0 || key.Namespace == "" || slices.Contains(s, key.Namespace) {
		return nil //nolint:nilerr // check says what is wrong with the subject
	}
	return &model.InvalidError{Kind: in.Type(), Fields: []string{
		fmt.Sprintf("subject: namespace %s is not served here: add it to CERTLOOP_NAMESPACES, or send the event to who serves it", key.Namespace)}}
}

func obtainer(env *service.Env, trace func(lifecycle.Step)) (*lifecycle.Obtainer, error) {
	store, err := ledger.Open(env.Kube)
	if err != nil {
		return nil, err
	}
	return &lifecycle.Obtainer{Ledger: store, Holder: holder(), Log: env.Log, Now: env.Now, Namespace: env.OwnNamespace(), Namespaces: env.Namespaces, Trace: trace}, nil
}

func watcher(env *service.Env) (*lifecycle.Watcher, error) {
	store, err := ledger.Open(env.Kube)
	if err != nil {
		return nil, err
	}
	return &lifecycle.Watcher{Ledger: store, Namespaces: env.Namespaces, Namespace: env.OwnNamespace(), Now: env.Now}, nil
}

// holder names this process in leases: people read the host, the UUID makes it unique.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), uuid.NewString())
}
