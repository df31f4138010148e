package monitoringtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Where there is not a single certificate, each scan and each sweep still tells that it has ended: what
// NATS's exporter reads of the server, which is what its endpoint /jsz answers, grows with each of them. On
// that the alert about silence rests. The streams and consumers are those that the rules name.
func TestScansAreHeard(t *testing.T) {
	w := rig.NewWorld(t)
	nats := startNATS(t)
	rig.OpenBus(t, nats.ClientURL()).ApplyStreams(t)
	for function, of := range map[string]struct{ consumer, tick string }{
		"expiry-scan":   {"scan", "scan: expiry"},
		"watch-secrets": {"watch", "scan: sweep"},
	} {
		_, url := rig.StartFunction(t, w, function, nats.ClientURL())
		for range 2 {
			before := seen(t, nats, model.EventsStream).State.LastSeq
			ping := rig.Event(t, model.Ping, w.Key(""), of.tick)
			if answer := rig.PostBinary(t, url, ping); answer.Status/100 != 2 {
				t.Fatalf("%s answers a tick with %d: %s", function, answer.Status, answer.Body)
			}
			rig.Eventually(t, rig.Patience, function+" is heard", func() error {
				if now := seen(t, nats, model.EventsStream).State.LastSeq; now <= before {
					return fmt.Errorf("the last sequence of the history is still %d", now)
				}
				return nil
			})
		}
		rig.Eventually(t, rig.Patience, "the consumer "+of.consumer, func() error {
			for _, c := range seen(t, nats, model.WorkStream).Consumer {
				if c.Name == of.consumer {
					return nil
				}
			}
			return errors.New("the server has none")
		})
	}
	if dead := seen(t, nats, model.DeadStream).State; dead.LastSeq != 0 {
		t.Errorf("%d dead letters of ticks", dead.LastSeq)
	}
}

func startNATS(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(rig.Patience) {
		t.Fatal("the NATS server does not start")
	}
	return s
}

// seen is a stream as the server's monitoring shows it, asked as NATS's exporter with -jsz=all asks.
func seen(t *testing.T, s *server.Server, stream string) server.StreamDetail {
	t.Helper()
	info, err := s.Jsz(&server.JSzOptions{Consumer: true, Config: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range info.AccountDetails {
		for _, one := range account.Streams {
			if one.Name == stream {
				return one
			}
		}
	}
	t.Fatalf("the server shows no stream %s", stream)
	return server.StreamDetail{}
}
