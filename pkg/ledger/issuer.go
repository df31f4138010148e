package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// An issuer is a CMPIssuer or, where its key has no namespace, a CMPClusterIssuer. The two
// have the same fields, so that both are a *model.CMPIssuer from here on.

// Issuer reads an issuer; ErrNotFound when there is none.
func (s *Store) Issuer(ctx context.Context, key types.NamespacedName) (*model.CMPIssuer, error) {
	out := new(model.CMPIssuer)
	return out, get(ctx, s.own, issuerResource(key), key, shape(key, out))
}

// issuerResource is where an issuer is found.
func issuerResource(key types.NamespacedName) string {
	if key.Namespace == "" {
		return model.ClusterIssuerResource
	}
	return model.IssuerResource
}

// shape is an issuer as the type that is sent and received.
func shape(key types.NamespacedName, issuer *model.CMPIssuer) runtime.Object {
	if key.Namespace == "" {
		return (*model.CMPClusterIssuer)(issuer)
	}
	return issuer
}

// IssuerKey is the key of an issuer, without a namespace for a CMPClusterIssuer.
func IssuerKey(issuer *model.CMPIssuer) types.NamespacedName {
	return types.NamespacedName{Namespace: issuer.Namespace, Name: issuer.Name}
}

// IssuerKind is the kind of the issuer of a key.
func IssuerKind(key types.NamespacedName) string {
	if key.Namespace == "" {
		return model.ClusterIssuerKind
	}
	return model.IssuerKind
}

// Issuers calls visit with every CMPIssuer of a namespace (every namespace when empty), page by page.
func (s *Store) Issuers(ctx context.Context, namespace string, visit func(*model.CMPIssuer) error) error {
	opts := metav1.ListOptions{Limit: PageSize}
	for {
		var page model.CMPIssuerList
		err := s.own.Get().NamespaceIfScoped(namespace, namespace != "").Resource(model.IssuerResource).
			VersionedParams(&opts, metav1.ParameterCodec).Do(ctx).Into(&page)
		if err != nil {
			return fmt.Errorf("listing %s: %w", model.IssuerResource, err)
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

// ClusterIssuers calls visit with every CMPClusterIssuer, page by page.
func (s *Store) ClusterIssuers(ctx context.Context, visit func(*model.CMPIssuer) error) error {
	opts := metav1.ListOptions{Limit: PageSize}
	for {
		var page model.CMPClusterIssuerList
		err := s.own.Get().Resource(model.ClusterIssuerResource).VersionedParams(&opts, metav1.ParameterCodec).Do(ctx).Into(&page)
		if err != nil {
			return fmt.Errorf("listing %s: %w", model.ClusterIssuerResource, err)
		}
		for i := range page.Items {
			if err := visit((*model.CMPIssuer)(&page.Items[i])); err != nil {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

// ApplyIssuer does for an issuer what ApplyCertificate does for a certificate.
func (s *Store) ApplyIssuer(ctx context.Context, key types.NamespacedName, spec model.CMPIssuerSpec) (*model.CMPIssuer, error) {
	out := new(model.CMPIssuer)
	return out, s.apply(ctx, IssuerKind(key), issuerResource(key), key, spec, shape(key, out))
}

// DeleteIssuer does for an issuer what DeleteCertificate does for a certificate.
func (s *Store) DeleteIssuer(ctx context.Context, key types.NamespacedName) error {
	issuer, err := s.Issuer(ctx, key)
	return s.withdraw(ctx, issuerResource(key), key, issuer, err)
}

// UpdateIssuerStatus writes the status of an issuer as it was read; ErrConflict when the
// object has changed since.
func (s *Store) UpdateIssuerStatus(ctx context.Context, issuer *model.CMPIssuer) error {
	key := IssuerKey(issuer)
	return s.updateStatus(ctx, issuerResource(key), issuer, shape(key, issuer))
}

// KeepIssuer puts a finalizer on an issuer as it was read, or takes it off; ErrConflict when
// the object has changed since.
func (s *Store) KeepIssuer(ctx context.Context, issuer *model.CMPIssuer, finalizer string, used bool) error {
	key := IssuerKey(issuer)
	return s.finalize(ctx, issuerResource(key), key, issuer, finalizer, used, shape(key, issuer))
}

// KeepCertificate puts [model.CleanUpFinalizer] on a configuration as it was read, or takes
// it off; ErrConflict when the object has changed since.
func (s *Store) KeepCertificate(ctx context.Context, cert *model.CMPCertificate, keep bool) error {
	key := types.NamespacedName{Namespace: cert.Namespace, Name: cert.Name}
	return s.finalize(ctx, model.CertificateResource, key, cert, model.CleanUpFinalizer, keep, cert)
}

// finalize adds a finalizer or takes it off, and reads the result into obj. Who took the last one
// off an object that was to be deleted finds it gone, which is what was wanted.
func (s *Store) finalize(ctx context.Context, resource string, key types.NamespacedName, meta metav1.Object, finalizer string, on bool, obj runtime.Object) error {
	present := meta.GetFinalizers()
	if slices.Contains(present, finalizer) == on {
		return nil
	}
	next := slices.DeleteFunc(slices.Clone(present), func(f string) bool { return f == finalizer })
	if on {
		next = append(next, finalizer)
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": next, "resourceVersion": meta.GetResourceVersion()}})
	if err != nil {
		return err
	}
	meta.SetFinalizers(nil) // absent in the answer when there are none
	err = s.own.Patch(types.MergePatchType).NamespaceIfScoped(key.Namespace, key.Namespace != "").Resource(resource).Name(key.Name).
		Param("fieldManager", model.StatusFieldManager).Body(body).Do(ctx).Into(obj)
	return explain(err, "marking", resource, key)
}
