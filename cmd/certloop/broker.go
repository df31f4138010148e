package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

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
//
// A store that cannot be read is put aside and a new one begun: what certloop must not
// lose is in the cluster, and a scan finds all work again. The history of events stays
// in the directory jetstream.damaged.
func startBroker(ctx context.Context, dir string, port int, log *slog.Logger) (*broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("NATS store: %w", err)
	}
	picked, err := brokerPort(ctx, dir, port)
	if err != nil {
		return nil, err
	}
	b, err := launchBroker(dir, picked, log)
	if damage, ok := errors.AsType[*damagedError](err); ok {
		log.ErrorContext(ctx, "the store of NATS cannot be read: it is put aside and a new one begun", "store", dir, "err", damage.text)
		if err := putAside(dir); err != nil {
			return nil, err
		}
		b, err = launchBroker(dir, picked, log)
	}
	if err != nil {
		return nil, fmt.Errorf("NATS in %s: %w", dir, err)
	}
	return b, notePort(filepath.Join(dir, portFile), b.server.Addr().String())
}

func launchBroker(dir string, port int, log *slog.Logger) (*broker, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "certloop", Host: loopback, Port: port,
		JetStream: true, StoreDir: dir, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	heard := &brokerLog{log: log}
	s.SetLoggerV2(heard, false, false, false)
	s.Start()
	b := &broker{server: s}
	if err := heard.verdict(s.ReadyForConnections(brokerReady)); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// damagedError is a store that cannot be read.
type damagedError struct{ text string }

func (e *damagedError) Error() string { return e.text }

func putAside(dir string) error {
	store := filepath.Join(dir, "jetstream")
	aside := store + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	return os.Rename(store, aside)
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

// maxTroubleBytes bounds what the server says of its trouble; it may repeat what it read.
const maxTroubleBytes = 240

// brokerLog is nats-server's log in ours.
type brokerLog struct {
	log *slog.Logger

	mu      sync.Mutex
	trouble string // the last error
	damage  string // what is stored and cannot be read
}

// verdict is nil when the server can be used. It passes over streams that it cannot
// read and would go on without them; we do not.
func (l *brokerLog) verdict(ready bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.damage != "":
		return &damagedError{l.damage}
	case ready:
		return nil
	case l.trouble != "":
		return errors.New(l.trouble)
	default:
		return fmt.Errorf("no answer within %s", brokerReady)
	}
}

// Warnf implements server.Logger.
func (l *brokerLog) Warnf(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	if tellsDamage(text) {
		l.mu.Lock()
		l.damage = text
		l.mu.Unlock()
	}
	l.log.Warn("nats-server", "text", text)
}

// Errorf implements server.Logger.
func (l *brokerLog) Errorf(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	l.mu.Lock()
	l.trouble = text
	l.mu.Unlock()
	l.log.Error("nats-server", "text", text)
}

// Fatalf implements server.Logger. The server has given up; this process decides itself.
func (l *brokerLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }

// tellsDamage knows the warnings of a stream that is passed over. One whose file is
// missing was only about to be made when the process ended.
func tellsDamage(text string) bool {
	return strings.Contains(text, "checksums do not match") || strings.HasPrefix(text, "Error unmarshalling") || strings.HasPrefix(text, "Error recreating stream")
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(strings.TrimSpace(s), ""))
	return strings.ToValidUTF8(s[:min(len(s), maxTroubleBytes)], "")
}

// Noticef implements server.Logger.
func (l *brokerLog) Noticef(format string, args ...any) {
	l.log.Debug("nats-server", "text", printable(fmt.Sprintf(format, args...)))
}

// Debugf implements server.Logger.
func (*brokerLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (*brokerLog) Tracef(string, ...any) {}
