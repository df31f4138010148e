// Command kncontrol runs, in one process, what of Knative Eventing's control plane an
// end-to-end test needs: the controllers of brokers, triggers, channels and sources, the
// defaulting and validating webhooks, and the dispatcher of in-memory channels. KUBECONFIG
// and WEBHOOK_PORT say where; everything else is as Knative's own manifests have it. Knative's
// own webhook program answers probes on the port that the dispatcher insists on, so the two
// cannot share a network.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	defaultconfig "knative.dev/eventing/pkg/apis/config"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/apis/feature"
	channelconfig "knative.dev/eventing/pkg/apis/messaging/config"
	messagingv1 "knative.dev/eventing/pkg/apis/messaging/v1"
	"knative.dev/eventing/pkg/apis/sinks"
	pingconfig "knative.dev/eventing/pkg/apis/sources/config"
	sourcesv1 "knative.dev/eventing/pkg/apis/sources/v1"
	"knative.dev/eventing/pkg/auth"
	"knative.dev/eventing/pkg/eventingtls"
	"knative.dev/eventing/pkg/reconciler/apiserversource"
	"knative.dev/eventing/pkg/reconciler/broker"
	mttrigger "knative.dev/eventing/pkg/reconciler/broker/trigger"
	"knative.dev/eventing/pkg/reconciler/channel"
	imccontroller "knative.dev/eventing/pkg/reconciler/inmemorychannel/controller"
	imcdispatcher "knative.dev/eventing/pkg/reconciler/inmemorychannel/dispatcher"
	"knative.dev/eventing/pkg/reconciler/pingsource"
	"knative.dev/eventing/pkg/reconciler/subscription"
	kubeclient "knative.dev/pkg/client/injection/kube/client"
	filteredfactory "knative.dev/pkg/client/injection/kube/informers/factory/filtered"
	"knative.dev/pkg/configmap"
	"knative.dev/pkg/controller"
	"knative.dev/pkg/injection/sharedmain"
	"knative.dev/pkg/logging"
	"knative.dev/pkg/signals"
	"knative.dev/pkg/webhook"
	"knative.dev/pkg/webhook/certificates"
	"knative.dev/pkg/webhook/resourcesemantics"
	"knative.dev/pkg/webhook/resourcesemantics/defaulting"
	"knative.dev/pkg/webhook/resourcesemantics/validation"
)

const webhookPort = 8443 // unless WEBHOOK_PORT says otherwise

func main() {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "kncontrol:", err)
		os.Exit(1)
	}
	ctx := webhook.WithOptions(signals.NewContext(), webhook.Options{
		ServiceName: "eventing-webhook", Port: webhook.PortFromEnv(webhookPort), SecretName: "eventing-webhook-certs",
	})
	ctx = filteredfactory.WithSelectors(ctx, auth.OIDCLabelSelector, eventingtls.TrustBundleLabelSelector)
	// The probes' port is that of every other program of Knative.
	ctx = sharedmain.WithHealthProbesDisabled(ctx)
	sharedmain.MainWithContext(ctx, "kncontrol",
		certificates.NewController, defaults, validate,
		channel.NewController, subscription.NewController,
		apiserversource.NewController, pingsource.NewController,
		broker.NewController, mttrigger.NewController,
		imccontroller.NewController, imcdispatcher.NewController,
	)
}

// prepare sets what the manifests of several Deployments say. It does not ask whether
// something is set already: an imported package sets SYSTEM_NAMESPACE to that of Knative's tests.
func prepare() error {
	for name, value := range map[string]string{
		"SYSTEM_NAMESPACE": "knative-eventing", "POD_NAME": "kncontrol-0", "CONTAINER_NAME": "kncontrol",
		"MAX_IDLE_CONNS": "100", "MAX_IDLE_CONNS_PER_HOST": "100",
		"DISPATCHER_IMAGE": "dispatcher", "APISERVER_RA_IMAGE": "apiserver_receive_adapter", "BROKER_INGRESS_IMAGE": "ingress",
		"AUTH_PROXY_IMAGE": "auth_proxy", "AUTH_PROXY_CPU_REQUEST": "1m", "AUTH_PROXY_MEMORY_REQUEST": "1Mi",
		"METRICS_DOMAIN": "knative.dev/eventing", "CONFIG_LOGGING_NAME": "config-logging",
		"CONFIG_OBSERVABILITY_NAME": "config-observability",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// judged are the kinds the webhooks default and validate.
func judged() map[schema.GroupVersionKind]resourcesemantics.GenericCRD {
	return map[schema.GroupVersionKind]resourcesemantics.GenericCRD{
		eventingv1.SchemeGroupVersion.WithKind("Broker"):           &eventingv1.Broker{},
		eventingv1.SchemeGroupVersion.WithKind("Trigger"):          &eventingv1.Trigger{},
		messagingv1.SchemeGroupVersion.WithKind("Channel"):         &messagingv1.Channel{},
		messagingv1.SchemeGroupVersion.WithKind("Subscription"):    &messagingv1.Subscription{},
		messagingv1.SchemeGroupVersion.WithKind("InMemoryChannel"): &messagingv1.InMemoryChannel{},
		sourcesv1.SchemeGroupVersion.WithKind("ApiServerSource"):   &sourcesv1.ApiServerSource{},
		sourcesv1.SchemeGroupVersion.WithKind("PingSource"):        &sourcesv1.PingSource{},
	}
}

func defaults(ctx context.Context, configs configmap.Watcher) *controller.Impl {
	return defaulting.NewAdmissionController(ctx, "webhook.eventing.knative.dev", "/defaulting", judged(), configured(ctx, configs), true)
}

func validate(ctx context.Context, configs configmap.Watcher) *controller.Impl {
	return validation.NewAdmissionController(ctx, "validation.webhook.eventing.knative.dev", "/resource-validation", judged(), configured(ctx, configs), true)
}

// configured puts Knative's own configuration into the context of an admission request.
func configured(ctx context.Context, configs configmap.Watcher) func(context.Context) context.Context {
	log := logging.FromContext(ctx)
	general, channels, pings, features := defaultconfig.NewStore(log), channelconfig.NewStore(log), pingconfig.NewStore(log), feature.NewStore(log)
	general.WatchConfigs(configs)
	channels.WatchConfigs(configs)
	pings.WatchConfigs(configs)
	features.WatchConfigs(configs)
	kube := kubeclient.Get(ctx)
	return func(ctx context.Context) context.Context {
		ctx = features.ToContext(channels.ToContext(pings.ToContext(general.ToContext(ctx))))
		return sinks.WithConfig(ctx, &sinks.Config{KubeClient: kube})
	}
}
