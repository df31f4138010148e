package chart

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/functiontest"
	"github.com/certloop/certloop/test/kubetest"
)

// installer applies what is rendered to a real API server, which holds Knative's own
// definitions.
type installer struct {
	client dynamic.Interface
	mapper meta.RESTMapper
	kube   *kubernetes.Clientset
}

var theInstaller struct {
	sync.Mutex
	*installer
}

func newInstaller(t *testing.T) *installer {
	t.Helper()
	cluster := kubetest.Start(t)
	theInstaller.Lock()
	defer theInstaller.Unlock()
	if theInstaller.installer != nil {
		return theInstaller.installer
	}
	cluster.ApplyCRDs(t, "testdata/knative")
	cluster.ApplyCRDs(t, root+"/deploy/knative/crds")
	kube, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(kube.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	theInstaller.installer = &installer{client, restmapper.NewDiscoveryRESTMapper(groups), kube}
	return theInstaller.installer
}

// apply has a field that does not exist refused, as everything else that the API server
// knows to be wrong.
func (i *installer) apply(ctx context.Context, u *unstructured.Unstructured) error {
	gvk := u.GroupVersionKind()
	mapping, err := i.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	content, err := json.Marshal(u)
	if err != nil {
		return err
	}
	if err := i.replaceHook(ctx, mapping.Resource, u); err != nil {
		return err
	}
	force := true
	_, err = i.client.Resource(mapping.Resource).Namespace(u.GetNamespace()).Patch(ctx, u.GetName(), types.ApplyPatchType, content,
		metav1.PatchOptions{FieldManager: "helm", Force: &force, FieldValidation: metav1.FieldValidationStrict})
	return err
}

// replaceHook deletes a Job or Pod of the former release, as Helm does where its
// hook-delete-policy says so: neither can be changed.
func (i *installer) replaceHook(ctx context.Context, resource schema.GroupVersionResource, u *unstructured.Unstructured) error {
	if !strings.Contains(u.GetAnnotations()["helm.sh/hook-delete-policy"], "before-hook-creation") {
		return nil
	}
	now, background := int64(0), metav1.DeletePropagationBackground
	objects := i.client.Resource(resource).Namespace(u.GetNamespace())
	err := objects.Delete(ctx, u.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now, PropagationPolicy: &background})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// install makes the namespaces of an arrangement and applies it.
func (i *installer) install(t *testing.T, a arrangement, overlays ...string) {
	t.Helper()
	for _, ns := range append([]string{a.home(), a.broker(), a.home() + "-foreign"}, a.namespaces()...) {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}}}
		if err := i.apply(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	files, err := render(a.home(), a.values(t, overlays...))
	if err != nil {
		t.Fatal(err)
	}
	applied := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) != ".yaml" {
			continue
		}
		for _, u := range documents(t, name, []byte(files[name])) {
			if err := i.apply(t.Context(), u); err != nil {
				t.Errorf("%s: %s %s: %v", name, u.GetKind(), u.GetName(), err)
			}
			applied++
		}
	}
	if applied < 15 {
		t.Errorf("%d objects were applied, want more", applied)
	}
}

// Kubernetes and Knative accept every object, again and again.
func TestKubernetesAccepts(t *testing.T) {
	i := newInstaller(t)
	for _, a := range arrangements() {
		overlays := map[string]string{"": "{}", "-everything": everything}
		if a.profile == "knative" {
			overlays["-without-broker"] = "broker: {enabled: false}"
		}
		for name, overlay := range overlays {
			t.Run(a.String()+name, func(t *testing.T) { i.install(t, a, overlay) })
		}
	}
}

// The same for those who have kubectl alone.
func TestKubernetesAcceptsTheManifests(t *testing.T) {
	i := newInstaller(t)
	nats := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "nats"}}}
	if err := i.apply(t.Context(), nats); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"namespace.yaml", "certloop.yaml"} {
		for _, u := range documents(t, file, read(t, root+"/deploy/knative/"+file)) {
			if err := i.apply(t.Context(), u); err != nil {
				t.Errorf("%s: %s %s: %v", file, u.GetKind(), u.GetName(), err)
			}
		}
	}
}

// The API server would notice.
func TestKubernetesRefuses(t *testing.T) {
	i := newInstaller(t)
	a := arrangement{"knative", "dedicated"}
	i.install(t, a)
	for name, spoil := range map[string]func(all []*unstructured.Unstructured) *unstructured.Unstructured{
		"a misspelt selector": func(all []*unstructured.Unstructured) *unstructured.Unstructured {
			u := named(t, all, "NetworkPolicy", "certloop-dns")
			set(t, u, map[string]any{"matchLabelz": map[string]any{}}, "spec", "podSelector")
			return u
		},
		"a misspelt field of Knative's": func(all []*unstructured.Unstructured) *unstructured.Unstructured {
			u := named(t, all, "Service", "certloop-enroll")
			set(t, u, int64(3), "spec", "template", "spec", "containerConcurency")
			return u
		},
		"a mode that is none": func(all []*unstructured.Unstructured) *unstructured.Unstructured {
			u := named(t, all, "ApiServerSource", "certloop-secrets")
			set(t, u, "Everything", "spec", "resources")
			return u
		},
	} {
		if err := i.apply(t.Context(), spoil(a.objects(t))); err == nil || apierrors.IsNotFound(err) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func set(t *testing.T, u *unstructured.Unstructured, value any, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
		t.Fatal(err)
	}
}

// What is asked of the API server about every subject: each verb on each resource, in each
// namespace and in none where it is in namespaces.
var (
	verbs     = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	resources = []string{
		"secrets", "configmaps", "pods", "serviceaccounts/token", "apps/deployments", "rbac.authorization.k8s.io/rolebindings",
		"certloop.io/cmpcertificates", "certloop.io/cmpcertificates/status", "certloop.io/cmpcertificates/finalizers",
		"certloop.io/cmpissuers", "certloop.io/cmpissuers/status", "certloop.io/cmpissuers/finalizers",
	}
	clusterResources = []string{
		"namespaces", "nodes", "rbac.authorization.k8s.io/clusterroles", "apiextensions.k8s.io/customresourcedefinitions",
		"certloop.io/cmpclusterissuers", "certloop.io/cmpclusterissuers/status", "certloop.io/cmpclusterissuers/finalizers",
	}
)

// attributes split a resource as it is written above.
func attributes(resource string) authorizationv1.ResourceAttributes {
	group, rest, ok := strings.Cut(resource, "/")
	if !ok || !strings.Contains(group, ".") && group != "apps" {
		group, rest = "", resource
	}
	resource, sub, _ := strings.Cut(rest, "/")
	return authorizationv1.ResourceAttributes{Group: group, Resource: resource, Subresource: sub}
}

// may asks the API server.
func (i *installer) may(ctx context.Context, user string, attributes authorizationv1.ResourceAttributes) (bool, error) {
	review, err := i.kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, Groups: []string{"system:serviceaccounts", "system:authenticated"}, ResourceAttributes: &attributes,
		}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// rights is everything that the ServiceAccounts of an arrangement may do, one line for each
// of them, place and resource.
func (i *installer) rights(t *testing.T, a arrangement) string {
	t.Helper()
	places := map[string]string{"everywhere": "", "release": a.home(), "foreign": a.home() + "-foreign"}
	if a.model == "shared" {
		places["served"] = a.namespaces()[0]
	}
	var all []string
	for _, account := range of(a.objects(t), "ServiceAccount") {
		who := strings.TrimPrefix(account.GetName(), release+"-")
		user := "system:serviceaccount:" + a.home() + ":" + account.GetName()
		add := func(place, resource string) {
			if verbs := i.verbs(t, user, places[place], resource); verbs != "" {
				all = append(all, fmt.Sprintf("%-19s %-10s %-36s %s", who, place, resource, verbs))
			}
		}
		for place := range places {
			for _, resource := range resources {
				add(place, resource)
			}
		}
		for _, resource := range clusterResources {
			add("everywhere", resource)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n") + "\n"
}

// verbs are what somebody may do with a resource.
func (i *installer) verbs(t *testing.T, user, namespace, resource string) string {
	t.Helper()
	var allowed []string
	for _, verb := range verbs {
		asked := attributes(resource)
		asked.Namespace, asked.Verb = namespace, verb
		yes, err := i.may(t.Context(), user, asked)
		if err != nil {
			t.Fatal(err)
		}
		if yes {
			allowed = append(allowed, verb)
		}
	}
	return strings.Join(allowed, " ")
}

// The rights are those of testdata/rights, and no others.
func TestRights(t *testing.T) {
	i := newInstaller(t)
	for _, a := range arrangements() {
		if a.profile == "knative-direct" {
			continue // TestRightsOfKnativeDirect
		}
		t.Run(a.String(), func(t *testing.T) {
			i.install(t, a)
			got := i.rights(t, a)
			golden(t, "testdata/rights/"+a.String()+".txt", []byte(got))
			for line := range strings.Lines(got) {
				fields := strings.Fields(line)
				who, where, what, may := fields[0], fields[1], fields[2], fields[3:]
				switch {
				case where == "foreign":
					t.Errorf("a right outside of what is served: %s", line)
				case where == "everywhere" && !strings.Contains(what, "cmpclusterissuers"):
					t.Errorf("a right in the whole cluster: %s", line)
				case who == "dispatch", who == "setup":
					t.Errorf("it needs no right: %s", line)
				case what == "secrets" && (who == "expiry-scan" || who == "certificate-source"):
					t.Errorf("it needs no right to Secrets: %s", line)
				case what == "secrets" && who != "secret-source" && who != "all" && slices.Contains(may, "watch"):
					t.Errorf("it would see every Secret: %s", line)
				case what == "secrets" && slices.Contains([]string{"enroll", "renew"}, who) && slices.Contains(may, "list"):
					t.Errorf("it knows the names of the Secrets it needs: %s", line)
				case what == "secrets" && slices.Contains([]string{"watch-secrets", "secret-source"}, who) && slices.ContainsFunc(may, func(v string) bool { return v != "get" && v != "list" && v != "watch" }):
					t.Errorf("it writes nothing: %s", line)
				}
			}
		})
	}
}

// Who pulls the work is a question for NATS and none for Kubernetes: the rights are the same.
func TestRightsOfKnativeDirect(t *testing.T) {
	for _, whom := range []string{"dedicated", "shared"} {
		rules := map[string]map[string]any{}
		for _, profile := range []string{"knative", "knative-direct"} {
			a, found := arrangement{profile, whom}, map[string]any{}
			for _, kind := range []string{"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} {
				for _, u := range of(a.objects(t), kind) {
					place := strings.ReplaceAll(u.GetNamespace()+"/"+u.GetName(), a.home(), "HOME")
					subjects, _, _ := unstructured.NestedSlice(u.Object, "subjects")
					found[kind+" "+place] = []any{u.Object["rules"], len(subjects)}
				}
			}
			rules[profile] = found
		}
		if len(rules["knative"]) < 10 || !reflect.DeepEqual(rules["knative"], rules["knative-direct"]) {
			t.Errorf("%s: got %v, want %v", whom, rules["knative-direct"], rules["knative"])
		}
	}
}

// What the functions' tests show to be enough is given.
func TestRightsAreEnough(t *testing.T) {
	i := newInstaller(t)
	a := arrangement{"knative", "shared"}
	i.install(t, a)
	for _, function := range []string{"enroll", "renew", "watch-secrets", "expiry-scan"} {
		for _, rule := range functiontest.Rights(t, filepath.Join(root, "functions", function, "README.md")) {
			for _, asked := range flat(rule) {
				if asked.Resource == model.ClusterIssuerResource {
					if asked.Verb == "create" || asked.Verb == "delete" {
						continue // only people do that
					}
				} else {
					asked.Namespace = a.namespaces()[1]
				}
				yes, err := i.may(t.Context(), "system:serviceaccount:"+a.home()+":"+release+"-"+function, asked)
				if err != nil {
					t.Fatal(err)
				}
				if !yes {
					t.Errorf("%s may not %s %s/%s", function, asked.Verb, asked.Resource, asked.Subresource)
				}
			}
		}
	}
}

func flat(rule rbacv1.PolicyRule) (all []authorizationv1.ResourceAttributes) {
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			name, sub, _ := strings.Cut(resource, "/")
			for _, verb := range rule.Verbs {
				all = append(all, authorizationv1.ResourceAttributes{Group: group, Resource: name, Subresource: sub, Verb: verb})
			}
		}
	}
	return all
}

// Knative asks what the mode is of; ours asks that it never is of a Secret's contents.
func TestNoEventHoldsASecret(t *testing.T) {
	for _, a := range arrangements() {
		for _, u := range of(a.objects(t), "ApiServerSource") {
			spec := decode[struct {
				Mode      string `json:"mode"`
				Resources []struct {
					APIVersion string `json:"apiVersion"`
					Kind       string `json:"kind"`
					Selector   any    `json:"selector"`
				} `json:"resources"`
				ServiceAccountName string `json:"serviceAccountName"`
				NamespaceSelector  any    `json:"namespaceSelector"`
				Sink               any    `json:"sink"`
			}](t, u.Object["spec"])
			for _, r := range spec.Resources {
				if r.Kind == "Secret" && spec.Mode != "Reference" {
					t.Errorf("%s: %s has mode %s for Secrets", a, u.GetName(), spec.Mode)
				}
				if r.Kind != "Secret" && spec.Mode == "Reference" {
					t.Errorf("%s: %s does not tell what enroll reads", a, u.GetName())
				}
			}
		}
	}
}
