package cmp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// A first certificate, with a secret shared with the CA.
func ExampleClient_Do() {
	var root *x509.Certificate // of the CA, from a trust store
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	subject, err := cmp.ParseName("/O=Example/CN=web.shop.svc")
	if err != nil {
		log.Fatal(err)
	}
	client := &cmp.Client{URL: "http://ca.example:829/.well-known/cmp"}
	cfg := cmp.Config{
		Credential:   &cmp.SharedSecret{Reference: []byte("3078"), Secret: []byte("insta")},
		Trust:        cmp.Trust{Roots: []*x509.Certificate{root}},
		TotalTimeout: time.Minute,
	}
	issued, err := client.Do(context.Background(), cfg, cmp.Request{
		Type: cmp.TypeIR, Key: key, Template: cmp.CertTemplate{Subject: subject},
	})
	var refused *cmp.Error
	if errors.As(err, &refused) && refused.Verified {
		log.Fatalf("the CA says no, for good: %t", !refused.Retryable())
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(issued.Certificate.Subject, len(issued.Chain))
}

// Distinguished names in two notations.
func ExampleParseName() {
	for _, text := range []string{"/C=DE/O=Example/OU=a+OU=b/CN=with \\/ slash", "CN=web,DC=example,DC=org"} {
		name, err := cmp.ParseName(text)
		fmt.Println(name, err)
	}
	fmt.Println(cmp.SkippedAttributes("/CN=web/unknown=x"))
	// Output:
	// CN=with / slash,OU=a+OU=b,O=Example,C=DE <nil>
	// CN=web,DC=example,DC=org <nil>
	// [unknown]
}

// What a server does with a message.
func ExampleParseMessage() {
	var der []byte // the body of an HTTP POST
	message, err := cmp.ParseMessage(der)
	if syntax, ok := errors.AsType[*cmp.SyntaxError](err); ok {
		fmt.Println(syntax.Field, "of", syntax.Section)
		return
	}
	requests, ok := message.Body.(cmp.CertReqMessages)
	if !ok {
		return
	}
	secret := &cmp.SharedSecret{Reference: message.Header.SenderKID, Secret: []byte("looked up by the reference")}
	if err := errors.Join(message.VerifyMAC(secret, 0), requests[0].VerifyPOP()); err != nil {
		fmt.Println(err)
	}
	// Output: PKIMessage of RFC 9810 §5.1
}
