// Command kubeapi is a Kubernetes API server for tests and demonstrations:
// kube-apiserver, the etcd it stores to and the controllers that a cluster
// without nodes still needs, in one process that only loopback reaches.
//
//	kubeapi -dir DIR [flags] [-- kube-apiserver flags]
//
// When everything works it prints one line to standard output:
//
//	READY 2.31 kubeconfig=/abs/DIR/kubeconfig
//
// SIGTERM or SIGINT ends it at once. A start on the same directory, after any
// kind of end, is the same server again: data, port, kubeconfig and tokens.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	started := time.Now()
	var s server
	flag.StringVar(&s.dir, "dir", "", "state directory (required)")
	flag.IntVar(&s.port, "port", 0, "HTTPS port; 0 takes that of the last start on this directory, or picks one")
	flag.BoolVar(&s.controllers, "controllers", true, "run the garbage collection, namespace and service account controllers")
	flag.Var(&s.services, "service", "namespace/name=host:port: where a webhook's service is reached (repeatable; default 127.0.0.1 and the service's port)")
	stdin := flag.Bool("stop-on-stdin-eof", false, "end when standard input does, so that no server outlives whoever holds the other end of the pipe")
	flag.Parse()
	s.extra = flag.Args()
	if s.dir == "" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if *stdin {
		ctx = untilEOF(ctx, os.Stdin)
	}
	err := s.run(ctx, func(kubeconfig string) {
		fmt.Printf("READY %.2f kubeconfig=%s\n", time.Since(started).Seconds(), kubeconfig)
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "kubeapi:", err)
		os.Exit(1)
	}
}

// untilEOF is ctx, cancelled when r has nothing more to say.
func untilEOF(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process: a read of a pipe cannot be interrupted
		defer cancel()
		_, _ = io.Copy(io.Discard, r)
	}()
	return ctx
}
