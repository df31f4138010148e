package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

// Outcomes of what was published, besides "stored" and "accepted". The last three are final.
const (
	isApplied  = "applied" // it is in the cluster
	isWaiting  = "waiting" // an attempt failed or could not begin; it is repeated
	isReady    = "ready"
	isRejected = "rejected"
	isParked   = "parked" // it is not repeated until somebody changes something
)

// standing is how what was declared stands.
type standing struct {
	Outcome     string                 `json:"outcome"`
	Reason      string                 `json:"reason,omitempty"` // see docs/reasons.md
	Message     string                 `json:"message,omitempty"`
	Fields      []string               `json:"fields,omitempty"` // what is wrong with the configuration, one by one
	NextAttempt *metav1.Time           `json:"nextAttempt,omitempty"`
	Generation  int64                  `json:"generation,omitempty"` // that the declaration became
	Certificate *model.CertificateFact `json:"certificate,omitempty"`
}

// result is what publish reports of one event.
type result struct {
	Type    string `json:"type"`
	Subject string `json:"subject"`
	ID      string `json:"id"`
	standing
}

// about is what a fact speaks of.
type about int

const (
	aboutNothing about = iota // that matters here
	aboutCertificate
	aboutIssuer
	aboutRejection // of either
)

// standingIn reads a fact.
func standingIn(fact event.Event) (standing, about) {
	switch fact.Type() {
	case model.ConfigRejected:
		var f model.RejectedFact
		_ = fact.DataAs(&f) // what cannot be read is rejected all the same
		return standing{Outcome: isRejected, Reason: f.Reason, Message: f.Message, Fields: f.Fields}, aboutRejection
	case model.ConfigApplied:
		var f model.ChangeFact
		if fact.DataAs(&f) != nil {
			return standing{}, aboutNothing
		}
		return standing{Outcome: isApplied, Message: effectText(f), Generation: f.Generation}, aboutCertificate
	case model.CertificateIssued, model.CertificateRenewed, model.CertificateAdopted, model.CertificateRestored, model.CertificateReady:
		var f model.CertificateFact
		if fact.DataAs(&f) != nil {
			return standing{}, aboutNothing
		}
		return standing{Outcome: isReady, Generation: f.Generation, Certificate: &f}, aboutCertificate
	case model.CertificateWaiting, model.CertificateFailed, model.CertificateParked:
		return attemptStanding(fact)
	case model.CertificateEnded:
		return standing{Outcome: isParked, Reason: "Ended", Message: "the configuration was withdrawn"}, aboutCertificate
	case model.IssuerReady, model.IssuerFailed, model.IssuerUnavailable:
		return issuerStanding(fact)
	default:
		return standing{}, aboutNothing
	}
}

func attemptStanding(fact event.Event) (standing, about) {
	var f model.AttemptFact
	if fact.DataAs(&f) != nil {
		return standing{}, aboutNothing
	}
	s := standing{Outcome: isWaiting, Reason: f.Reason, Message: f.Message, NextAttempt: f.NextAttempt, Generation: f.Generation}
	if fact.Type() == model.CertificateParked {
		s.Outcome = isParked
	}
	return s, aboutCertificate
}

func issuerStanding(fact event.Event) (standing, about) {
	var f model.IssuerFact
	if fact.DataAs(&f) != nil {
		return standing{}, aboutNothing
	}
	s := standing{Outcome: isWaiting, Reason: f.Reason, Message: f.Message, Generation: f.Generation}
	if fact.Type() == model.IssuerReady {
		s.Outcome = isReady
	}
	return s, aboutIssuer
}

func effectText(f model.ChangeFact) string {
	text := map[string]string{
		model.EffectReissue:     "a certificate is obtained",
		model.EffectNextRenewal: "the next renewal follows it",
		model.EffectOutput:      "the output is written again",
		model.EffectNone:        "nothing else changes",
	}[f.Effect]
	if len(f.Fields) > 0 {
		text += " (" + strings.Join(f.Fields, ", ") + ")"
	}
	return text
}

// text is a standing in one line for people.
func (s standing) text(now time.Time) string {
	parts := []string{s.Outcome}
	if s.Reason != "" {
		parts[0] += ": " + s.Reason
	}
	if s.Message != "" {
		parts[0] += ": " + oneLine(s.Message)
	}
	if c := s.Certificate; c != nil {
		parts = append(parts, fmt.Sprintf("Secret %s, serial %s, until %s", c.SecretName, c.Serial, c.NotAfter.UTC().Format(time.RFC3339)))
	}
	if s.NextAttempt != nil && s.NextAttempt.After(now) {
		parts = append(parts, "again at "+s.NextAttempt.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, "; ")
}

func (p *pursuit) results() []result {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []result{}
	for _, a := range p.aims {
		if a.Outcome != "" {
			all = append(all, a.result)
		}
	}
	return all
}

// printResults writes the result of publish.
func printResults(t *terminal, format string, all []result) error {
	switch format {
	case formatJSON, formatYAML:
		return printDocument(t.out, format, all)
	case formatName:
		for _, r := range all {
			if _, err := fmt.Fprintf(t.out, "%s/%s\n", r.kind(), r.Subject[strings.IndexByte(r.Subject, '/')+1:]); err != nil {
				return err
			}
		}
		return nil
	default:
		return printResultTable(t.out, all, format == formatWide, t.colors())
	}
}

// kind is the resource that an event is about, as kubectl names it.
func (r result) kind() string {
	kind := model.CertificateKind
	switch {
	case !strings.HasPrefix(r.Type, "io.certloop.issuer."):
	case strings.HasPrefix(r.Subject, "/"):
		kind = model.ClusterIssuerKind
	default:
		kind = model.IssuerKind
	}
	return strings.ToLower(kind) + "." + model.GroupVersion.Group
}

func printResultTable(w io.Writer, all []result, wide, color bool) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	row := func(paint string, cells ...string) {
		if color {
			cells[0] = paint + cells[0] + plain
		}
		if !wide {
			cells = cells[:5]
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")) // Flush says
	}
	now := time.Now()
	row(plain, "OUTCOME", "OBJECT", "SECRET", "EXPIRES", "REASON", "EVENT", "ID", "SERIAL", "MESSAGE")
	for _, r := range all {
		c := model.CertificateFact{}
		expires := "-"
		if r.Certificate != nil {
			c = *r.Certificate
			expires = table{now: now}.until(&c.NotAfter, "expired")
		}
		row(outcomeColor(r.Outcome), r.Outcome, r.Subject, orDash(c.SecretName), expires, orDash(r.Reason), r.Type, r.ID, orDash(c.Serial), orDash(oneLine(r.Message)))
	}
	return tw.Flush()
}

func outcomeColor(outcome string) string {
	switch outcome {
	case isReady:
		return green
	case isRejected, isParked:
		return red
	default:
		return yellow
	}
}
