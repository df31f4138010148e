package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print what this binary was built from",
		Example: `  certloop version`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintln(t.out, versionLine(info))
			return err
		},
	}
}

// versionLine is the module version, the commit where it is known, and the toolchain.
func versionLine(info *debug.BuildInfo) string {
	version, revision := "(unknown)", ""
	if info != nil {
		version = info.Main.Version
		revision = revisionOf(info.Settings)
	}
	return fmt.Sprintf("certloop %s%s %s %s/%s", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func revisionOf(settings []debug.BuildSetting) (text string) {
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			text = " (" + s.Value[:min(12, len(s.Value))] + ")" + text
		case s.Key == "vcs.modified" && s.Value == "true":
			text += " (modified)"
		}
	}
	return text
}
