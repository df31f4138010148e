// Command expiry-scan asks for the renewal of what is due.
package main

import (
	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/service"
)

func main() { service.Main(functions.ExpiryScan()) }
