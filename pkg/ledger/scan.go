package ledger

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// ErrExpired says that a list can no longer be continued: it must begin again.
var ErrExpired = errors.New("the list has expired")

// CertificatePage reads one page, of at most [PageSize], of the configurations of a namespace
// (empty: of all), and the token that continues the list; empty when it is complete.
func (s *Store) CertificatePage(ctx context.Context, namespace, token string) ([]model.CMPCertificate, string, error) {
	opts := metav1.ListOptions{Limit: PageSize, Continue: token}
	var page model.CMPCertificateList
	err := s.own.Get().NamespaceIfScoped(namespace, namespace != "").Resource(model.CertificateResource).
		VersionedParams(&opts, metav1.ParameterCodec).Do(ctx).Into(&page)
	switch {
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return nil, "", fmt.Errorf("listing %s: %w", model.CertificateResource, ErrExpired)
	case err != nil:
		return nil, "", fmt.Errorf("listing %s: %w", model.CertificateResource, err)
	}
	return page.Items, page.Continue, nil
}

// Media types that ask for metadata and nothing else.
const (
	metadataOnly     = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	metadataListOnly = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// SecretVersions reads the resourceVersions of all Secrets that certloop writes in a namespace, by
// name: their metadata, page by page, and no data.
func (s *Store) SecretVersions(ctx context.Context, namespace string) (map[string]string, error) {
	versions := map[string]string{}
	opts := metav1.ListOptions{LabelSelector: model.ManagedByLabel + "=" + model.ManagedBy, Limit: PageSize}
	for {
		var page metav1.PartialObjectMetadataList
		err := s.core.Get().Namespace(namespace).Resource("secrets").VersionedParams(&opts, metav1.ParameterCodec).
			SetHeader("Accept", metadataListOnly).Do(ctx).Into(&page)
		if err != nil {
			return nil, fmt.Errorf("listing the metadata of secrets: %w", err)
		}
		for i := range page.Items {
			item := &page.Items[i]
			versions[item.Name] = item.ResourceVersion
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return versions, nil
		}
	}
}

// SecretVersion is the resourceVersion of one Secret; empty when it does not exist.
func (s *Store) SecretVersion(ctx context.Context, key types.NamespacedName) (string, error) {
	secret, err := s.SecretMetadata(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return secret.GetResourceVersion(), err
}

// SecretMetadata reads a Secret without its data; ErrNotFound when there is none.
func (s *Store) SecretMetadata(ctx context.Context, key types.NamespacedName) (*metav1.PartialObjectMetadata, error) {
	secret := new(metav1.PartialObjectMetadata)
	err := s.core.Get().Namespace(key.Namespace).Resource("secrets").Name(key.Name).SetHeader("Accept", metadataOnly).Do(ctx).Into(secret)
	return secret, explain(err, "reading the metadata of", "secrets", key)
}
