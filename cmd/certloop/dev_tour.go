package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// Names of the objects of the demonstration.
const (
	demoIssuer    = "ca"
	demoIdentity  = "identity"
	demoWeb       = "web"
	demoShort     = "short"
	demoBootstrap = "ca-bootstrap"
	demoTrust     = "ca-trust"
)

// Bounds of what is waited for; what is waited for takes a fraction of them.
const (
	issueWithin  = time.Minute
	repairWithin = 30 * time.Second
	lookEvery    = 25 * time.Millisecond
)

// The short-lived certificate is due after half of its life.
const (
	shortValidity    = time.Minute
	shortRenewBefore = 30 * time.Second
	renewWithin      = shortValidity + 30*time.Second
)

// tour is what is shown once the parts run. Every step looks at the cluster.
func (d *demo) tour() []scene {
	return []scene{
		{"Issuing: events declare an issuer and certificates", []step{
			{"Secrets", "making the namespace and the Secrets that certloop is given", issueWithin, d.bootstrap},
			{demoIssuer, "the issuer is being checked", issueWithin, d.declareIssuer},
			{demoIdentity, "the certificate that signs further requests is being issued", issueWithin, d.issue(identitySample())},
			{demoWeb, "a certificate is being issued", issueWithin, d.issue(webSample())},
			{demoShort, "a short-lived certificate is being issued", issueWithin, d.issue(shortSample())},
		}},
		{"Repairing: what workloads mount is deleted, and overwritten", []step{
			{"deleted", "the Secret is about to come back", repairWithin, d.deleteOutput},
			{"overwritten", "the Secret is about to be repaired", repairWithin, d.overwriteOutput},
		}},
		{"Renewing: before the short-lived certificate ends", []step{
			{"renewed", "a certificate is about to be renewed", renewWithin, d.renewal},
		}},
	}
}

func (d *demo) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: d.options.namespace, Name: name}
}

// bootstrap makes the namespace and the Secrets that certloop needs to be given: what
// authenticates the first request, and whom to trust.
func (d *demo) bootstrap(ctx context.Context) (string, error) {
	if err := d.makeNamespace(ctx); err != nil {
		return "", err
	}
	root := ledger.EncodeCertificates(d.ca.CACertificate())
	for name, data := range map[string]map[string]any{
		demoBootstrap: {"reference": demoReference, "password": d.secret},
		demoTrust:     {"ca.crt": string(root)},
	} {
		secret := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": data,
			"metadata": map[string]any{"name": name},
		}}
		// A new CA has another root and secret: ours come first.
		if _, err := d.secrets().Apply(ctx, name, secret, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return "", fmt.Errorf("secret %s: %w", name, err)
		}
	}
	return fmt.Sprintf("%s and %s in namespace %s", demoBootstrap, demoTrust, d.options.namespace), nil
}

func (d *demo) secrets() dynamic.ResourceInterface {
	return d.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(d.options.namespace)
}

// demoLabel marks the namespaces that a demonstration made.
const demoLabel = "certloop.io/demo"

// makeNamespace makes the namespace, and does not take one that others made.
func (d *demo) makeNamespace(ctx context.Context) error {
	namespaces := d.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	name := d.options.namespace
	present, err := namespaces.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return err
	case present.GetLabels()[demoLabel] == "true":
		return nil
	default:
		return fmt.Errorf("namespace %s exists and was not made by a demonstration: give another one with --namespace", name)
	}
	namespace := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": name, "labels": map[string]any{demoLabel: "true"}},
	}}
	_, err = namespaces.Apply(ctx, name, namespace, metav1.ApplyOptions{FieldManager: fieldManager})
	return err
}

// declareIssuer publishes the issuer unless it is there already, as it should be.
func (d *demo) declareIssuer(ctx context.Context) (string, error) {
	want := &model.CMPIssuer{
		TypeMeta:   metav1.TypeMeta{APIVersion: model.GroupVersion.String(), Kind: model.IssuerKind},
		ObjectMeta: metav1.ObjectMeta{Name: demoIssuer, Namespace: d.options.namespace},
	}
	want.Spec.Server, want.Spec.Recipient = d.ca.URL, "/CN="+demoCAName
	want.Spec.InitialAuthentication = &model.InitialAuthentication{MAC: &model.SharedSecretSource{SecretName: demoBootstrap}}
	want.Spec.Authentication = &model.KeyPairSource{SecretName: demoIdentity + "-tls"}
	want.Spec.Trust.SecretName = demoTrust
	present, err := d.store.Issuer(ctx, d.key(demoIssuer))
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		err = d.publish(ctx, model.IssuerCreated, demoIssuer, want)
	case err == nil && present.Spec.Server != want.Spec.Server:
		err = d.publish(ctx, model.IssuerUpdated, demoIssuer, want)
	}
	if err != nil {
		return "", err
	}
	return d.issuerReady(ctx)
}

func (d *demo) publish(ctx context.Context, eventType, name string, data any) error {
	e := model.NewEvent(eventType, d.key(name), data)
	if err := d.system.Bus.Publish(ctx, e); err != nil {
		return err
	}
	d.show.act(name, "published the event "+short(e.Type()))
	return nil
}

func (d *demo) issuerReady(ctx context.Context) (string, error) {
	last := "nothing was heard of it"
	err := until(ctx, func() (bool, error) {
		issuer, err := d.store.Issuer(ctx, d.key(demoIssuer))
		if err != nil {
			return false, ignoreAbsent(err)
		}
		if c := meta.FindStatusCondition(issuer.Status.Conditions, model.Ready); c != nil {
			last = c.Reason + ": " + c.Message
		}
		return issuer.Status.ObservedGeneration == issuer.Generation && meta.IsStatusConditionTrue(issuer.Status.Conditions, model.Ready), nil
	})
	return "the issuer is ready: " + d.ca.URL, because(err, last)
}

// issue publishes a certificate's configuration unless it is there already, and sees
// the certificate delivered.
func (d *demo) issue(want *model.CMPCertificate) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		want.Namespace = d.options.namespace
		began := time.Now()
		_, err := d.store.Certificate(ctx, d.key(want.Name))
		if errors.Is(err, ledger.ErrNotFound) {
			err = d.publish(ctx, model.ConfigCreated, want.Name, want)
		}
		if err != nil {
			return "", err
		}
		got, err := d.awaitReady(ctx, want.Name)
		if err != nil {
			return "", err
		}
		if err := got.satisfies(want); err != nil {
			return "", err
		}
		if want.Name == demoIdentity {
			d.show.plain(fmt.Sprintf("          first certificate in its Secret %.2f s after the start", d.show.since().Seconds()))
		}
		return fmt.Sprintf("%s, in %s", got, sinceMillis(began)), nil
	}
}

// deleteOutput deletes the Secret of web and sees it come back, byte for byte, without
// a word to the CA.
func (d *demo) deleteOutput(ctx context.Context) (string, error) {
	return d.damage(ctx, demoWeb, model.SecretDeleted, "deleted Secret ", func(secret string) error {
		return d.secrets().Delete(ctx, secret, metav1.DeleteOptions{})
	})
}

// overwriteOutput does as much with rubbish in place of the certificate of identity.
func (d *demo) overwriteOutput(ctx context.Context) (string, error) {
	return d.damage(ctx, demoIdentity, model.SecretModified, "wrote rubbish into tls.crt of Secret ", func(secret string) error {
		const rubbish = `{"data":{"tls.crt":"cnViYmlzaA=="}}`
		_, err := d.secrets().Patch(ctx, secret, types.MergePatchType, []byte(rubbish), metav1.PatchOptions{FieldManager: fieldManager})
		return err
	})
}

// damage harms an output and sees it repaired.
func (d *demo) damage(ctx context.Context, name, fact, what string, harm func(secret string) error) (string, error) {
	before, err := d.awaitReady(ctx, name)
	if err != nil {
		return "", err
	}
	if err := d.quiet(ctx); err != nil {
		return "", err
	}
	asked := d.exchanges(name)
	began := time.Now()
	if err := harm(before.secret.Name); err != nil {
		return "", err
	}
	d.show.act(name, what+before.secret.Name)
	if err := until(ctx, func() (bool, error) { return d.holds(ctx, before.secret) }); err != nil {
		return "", because(err, "Secret "+before.secret.Name+" does not hold what it did")
	}
	took := sinceMillis(began)
	for _, want := range []string{fact, model.CertificateRestored} {
		if _, err := d.facts.wait(ctx, want, d.key(name).String()); err != nil {
			return "", because(err, "the event "+short(want)+" was not told")
		}
	}
	if now := d.exchanges(name); len(now) != len(asked) {
		return "", fmt.Errorf("the CA was asked for it: %s", strings.Join(now[len(asked):], ", "))
	}
	return fmt.Sprintf("Secret %s is back after %s, the same bytes, without the CA", before.secret.Name, took), nil
}

// quiet waits until no function has work, so that what is seen next comes of what is
// done next.
func (d *demo) quiet(ctx context.Context) error {
	last := ""
	return because(until(ctx, func() (bool, error) {
		for _, verb := range []model.Verb{model.Enroll, model.Renew, model.Watch} {
			consumer, err := d.system.js.Consumer(ctx, model.WorkStream, string(verb))
			if err != nil {
				return false, err
			}
			if i := consumer.CachedInfo(); i.NumPending > 0 || i.NumAckPending > 0 {
				last = fmt.Sprintf("%s still has %d events to handle", verb, i.NumPending+uint64(i.NumAckPending))
				return false, nil
			}
		}
		return true, nil
	}), last)
}

// holds tells whether a Secret has been written again with the data it had.
func (d *demo) holds(ctx context.Context, before *corev1.Secret) (bool, error) {
	now, err := d.store.Secret(ctx, types.NamespacedName{Namespace: before.Namespace, Name: before.Name})
	if err != nil {
		return false, ignoreAbsent(err)
	}
	same := now.ResourceVersion != before.ResourceVersion && len(now.Data) == len(before.Data)
	for k, v := range before.Data {
		same = same && bytes.Equal(v, now.Data[k])
	}
	return same, nil
}

// renewal waits for the short-lived certificate to be renewed, and compares.
func (d *demo) renewal(ctx context.Context) (string, error) {
	before, err := d.awaitReady(ctx, demoShort)
	if err != nil {
		return "", err
	}
	asked := len(d.exchanges(demoShort))
	due := before.cert.Status.RenewalTime
	stop := d.show.await(func() string {
		return fmt.Sprintf("%s is due in %s and ends in %s", demoShort, left(due.Time), left(before.leaf().NotAfter))
	})
	defer stop()
	if err := until(ctx, func() (bool, error) {
		c, err := d.store.Certificate(ctx, d.key(demoShort))
		return err == nil && c.Status.Revision > before.cert.Status.Revision && current(c), ignoreAbsent(err)
	}); err != nil {
		return "", because(err, "no new certificate")
	}
	after, err := d.awaitReady(ctx, demoShort)
	if err != nil {
		return "", err
	}
	return compare(before, after, d.exchanges(demoShort)[asked:])
}
