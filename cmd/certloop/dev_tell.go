package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// epilogue shows the certificates, and what to try next.
func (d *demo) epilogue(ctx context.Context) error {
	certs, err := list(ctx, d.store, d.options.namespace)
	if err != nil {
		return err
	}
	err = d.show.table(func(w io.Writer) error {
		return table{color: d.show.color, namespace: true, now: time.Now()}.print(w, certs)
	})
	when := "Try next:"
	if d.options.once {
		when = "All of it was seen to work. Try next, with `certloop dev` running:"
	}
	d.show.title(when)
	for _, command := range d.nextCommands() {
		d.show.plain("  " + command)
	}
	return err
}

func (d *demo) nextCommands() []string {
	return []string{
		d.kubectl() + " get cmpissuers,cmpcertificates,secrets",
		d.kubectl() + " delete secret " + demoWeb + "-tls   # and look again: it is back",
		d.kubectl() + " get secret " + demoWeb + `-tls -o jsonpath='{.data.tls\.crt}' | base64 -d | openssl x509 -noout -text`,
		"certloop history " + demoWeb + " -n " + d.options.namespace + " --nats-url " + d.system.Config.NATSURL + "   # all that happened to it",
	}
}

// trace shows a step of the functions.
func (d *demo) trace(s lifecycle.Step) {
	if s.Name == "exchange" {
		d.mu.Lock()
		d.asked[s.Certificate.String()] = append(d.asked[s.Certificate.String()], s.Detail)
		d.mu.Unlock()
	}
	d.show.detail(s.Certificate.Name, fmt.Sprintf("%-42s %5d ms", inWords(s), s.Took.Milliseconds()))
}

// exchanges are the messages sent to the CA for a certificate and their answers.
func (d *demo) exchanges(name string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.asked[d.key(name).String()])
}

// inWords says what a step of an attempt does.
func inWords(s lifecycle.Step) string {
	switch s.Name {
	case "claim":
		return "key and transaction stored"
	case "exchange":
		return s.Detail
	case "stage":
		return "certificate stored, not yet confirmed"
	case "promote":
		return "certificate in use"
	case "project":
		return "Secret " + s.Detail + " written"
	case "report":
		return strings.TrimSpace("status written " + s.Detail)
	default:
		return strings.TrimSpace(s.Name + " " + s.Detail)
	}
}

// tell shows a fact that the functions told.
func (d *demo) tell(e event.Event) {
	key, err := model.ParseKey(e.Subject())
	if err != nil || strings.Contains(e.Type(), ".config.created") || strings.Contains(e.Type(), ".issuer.") {
		return
	}
	var why struct {
		Reason string `json:"reason"`
		Cause  string `json:"cause"`
	}
	_ = e.DataAs(&why) // absent data say nothing more
	text := short(e.Type())
	if more := why.Reason + why.Cause; more != "" {
		text += ": " + more
	}
	d.show.line("»", gray, key.Name, text)
}

// short is an event type without what is the same in all of ours.
func short(eventType string) string {
	if own, ok := strings.CutPrefix(eventType, "io.certloop."); ok {
		return strings.TrimSuffix(own, ".v1")
	}
	return eventType
}
