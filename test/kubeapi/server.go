package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/certloop/certloop/test/kubeapi/internal/state"
)

// server is what the command line asks for.
type server struct {
	dir         string
	port        int
	controllers bool
	services    services
	extra       []string // flags for kube-apiserver
}

// run serves until ctx ends, which is success, or a part fails. It calls ready
// once, with the path of the kubeconfig.
//
// It does not wait for kube-apiserver, whose graceful end takes a minute while
// its own watches are open: the caller is expected to exit.
func (s *server) run(ctx context.Context, ready func(kubeconfig string)) (err error) {
	dir, err := state.Open(s.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	// From inside the directory the paths of etcd's sockets are short enough,
	// however long its own is: about 100 bytes are allowed.
	if err := os.Chdir(dir.Path("")); err != nil {
		return err
	}
	etcd, err := startEtcd(ctx)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer etcd.stop()
	listener, err := dir.Listen(ctx, s.port)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- serve(ctx, listener, s.services, s.extra) }()
	go func() { failed <- s.operate(ctx, dir, listener.Addr(), ready) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// operate waits for the API server, announces it and runs its controllers.
func (s *server) operate(ctx context.Context, dir *state.Dir, addr net.Addr, ready func(kubeconfig string)) error {
	kubeconfig := dir.Kubeconfig(addr)
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return err
	}
	cfg.QPS = -1 // nobody to be protected from: this is the server's own process
	if err := waitReady(ctx, cfg); err != nil {
		return fmt.Errorf("waiting for kube-apiserver: %w", err)
	}
	run, err := s.newController(ctx, cfg)
	if err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	path, err := dir.WriteKubeconfig(kubeconfig)
	if err != nil {
		return err
	}
	ready(path)
	return run(ctx)
}

// newController returns what is to run beside the API server until its context ends.
func (s *server) newController(ctx context.Context, cfg *rest.Config) (func(context.Context) error, error) {
	if s.controllers {
		return newControllers(ctx, cfg)
	}
	return func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}, nil
}
