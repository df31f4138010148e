package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

const (
	// etcdEndpoint is a Unix socket in the working directory, which only its
	// owner can enter: etcd itself asks nobody who they are.
	etcdEndpoint = "unix://etcd.sock"
	peerEndpoint = "unix://peer.sock"
	// advertised is where other members would be told to look; there are none.
	advertised = "http://127.0.0.1:1"

	etcdStartLimit = time.Minute
	etcdStopLimit  = 500 * time.Millisecond
)

// etcd is a running member of a cluster of one.
type etcd struct{ *embed.Etcd }

// startEtcd runs etcd on data in the working directory and waits until it has
// elected itself.
func startEtcd(ctx context.Context) (etcd, error) {
	cfg, err := etcdConfig()
	if err != nil {
		return etcd{}, err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return etcd{}, err
	}
	select {
	case <-e.Server.ReadyNotify():
		return etcd{e}, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(etcdStartLimit):
		err = fmt.Errorf("no leader after %v", etcdStartLimit)
	}
	etcd{e}.stop()
	return etcd{}, err
}

func etcdConfig() (*embed.Config, error) {
	client, err1 := url.Parse(etcdEndpoint)
	peer, err2 := url.Parse(peerEndpoint)
	nobody, err3 := url.Parse(advertised)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "kubeapi", "etcd"
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{*client}, []url.URL{*peer}
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = []url.URL{*nobody}, []url.URL{*nobody}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"etcd.log"}
	// Small clusters need not set 64 MB of disk aside.
	wal.SegmentSizeBytes = 4 << 20
	// Nothing here outlives the machine's power, only its processes.
	cfg.UnsafeNoFsync = true
	// A single member need not wait a second for other candidates.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	return cfg, nil
}

// stop ends etcd without draining its clients, which takes it seconds. What it
// has acknowledged is in its files.
func (e etcd) stop() {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		e.Server.HardStop()
	}()
	select {
	case <-stopped:
	case <-time.After(etcdStopLimit):
	}
}
