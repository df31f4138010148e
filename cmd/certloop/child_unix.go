//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a program and its children into a process group of their own, so that
// a Ctrl-C on the terminal is for us alone and ending the program ends its children.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
