package functiontest

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/certloop/certloop/test/e2e/rig"
)

// restricted makes a kubeconfig for somebody who has some rights in the namespace, and none beside.
func restricted(tb testing.TB, w *rig.World, rules []rbacv1.PolicyRule) string {
	tb.Helper()
	client, err := kubernetes.NewForConfig(w.Cluster.Config())
	if err != nil {
		tb.Fatal(err)
	}
	user := name(tb) + "." + w.Namespace
	meta := metav1.ObjectMeta{GenerateName: "function-"}
	role, err := client.RbacV1().Roles(w.Namespace).Create(tb.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	if _, err := client.RbacV1().RoleBindings(w.Namespace).Create(tb.Context(), binding, metav1.CreateOptions{}); err != nil {
		tb.Fatal(err)
	}
	return w.Cluster.KubeconfigAs(tb, user)
}
