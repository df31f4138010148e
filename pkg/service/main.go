package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// Exit codes.
const (
	exitDrained = 0
	exitFailed  = 1
	exitUsage   = 2 // flags or configuration are wrong
)

// Main runs a function as a process and exits: with 0 after draining, 1 when it
// failed, 2 when flags or environment are wrong.
func Main(f Function) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal finds its default again.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, f, os.Args[1:], os.Stdout, os.Stderr))
}

func execute(ctx context.Context, f Function, args []string, stdout, stderr io.Writer) int {
	if code, done := options(f, args, stdout, stderr); done {
		return code
	}
	config, err := FromEnvironment()
	if err != nil {
		return misused(f, stderr, err)
	}
	env, err := Connect(ctx, config, newLogger(config, stderr))
	if err != nil {
		return misused(f, stderr, err)
	}
	defer env.Close()
	if err := Run(ctx, env, nil, f); err != nil {
		env.Log.ErrorContext(ctx, "ended", "err", err)
		return exitFailed
	}
	return exitDrained
}

// options reads the command line, which can only ask for information.
func options(f Function, args []string, stdout, stderr io.Writer) (code int, done bool) {
	flags := flag.NewFlagSet(f.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "print the version")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return usage(f, stdout), true
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		return misused(f, stderr, fmt.Errorf("%w; try --help", err)), true
	}
	if *showVersion {
		_, _ = fmt.Fprintln(stdout, f.Name, version())
		return exitDrained, true
	}
	return 0, false
}

func usage(f Function, w io.Writer) int {
	_, _ = fmt.Fprintf(w, "%[1]s is a function of certloop: it receives CloudEvents over HTTP and from NATS\nJetStream.\n\nusage: %[1]s [--help | --version]\n\nIt is configured by environment variables (name, default, meaning):\n\n", f.Name)
	if err := describe(w); err != nil {
		return exitFailed
	}
	return exitDrained
}

func misused(f Function, stderr io.Writer, err error) int {
	for line := range strings.Lines(err.Error() + "\n") {
		_, _ = fmt.Fprintf(stderr, "%s: %s", f.Name, line)
	}
	return exitUsage
}

func newLogger(c Config, w io.Writer) *slog.Logger {
	if c.LogFormat == "text" || c.LogFormat == "auto" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: c.LogLevel}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: seconds}))
}

// seconds writes durations as a number of seconds; slog's own are nanoseconds.
func seconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// version is that of the module, or of the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
