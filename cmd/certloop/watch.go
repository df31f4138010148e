package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
)

// pageSize is how many objects are read at a time.
const pageSize = 500

// Pauses between attempts to reach the API server or the broker.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
)

// feed turns the changes of one resource into events. It keeps nothing: an object is
// forgotten as soon as it has been told.
type feed struct {
	resource string // for the log, with the namespace
	objects  *cache.ListWatch
	only     string // field selector of what lists tell; empty for all that exists
	// exists makes the event for an object found by a list; false for none. nil when
	// lists tell nothing: then only their position is taken.
	exists func(runtime.Object) (event.Event, bool)
	// changed makes the event for a change; false for none.
	changed func(watch.EventType, runtime.Object) (event.Event, bool)
	// listed is called after the first list.
	listed func(context.Context)
	// missed is called after every further list, before which changes may have gone by unseen.
	missed  func(context.Context)
	publish func(context.Context, event.Event)
	log     *slog.Logger
	said    string // the trouble that was logged last
}

// run follows the resource until ctx ends, whatever happens to the API server.
func (f *feed) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		f.complain(ctx, "listing again", err)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		wait(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

// follow lists once and then watches, until the API server no longer knows where we
// are or refuses.
func (f *feed) follow(ctx context.Context) error {
	version, err := f.list(ctx)
	if err != nil {
		return err
	}
	if f.listed != nil {
		f.listed(ctx)
		f.listed = nil
	} else {
		f.missed(ctx)
	}
	w, err := toolswatch.NewRetryWatcherWithContext(ctx, version, f)
	if err != nil {
		return err
	}
	defer func() { w.Stop(); <-w.Done() }()
	for change := range w.ResultChan() {
		if change.Type == watch.Error {
			return apierrors.FromObject(change.Object)
		}
		if e, ok := f.changed(change.Type, change.Object); ok {
			f.publish(ctx, e)
		}
	}
	return errors.New("the watch ended")
}

// WatchWithContext begins a watch for the RetryWatcher of follow, which goes on where
// the last one ended. It tries again at once or in a second after whatever looks like
// the end of a watch, and logs the rest each time; we log a trouble once.
func (f *feed) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := f.objects.WatchWithContext(ctx, opts)
	switch {
	case err == nil:
		f.said = ""
		return w, nil
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return nil, err // ends the watch: the list will say the same
	case apierrors.IsGone(err), apierrors.IsResourceExpired(err):
		return lost(err), nil
	case ctx.Err() == nil:
		f.complain(ctx, "waiting to watch", err)
	}
	return nil, io.EOF
}

// lost is a watch that says only that its position is gone.
func lost(err error) watch.Interface {
	w := watch.NewFakeWithChanSize(1, false)
	status := &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: err.Error()}
	w.Error(status)
	return w
}

// complain logs a trouble unless it was logged already.
func (f *feed) complain(ctx context.Context, what string, err error) {
	if text := what + err.Error(); text != f.said {
		f.log.WarnContext(ctx, "watch interrupted", "doing", what, "resource", f.resource, "err", err)
		f.said = text
	}
}

// list tells what exists and returns the version to watch from.
func (f *feed) list(ctx context.Context) (version string, err error) {
	opts := metav1.ListOptions{Limit: pageSize, FieldSelector: f.only}
	if f.exists == nil {
		opts.Limit = 1
	}
	for {
		page, err := f.objects.ListWithContext(ctx, opts)
		if err != nil {
			return "", explain(err)
		}
		position, err := meta.ListAccessor(page)
		if err != nil {
			return "", err
		}
		if f.exists == nil {
			return position.GetResourceVersion(), nil
		}
		if err := f.tell(ctx, page); err != nil {
			return "", err
		}
		if opts.Continue = position.GetContinue(); opts.Continue == "" {
			return position.GetResourceVersion(), nil
		}
	}
}

// explain says what to do about a list that fails.
func explain(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("listing: %w: are the custom resource definitions applied?", err)
	}
	return fmt.Errorf("listing: %w", err)
}

func (f *feed) tell(ctx context.Context, page runtime.Object) error {
	return meta.EachListItem(page, func(obj runtime.Object) error {
		if e, ok := f.exists(obj); ok {
			f.publish(ctx, e)
		}
		return ctx.Err()
	})
}

// wait lets time pass, and reports whether it waited to the end.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
