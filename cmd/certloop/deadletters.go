package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

func newDeadLetters(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "Look after events that could not be handled",
		Long: `Look after the dead letters: events that no function could handle, because they are wrong
or because everything they need failed for hours. JetStream keeps them for 90 days, with
the reason. Put right what is wrong, then replay them; drop the others.`,
		Example: `  certloop dead-letters list
  certloop dead-letters show 12
  certloop dead-letters replay 12 13`,
		Aliases: []string{"dead"},
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(errors.New("say what to do: " + cmd.CommandPath() + " list, show, replay or drop"))
		},
	}
	cmd.AddCommand(newDeadLettersList(t), newDeadLettersShow(t), newDeadLettersReplay(t), newDeadLettersDrop(t))
	return cmd
}

func newDeadLettersList(t *terminal) *cobra.Command {
	var o busOptions
	var ns, format string
	formats := []string{formatTable, formatWide, formatJSON, formatYAML}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the dead letters, the oldest first",
		Long: `List the dead letters, the oldest first. The first column is the number by which they are
shown, replayed and dropped.`,
		Example: `  certloop dead-letters list -o wide
  certloop dead-letters list -n shop -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, formats); err != nil {
				return err
			}
			return o.withStreams(func(js jetstream.JetStream) error {
				all, err := deadLetters(cmd.Context(), js, ns)
				if err != nil {
					return err
				}
				return printDeadLetters(t, format, all)
			})
		},
	}
	o.addFlags(cmd)
	cmd.Flags().StringVarP(&ns, "namespace", "n", "", "`namespace` of the objects they are about (default: all, and those about nothing that can be read)")
	addFormat(cmd, &format, formats)
	return cmd
}

func newDeadLettersShow(t *terminal) *cobra.Command {
	var o busOptions
	var format string
	formats := []string{formatYAML, formatJSON}
	cmd := &cobra.Command{
		Use:     "show NUMBER",
		Short:   "Show a dead letter, with its event",
		Long:    "Show a dead letter: why it is one, and the event it was.",
		Example: `  certloop dead-letters show 12 -o json | jq .event > event.json   # to be corrected and published`,
		Args:    cobra.ExactArgs(1),

		ValidArgsFunction: o.completeDeadLetters,
		RunE: func(cmd *cobra.Command, args []string) error {
			numbers, err := sequences(args)
			if err != nil {
				return err
			}
			if err := checkFormat(format, formats); err != nil {
				return err
			}
			return o.withStreams(func(js jetstream.JetStream) error {
				l, err := delivery.FindDeadLetter(cmd.Context(), js, numbers[0])
				if err != nil {
					return err
				}
				return printDocument(t.out, format, l)
			})
		},
	}
	o.addFlags(cmd)
	addFormat(cmd, &format, formats)
	return cmd
}

func newDeadLettersReplay(t *terminal) *cobra.Command {
	return newDeadLettersDo(t, "replay", "Give dead letters to their functions again", `Give dead letters to the functions that take them again, and delete them once JetStream has
stored that. What is still wrong makes another dead letter.`,
		func(ctx context.Context, bus *delivery.Bus, js jetstream.JetStream, l delivery.DeadLetter) error {
			if err := bus.Replay(ctx, l); err != nil {
				return err
			}
			return delivery.DropDeadLetter(ctx, js, l.Sequence)
		})
}

func newDeadLettersDrop(t *terminal) *cobra.Command {
	return newDeadLettersDo(t, "drop", "Delete dead letters", "Delete dead letters for ever.",
		func(ctx context.Context, _ *delivery.Bus, js jetstream.JetStream, l delivery.DeadLetter) error {
			return delivery.DropDeadLetter(ctx, js, l.Sequence)
		})
}

// newDeadLettersDo is a command that does something with dead letters, one by one.
func newDeadLettersDo(t *terminal, verb, about, long string, do func(context.Context, *delivery.Bus, jetstream.JetStream, delivery.DeadLetter) error) *cobra.Command {
	var o busOptions
	var all bool
	var ns string
	cmd := &cobra.Command{
		Use:     verb + " (NUMBER… | --all)",
		Short:   about,
		Long:    long + "\n\nExit code 1 when that failed for one of them; the others are done all the same.",
		Example: "  certloop dead-letters " + verb + " 12 13\n  certloop dead-letters " + verb + " --all -n shop",

		ValidArgsFunction: o.completeDeadLetters,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) || ns != "" && !all {
				return misused(errors.New("give numbers, or --all with or without -n"))
			}
			numbers, err := sequences(args)
			if err != nil {
				return err
			}
			return o.withBus(func(bus *delivery.Bus, js jetstream.JetStream) error {
				letters, err := chosenDeadLetters(cmd.Context(), js, numbers, ns)
				for _, l := range letters {
					if failed := do(cmd.Context(), bus, js, l); failed != nil {
						err = errors.Join(err, failed)
						continue
					}
					_, printed := fmt.Fprintf(t.out, "%s %d: %s %s\n", past(verb), l.Sequence, typeOf(l), objectOf(l))
					err = errors.Join(err, printed)
				}
				return err
			})
		},
	}
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters that are there now")
	cmd.Flags().StringVarP(&ns, "namespace", "n", "", "with --all: only those about objects of this `namespace`")
	return cmd
}

// completeDeadLetters offers the numbers of dead letters to the shell, with what they are.
func (o *busOptions) completeDeadLetters(cmd *cobra.Command, _ []string, _ string) (numbers []string, directive cobra.ShellCompDirective) {
	err := o.withStreams(func(js jetstream.JetStream) error {
		return delivery.DeadLetters(cmd.Context(), js, delivery.Selection{}, func(l delivery.DeadLetter) error {
			numbers = append(numbers, cobra.CompletionWithDesc(strconv.FormatUint(l.Sequence, 10), typeOf(l)+" "+objectOf(l)))
			return nil
		})
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return numbers, cobra.ShellCompDirectiveNoFileComp
}

func past(verb string) string {
	if verb == "drop" {
		return "dropped"
	}
	return verb + "ed"
}

// sequences reads the numbers of dead letters.
func sequences(args []string) (all []uint64, err error) {
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil || n == 0 {
			return nil, misused(fmt.Errorf("%q is not the number of a dead letter: see the first column of dead-letters list", arg))
		}
		all = append(all, n)
	}
	return all, nil
}

// chosenDeadLetters are those with these numbers, or all when there are none. With an error come those that were found.
func chosenDeadLetters(ctx context.Context, js jetstream.JetStream, numbers []uint64, ns string) (all []delivery.DeadLetter, err error) {
	if len(numbers) == 0 {
		return deadLetters(ctx, js, ns)
	}
	for _, n := range numbers {
		l, missing := delivery.FindDeadLetter(ctx, js, n)
		if missing != nil {
			err = errors.Join(err, missing)
			continue
		}
		all = append(all, l)
	}
	return all, err
}

func deadLetters(ctx context.Context, js jetstream.JetStream, ns string) ([]delivery.DeadLetter, error) {
	all := []delivery.DeadLetter{}
	var s delivery.Selection
	if ns != "" {
		s.Subjects = []string{model.DeadFilter(ns)}
	}
	err := delivery.DeadLetters(ctx, js, s, func(l delivery.DeadLetter) error {
		all = append(all, l)
		return nil
	})
	return all, err
}

func printDeadLetters(t *terminal, format string, all []delivery.DeadLetter) error {
	switch {
	case format == formatJSON || format == formatYAML:
		return printDocument(t.out, format, all)
	case len(all) == 0:
		_, err := fmt.Fprintln(t.err, "No dead letters.")
		return err
	}
	tw := tabwriter.NewWriter(t.out, 0, 8, 3, ' ', 0)
	row := func(cells ...string) {
		if format != formatWide {
			cells = cells[:6]
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")) // Flush says
	}
	row("NUMBER", "AGE", "FUNCTION", "EVENT", "OBJECT", "REASON", "DELIVERIES", "ERROR")
	for _, l := range all {
		row(strconv.FormatUint(l.Sequence, 10), duration.HumanDuration(time.Since(l.Time)), string(l.Verb), typeOf(l), objectOf(l), string(l.Reason),
			strconv.FormatUint(l.Deliveries, 10), oneLine(l.Error))
	}
	return tw.Flush()
}

func typeOf(l delivery.DeadLetter) string {
	if l.Event == nil {
		return "-"
	}
	return short(l.Event.Type())
}

func objectOf(l delivery.DeadLetter) string {
	if l.Event == nil {
		return "-"
	}
	return orDash(l.Event.Subject())
}
