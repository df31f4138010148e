// Command bare is the least that a function in Go can be: it takes a POST over net/http and
// answers 202. Sizes and cold starts are told as multiples of its own.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	server := &http.Server{
		Addr: os.Getenv("CERTLOOP_LISTEN"), ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusAccepted)
		}),
	}
	log.Fatal(server.ListenAndServe())
}
