package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/certloop/certloop/pkg/model"
)

// Hay is a place in which a key must not be.
type Hay struct {
	Where string
	Data  []byte
}

// Files are the files in a directory and below.
func Files(tb testing.TB, dir string) (hays []Hay) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path) //nolint:gosec // the test's own directory
		hays = append(hays, Hay{path, data})
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return hays
}

// Resource is an object as the API server shows it.
func Resource(tb testing.TB, name string, object any) Hay {
	tb.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		tb.Fatal(err)
	}
	return Hay{name, text}
}

// Tapped are messages as [Bus.Tap] kept them.
func Tapped(messages []*nats.Msg) (hays []Hay) {
	for i, m := range messages {
		hays = append(hays, Hay{fmt.Sprintf("published message %d on %s", i+1, m.Subject), flat(m.Header, m.Data)})
	}
	return hays
}

// Stored is what the three streams hold.
func (b *Bus) Stored(tb testing.TB) (hays []Hay) {
	tb.Helper()
	for _, stream := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		for _, m := range b.Messages(tb, stream, "certloop.>") {
			hays = append(hays, Hay{fmt.Sprintf("message %d of %s on %s", m.Sequence, stream, m.Subject), flat(m.Header, m.Data)})
		}
	}
	return hays
}

func flat(header nats.Header, data []byte) []byte {
	return fmt.Appendf(nil, "%q\n%s", header, data)
}

// CheckAbsent searches every hay for every form of every key, and fails the test for
// each that it finds. It says how much it has searched. That the search finds a key where
// one is, it tries first.
func (k *Keys) CheckAbsent(tb testing.TB, hays []Hay) string {
	tb.Helper()
	needles := k.Needles(tb)
	sought := newSearch(needles)
	for _, n := range needles {
		if len(sought.in(n.Example())) == 0 {
			tb.Errorf("a search does not find the key that was %s (%s) in its own example", n.Key, n.Form)
		}
	}
	if found := sought.in([]byte(`{"level":"INFO","key":"none","certificate":"MIIBszCCAVmgAwIBAgIUQmFzZTY0"}`)); len(found) > 0 {
		tb.Errorf("a search finds the key that was %s where none is", found[0].Key)
	}
	size := 0
	for _, h := range hays {
		size += len(h.Data)
		for _, n := range sought.in(h.Data) {
			tb.Errorf("%s holds the key that was %s (%s)", h.Where, n.Key, n.Form)
		}
	}
	return fmt.Sprintf("%d keys in %d forms, searched for in %d places, %d bytes", k.Len(), len(needles), len(hays), size)
}

// search finds many needles in one pass. Needles differ most at their ends, so it knows
// them by their last bytes.
type search map[uint64][]Needle

func newSearch(needles []Needle) search {
	s := search{}
	for _, n := range needles {
		var tail uint64
		for _, b := range n.text {
			tail = shift(tail, b)
		}
		s[tail] = append(s[tail], n)
	}
	return s
}

// shift takes one more byte to the last eight.
func shift(tail uint64, b byte) uint64 { return tail<<8 | uint64(b) }

func (s search) in(hay []byte) (found []Needle) {
	var tail uint64
	for i, b := range hay {
		tail = shift(tail, b)
		for _, n := range s[tail] {
			if bytes.HasSuffix(hay[:i+1], n.text) {
				found = append(found, n)
			}
		}
	}
	return found
}
