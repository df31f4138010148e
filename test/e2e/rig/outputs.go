package rig

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/certloop/certloop/pkg/model"
)

// Outputs remembers when each output Secret of a namespace appeared.
type Outputs struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

// WatchOutputs follows the output Secrets of the namespace from now on until the test ends.
func (w *World) WatchOutputs(tb testing.TB) *Outputs {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	opts := metav1.ListOptions{LabelSelector: model.RoleLabel + "=" + model.RoleOutput}
	changes, err := w.objects.Resource(resources["Secret"]).Namespace(w.Namespace).Watch(ctx, opts)
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	o := &Outputs{seen: map[string]time.Time{}}
	var done sync.WaitGroup
	done.Go(func() {
		for e := range changes.ResultChan() {
			if u, ok := e.Object.(*unstructured.Unstructured); ok && e.Type == watch.Added {
				o.note(u.GetName())
			}
		}
	})
	tb.Cleanup(func() { changes.Stop(); cancel(); done.Wait() })
	return o
}

func (o *Outputs) note(name string) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[name]; !known {
		o.seen[name] = now
	}
}

// Seen is when each Secret appeared, by its name.
func (o *Outputs) Seen() map[string]time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.seen)
}
