// Command renew replaces certificates that are due.
package main

import (
	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/service"
)

func main() { service.Main(functions.Renew(nil)) }
