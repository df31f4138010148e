// Command enroll obtains a certificate for every configuration that lacks one, and puts back
// outputs that were changed or deleted.
package main

import (
	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/service"
)

func main() { service.Main(functions.Enroll(nil)) }
