// Command images makes a container image of each static Go binary it is given, as an OCI
// layout on disk: without a registry, a base image or a container engine, and byte for byte
// the same whenever the binaries are.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

const usage = `images makes an OCI layout DIR/NAME of each binary NAME, and DIR/values.yaml with the digests for the chart.

    images -out bin/images -tag 0.1.0 bin/certloop bin/enroll

A layout is pushed with tools such as skopeo or crane:

    skopeo copy oci:bin/images/enroll docker://registry.example.org/certloop/enroll:0.1.0

`

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	dir := flags.String("out", "bin/images", "`directory` for the layouts")
	tag := flags.String("tag", "latest", "`tag` of the images in their layouts")
	flags.Usage = func() {
		_, _ = fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no binary is named; try -help")
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	var values strings.Builder
	values.WriteString("image:\n  digests:\n")
	for _, path := range flags.Args() {
		made, err := write(path, *dir, *tag)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		name := filepath.Base(path)
		_, _ = fmt.Fprintf(table, "%s\t%s\t%.1f MB\t%s\n", name, made.platform, float64(made.size)/1e6, made.digest)
		fmt.Fprintf(&values, "    %s: %s\n", name, made.digest)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*dir, "values.yaml"), []byte(values.String()), 0o600)
}
