package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/certloop/certloop/pkg/model"
)

// Limits of the streams.
const (
	duplicateWindow = 10 * time.Minute
	keepHistory     = 90 * 24 * time.Hour
	maxMessageBytes = 2 * model.MaxEventBytes // an event and what transports and dead letters add to it
	maxDeadBytes    = 64 << 20                // anyone who may POST can write dead letters: the oldest go first
)

// Apply creates the three streams, or brings existing ones to what this version
// needs; applying twice changes nothing. replicas is 1 or, for a cluster of NATS
// servers, 3 or 5. It needs nats-server 2.12 or later, for message schedules.
func Apply(ctx context.Context, js jetstream.JetStream, replicas int) error {
	var errs []error
	for _, config := range streams(replicas) {
		if err := applyStream(ctx, js, config); err != nil {
			errs = append(errs, fmt.Errorf("stream %s: %w", config.Name, err))
		}
	}
	return errors.Join(errs...)
}

func applyStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	stream, err := js.CreateOrUpdateStream(ctx, config)
	if err != nil {
		return err
	}
	// An old server ignores what it does not know, and delayed work would stay for ever.
	if config.AllowMsgSchedules && !stream.CachedInfo().Config.AllowMsgSchedules {
		return errors.New("the server knows no message schedules: nats-server 2.12 or later is needed")
	}
	return nil
}

func streams(replicas int) []jetstream.StreamConfig {
	work := jetstream.StreamConfig{
		Name:        model.WorkStream,
		Description: "work of the certloop functions, and work that is due later",
		// A schedule must live in the stream of its target.
		Subjects:  []string{model.WorkSubjects, model.ScheduleSubjects},
		Retention: jetstream.WorkQueuePolicy,
		// No limit on age, count or bytes, so that nothing is ever discarded: the
		// server refuses DiscardNew together with schedules. What bounds the stream
		// is the server's own store limit, at which publishing fails.
		Discard:           jetstream.DiscardOld,
		AllowMsgSchedules: true,
		AllowMsgTTL:       true,
		AllowRollup:       true,
	}
	events := jetstream.StreamConfig{
		Name:        model.EventsStream,
		Description: "history: every fact certloop has told",
		Subjects:    []string{model.FactSubjects},
		MaxAge:      keepHistory,
		Compression: jetstream.S2Compression,
		DenyDelete:  true,
	}
	dead := jetstream.StreamConfig{
		Name:        model.DeadStream,
		Description: "events that will never be handled, each with its reason",
		Subjects:    []string{model.DeadSubjects},
		MaxAge:      keepHistory,
		MaxBytes:    maxDeadBytes,
		Compression: jetstream.S2Compression,
	}
	all := []jetstream.StreamConfig{work, events, dead}
	for i := range all {
		all[i].Storage = jetstream.FileStorage
		all[i].Replicas = replicas
		all[i].Duplicates = duplicateWindow
		all[i].MaxMsgSize = maxMessageBytes
	}
	return all
}
