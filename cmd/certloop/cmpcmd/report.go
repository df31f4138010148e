package cmpcmd

import (
	"fmt"
	"io"
)

// Levels of -verbosity.
const (
	levelError = 3
	levelWarn  = 4
	levelInfo  = 6
	levelDebug = 7
)

// reporter tells the user what goes on, in lines like those of openssl cmp. It
// is given nothing secret.
type reporter struct {
	to    io.Writer
	level int
}

func (r *reporter) say(level int, word, format string, args []any) {
	if level <= r.level {
		_, _ = fmt.Fprintf(r.to, "CMP %s: %s\n", word, fmt.Sprintf(format, args...))
	}
}

func (r *reporter) warn(format string, args ...any)  { r.say(levelWarn, "warning", format, args) }
func (r *reporter) info(format string, args ...any)  { r.say(levelInfo, "info", format, args) }
func (r *reporter) debug(format string, args ...any) { r.say(levelDebug, "debug", format, args) }
