// Command bare is the least that a function in Go can be: it takes a POST over net/http, asks
// the API server what it is told to over TLS, by Kubernetes' REST API without a library, and
// answers 202. Sizes and cold starts are told as multiples of its own.
package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

// object is what it understands of an answer.
type object struct {
	Kind     string
	Metadata struct{ Name string }
}

func main() {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(os.Getenv("BARE_CA")))
	api := &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
	}
	server := &http.Server{
		Addr: os.Getenv("CERTLOOP_LISTEN"), ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			for url := range strings.FieldsSeq(os.Getenv("BARE_URLS")) {
				if err := ask(r, api, url); err != nil {
					http.Error(w, err.Error(), http.StatusBadGateway)
					return
				}
			}
			w.WriteHeader(http.StatusAccepted)
		}),
	}
	log.Fatal(server.ListenAndServe())
}

func ask(r *http.Request, api *http.Client, url string) error {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv("BARE_TOKEN"))
	resp, err := api.Do(req)
	if err != nil {
		return err
	}
	var found object
	err = json.NewDecoder(resp.Body).Decode(&found)
	return cmp.Or(err, resp.Body.Close())
}
