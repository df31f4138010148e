//go:build !unix

package main

import "os"

// takeLock opens the file; here nothing keeps others from doing the same.
func takeLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
