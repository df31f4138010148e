package responder_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// A CA that lets its clients poll before it issues.
func ExampleStart() {
	ca, err := responder.Start(responder.Config{SharedSecrets: map[string]string{"1234": "insta"}}, "")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = ca.Close() }()
	ca.Wait(1, time.Second)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	subject, err := cmp.NameOf(pkix.Name{CommonName: "web"})
	if err != nil {
		log.Fatal(err)
	}
	client := &cmp.Client{URL: ca.URL}
	cfg := cmp.Config{
		Credential: &cmp.SharedSecret{Reference: []byte("1234"), Secret: []byte("insta")},
		Trust:      cmp.Trust{Roots: []*x509.Certificate{ca.CACertificate()}},
	}
	issued, err := client.Do(context.Background(), cfg, cmp.Request{Type: cmp.TypeIR, Template: cmp.CertTemplate{Subject: subject}, Key: key})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(issued.Certificate.Subject, "by", issued.Certificate.Issuer)
	for _, i := range ca.Issued() {
		fmt.Println(i.Subject, i.Request, i.Authenticated, "confirmed:", i.Confirmed)
	}
	// Output:
	// CN=web by CN=certloop CA
	// CN=web ir mac:1234 confirmed: true
}
