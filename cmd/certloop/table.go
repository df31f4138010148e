package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/certloop/certloop/pkg/model"
)

// table prints certificates for people, one line each.
type table struct {
	color     bool
	wide      bool
	namespace bool // a column for it
	now       time.Time
}

// Colours. All are of the same length, so that columns stay aligned.
const (
	plain  = "\x1b[39m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	gray   = "\x1b[90m"
)

func (t table) print(w io.Writer, certs []model.CMPCertificate) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	t.line(tw, t.header(), plain)
	for i := range certs {
		t.line(tw, t.row(&certs[i]), readyColor(&certs[i]))
	}
	return tw.Flush()
}

// line writes one row. Its READY cell is coloured. A tabwriter reports errors in Flush.
func (t table) line(w io.Writer, cells []string, color string) {
	if t.color {
		i := 1
		if t.namespace {
			i++
		}
		cells[i] = color + cells[i] + plain
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func (t table) header() []string {
	cells := []string{"NAME", "READY", "REASON", "SECRET", "EXPIRES", "RENEWAL", "REV"}
	if t.wide {
		cells = append(cells, "ISSUER", "SERIAL", "MESSAGE")
	}
	return t.withNamespace("NAMESPACE", cells)
}

func (t table) row(c *model.CMPCertificate) []string {
	ready := readyOf(c)
	cells := []string{
		c.Name, string(ready.Status), ready.Reason, c.Spec.Output.SecretName,
		t.until(c.Status.NotAfter, "expired"), t.until(c.Status.RenewalTime, "due"),
		strconv.FormatInt(c.Status.Revision, 10),
	}
	if t.wide {
		cells = append(cells, c.Spec.IssuerRef.Name, orDash(c.Status.Serial), oneLine(ready.Message))
	}
	return t.withNamespace(c.Namespace, cells)
}

func (t table) withNamespace(ns string, cells []string) []string {
	if t.namespace {
		return append([]string{ns}, cells...)
	}
	return cells
}

func readyOf(c *model.CMPCertificate) metav1.Condition {
	if ready := meta.FindStatusCondition(c.Status.Conditions, model.Ready); ready != nil {
		return *ready
	}
	return metav1.Condition{Status: metav1.ConditionUnknown, Reason: "NotSeen", Message: "certloop has not looked at it yet"}
}

func readyColor(c *model.CMPCertificate) string {
	switch {
	case meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready):
		return green
	case meta.IsStatusConditionTrue(c.Status.Conditions, model.Stalled):
		return red
	default:
		return yellow
	}
}

// until is the time to a moment, or how long ago it was.
func (t table) until(moment *metav1.Time, passed string) string {
	switch {
	case moment == nil:
		return "-"
	case moment.After(t.now):
		return "in " + duration.HumanDuration(moment.Sub(t.now))
	default:
		return passed + " " + duration.HumanDuration(t.now.Sub(moment.Time)) + " ago"
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// oneLine keeps what others wrote from breaking the table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
