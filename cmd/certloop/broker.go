package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	brokerReady = 30 * time.Second // to read back what is stored; 300,000 messages take about two
	portFile    = "port"           // in its directory: where it listened last
)

// broker is a nats-server with JetStream in this process, reached over loopback. It
// asks nobody for a password: whoever may open a connection on this machine may publish.
type broker struct{ server *server.Server }

// startBroker starts a broker that stores in dir. With port 0 it listens where it did
// the last time, or where it can.
func startBroker(ctx context.Context, dir string, port int, log *slog.Logger) (*broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("NATS store: %w", err)
	}
	picked, err := brokerPort(ctx, dir, port)
	if err != nil {
		return nil, err
	}
	trouble := &brokerLog{log: log}
	s, err := server.NewServer(&server.Options{
		ServerName: "certloop", Host: loopback, Port: picked,
		JetStream: true, StoreDir: dir, NoSigs: true,
	})
	if err != nil {
		return nil, fmt.Errorf("NATS: %w", err)
	}
	s.SetLoggerV2(trouble, false, false, false)
	s.Start()
	b := &broker{server: s}
	if !s.ReadyForConnections(brokerReady) {
		b.stop()
		return nil, fmt.Errorf("NATS does not start: %s: if what is stored in %s is damaged, move it away and start again: certificates and keys are in the cluster, only the history of events is lost", trouble.last(), dir)
	}
	return b, notePort(filepath.Join(dir, portFile), s.Addr().String())
}

func (b *broker) url() string { return b.server.ClientURL() }

// stop ends the broker; everything it accepted is stored.
func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// brokerPort is the port to listen on, server.RANDOM_PORT for any.
func brokerPort(ctx context.Context, dir string, port int) (int, error) {
	if port != 0 {
		if err := portFree(ctx, port); err != nil {
			return 0, fmt.Errorf("NATS: port %d of %s is taken: choose another one, or 0 for any: %w", port, loopback, err)
		}
		return port, nil
	}
	if last := lastPort(ctx, filepath.Join(dir, portFile)); last != 0 {
		return last, nil
	}
	return server.RANDOM_PORT, nil
}

// brokerLog is nats-server's log in ours.
type brokerLog struct {
	log *slog.Logger

	mu      sync.Mutex
	trouble string // the last error
}

func (l *brokerLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trouble == "" {
		return "no answer within " + brokerReady.String()
	}
	return l.trouble
}

func (l *brokerLog) say(level slog.Level, format string, args []any) {
	text := fmt.Sprintf(format, args...)
	if level >= slog.LevelError {
		l.mu.Lock()
		l.trouble = text
		l.mu.Unlock()
	}
	l.log.Log(context.Background(), level, "nats-server", "text", text)
}

// Noticef implements server.Logger.
func (l *brokerLog) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }

// Warnf implements server.Logger.
func (l *brokerLog) Warnf(format string, args ...any) { l.say(slog.LevelWarn, format, args) }

// Errorf implements server.Logger.
func (l *brokerLog) Errorf(format string, args ...any) { l.say(slog.LevelError, format, args) }

// Fatalf implements server.Logger. The server has given up; this process decides itself.
func (l *brokerLog) Fatalf(format string, args ...any) { l.say(slog.LevelError, format, args) }

// Debugf implements server.Logger.
func (*brokerLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (*brokerLog) Tracef(string, ...any) {}
