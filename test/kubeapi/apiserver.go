package main

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// flags of every start; paths are relative to the state directory.
var flags = []string{
	"--etcd-servers=" + etcdEndpoint,
	"--bind-address=127.0.0.1",
	"--advertise-address=127.0.0.1",
	"--cert-dir=pki",
	"--tls-cert-file=pki/server.crt",
	"--tls-private-key-file=pki/server.key",
	"--token-auth-file=pki/tokens.csv",
	"--authorization-mode=RBAC",
	"--service-account-issuer=https://kubernetes.default.svc",
	"--service-account-key-file=pki/service-account.pem",
	"--service-account-signing-key-file=pki/service-account.pem",
	"--service-cluster-ip-range=10.0.0.0/24",
	"--endpoint-reconciler-type=none",
	"--allow-privileged=true",
}

// serve runs kube-apiserver on l until it fails. The end of ctx does not stop it:
// that takes a minute, and the end of the process does it as well.
func serve(ctx context.Context, l net.Listener, s services, extra []string) error {
	app.SetServiceResolverForTests(s)
	o := options.NewServerRunOptions()
	if err := parse(o, slices.Concat(flags, extra)); err != nil {
		return err
	}
	o.SecureServing.Listener = l
	ctx = context.WithoutCancel(ctx)
	completed, err := o.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	return app.Run(ctx, completed)
}

// parse does what kube-apiserver's own command does with its arguments.
func parse(o *options.ServerRunOptions, args []string) error {
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	named := o.Flags()
	for _, f := range named.FlagSets {
		fs.AddFlagSet(f)
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return logsapi.ValidateAndApply(o.Logs, utilfeature.DefaultFeatureGate)
}

// waitReady returns when the API server says it is ready and has made the
// namespaces every cluster has.
func waitReady(ctx context.Context, cfg *rest.Config) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return isReady(ctx, client), nil
	})
}

func isReady(ctx context.Context, client kubernetes.Interface) bool {
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return false
	}
	_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
	return err == nil
}
