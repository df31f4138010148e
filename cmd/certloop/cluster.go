package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/certloop/certloop/pkg/ledger"
)

// Requests a second to the API server, and how many at once, for which a command
// does not slow itself down.
const (
	clientQPS   = 200
	clientBurst = 400
)

// cluster says which cluster a command works on, as kubectl does.
type cluster struct {
	kubeconfig string
	context    string
}

func (c *cluster) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "`file` with the cluster and its credentials (default: KUBECONFIG, ~/.kube/config, or the cluster we run in)")
	f.StringVar(&c.context, "context", "", "`name` of the context in the kubeconfig")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return offerContexts(c.kubeconfig)
	})
}

func (c *cluster) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
}

// config is how to reach the cluster. Its error is the user's to correct.
func (c *cluster) config() (*rest.Config, error) {
	cfg, err := c.loader().ClientConfig()
	if err != nil {
		return nil, misused(fmt.Errorf("no cluster: %w: give --kubeconfig or set KUBECONFIG", err))
	}
	cfg.UserAgent = "certloop"
	cfg.QPS, cfg.Burst = clientQPS, clientBurst
	return cfg, nil
}

// namespace is that of the context, or "default".
func (c *cluster) namespace() (string, error) {
	ns, _, err := c.loader().Namespace()
	if clientcmd.IsEmptyConfig(err) {
		return metav1.NamespaceDefault, nil
	}
	return ns, misused(err)
}

func (c *cluster) store() (*ledger.Store, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	return ledger.Open(cfg)
}

// serverVersion asks the API server for its version.
func serverVersion(ctx context.Context, cfg *rest.Config) (string, error) {
	c := rest.CopyConfig(cfg)
	c.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		return "", err
	}
	js, err := client.Get().AbsPath("/version").DoRaw(ctx)
	if err != nil {
		return "", err
	}
	var info version.Info
	err = json.Unmarshal(js, &info)
	return info.GitVersion, err
}
