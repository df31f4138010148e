// Package functions wires the four functions: which event goes to which handler. The
// binaries below it and the all-in-one run the same wiring.
package functions

import (
	"context"
	"fmt"
	"os"

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
		certificate := delivery.Route{Check: model.CheckCertificateEvent, Handle: o.ConfigDeclared}
		issuer := delivery.Route{Check: model.CheckIssuerEvent, Handle: o.IssuerDeclared}
		return delivery.Mux{
			model.ConfigCreated:       certificate,
			model.ConfigUpdated:       certificate,
			model.ConfigDeleted:       about(o.ConfigWithdrawn),
			model.IssuerCreated:       issuer,
			model.IssuerUpdated:       issuer,
			model.IssuerDeleted:       about(o.IssuerWithdrawn),
			model.ResourceAdd:         about(o.Observed),
			model.ResourceUpdate:      about(o.Observed),
			model.ResourceDelete:      about(o.Observed),
			model.EnrollmentRequested: about(o.Enroll),
			model.SecretModified:      about(o.Enroll),
			model.SecretDeleted:       about(o.Enroll),
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
		return delivery.Mux{
			model.CertificateExpiring: about(o.Renew),
			model.CertificateExpired:  about(o.Renew),
			model.RenewalRequested:    about(o.Renew),
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
		return delivery.Mux{
			model.RefAdd:    about(w.Changed),
			model.RefUpdate: about(w.Changed),
			model.RefDelete: about(w.Changed),
			model.Ping:      about(w.Sweep),
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
		return delivery.Mux{model.Ping: about(w.Scan)}, nil
	}}
}

// about is a route whose event needs to name its object and nothing more.
func about(handle func(context.Context, event.Event) ([]event.Event, error)) delivery.Route {
	return delivery.Route{Check: model.CheckSubject, Handle: handle}
}

func obtainer(env *service.Env, trace func(lifecycle.Step)) (*lifecycle.Obtainer, error) {
	store, err := ledger.Open(env.Kube)
	if err != nil {
		return nil, err
	}
	return &lifecycle.Obtainer{Ledger: store, Holder: holder(), Log: env.Log, Now: env.Now, Trace: trace}, nil
}

func watcher(env *service.Env) (*lifecycle.Watcher, error) {
	store, err := ledger.Open(env.Kube)
	if err != nil {
		return nil, err
	}
	return &lifecycle.Watcher{Ledger: store, Namespaces: env.Namespaces, Now: env.Now}, nil
}

// holder names this process in leases: people read the host, the UUID makes it unique.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), uuid.NewString())
}
