package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Output formats of a list.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
)

func formats() []string {
	return []string{formatTable, formatWide, formatJSON, formatYAML, formatName}
}

// addFormat adds the flag -o, with completion; the first of the formats is the default.
func addFormat(cmd *cobra.Command, format *string, formats []string) {
	cmd.Flags().StringVarP(format, "output", "o", formats[0], "`format`: "+strings.Join(formats, ", "))
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
}

func checkFormat(format string, formats []string) error {
	if !slices.Contains(formats, format) {
		return misused(fmt.Errorf("-o %s is not one of %s", format, strings.Join(formats, ", ")))
	}
	return nil
}

// printDocument writes anything as JSON or YAML.
func printDocument(w io.Writer, format string, v any) error {
	js, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	text := append(js, '\n')
	if format == formatYAML {
		if text, err = yaml.JSONToYAML(js); err != nil {
			return err
		}
	}
	_, err = w.Write(text)
	return err
}
