package rig

import "syscall"

// dieWithParent lets no program outlive a test binary that was killed itself.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
