package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	// gcResync is how soon the garbage collector learns of a new CRD.
	gcResync = 2 * time.Second
	// namespaceResync is how often unfinished namespaces are looked at again.
	namespaceResync = 5 * time.Minute
)

// newControllers prepares the three controllers that objects alone depend on,
// with no node in sight: the garbage collector follows owner references, the
// namespace controller empties deleted namespaces, and the service account
// controller gives each namespace its default account.
func newControllers(ctx context.Context, cfg *rest.Config) (run func(context.Context) error, err error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	f := factories{informers.NewSharedInformerFactory(client, 0), metadatainformer.NewSharedInformerFactory(meta, 0), make(chan struct{})}
	gc, err := newGarbageCollector(ctx, client, meta, f)
	if err != nil {
		return nil, err
	}
	namespaces := newNamespaceController(ctx, client, meta, f)
	accounts, err := newServiceAccountsController(ctx, client, f)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		var group errgroup.Group
		f.start(ctx)
		group.Go(func() error { gc.Run(ctx, 4, 10*time.Second); return nil })
		group.Go(func() error { gc.Sync(ctx, client.Discovery(), gcResync); return nil })
		group.Go(func() error { namespaces.Run(ctx, 4); return nil })
		group.Go(func() error { accounts.Run(ctx, 1); return nil })
		return group.Wait()
	}, nil
}

// factories share their informers among the controllers.
type factories struct {
	typed   informers.SharedInformerFactory
	meta    metadatainformer.SharedInformerFactory
	started chan struct{}
}

func (f factories) start(ctx context.Context) {
	f.typed.Start(ctx.Done())
	f.meta.Start(ctx.Done())
	close(f.started)
}

func newGarbageCollector(ctx context.Context, client kubernetes.Interface, meta metadata.Interface, f factories) (*garbagecollector.GarbageCollector, error) {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return garbagecollector.NewGarbageCollector(ctx, client, meta, mapper,
		garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(f.typed, f.meta), f.started)
}

func newNamespaceController(ctx context.Context, client kubernetes.Interface, meta metadata.Interface, f factories) *namespace.NamespaceController {
	resources := func() ([]*metav1.APIResourceList, error) {
		return client.Discovery().ServerPreferredNamespacedResources()
	}
	return namespace.NewNamespaceController(ctx, client, meta, resources,
		f.typed.Core().V1().Namespaces(), namespaceResync, corev1.FinalizerKubernetes)
}

func newServiceAccountsController(ctx context.Context, client kubernetes.Interface, f factories) (*serviceaccount.ServiceAccountsController, error) {
	return serviceaccount.NewServiceAccountsController(klog.FromContext(ctx),
		f.typed.Core().V1().ServiceAccounts(), f.typed.Core().V1().Namespaces(), client, serviceaccount.DefaultServiceAccountsControllerOptions())
}
