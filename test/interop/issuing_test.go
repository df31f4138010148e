package interop

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

// polls is how often the CAs that let clients wait answer waiting, the first answer included.
const polls = "2"

func (r *rig) testOpenSSLCA(t *testing.T) {
	t.Parallel()
	requireTools(t, "gcc make libssl-dev", "make", "gcc")
	const dir = "../peers/openssl-ca"
	build(t, dir)
	grants := startIssuingCA(t, dir+"/openssl-ca", "-implicit")
	waits := startIssuingCA(t, dir+"/openssl-ca", "-poll", polls)
	r.testIssuing(t, pairOpenSSLCA, grants, waits, newKeys)
	for _, key := range opensslKeys {
		r.testAuthority(t, pairOpenSSLCA, startIssuingCA(t, dir+"/openssl-ca", "-newkey", key), key)
	}
}

func (r *rig) testBouncyCastleCA(t *testing.T) {
	t.Parallel()
	requireTools(t, "make openjdk-17-jdk-headless", "make", "javac", "java")
	for _, name := range []string{"bcprov", "bcutil", "bcpkix"} {
		if _, err := os.Stat("/usr/share/java/" + name + ".jar"); err != nil {
			skip(t, name+".jar is not installed (Debian: lib"+name+"-java)")
		}
	}
	const dir = "../peers/bouncycastle-ca"
	build(t, dir)
	java := []string{"-XX:+UseSerialGC", "-Xmx128m", "-jar", dir + "/bouncycastle-ca.jar"}
	grants := startIssuingCA(t, "java", append(java, "-implicit")...)
	waits := startIssuingCA(t, "java", append(java, "-poll", polls)...)
	r.testIssuing(t, pairBouncy, grants, waits, newKeys)
	confirms := startIssuingCA(t, "java", append(java, "-poll_confirm", polls)...)
	r.testWaiting(t, pairBouncy, confirms, map[string]func(ctx context.Context, a *attempt) error{
		opWaitConfirm: func(ctx context.Context, a *attempt) error {
			return a.inSteps(ctx, a.config(), cmp.TypeCR, cmp.TypeCertConf, cmp.TypePollReq, cmp.TypePollReq)
		},
	})
	for _, algorithm := range bouncyAlgorithms {
		c := startIssuingCA(t, "java", append(java, "-alg", algorithm.java)...)
		r.testAuthority(t, pairBouncy, c, algorithm.name)
	}
}

// bouncyAlgorithms are what a CA on Bouncy Castle signs with, besides ECDSA on P-256.
var bouncyAlgorithms = []struct{ name, java string }{
	{"RSA PKCS #1 SHA-512", "SHA512withRSA"}, {"RSA-PSS SHA-256", "SHA256withRSAandMGF1"}, {"Ed25519", "Ed25519"},
}

// opensslKeys are the keys of CAs on libcrypto, besides P-256; those with Ed25519
// can issue, but protect their messages by MAC only.
var opensslKeys = []string{keyP384, keyP521, keyRSA, keyRSA4096, keyEd25519}

// testAuthority enrols and confirms with a CA that signs with something else, and
// looks at what else it signs.
func (r *rig) testAuthority(t *testing.T, pair string, c *ca, signs string) {
	for i := range protections {
		p := &protections[i]
		if p.name != "PBM HMAC-SHA256" && (p.name != "ECDSA P-256" || pair == pairOpenSSLCA && signs == keyEd25519) {
			continue
		}
		r.one(t, c, cell{pair: pair, operation: opAuthority, protection: p.name, key: signs}, p, func(ctx context.Context, a *attempt) error {
			if err := a.inSteps(ctx, a.config(), cmp.TypeCR, cmp.TypeCertConf); err != nil {
				return err
			}
			if err := a.currentCRL(ctx); err != nil {
				return err
			}
			return a.rootUpdate(ctx)
		})
	}
}

// testIssuing runs the cells of a CA that issues for the requested key. There
// are two of it: one grants implicit confirmation, one lets everybody wait. A cr
// is tried for all types of keys, the other requests for those in others.
func (r *rig) testIssuing(t *testing.T, pair string, grants, waits *ca, others []string) {
	for i := range protections {
		p := &protections[i]
		r.testRequests(t, pair, grants, p, others)
		one := func(operation string, try func(ctx context.Context, a *attempt) error) {
			r.one(t, grants, cell{pair: pair, operation: operation, protection: p.name}, p, try)
		}
		one(opImplicit, func(ctx context.Context, a *attempt) error {
			cfg := a.config()
			cfg.ImplicitConfirm = true
			return a.inSteps(ctx, cfg, cmp.TypeCR)
		})
		one(opReject, func(ctx context.Context, a *attempt) error { return a.reject(ctx) })
		one(opNested, func(ctx context.Context, a *attempt) error { return a.nested(ctx) })
		for operation, by := range revocations {
			one(operation, func(ctx context.Context, a *attempt) error { return a.revokeNew(ctx, p, by) })
		}
		for operation, ask := range questions {
			one(operation, func(ctx context.Context, a *attempt) error { return ask(a, ctx) })
		}
		if p.name == "PBM HMAC-SHA256" || p.name == "ECDSA P-256" {
			one(opRRReasons, func(ctx context.Context, a *attempt) error { return a.revokeForEachReason(ctx, pair == pairBouncy) })
		}
	}
	r.testWaiting(t, pair, waits, map[string]func(ctx context.Context, a *attempt) error{
		opPolling: func(ctx context.Context, a *attempt) error {
			return a.inSteps(ctx, a.config(), cmp.TypeCR, cmp.TypePollReq, cmp.TypePollReq, cmp.TypeCertConf)
		},
		opPollingP10CR: func(ctx context.Context, a *attempt) error {
			cfg := a.config()
			cfg.ImplicitConfirm = true // not granted
			return a.inSteps(ctx, cfg, cmp.TypeP10CR, cmp.TypePollReq, cmp.TypePollReq, cmp.TypeCertConf)
		},
	})
}

// requests are the operations that obtain a certificate.
var requests = map[string]cmp.BodyType{opIR: cmp.TypeIR, opCR: cmp.TypeCR, opP10CR: cmp.TypeP10CR, opKUR: cmp.TypeKUR}

func (r *rig) testRequests(t *testing.T, pair string, c *ca, p *protection, others []string) {
	for _, operation := range operations {
		kind, ok := requests[operation]
		if !ok {
			continue
		}
		keys := others
		if operation == opCR {
			keys = newKeys
		}
		for _, key := range keys {
			r.matrix.try(t, cell{pair, operation, p.name, key}, func(t *testing.T) error {
				a, err := c.attempt(t.Context(), p, r.wishes[key])
				if err != nil {
					return err
				}
				return a.request(t.Context(), kind)
			})
		}
	}
}

// one runs a cell that is tried with a P-256 key only, or without any.
func (r *rig) one(t *testing.T, c *ca, which cell, p *protection, try func(ctx context.Context, a *attempt) error) {
	t.Helper()
	r.matrix.try(t, which, func(t *testing.T) error {
		a, err := c.attempt(t.Context(), p, r.wishes[keyP256])
		if err != nil {
			return err
		}
		return try(t.Context(), a)
	})
}

// attempt prepares the credential for p. A kur updates the certificate it is
// signed with, or where there is none a certificate of the same CA.
func (c *ca) attempt(ctx context.Context, p *protection, w *wish) (*attempt, error) {
	credential, err := p.credential(c.identity(ctx))
	if err != nil {
		return nil, err
	}
	old, err := c.identity(ctx)(p.identityKey())
	if err != nil {
		return nil, err
	}
	return &attempt{ca: c, credential: credential, wish: w, old: old.Certificate}, nil
}

// testWaiting polls under all protections at the same time.
func (r *rig) testWaiting(t *testing.T, pair string, c *ca, operations map[string]func(ctx context.Context, a *attempt) error) {
	var mu sync.Mutex
	outcomes := map[cell]error{}
	var all sync.WaitGroup
	for i := range protections {
		for operation, try := range operations {
			all.Go(func() {
				p := &protections[i]
				a, err := c.attempt(t.Context(), p, r.wishes[keyP256])
				if err == nil {
					err = try(t.Context(), a)
				}
				mu.Lock()
				defer mu.Unlock()
				outcomes[cell{pair: pair, operation: operation, protection: p.name}] = err
			})
		}
	}
	all.Wait()
	for c, err := range outcomes {
		r.matrix.try(t, c, func(*testing.T) error { return err })
	}
}
