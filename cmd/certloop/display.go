package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// How often a line about something under way is drawn anew, or, where nothing can be
// erased, written again.
const (
	refreshEvery = 200 * time.Millisecond
	repeatEvery  = 10 * time.Second
)

// bold differs from the colours: it is never within a table.
const (
	bold  = "\x1b[1m"
	faint = "\x1b[2m"
	reset = "\x1b[0m"
)

// display tells a demonstration live: one line for each thing that happened, with the
// time since the start, and on a terminal below them one that says what is awaited. It
// is safe for concurrent use.
type display struct {
	out   io.Writer
	color bool
	live  bool // out can erase what it shows
	began time.Time
	now   func() time.Time

	mu      sync.Mutex
	awaited []*func() string // the last one matters
	waiting string           // drawn below the last line
}

func newDisplay(t *terminal) *display {
	return &display{out: t.out, color: t.colors(), live: t.interactive(), began: time.Now(), now: time.Now}
}

// title begins a part of the demonstration.
func (d *display) title(text string) { d.print("\n" + d.paint(bold, text)) }

// line is one thing that happened.
func (d *display) line(mark, color, subject, text string) {
	d.print(fmt.Sprintf("%7.2fs  %s  %-16s %s", d.since().Seconds(), d.paint(color, mark), subject, text))
}

// done is something that was seen to work.
func (d *display) done(subject, text string) { d.line("✓", green, subject, text) }

// failed is something that was not.
func (d *display) failed(subject, text string) { d.line("✗", red, subject, text) }

// act is something we do.
func (d *display) act(subject, text string) { d.line("→", yellow, subject, text) }

// detail is a step of the system on its own.
func (d *display) detail(subject, text string) { d.line("·", gray, subject, d.paint(faint, text)) }

// plain is text without a time.
func (d *display) plain(text string) { d.print(text) }

// table is the output of print, set apart.
func (d *display) table(print func(io.Writer) error) error {
	var b strings.Builder
	err := print(&b)
	d.print("\n" + strings.TrimSuffix(b.String(), "\n"))
	return err
}

func (d *display) since() time.Duration { return d.now().Sub(d.began) }

func (d *display) paint(color, text string) string {
	if !d.color {
		return text
	}
	return color + text + reset
}

func (d *display) print(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	_, _ = fmt.Fprintln(d.out, text)
	d.draw()
}

// erase and draw need the lock.
func (d *display) erase() {
	if d.live && d.waiting != "" {
		_, _ = io.WriteString(d.out, "\r\x1b[K")
	}
}

func (d *display) draw() {
	if d.live && d.waiting != "" {
		_, _ = io.WriteString(d.out, d.paint(faint, fmt.Sprintf("%7.2fs  …  %s", d.since().Seconds(), d.waiting)))
	}
}

// await says what is awaited until stop is called: on a terminal all the time, else
// now and then. What is awaited meanwhile, by another await, comes first.
func (d *display) await(what func() string) (stop func()) {
	d.mu.Lock()
	d.awaited = append(d.awaited, &what)
	d.mu.Unlock()
	every := repeatEvery
	if d.live {
		every = refreshEvery
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.remind(&what)
			case <-end:
				return
			}
		}
	})
	return func() { close(end); wg.Wait(); d.forget(&what) }
}

func (d *display) remind(what *func() string) {
	d.mu.Lock()
	last := len(d.awaited) > 0 && d.awaited[len(d.awaited)-1] == what
	d.mu.Unlock()
	switch {
	case !last:
	case d.live:
		d.show((*what)())
	default:
		d.line("…", gray, "", (*what)())
	}
}

func (d *display) forget(what *func() string) {
	d.mu.Lock()
	d.awaited = slices.DeleteFunc(d.awaited, func(other *func() string) bool { return other == what })
	d.mu.Unlock()
	d.show("")
}

func (d *display) show(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	d.waiting = text
	d.draw()
}
