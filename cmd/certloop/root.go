package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certloop/certloop/cmd/certloop/cmpcmd"
)

// terminal is where a command writes.
type terminal struct {
	out, err io.Writer
	noColor  bool // --no-color
	began    bool // the command line was understood
}

// colors tells whether what is written to out may be coloured.
func (t *terminal) colors() bool {
	return !t.noColor && os.Getenv("NO_COLOR") == "" && t.interactive()
}

// interactive tells whether a person looks at out, on something that can move its cursor.
func (t *terminal) interactive() bool { return os.Getenv("TERM") != "dumb" && isTerminal(t.out) }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newRoot(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certloop",
		Short: "Keep the certificates of Kubernetes workloads issued, stored, watched and renewed",
		Long: `certloop keeps the X.509 certificates of Kubernetes workloads issued, stored, watched
and renewed, from CAs that speak CMPv2.

Exit codes: 0 done, 1 failed, 2 wrong command line, environment or input file; publish
and netpol audit have more.`,
		Example: `  certloop dev            # see all of it work on this machine
  certloop get -A         # the certificates of a cluster
  certloop all            # the four functions in one process`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			t.began = true
		},
	}
	cmd.PersistentFlags().BoolVar(&t.noColor, "no-color", false, "do not colour the output (also: the environment variable NO_COLOR)")
	cmd.AddCommand(newAll(t), newBus(t), newCA(t), cmpcmd.New(), newDev(t), newDispatch(t), newDeadLetters(t), newGet(t), newHistory(t), newNetpol(t), newPublish(t), newVersion(t), newZPR(t))
	return cmd
}
