package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
// installation serves. It gives those of them that the API server does not let it read: what uses a cluster
// issuer there nobody knows, and it keeps nothing from being done elsewhere.
func (o *Obtainer) referring(ctx context.Context, issuer types.NamespacedName, visit func(*model.CMPCertificate) error) (unread []string, err error) {
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
		switch {
		case issuer.Namespace == "" && ns != "" && apierrors.IsForbidden(err):
			o.Log.WarnContext(ctx, "passing over a namespace", "namespace", ns, "issuer", shown(issuer), "err", err)
			unread = append(unread, ns)
		case err != nil:
			return nil, err
		}
	}
	return unread, nil
}

// namedUsers is how many of the certificates that use an issuer are named.
const namedUsers = 3

var errEnough = errors.New("enough")

// users names some of the certificates that refer to an issuer; none when nobody does. Where it
// cannot be told it says so: an issuer that may be in use is one that is.
func (o *Obtainer) users(ctx context.Context, issuer types.NamespacedName) (names []string, err error) {
	unread, err := o.referring(ctx, issuer, func(c *model.CMPCertificate) error {
		if len(names) == namedUsers {
			names = append(names, "others")
			return errEnough
		}
		names = append(names, c.Namespace+"/"+c.Name)
		return nil
	})
	if errors.Is(err, errEnough) {
		return names, nil
	}
	if len(unread) > 0 && len(names) == 0 {
		names = []string{fmt.Sprintf("certificates of namespace %s perhaps, which certloop may not read: grant it the right, or take it out of CERTLOOP_NAMESPACES", unread[0])}
	}
	return names, err
}

// inUse says that an issuer cannot be deleted, or changed in what matters, while certificates
// refer to it.
func inUse(in event.Event, key types.NamespacedName, users []string, why string) []event.Event {
	by := strings.Join(users, ", ")
	if by == "" {
		by = "certificates of namespaces that are not served here"
	}
	message := fmt.Sprintf("%s is in use by %s", shown(key), by)
	if why != "" {
		message += ": " + why
	}
	return rejected(in, key, model.RejectedFact{Reason: model.ReasonIssuerInUse, Message: bounded(message)})
}

// issuerPolicy is the ValidatingAdmissionPolicy that guards issuers in use.
const issuerPolicy = "certloop-issuers"

// guarded tells whether it was that policy which refused a request. The API server says so by the
// text of a cause and by nothing else: the reason of a refusal is one of four that every policy
// may have, and such a cause has neither type nor field.
func guarded(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && slices.ContainsFunc(causes(status.Status()), func(c metav1.StatusCause) bool {
		return strings.HasPrefix(c.Message, "ValidatingAdmissionPolicy '"+issuerPolicy+"' ")
	})
}

// holding is the finalizer by which an installation keeps an issuer: one of its own where it
// cannot tell whether others use it too.
func holding(issuer types.NamespacedName, home string, served []string) string {
	if issuer.Namespace != "" || len(served) == 0 {
		return model.InUseFinalizer
	}
	return model.InUseFinalizerOf(home)
}

func (o *Obtainer) holding(issuer types.NamespacedName) string {
	return holding(issuer, o.Namespace, o.Namespaces)
}

// holds: this installation keeps the issuer.
func (o *Obtainer) holds(issuer *model.CMPIssuer) bool {
	return slices.Contains(issuer.Finalizers, o.holding(ledger.IssuerKey(issuer)))
}

// hold puts the finalizer on an issuer that is used for the first time. One that is being
// deleted takes no finalizer any more, and is of no use to who comes now.
func (o *Obtainer) hold(ctx context.Context, ca *authority) error {
	if o.holds(ca.issuer) {
		return nil
	}
	key := ledger.IssuerKey(ca.issuer)
	defer o.known.forget(key)
	for range looks {
		issuer, err := o.Ledger.Issuer(ctx, key)
		if errors.Is(err, ledger.ErrNotFound) || err == nil && issuer.DeletionTimestamp != nil {
			return &unmetError{model.ReasonIssuerNotReady, fmt.Sprintf("%s is being deleted: name another issuer", ca)}
		}
		if err == nil {
			err = o.Ledger.KeepIssuer(ctx, issuer, o.holding(key), true)
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("keeping %s: %w", ca, ledger.ErrConflict)
}

// release takes the finalizer off an issuer that nobody refers to any more in the namespaces
// that are served.
func (o *Obtainer) release(ctx context.Context, key types.NamespacedName) error {
	issuer, err := o.Ledger.Issuer(ctx, key)
	if err != nil || !o.holds(issuer) {
		return ignoreGone(err)
	}
	users, err := o.users(ctx, key)
	if err != nil || len(users) > 0 {
		return err
	}
	o.known.forget(key)
	return ignoreGone(o.Ledger.KeepIssuer(ctx, issuer, o.holding(key), false))
}

// Check handles issuer.check: it looks again at an issuer that was missed, and lets it go when
// nobody refers to it any more.
func (o *Obtainer) Check(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	if err := o.release(ctx, key); err != nil {
		return nil, err
	}
	return o.issuerChanged(ctx, key, in)
}

// users are the issuers that a sweep has found in use. They are remembered by one process from
// page to page: who goes on with the sweep of another finds some unused that are not, and asks
// for a look at them that changes nothing.
type users struct {
	mu    sync.Mutex
	sweep string
	of    map[types.NamespacedName]bool
}

func (u *users) add(sweep string, issuer types.NamespacedName) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil || u.sweep != sweep {
		u.sweep, u.of = sweep, map[types.NamespacedName]bool{}
	}
	u.of[issuer] = true
}

func (u *users) has(sweep string, issuer types.NamespacedName) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sweep == sweep && u.of[issuer]
}

// check asks for a look at an issuer that is kept although nobody was found to use it, or that
// was not looked at since it changed.
func (p *page) check(i *model.CMPIssuer) {
	key := ledger.IssuerKey(i)
	unused := slices.Contains(i.Finalizers, holding(key, p.w.Namespace, p.w.Namespaces)) && !p.w.users.has(p.work.Sweep, key)
	if !unused && i.Status.ObservedGeneration == i.Generation {
		return
	}
	e := model.NewEvent(model.IssuerCheck, key, nil)
	e.SetID(model.DerivedID(model.IssuerCheck, string(i.UID), p.now.Truncate(announceFor).Format(time.RFC3339)))
	p.out = append(p.out, model.Follow(p.in, e))
}
