package main

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// testDisplay writes to a string, 1.5 s after its start.
func testDisplay(out *strings.Builder, terminal bool) *display {
	began := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return &display{out: out, live: terminal, color: terminal, began: began, now: func() time.Time { return began.Add(1500 * time.Millisecond) }}
}

func TestDisplayWithoutATerminal(t *testing.T) {
	var out strings.Builder
	d := testDisplay(&out, false)
	d.title("Part")
	stop := d.await(func() string { return "something" })
	d.detail("demo/web", "ir → ip")
	d.done("web", "issued")
	stop()
	want := "\nPart\n" +
		"   1.50s  ·  demo/web         ir → ip\n" +
		"   1.50s  ✓  web              issued\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestDisplayKeepsTheAwaitedBelow(t *testing.T) {
	var out strings.Builder
	d := testDisplay(&out, true)
	d.color = false
	d.show("one")
	d.done("web", "issued")
	d.show("")
	d.done("web", "renewed")
	const awaited = "   1.50s  …  one"
	want := awaited + "\r\x1b[K" + "   1.50s  ✓  web              issued\n" +
		awaited + "\r\x1b[K" + "   1.50s  ✓  web              renewed\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestDisplayAwaits(t *testing.T) {
	var out strings.Builder
	d := testDisplay(&out, true)
	asked := make(chan string, 1000)
	outer := d.await(func() string { return "outer" })
	inner := d.await(func() string { asked <- "inner"; return "inner" })
	<-asked // drawn before, or about to be
	<-asked
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { d.detail("demo/web", "step") })
	}
	wg.Wait()
	d.mu.Lock()
	meanwhile := out.String()
	d.mu.Unlock()
	inner()
	outer()
	got := out.String()
	if n := strings.Count(got, "step"); n != 4 {
		t.Errorf("%d of 4 lines are there", n)
	}
	if strings.Contains(meanwhile, "outer") || !strings.Contains(meanwhile, "inner") {
		t.Errorf("what is awaited last was not shown first: %q", meanwhile)
	}
	if !strings.HasSuffix(got, "\r\x1b[K") || strings.Contains(got, "er"+reset+"\n") {
		t.Errorf("what was awaited is left on the screen: %q", got)
	}
}
