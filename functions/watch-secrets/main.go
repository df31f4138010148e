// Command watch-secrets tells which outputs no longer hold what was delivered.
package main

import (
	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/service"
)

func main() { service.Main(functions.WatchSecrets()) }
