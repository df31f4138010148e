// Command certloop runs and operates certloop: the four functions in one process, a
// demonstration of all of it on one machine, a small CA, and what an operator asks.
//
// It exits with 0 when what was asked is done, 1 when it failed, and 2 when the
// command line, the environment or a file it names is wrong; publish and netpol
// audit have more.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRejected    = 3   // publish: what was declared is refused
	exitParked      = 4   // publish: nothing happens until somebody changes something
	exitTimedOut    = 5   // publish: not ready in time
	exitInterrupted = 130 // publish: as a shell reports SIGINT
)

func main() {
	c := newCommandLine(os.Args[1:], os.Stdout, os.Stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	code := c.execute(ctx)
	stop()
	os.Exit(code)
}

// commandLine is what was asked, and where the answer goes.
type commandLine struct {
	terminal *terminal
	root     *cobra.Command
}

func newCommandLine(args []string, stdout, stderr io.Writer) *commandLine {
	t := &terminal{out: stdout, err: stderr}
	root := newRoot(t)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return &commandLine{t, root}
}

// execute does what was asked and returns the exit code.
func (c *commandLine) execute(ctx context.Context) int {
	cmd, err := c.root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintf(c.terminal.err, "certloop: %v\n", err)
	if _, misuse := errors.AsType[*usageError](err); misuse || !c.terminal.began {
		_, _ = fmt.Fprintf(c.terminal.err, "See '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	if end, ok := errors.AsType[*exitError](err); ok {
		return end.code
	}
	return exitFailed
}

// exitError is an end that has an exit code of its own.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// usageError is a command line, environment or input file that cannot be right.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// misused marks err as the user's to correct; nil stays nil.
func misused(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}
