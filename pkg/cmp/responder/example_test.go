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
	"net/http"
	"net/http/httptest"
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

// A CA inside a server of one's own: a Server is an http.Handler, and its CRL is
// at every path that ends in /crl.
func ExampleNew() {
	ca, err := responder.New(responder.Config{
		Name: "Test CA", KeyType: responder.Ed25519, SharedSecrets: map[string]string{"1234": "insta"},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/cmp/", ca)
	server := httptest.NewServer(mux)
	defer server.Close()

	resp, err := server.Client().Get(server.URL + "/.well-known/cmp/crl")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	fmt.Println(resp.StatusCode, resp.Header.Get("Content-Type"), ca.CACertificate().PublicKeyAlgorithm)
	// Output: 200 application/pkix-crl Ed25519
}

// A CA that refuses, then lets a reply get lost, and behaves again.
func ExampleServer_Behave() {
	ca, err := responder.New(responder.Config{SharedSecrets: map[string]string{"1234": "insta"}})
	if err != nil {
		log.Fatal(err)
	}
	ca.Reject(cmp.FailSystemUnavail, "back at noon")
	ca.DropReply(1, cmp.TypePKIConf)
	ca.Behave(func(b *responder.Behaviour) { fmt.Println(b.Reject.FailInfo, b.DropReply, b.Only[0]) })
	ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	ca.Behave(func(b *responder.Behaviour) { fmt.Println(b.Reject == nil, b.DropReply) })
	// Output:
	// systemUnavail 1 pkiconf
	// true 0
}

// A CA without a network: bytes in, bytes out.
func ExampleServer_Respond() {
	ca, err := responder.New(responder.Config{})
	if err != nil {
		log.Fatal(err)
	}
	reply, err := ca.Respond([]byte("no PKIMessage"))
	m, parseErr := cmp.ParseMessage(reply)
	if parseErr != nil {
		log.Fatal(parseErr)
	}
	fmt.Println(err != nil, m.Type, m.Body.(*cmp.ErrorMsg).Status.FailInfo)
	// Output: true error badDataFormat
}
