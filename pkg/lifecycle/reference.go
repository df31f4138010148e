package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// issuerKey is the issuer that a configuration names: in its own namespace, or without a
// namespace for a CMPClusterIssuer.
func issuerKey(c *model.CMPCertificate) types.NamespacedName {
	if c.Spec.IssuerRef.Kind == model.ClusterIssuerKind {
		return types.NamespacedName{Name: c.Spec.IssuerRef.Name}
	}
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Spec.IssuerRef.Name}
}

// shown is an issuer for people: its kind, namespace and name.
func shown(key types.NamespacedName) string {
	if key.Namespace == "" {
		return model.ClusterIssuerKind + " " + key.Name
	}
	return model.IssuerKind + " " + key.String()
}

// referring visits every configuration that names an issuer, in the namespaces this
// installation serves.
func (o *Obtainer) referring(ctx context.Context, issuer types.NamespacedName, visit func(*model.CMPCertificate) error) error {
	namespaces := []string{issuer.Namespace}
	if issuer.Namespace == "" && len(o.Namespaces) > 0 {
		namespaces = o.Namespaces
	}
	for _, ns := range namespaces {
		err := o.Ledger.Certificates(ctx, ledger.Query{Namespace: ns, Issuer: issuer.Name}, func(c *model.CMPCertificate) error {
			if issuerKey(c) != issuer { // of the other kind
				return nil
			}
			return visit(c)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// namedUsers is how many of the certificates that use an issuer are named.
const namedUsers = 3

var errEnough = errors.New("enough")

// users names some of the certificates that refer to an issuer; none when nobody does.
func (o *Obtainer) users(ctx context.Context, issuer types.NamespacedName) (names []string, err error) {
	err = o.referring(ctx, issuer, func(c *model.CMPCertificate) error {
		if len(names) == namedUsers {
			names = append(names, "others")
			return errEnough
		}
		names = append(names, c.Namespace+"/"+c.Name)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return names, err
}

// inUse says that an issuer cannot be deleted, or changed in what matters, while certificates
// refer to it.
func inUse(in event.Event, key types.NamespacedName, users []string, why string) []event.Event {
	message := fmt.Sprintf("%s is in use by %s", shown(key), strings.Join(users, ", "))
	if why != "" {
		message += ": " + why
	}
	return rejected(in, key, model.RejectedFact{Reason: model.ReasonIssuerInUse, Message: bounded(message)})
}

// issuerPolicy is the ValidatingAdmissionPolicy that guards issuers in use; the API server
// names it when it refuses.
const issuerPolicy = "certloop-issuers"

// hold puts the finalizer on an issuer that is used for the first time. One that is being
// deleted takes no finalizer any more, and is of no use to who comes now.
func (o *Obtainer) hold(ctx context.Context, ca *authority) error {
	if slices.Contains(ca.issuer.Finalizers, model.InUseFinalizer) {
		return nil
	}
	key := ledger.IssuerKey(ca.issuer)
	defer o.known.forget(key)
	for { // at most as long as others write it
		issuer, err := o.Ledger.Issuer(ctx, key)
		if errors.Is(err, ledger.ErrNotFound) || err == nil && issuer.DeletionTimestamp != nil {
			return &unmetError{model.ReasonIssuerNotReady, fmt.Sprintf("%s is being deleted: name another issuer", ca)}
		}
		if err == nil {
			err = o.Ledger.KeepIssuer(ctx, issuer, true)
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
}

// release takes the finalizer off an issuer that nobody refers to any more. Where only some
// namespaces are served nobody can tell that of a CMPClusterIssuer.
func (o *Obtainer) release(ctx context.Context, key types.NamespacedName) error {
	if key.Namespace == "" && len(o.Namespaces) > 0 {
		return nil
	}
	issuer, err := o.Ledger.Issuer(ctx, key)
	if err != nil || !slices.Contains(issuer.Finalizers, model.InUseFinalizer) {
		return ignoreGone(err)
	}
	users, err := o.users(ctx, key)
	if err != nil || len(users) > 0 {
		return err
	}
	o.known.forget(key)
	return ignoreGone(o.Ledger.KeepIssuer(ctx, issuer, false))
}
