// Package state is the directory a server lives in, and what makes a second
// start on it the same server: its keys, its admin token and its port.
//
// A directory belongs to one process at a time, enforced by a file lock that
// the kernel drops however the process ends. Everything in it that a later
// start depends on is written under another name and renamed, so a process
// killed at any moment leaves either the old content or the new.
package state
