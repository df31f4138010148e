package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/model"
)

var (
	// ErrNotFound says that the object does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that somebody wrote first. Look again and decide anew.
	ErrConflict = errors.New("written by somebody else in the meantime")
	// ErrNotManaged says that a Secret of that name exists and is not ours to replace.
	ErrNotManaged = errors.New("not managed by this certificate")
	// ErrSpoilt says that a record cannot be read: somebody has written to it.
	ErrSpoilt = errors.New("cannot be read")
	// ErrOwnedByAnother says that another field manager (kubectl, GitOps) owns a field that an event would change.
	ErrOwnedByAnother = errors.New("owned by another field manager")
)

// PageSize is how many configurations are read at a time.
const PageSize = 500

// Store reads and writes the objects of one cluster.
type Store struct {
	core rest.Interface // Secrets
	own  rest.Interface // our custom resources

	partless namespacesWithoutParts
}

// Open connects to the cluster of cfg. Nothing is sent yet.
func Open(cfg *rest.Config) (*Store, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Secret{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		return nil, err
	}
	if err := model.AddToScheme(scheme); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	core, err := client(cfg, corev1.SchemeGroupVersion, "/api", runtime.ContentTypeProtobuf, codecs)
	if err != nil {
		return nil, err
	}
	own, err := client(cfg, model.GroupVersion, "/apis", runtime.ContentTypeJSON, codecs)
	if err != nil {
		return nil, err
	}
	return &Store{core: core, own: own}, nil
}

func client(cfg *rest.Config, gv schema.GroupVersion, path, contentType string, codecs runtime.NegotiatedSerializer) (rest.Interface, error) {
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &gv, path, codecs
	c.ContentType = contentType
	return rest.RESTClientFor(c)
}

// Certificate reads a configuration; ErrNotFound when there is none.
func (s *Store) Certificate(ctx context.Context, key types.NamespacedName) (*model.CMPCertificate, error) {
	out := new(model.CMPCertificate)
	return out, get(ctx, s.own, model.CertificateResource, key, out)
}

// Secret reads an input Secret; ErrNotFound when there is none.
func (s *Store) Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	out := new(corev1.Secret)
	return out, get(ctx, s.core, "secrets", key, out)
}

func get(ctx context.Context, c rest.Interface, resource string, key types.NamespacedName, into runtime.Object) error {
	err := c.Get().NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(resource).Name(key.Name).Do(ctx).Into(into)
	return explain(err, "reading", resource, key)
}

// explain turns an API error into one of ours, with the object's name.
func explain(err error, doing, resource string, key types.NamespacedName) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s %s: %w", strings.TrimSuffix(resource, "s"), key, ErrNotFound)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%s %s %s: %w", doing, strings.TrimSuffix(resource, "s"), key, ErrConflict)
	default:
		return fmt.Errorf("%s %s %s: %w", doing, strings.TrimSuffix(resource, "s"), key, err)
	}
}

// Query selects configurations. The zero value selects all of them.
type Query struct {
	Namespace  string // empty: every namespace
	RenewalDay *string
	Issuer     string
	SecretName string
}

func (q Query) selector() string {
	var terms []string
	if q.RenewalDay != nil {
		terms = append(terms, "status.renewalDay="+*q.RenewalDay)
	}
	if q.Issuer != "" {
		terms = append(terms, "spec.issuerRef.name="+q.Issuer)
	}
	if q.SecretName != "" {
		terms = append(terms, "spec.output.secretName="+q.SecretName)
	}
	return strings.Join(terms, ",")
}

// Certificates calls visit with every configuration that q selects, page by page.
func (s *Store) Certificates(ctx context.Context, q Query, visit func(*model.CMPCertificate) error) error {
	return s.certificates(ctx, q.Namespace, q.selector(), visit)
}

func (s *Store) certificates(ctx context.Context, namespace, selector string, visit func(*model.CMPCertificate) error) error {
	opts := metav1.ListOptions{FieldSelector: selector, Limit: PageSize}
	for {
		var page model.CMPCertificateList
		err := s.own.Get().NamespaceIfScoped(namespace, namespace != "").Resource(model.CertificateResource).
			VersionedParams(&opts, metav1.ParameterCodec).Do(ctx).Into(&page)
		if err != nil {
			return fmt.Errorf("listing %s: %w", model.CertificateResource, err)
		}
		for i := range page.Items {
			if err := visit(&page.Items[i]); err != nil {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

// ApplyCertificate writes the specification that an event declared, by server-side
// apply as [model.EventFieldManager]. ErrOwnedByAnother when kubectl or GitOps owns a
// field that it would change; any refusal of the API server is an apierrors.APIStatus.
func (s *Store) ApplyCertificate(ctx context.Context, key types.NamespacedName, spec model.CMPCertificateSpec) (*model.CMPCertificate, error) {
	out := new(model.CMPCertificate)
	return out, s.apply(ctx, model.CertificateKind, model.CertificateResource, key, spec, out)
}

func (s *Store) apply(ctx context.Context, kind, resource string, key types.NamespacedName, spec any, into runtime.Object) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": model.GroupVersion.String(), "kind": kind,
		"metadata": objectMeta(key), "spec": spec,
	})
	if err != nil {
		return err
	}
	err = s.own.Patch(types.ApplyYAMLPatchType).NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(resource).Name(key.Name).
		Param("fieldManager", model.EventFieldManager).Body(body).Do(ctx).Into(into)
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s %s: %w: %s", kind, key, ErrOwnedByAnother, err.Error())
	case noNamespace(err):
		return fmt.Errorf("applying %s %s: %w", kind, key, err)
	default:
		return explain(err, "applying", resource, key)
	}
}

func objectMeta(key types.NamespacedName) map[string]any {
	m := map[string]any{"name": key.Name}
	if key.Namespace != "" {
		m["namespace"] = key.Namespace
	}
	return m
}

// noNamespace tells the namespace that does not exist, which the sender of an event
// got wrong, from the resource that does not, while our definitions are not installed.
func noNamespace(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "namespaces"
}

// DeleteCertificate withdraws a configuration that an event declared. It is not an
// error when it is gone already; ErrOwnedByAnother when it was not declared by an event.
func (s *Store) DeleteCertificate(ctx context.Context, key types.NamespacedName) error {
	cert, err := s.Certificate(ctx, key)
	return s.withdraw(ctx, model.CertificateResource, key, cert, err)
}

func (s *Store) withdraw(ctx context.Context, resource string, key types.NamespacedName, obj metav1.Object, err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !declaredByEvent(obj) {
		return fmt.Errorf("%s %s: %w: delete it where it was declared", strings.TrimSuffix(resource, "s"), key, ErrOwnedByAnother)
	}
	uid := obj.GetUID()
	opts := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	err = explain(s.own.Delete().NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(resource).Name(key.Name).Body(opts).Do(ctx).Error(), "deleting", resource, key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func declaredByEvent(obj metav1.Object) bool {
	for _, m := range obj.GetManagedFields() {
		if m.Manager == model.EventFieldManager {
			return true
		}
	}
	return false
}

// UpdateCertificateStatus writes the status of a configuration as it was read;
// ErrConflict when the object has changed since.
func (s *Store) UpdateCertificateStatus(ctx context.Context, cert *model.CMPCertificate) error {
	return s.updateStatus(ctx, model.CertificateResource, cert, cert)
}

func (s *Store) updateStatus(ctx context.Context, resource string, meta metav1.Object, obj runtime.Object) error {
	key := types.NamespacedName{Namespace: meta.GetNamespace(), Name: meta.GetName()}
	err := s.own.Put().NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(resource).Name(key.Name).SubResource("status").
		Param("fieldManager", model.StatusFieldManager).Body(obj).Do(ctx).Into(obj)
	return explain(err, "reporting the status of", resource, key)
}
