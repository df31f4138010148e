package kubetest

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Namespace makes a namespace named after the test and deletes it, without
// waiting, when the test has ended.
func (c *Cluster) Namespace(tb testing.TB) string {
	tb.Helper()
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		tb.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: namePrefix(tb.Name())}}
	ns, err = client.CoreV1().Namespaces().Create(tb.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		tb.Fatalf("making a namespace: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			tb.Logf("namespace %s is left behind: %v", ns.Name, err)
		}
	})
	return ns.Name
}

// namePrefix makes the beginning of a DNS label of a test's name.
func namePrefix(test string) string {
	const most = 40 // of 63, of which the API server uses 5
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(strings.TrimPrefix(test, "Test")))
	return strings.TrimLeft(label[:min(len(label), most)], "-") + "-"
}
