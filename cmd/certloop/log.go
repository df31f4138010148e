package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

// logging says how a command that runs on tells what it does, on stderr.
type logging struct {
	level  string
	format string
}

func (l *logging) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.level, "log-level", environment("CERTLOOP_LOG_LEVEL", "info"), "least `level` that is logged: debug, info, warn, error")
	cmd.Flags().StringVar(&l.format, "log-format", environment("CERTLOOP_LOG_FORMAT", "auto"), "`format` of the log: text, json, or auto: text on a terminal")
}

func environment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// logger makes the logger, and client-go's messages part of it.
func (l *logging) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, misused(fmt.Errorf("--log-level %s is not one of debug, info, warn, error", l.level))
	}
	log, err := newLogger(w, l.format, level)
	if err != nil {
		return nil, err
	}
	klog.SetSlogLogger(log.With("from", "client-go"))
	return log, nil
}

func newLogger(w io.Writer, format string, level slog.Level) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch {
	case format == "text", format == "auto" && isTerminal(w):
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case format == "json", format == "auto":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, misused(fmt.Errorf("--log-format %s is not one of text, json, auto", format))
	}
}
