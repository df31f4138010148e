package rig

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// ResidentBytes is the memory of a process that is in RAM, from /proc.
func (p *Process) ResidentBytes(tb testing.TB) int64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		Missing(tb, err.Error())
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	tb.Fatal("/proc does not tell VmRSS")
	return 0
}

// CPU is the processor time a process has used so far, in ticks of 10 ms, from /proc.
func (p *Process) CPU(tb testing.TB) time.Duration {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		Missing(tb, err.Error())
	}
	// The name, in brackets, may hold anything; utime and stime are the 12th and 13th field behind it.
	_, fields, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')'):], []byte(" "))
	var state string
	var skip, user, system int64
	if _, err := fmt.Sscan(string(fields), &state, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system); err != nil {
		tb.Fatalf("/proc does not tell the time used: %v", err)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs
	return time.Duration(user+system) * tick
}
