//go:build linux

// Package knativetest tries certloop on Knative's own programs.
//
// TestHelmInstall has Helm install the chart, in every profile and both models, where the
// admission webhooks of Knative Eventing and Knative Serving judge each object.
//
// TestKnative applies deploy/knative to a real API server, and everything in it runs as a plain
// process, under the rights of its own service account:
//
//	PingSource           through Knative's adapter into expiry-scan and watch-secrets
//	ApiServerSource      two receive adapters, one for our resources and one for Secrets
//	Broker and Triggers  the ingress, filter and in-memory channel of Knative
//	controllers          and the admission webhook again, in kncontrol of test/knative
//	functions            started by the first request and stopped when there is none, as by Knative Serving
//	certloop dispatch    as its Deployment says
//
// Knative's programs listen on every interface and find each other by the names of cluster
// DNS. So the test runs in a network namespace that holds nothing but a loopback device, and in a
// mount namespace whose /etc/resolv.conf names the test's own DNS server. What stands in for a
// kubelet, for kube-proxy and for Knative Serving is in node_test.go.
package knativetest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/certloop/certloop/test/kubetest"
)

// inside says that this process is the one in the namespaces.
const inside = "CERTLOOP_TEST_NAMESPACES"

var storm = flag.Int("storm", 100, "certificates that are enrolled while functions and dispatch are killed")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(inside) == "" {
		os.Exit(enter())
	}
	if err := settle(); err != nil {
		fmt.Fprintln(os.Stderr, "namespaces:", err)
		os.Exit(1)
	}
	os.Exit(kubetest.Main(m))
}

// enter runs this test binary again, in namespaces of its own. Where the user may not make
// any as they are, they are made in a namespace of users.
func enter() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(1, ended.ExitCode())
	}
	if err != nil {
		return impossible(err)
	}
	return 0
}

// impossible says that nothing was tested, for want of namespaces.
func impossible(err error) int {
	fmt.Fprintf(os.Stderr, "NOT TESTED: network and mount namespaces cannot be made here: %v. Run it as root, or where users may make namespaces\n", err)
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		return 1
	}
	return 0
}

// settle brings the loopback device up and makes dnsAddress the machine's DNS server.
func settle() error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "resolv.conf-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // the mount keeps it
	if _, err := fmt.Fprintf(file, "nameserver %s\noptions timeout:1 attempts:5\n", dnsAddress); err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return unix.Mount(file.Name(), "/etc/resolv.conf", "", unix.MS_BIND, "")
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(req))); errno != 0 {
		return errno
	}
	return nil
}
