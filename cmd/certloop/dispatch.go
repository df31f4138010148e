package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/pkg/service"
)

// targetsVariable names the functions in a Pod's environment, as --target does.
const targetsVariable = "CERTLOOP_TARGETS"

// dispatchOptions are the flags of dispatch.
type dispatchOptions struct {
	logging
	targets map[string]string
	config  service.Config
}

func newDispatch(t *terminal) *cobra.Command {
	o := &dispatchOptions{}
	cmd := &cobra.Command{
		Use:   "dispatch",
		Short: "Wake functions that scale to zero: pull their work from JetStream and POST it to them",
		Long: `Pull the work of functions from JetStream and POST it to them, so that they may scale to
zero: what is sent to a Knative Service starts it. An event is acknowledged once its
function has accepted it, or has refused and dead-lettered it; otherwise it is sent again,
and while a function works on it JetStream is told so. Several may run side by side.

It keeps no state, needs no access to the cluster, and reads the functions' environment
variables for NATS, limits and logs (see enroll --help); PORT serves the probes.
` + targetsVariable + ` says what --target says: enroll=http://…,renew=http://…`,
		Example: `  certloop dispatch --target enroll=http://enroll.certloop.svc --target renew=http://renew.certloop.svc
  ` + targetsVariable + `=watch-secrets=http://watch-secrets.certloop.svc certloop dispatch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), t)
		},
	}
	o.logging.addFlags(cmd)
	cmd.Flags().StringToStringVar(&o.targets, "target", nil, "`FUNCTION=URL` of a function to wake: "+strings.Join(functionNames(), ", ")+" (default: "+targetsVariable+")")
	_ = cmd.RegisterFlagCompletionFunc("target", cobra.FixedCompletions(targetBeginnings(), cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// targetBeginnings are what a shell can propose of a target: the host is the user's.
func targetBeginnings() (all []string) {
	for _, name := range functionNames() {
		all = append(all, name+"=http://")
	}
	return all
}

func functionNames() (names []string) {
	for _, f := range functions.All(nil) {
		names = append(names, f.Name)
	}
	return names
}

func (o *dispatchOptions) run(ctx context.Context, t *terminal) error {
	log, err := o.logger(t.err)
	if err != nil {
		return err
	}
	targets, err := o.complete()
	if err != nil {
		return misused(err)
	}
	env, err := service.ConnectBus(ctx, o.config, log)
	if err != nil {
		return misused(err)
	}
	defer env.Close()
	return service.Dispatch(ctx, env, nil, targets)
}

// complete reads flags and environment, and reports every problem at once.
func (o *dispatchOptions) complete() (map[model.Verb]string, error) {
	var err error
	if o.config, err = service.FromEnvironment(); err != nil {
		return nil, err
	}
	if len(o.targets) == 0 {
		if o.targets, err = parseTargets(os.Getenv(targetsVariable)); err != nil {
			return nil, err
		}
	}
	if len(o.targets) == 0 {
		return nil, errors.New("no function is named: use --target FUNCTION=URL or " + targetsVariable)
	}
	return checkTargets(o.targets)
}

func parseTargets(list string) (map[string]string, error) {
	targets := map[string]string{}
	for entry := range strings.SplitSeq(list, ",") {
		if entry == "" {
			continue
		}
		name, target, ok := strings.Cut(entry, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q is not FUNCTION=URL", targetsVariable, entry)
		}
		targets[name] = target
	}
	return targets, nil
}

func checkTargets(targets map[string]string) (map[model.Verb]string, error) {
	verbs := map[string]model.Verb{}
	for _, f := range functions.All(nil) {
		verbs[f.Name] = f.Verb
	}
	var errs []error
	checked := map[model.Verb]string{}
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		u, err := url.Parse(targets[name])
		switch verb, known := verbs[name]; {
		case !known:
			errs = append(errs, fmt.Errorf("target %s is none of the functions %s", name, strings.Join(functionNames(), ", ")))
		case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil:
			errs = append(errs, fmt.Errorf("target %s is not http:// or https:// and a host", name))
		default:
			checked[verb] = targets[name]
		}
	}
	return checked, errors.Join(errs...)
}
