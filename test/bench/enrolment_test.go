package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/test/e2e/rig"
)

// identity is a certificate that signs requests to a CA.
type identity struct {
	ca  *responder.Server
	cfg cmp.Config
}

func newIdentity(b *testing.B) *identity {
	b.Helper()
	ca, err := responder.New(responder.Config{SharedSecrets: map[string]string{rig.Reference: rig.Secret}})
	if err != nil {
		b.Fatal(err)
	}
	i := &identity{ca: ca, cfg: cmp.Config{
		Credential: &cmp.SharedSecret{Reference: []byte(rig.Reference), Secret: []byte(rig.Secret)},
		Trust:      cmp.Trust{Roots: []*x509.Certificate{ca.CACertificate()}},
	}}
	key := newKey(b)
	issued := i.enrol(b, key, &spent{})
	i.cfg.Credential = &cmp.Signer{Key: key, Certificate: issued}
	return i
}

func newKey(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

func request(b *testing.B, key crypto.Signer) cmp.Request {
	b.Helper()
	name, err := cmp.ParseName("/CN=bench")
	if err != nil {
		b.Fatal(err)
	}
	return cmp.Request{Type: cmp.TypeIR, Key: key, Template: cmp.CertTemplate{Subject: name, PublicKey: key.Public()}}
}

// spent is CPU time of the calling thread.
type spent struct{ client, ca time.Duration }

// enrol runs one transaction, ir to pkiConf, without a network.
func (i *identity) enrol(b *testing.B, key crypto.Signer, used *spent) *x509.Certificate {
	b.Helper()
	began := threadCPU(b)
	lap := func(into *time.Duration) {
		now := threadCPU(b)
		*into += now - began
		began = now
	}
	tx, err := cmp.Begin(i.cfg, request(b, key))
	if err != nil {
		b.Fatal(err)
	}
	var certificate *x509.Certificate
	for step := tx.Step(); !step.Done; {
		lap(&used.client)
		reply, err := i.ca.Respond(step.Send)
		if err != nil {
			b.Fatal(err)
		}
		lap(&used.ca)
		if step, err = tx.Next(reply); err != nil {
			b.Fatal(err)
		}
		if step.Issued != nil {
			certificate = step.Issued.Certificate
		}
	}
	lap(&used.client)
	return certificate
}

// An enrolment, its key made, in one thread: CPU of our side and of the CA, and our
// side in multiples of the bare cryptography it needs.
func BenchmarkEnrolmentCPU(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	i := newIdentity(b)
	var used spent
	var bare time.Duration
	n := 0
	for b.Loop() {
		before := threadCPU(b)
		key := newKey(b)
		used.client += threadCPU(b) - before
		i.enrol(b, key, &used)
		bare += bareCryptography(b)
		n++
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(microseconds(used.client, n), "client-CPU-µs")
	b.ReportMetric(microseconds(used.ca, n), "CA-CPU-µs")
	b.ReportMetric(microseconds(bare, n), "bare-crypto-µs")
	b.ReportMetric(float64(used.client)/float64(bare), "client/bare")
}

func microseconds(d time.Duration, n int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(max(n, 1))
}

// bareCryptography is what an enrolment protected by signatures cannot do without:
// a key, signatures for proof of possession, ir and certConf, and the verification
// of ip, certificate and pkiConf.
func bareCryptography(b *testing.B) time.Duration {
	b.Helper()
	before := threadCPU(b)
	key := newKey(b)
	digest := sha256.Sum256([]byte("a message"))
	for range 3 {
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			b.Fatal("ECDSA does not work")
		}
	}
	return threadCPU(b) - before
}

func threadCPU(b *testing.B) time.Duration {
	b.Helper()
	return rusage(b, syscall.RUSAGE_THREAD)
}

func rusage(b *testing.B, who int) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// Enrolments over HTTP on loopback, client and CA in this process: how many in a
// second on all processors, and CPU of both together.
func BenchmarkEnrolmentHTTP(b *testing.B) {
	i := newIdentity(b)
	s := httptest.NewServer(i.ca)
	defer s.Close()
	client := &cmp.Client{URL: s.URL}
	before := rusage(b, syscall.RUSAGE_SELF)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := client.Do(b.Context(), i.cfg, request(b, key)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "enrolments/s")
	b.ReportMetric(microseconds(rusage(b, syscall.RUSAGE_SELF)-before, b.N), "client+CA-CPU-µs")
}
