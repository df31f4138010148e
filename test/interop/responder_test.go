package interop

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// shell runs the openssl client against one of our responders, in a directory
// with the keys and requests it may name, and a certificate to sign with for some types of keys.
type shell struct {
	server *responder.Running
	ca     *ca // our client's view of the same server
	dir    string

	subject []byte // what subjectOption is

	mu       sync.Mutex
	received []cmp.BodyType // by the server
}

func (r *rig) newShell(t testing.TB, behaviour responder.Behaviour, identities ...string) *shell {
	t.Helper()
	return r.shellWith(t, responder.Config{Infos: infos}, behaviour, identities...)
}

// infos are what the responder says besides certificates and revocation lists.
var infos = []cmp.InfoTypeAndValue{
	{Type: cmp.InfoCertReqTemplate, Value: []byte{0x30, 2, 0x30, 0}},
	{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 16}, Value: []byte{0x30, 4, 12, 2, 'e', 'n'}},
}

func (r *rig) shellWith(t testing.TB, cfg responder.Config, behaviour responder.Behaviour, identities ...string) *shell {
	t.Helper()
	s := &shell{dir: t.TempDir()}
	cfg.SharedSecrets, cfg.AllowSHA1 = map[string]string{reference: secretValue}, true
	cfg.OnMessage = func(e responder.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.received = append(s.received, e.Received)
	}
	server, err := responder.Start(cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	s.server, s.ca = server, newCA(server.URL, server.CACertificate())
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("closing the responder: %v", err)
		}
	})
	r.prepare(t, s.dir)
	if err := writePEM(s.path("ca.crt"), "CERTIFICATE", server.CACertificate().Raw); err != nil {
		t.Fatal(err)
	}
	if s.subject, err = cmp.ParseName(subjectOption); err != nil {
		t.Fatal(err)
	}
	for _, kind := range identities {
		id, err := s.ca.identity(t.Context())(kind)
		if err == nil {
			err = s.write("id-"+kind, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	server.Behave(func(b *responder.Behaviour) { *b = behaviour })
	return s
}

func (s *shell) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shell) write(name string, id *cmp.Signer) error {
	if err := writeKey(s.path(name+".key"), id.Key); err != nil {
		return err
	}
	return writePEM(s.path(name+".crt"), "CERTIFICATE", id.Certificate.Raw)
}

// openssl runs the tool in the directory. The error has what it said.
func (s *shell) openssl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("openssl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// cmp runs openssl cmp under a protection.
func (s *shell) cmp(ctx context.Context, p *protection, args ...string) error {
	all := []string{"cmp", "-config", "", "-server", strings.TrimPrefix(s.server.URL, "http://"), "-trusted", "ca.crt"}
	if p.mac != nil {
		all = append(all, "-ref", reference, "-secret", "pass:"+secretValue)
	} else {
		all = append(all, "-cert", "id-"+p.key+".crt", "-key", "id-"+p.key+".key")
	}
	return s.openssl(ctx, slices.Concat(all, p.openssl, args)...)
}

// subjectOption is wishSubject as the client is told, and extensions the rest of the wish.
const (
	subjectOption = "/C=DE/O=shop/CN=wéb"
	extensions    = `[wish]
subjectAltName = DNS:web.shop.svc, DNS:*.web.example, IP:10.0.0.1, IP:2001:db8::1, URI:spiffe://shop/web
keyUsage = critical, digitalSignature, keyAgreement
extendedKeyUsage = serverAuth, clientAuth
`
)

// prepare writes what all cells have in common: new keys, and PKCS #10 requests for them.
func (r *rig) prepare(t testing.TB, dir string) {
	t.Helper()
	errs := []error{os.WriteFile(filepath.Join(dir, "wish.cnf"), []byte(extensions), 0o600)}
	for kind, w := range r.wishes {
		errs = append(errs, writeKey(filepath.Join(dir, kind+".key"), w.key),
			writePEM(filepath.Join(dir, kind+".csr"), "CERTIFICATE REQUEST", w.csr.Raw))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// foreignKeys are those crypto/x509 knows no certificates for.
var foreignKeys = map[string][]string{
	keySecp256k1: {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
	keyRSAPSS:    {"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"},
	keyEd448:     {"-algorithm", "ED448"},
}

func (r *rig) testResponder(t *testing.T) {
	t.Parallel()
	requireTools(t, "openssl", "openssl")
	s := r.newShell(t, responder.Behaviour{}, keyP256, keyP384, keyP521, keyRSA, keyRSA4096, keyEd25519)
	for i := range protections {
		if p := &protections[i]; p.openssl != nil { // it has neither PBMAC1 nor a choice of RSA-PSS
			r.testClient(t, s, p)
		}
	}
	r.testForeignKeys(t, s)
	r.testAuthorities(t)
	r.testAnswers(t, opNotGranted, responder.Behaviour{NoImplicitConfirm: true},
		[]cmp.BodyType{cmp.TypeCR, cmp.TypeCertConf}, "-implicit_confirm")
	r.testAnswers(t, opPolling, responder.Behaviour{Wait: 2, CheckAfter: time.Second},
		[]cmp.BodyType{cmp.TypeCR, cmp.TypePollReq, cmp.TypePollReq, cmp.TypeCertConf})
}

func (r *rig) testClient(t *testing.T, s *shell, p *protection) {
	for operation, kind := range requests {
		keys := fewKeys
		if operation == opCR {
			keys = newKeys
		}
		for _, key := range keys {
			r.matrix.try(t, cell{pairResponder, operation, p.name, key}, func(t *testing.T) error {
				return s.request(t.Context(), p, r.file(key), []cmp.BodyType{kind, cmp.TypeCertConf})
			})
		}
	}
	for operation, attempt := range map[string]func(ctx context.Context) error{
		opImplicit: func(ctx context.Context) error {
			return s.request(ctx, p, r.file(keyP256), []cmp.BodyType{cmp.TypeCR}, "-implicit_confirm")
		},
		opRR:         func(ctx context.Context) error { return r.revoke(ctx, s, p, "-oldcert", "victim.crt") },
		opRRRequest:  func(ctx context.Context) error { return r.revoke(ctx, s, p, "-csr", "victim.csr") },
		opCACerts:    func(ctx context.Context) error { return s.ask(ctx, p, "caCerts") },
		opTemplate:   func(ctx context.Context) error { return s.ask(ctx, p, "certReqTemplate") },
		opCurrentCRL: func(ctx context.Context) error { return s.ask(ctx, p, "currentCRL") },
		opLanguages:  func(ctx context.Context) error { return s.ask(ctx, p, "suppLangTags") },
	} {
		r.matrix.try(t, cell{pair: pairResponder, operation: operation, protection: p.name}, func(t *testing.T) error { return attempt(t.Context()) })
	}
}

// authorities are the keys a responder signs with, besides P-256.
var authorities = []struct {
	name string
	cfg  responder.Config
}{
	{keyP384, responder.Config{KeyType: responder.P384}},
	{keyP521, responder.Config{KeyType: responder.P521}},
	{keyRSA, responder.Config{KeyType: responder.RSA2048}},
	{keyRSA4096, responder.Config{KeyType: responder.RSA4096}},
	{"RSA-PSS SHA-256", responder.Config{KeyType: responder.RSA2048, PSS: true}},
	{keyEd25519, responder.Config{KeyType: responder.Ed25519}},
}

// testAuthorities enrols and confirms with responders of other keys, where the
// client verifies their signatures.
func (r *rig) testAuthorities(t *testing.T) {
	for _, a := range authorities {
		s := r.shellWith(t, a.cfg, responder.Behaviour{}, keyP256)
		for i := range protections {
			p := &protections[i]
			if p.name != "PBM HMAC-SHA256" && p.name != "ECDSA P-256" {
				continue
			}
			r.matrix.try(t, cell{pairResponder, opAuthority, p.name, a.name}, func(t *testing.T) error {
				return s.request(t.Context(), p, r.file(keyP256), []cmp.BodyType{cmp.TypeCR, cmp.TypeCertConf}, "-out_trusted", "ca.crt")
			})
		}
	}
}

// ask sends a genm and wants an answer with that info.
func (s *shell) ask(ctx context.Context, p *protection, infoType string) error {
	return s.cmp(ctx, p, "-cmd", "genm", "-infotype", infoType)
}

// testAnswers tries one behaviour of the responder under all protections at the
// same time, because some of it takes seconds.
func (r *rig) testAnswers(t *testing.T, operation string, behaviour responder.Behaviour, want []cmp.BodyType, options ...string) {
	outcomes := make([]error, len(protections))
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i := range protections {
		p := &protections[i]
		if p.openssl == nil {
			continue
		}
		s := r.newShell(t, behaviour, p.identityKey())
		all.Go(func() error {
			outcomes[i] = s.request(t.Context(), p, r.file(keyP256), want, options...)
			return nil
		})
	}
	_ = all.Wait() // the outcomes tell
	for i, err := range outcomes {
		if protections[i].openssl != nil {
			r.matrix.try(t, cell{pair: pairResponder, operation: operation, protection: protections[i].name}, func(*testing.T) error { return err })
		}
	}
}

// atOnce is the number of openssl processes that run at the same time.
const atOnce = 8

// testForeignKeys asks for certificates that Go cannot make.
func (r *rig) testForeignKeys(t *testing.T, s *shell) {
	p := &protections[slices.Index(protectionNames(), "ECDSA P-256")]
	for kind, options := range foreignKeys {
		if err := s.openssl(t.Context(), append([]string{"genpkey", "-out", kind + ".key"}, options...)...); err != nil {
			t.Fatal(err)
		}
		if err := s.openssl(t.Context(), "req", "-new", "-key", kind+".key", "-subj", subjectOption, "-out", kind+".csr"); err != nil {
			t.Fatal(err)
		}
		for _, operation := range []string{opCR, opP10CR} {
			r.matrix.try(t, cell{pairResponder, operation, p.name, kind}, func(t *testing.T) error {
				return s.request(t.Context(), p, newKey{name: kind, wish: &wish{}}, []cmp.BodyType{requests[operation], cmp.TypeCertConf})
			})
		}
	}
}

// newKey is a key to ask a certificate for, in NAME.key and NAME.csr.
type newKey struct {
	name string
	wish *wish
}

func (r *rig) file(kind string) newKey { return newKey{kind, r.wishes[kind]} }

// request obtains a certificate, wants that to take messages of these types, and checks it.
func (s *shell) request(ctx context.Context, p *protection, key newKey, want []cmp.BodyType, options ...string) error {
	const out = "out.crt"
	if err := os.Remove(s.path(out)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.forget()
	args, subject := s.requestOptions(want[0], p, key)
	if err := s.cmp(ctx, p, slices.Concat(args, []string{"-certout", out}, options)...); err != nil {
		return err
	}
	if got := s.forget(); !slices.Equal(got, want) {
		return fmt.Errorf("the responder got %v, want %v", got, want)
	}
	cert, err := readCertificate(s.path(out))
	if err != nil {
		return err
	}
	return key.wish.check(cert, s.ca.root, subject)
}

func (s *shell) requestOptions(kind cmp.BodyType, p *protection, key newKey) (options []string, subject []byte) {
	options = []string{"-cmd", kind.String(), "-config", "wish.cnf"}
	subject = s.subject
	if kind == cmp.TypeP10CR {
		return append(options, "-csr", key.name+".csr"), subject
	}
	options = append(options, "-newkey", key.name+".key", "-reqexts", "wish")
	if kind != cmp.TypeKUR {
		return append(options, "-subject", subjectOption), subject
	}
	old := p.identityKey()
	return append(options, "-oldcert", "id-"+old+".crt"), s.ca.identities[old].Certificate.RawSubject
}

// forget returns what the server has received since it was last asked.
func (s *shell) forget() []cmp.BodyType {
	s.mu.Lock()
	defer s.mu.Unlock()
	received := s.received
	s.received = nil
	return received
}

// revoke revokes a certificate made for the purpose, by its own signature or by the shared secret.
func (r *rig) revoke(ctx context.Context, s *shell, p *protection, named ...string) error {
	a := attempt{ca: s.ca, wish: r.wishes[keyP256]}
	victim, err := a.victim(ctx, p.identityKey())
	if err != nil {
		return err
	}
	csr, err := requestOf(victim)
	if err != nil {
		return err
	}
	if err := errors.Join(s.write("victim", victim), writePEM(s.path("victim.csr"), "CERTIFICATE REQUEST", csr.Raw)); err != nil {
		return err
	}
	args := append([]string{"-cmd", "rr", "-revreason", "4"}, named...)
	if p.mac == nil {
		args = append(args, "-cert", "victim.crt", "-key", "victim.key") // the later options count
	}
	if err := s.cmp(ctx, p, args...); err != nil {
		return err
	}
	issued := s.server.Issued()
	if last := issued[len(issued)-1]; !last.Revoked || last.Reason != "superseded" {
		return fmt.Errorf("ledger: got revoked %t, reason %q, want true, superseded", last.Revoked, last.Reason)
	}
	return a.useless(ctx, victim)
}
