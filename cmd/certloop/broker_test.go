package main

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func openBroker(tb testing.TB, dir string) *broker {
	tb.Helper()
	b, err := startBroker(tb.Context(), dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func streamsOf(tb testing.TB, url string) jetstream.JetStream {
	tb.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

func TestBrokerIsTheSameAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	b := openBroker(t, dir)
	url := b.url()
	if _, err := streamsOf(t, url).CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b = openBroker(t, dir)
	defer b.stop()
	if got := b.url(); got != url {
		t.Errorf("came back at %s, was at %s", got, url)
	}
	if _, err := streamsOf(t, url).Stream(t.Context(), "S"); err != nil {
		t.Errorf("the stream is gone: %v", err)
	}
	if !strings.Contains(url, "127.0.0.1") {
		t.Errorf("listens at %s, not only on loopback", url)
	}
}

func TestBrokerGivesWayWhenItsFormerPortIsTaken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	b := openBroker(t, dir)
	b.stop()
	port := lastPort(t.Context(), filepath.Join(dir, portFile))
	taken, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		t.Skipf("somebody else has taken the port meanwhile: %v", err)
	}
	defer func() { _ = taken.Close() }()
	b = openBroker(t, dir)
	defer b.stop()
	if here := ":" + strconv.Itoa(port); strings.HasSuffix(b.url(), here) {
		t.Errorf("listens at %s, which was taken", b.url())
	}
	start := time.Now()
	_, err = startBroker(t.Context(), t.TempDir(), port, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "choose another one") || time.Since(start) > brokerReady/2 {
		t.Errorf("asked for a port that is taken: after %s, %v", time.Since(start), err)
	}
}

func TestBrokerPutsADamagedStoreAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	b := openBroker(t, dir)
	if _, err := streamsOf(t, b.url()).CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	meta := filepath.Join("$G", "streams", "S", "meta.inf")
	writeFile(t, filepath.Join(dir, "jetstream", meta), "\x00rubbish")

	b = openBroker(t, dir)
	defer b.stop()
	if _, err := streamsOf(t, b.url()).Stream(t.Context(), "S"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the stream is there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "jetstream.damaged", meta)); err != nil {
		t.Errorf("what was stored is not kept aside: %v", err)
	}
}

func TestWhatTheServerSaysIsBounded(t *testing.T) {
	got := printable("  a\x00b\n" + strings.Repeat("é", maxTroubleBytes))
	if len(got) > maxTroubleBytes || !strings.HasPrefix(got, "abé") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, %q", len(got), got)
	}
}
