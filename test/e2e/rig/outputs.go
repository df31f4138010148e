package rig

import (
	"context"
	"crypto/tls"
	"maps"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"

	"github.com/certloop/certloop/pkg/model"
)

const onlyOutputs = model.RoleLabel + "=" + model.RoleOutput

// followSecrets calls visit with every version of every Secret that a label selector
// selects, those that exist first, until the test ends. A watch that the API server ends, because
// the machine is too busy to follow, goes on where it was: none is missed.
func (w *World) followSecrets(tb testing.TB, selector string, visit func(watch.EventType, *corev1.Secret)) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	secrets := w.objects.Resource(resources["Secret"]).Namespace(w.Namespace)
	note := func(what watch.EventType, object runtime.Object) {
		s := new(corev1.Secret)
		if u, ok := object.(*unstructured.Unstructured); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, s) == nil {
			visit(what, s)
		}
	}
	present, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	for i := range present.Items {
		note(watch.Added, &present.Items[i])
	}
	changes, err := toolswatch.NewRetryWatcherWithContext(ctx, present.GetResourceVersion(), &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector = selector
			return secrets.Watch(ctx, opts)
		},
	})
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for e := range changes.ResultChan() {
			note(e.Type, e.Object)
		}
	})
	tb.Cleanup(func() { changes.Stop(); cancel(); done.Wait() })
}

// Outputs remembers of each output Secret of a namespace when it appeared, and of
// each of its versions whether the certificate was that of the key.
type Outputs struct {
	mu       sync.Mutex
	seen     map[string]time.Time
	versions int
	wrong    []string
}

// WatchOutputs follows the output Secrets of the namespace until the test ends.
func (w *World) WatchOutputs(tb testing.TB) *Outputs {
	tb.Helper()
	o := &Outputs{seen: map[string]time.Time{}}
	w.followSecrets(tb, onlyOutputs, o.note)
	return o
}

func (o *Outputs) note(what watch.EventType, s *corev1.Secret) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[s.Name]; !known {
		o.seen[s.Name] = now
	}
	if what == watch.Deleted {
		return
	}
	o.versions++
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		o.wrong = append(o.wrong, s.Name+" version "+s.ResourceVersion+": "+err.Error())
	}
}

// Seen is when each Secret appeared, by its name.
func (o *Outputs) Seen() map[string]time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.seen)
}

// Mismatched are the versions, of all that were ever visible, in which key and
// certificate did not match, and the number of all versions.
func (o *Outputs) Mismatched() (wrong []string, versions int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wrong, o.versions
}
