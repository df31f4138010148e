//go:build linux

package knativetest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// address is one that no Pod had before.
func (n *node) address() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods++
	return fmt.Sprintf("127.1.%d.%d", n.pods/250, n.pods%250+1)
}

// value is that of a variable in a Pod's environment.
func (n *node) value(p pod, e corev1.EnvVar) (string, error) {
	switch {
	case e.ValueFrom == nil:
		return e.Value, nil
	case e.ValueFrom.FieldRef != nil:
		return map[string]string{"metadata.namespace": p.namespace, "metadata.name": p.name}[e.ValueFrom.FieldRef.FieldPath], nil
	case e.ValueFrom.SecretKeyRef != nil:
		ref := e.ValueFrom.SecretKeyRef
		content, err := n.secret(p, ref.Name, ref.Key)
		return string(content), err
	default:
		return "", fmt.Errorf("%s/%s: the value of %s comes from what this node does not know", p.namespace, p.name, e.Name)
	}
}

// secret is what a Secret of the Pod's namespace has under a key. Without it the Pod cannot start.
func (n *node) secret(p pod, name, key string) ([]byte, error) {
	s, err := n.kube.CoreV1().Secrets(p.namespace).Get(n.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", p.namespace, p.name, err)
	}
	content, ok := s.Data[key]
	if !ok {
		return nil, fmt.Errorf("%s/%s: Secret %s has no key %s", p.namespace, p.name, name, key)
	}
	return content, nil
}

// automounted says whether a Pod gets a token: as it says itself, or else as its account does.
func (n *node) automounted(p pod) (bool, error) {
	if p.spec.AutomountServiceAccountToken != nil || p.spec.ServiceAccountName == "" {
		return p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken, nil
	}
	account, err := n.kube.CoreV1().ServiceAccounts(p.namespace).Get(n.ctx, p.spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	return account.AutomountServiceAccountToken == nil || *account.AutomountServiceAccountToken, nil
}

// mounted makes the volumes of one of our Pods. It returns the arguments, and changes the environment, so that
// they name the directories where the volumes are, and the Pod's own address in place of every one.
func (n *node) mounted(p pod, env []string) (arguments []string, err error) {
	c := p.spec.Containers[0]
	arguments = slices.Clone(c.Args)
	if !p.ours() {
		return arguments, nil
	}
	for _, m := range c.VolumeMounts {
		dir, err := n.volume(p, m.Name)
		if err != nil {
			return nil, err
		}
		for _, words := range [][]string{arguments, env} {
			for k := range words {
				words[k] = strings.ReplaceAll(words[k], m.MountPath, dir)
			}
		}
	}
	for k := range arguments {
		if arguments[k] == everyAddress {
			arguments[k] += p.ip
		}
	}
	return arguments, nil
}

// everyAddress is an argument.
const everyAddress = "--listen-host="

// volume is a directory with what a volume holds.
func (n *node) volume(p pod, name string) (dir string, err error) {
	at := slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if at < 0 {
		return "", fmt.Errorf("%s/%s has no volume %s", p.namespace, p.name, name)
	}
	if dir, err = os.MkdirTemp(n.logs, p.name+"-"+name+"-"); err != nil {
		return "", err
	}
	switch v := p.spec.Volumes[at]; {
	case v.EmptyDir != nil:
		return dir, nil
	case v.Secret != nil:
		for _, item := range v.Secret.Items {
			content, err := n.secret(p, v.Secret.SecretName, item.Key)
			if err != nil {
				return "", err
			}
			if err := os.WriteFile(filepath.Join(dir, item.Path), content, 0o600); err != nil {
				return "", err
			}
		}
		return dir, nil
	default:
		return "", fmt.Errorf("%s/%s: volume %s is of a kind that this node does not know", p.namespace, p.name, name)
	}
}

func (p *process) unready() bool { return !p.ready.Load() }

// probe asks one of our Pods how it is, as often as it says, until it ends: it is ready by its readiness probe, and killed when
// its startup or its liveness probe fails too often.
func (n *node) probe(p *process) {
	c := p.pod.spec.Containers[0]
	if c.ReadinessProbe == nil || !p.pod.ours() {
		p.ready.Store(true)
		return
	}
	started := c.StartupProbe == nil
	if !started {
		n.each(p, c.StartupProbe, func(ok bool, failures int32) (enough bool) {
			started = ok
			return ok || n.failed(p, "startup", c.StartupProbe, failures)
		})
	}
	if !started {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		n.each(p, c.ReadinessProbe, func(ok bool, _ int32) bool {
			p.ready.Store(ok)
			return false
		})
	})
	both.Go(func() {
		n.each(p, c.LivenessProbe, func(_ bool, failures int32) bool { return n.failed(p, "liveness", c.LivenessProbe, failures) })
	})
	both.Wait()
}

// each probes until the process has ended or told says that it is enough. failures are those since the last success.
func (n *node) each(p *process, probe *corev1.Probe, told func(ok bool, failures int32) (enough bool)) {
	if probe == nil {
		return
	}
	for failures := int32(0); n.ctx.Err() == nil; {
		if n.answers(p, probe) {
			failures = 0
		} else {
			failures++
		}
		if p.over() || told(failures == 0, failures) {
			return
		}
		select {
		case <-p.ended:
		case <-n.ctx.Done():
		case <-time.After(time.Duration(probe.PeriodSeconds) * time.Second):
		}
	}
}

// failed kills a process whose probe has failed too often.
func (n *node) failed(p *process, what string, probe *corev1.Probe, failures int32) bool {
	if failures < probe.FailureThreshold {
		return false
	}
	p.kill()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stubborn = append(n.stubborn, fmt.Errorf("%s: its %s probe failed %d times", p.pod.name, what, failures))
	return true
}

// probeTimeout is far longer than the second that Kubernetes gives, for a machine that does much else.
const probeTimeout = 10 * time.Second

func (n *node) answers(p *process, probe *corev1.Probe) bool {
	address, err := p.pod.probed(probe.HTTPGet)
	if err != nil {
		n.tb.Error(err)
		return false
	}
	client := &http.Client{Timeout: probeTimeout}
	resp, err := client.Get(address)
	return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// probed is what a probe asks.
func (p pod) probed(get *corev1.HTTPGetAction) (string, error) {
	if get == nil {
		return "", errors.New(p.name + ": a probe that does not ask over HTTP")
	}
	ports := p.spec.Containers[0].Ports
	at := slices.IndexFunc(ports, func(port corev1.ContainerPort) bool {
		if get.Port.Type == intstr.String {
			return port.Name == get.Port.StrVal
		}
		return get.Port.IntVal == 0 || port.ContainerPort == get.Port.IntVal // Knative asks the only port there is
	})
	switch {
	case at < 0:
		return "", fmt.Errorf("%s: a probe asks port %s, which the container does not have", p.name, get.Port.String())
	case p.port != 0:
		return fmt.Sprintf("http://127.0.0.1:%d%s", p.port, get.Path), nil
	default:
		return fmt.Sprintf("http://%s:%d%s", p.ip, ports[at].ContainerPort, get.Path), nil
	}
}
