package cmpcmd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// asCommand in the environment makes the test binary be the command: scripts
// run it in place of openssl cmp.
const asCommand = "CERTLOOP_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "" {
		os.Exit(m.Run())
	}
	cmd := New()
	cmd.SetArgs(os.Args[1:])
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		_, _ = io.WriteString(os.Stderr, "certloop: "+err.Error()+"\n")
		os.Exit(1)
	}
}

const peerDir = "../../../test/peers/openssl-ca"

// needPeer leaves a test out where there is no OpenSSL or no CA made with it.
func needPeer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	if _, err := os.Stat(filepath.Join(peerDir, "openssl-ca")); err != nil {
		skipOrFail(t, "openssl-ca is not built (make -C test/peers/openssl-ca)")
	}
}

// TestScriptOfPeer runs the self-test of the OpenSSL CA, a script of forty lines
// with openssl cmp, with this command in its place. Two of the script's
// expectations are of OpenSSL's client only, and are changed:
//
//   - it leaves a self-signed certificate out of extraCerts, so that the CA has
//     none to look at; we send it, and the CA says what is wrong with it;
//   - it sends a request without any name; we refuse to.
func TestScriptOfPeer(t *testing.T) {
	needPeer(t)
	dir, err := filepath.Abs(peerDir)
	if err != nil {
		t.Fatal(err)
	}
	script := readTestFile(t, filepath.Join(dir, "selftest.sh"))
	replace := func(old, by string, times int) {
		if n := strings.Count(script, old); n != times {
			t.Fatalf("the script has %q %d times, want %d", old, n, times)
		}
		script = strings.ReplaceAll(script, old, by)
	}
	replace("openssl cmp -server", `env `+asCommand+`=1 "$CLIENT" -server`, 2)
	replace("here=$PWD", "here="+dir, 1)
	replace(`"no suitable sender cert"`, `"potentially invalid certificate"`, 1)
	replace(`refused "popo missing subject"`, `! request`, 1)
	path := filepath.Join(t.TempDir(), "selftest.sh")
	writeTestFile(t, path, strings.Replace(script, `cd "$(dirname "$0")"`, "cd "+dir, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", path)
	cmd.Env = append(os.Environ(), "CLIENT="+os.Args[0], "OPENSSL_CONF=", "http_proxy=", "HTTP_PROXY=")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "selftest: all passed") {
		t.Errorf("%v\n%s", err, out)
	}
}

// peer is the CA on OpenSSL's server code, and a directory with its files.
type peer struct {
	*testing.T
	server, dir string
}

func startPeer(t *testing.T) *peer {
	t.Helper()
	needPeer(t)
	p := &peer{T: t, dir: t.TempDir()}
	writeTestFile(t, p.path("secret.txt"), "s3cret\n")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, filepath.Join(peerDir, "openssl-ca"), "-dir", p.path("state"), "-ref", "1234", "-secret", "file:"+p.path("secret.txt"))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "READY http://") {
		cancel()
		t.Fatalf("openssl-ca said %q: %v", lines.Text(), cmd.Wait())
	}
	p.server = strings.TrimPrefix(strings.Fields(lines.Text())[1], "http://")
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() {
		cancel()
		<-drained
		_ = cmd.Wait()
	})
	return p
}

func (p *peer) path(name string) string { return filepath.Join(p.dir, name) }

// command runs a program in a directory and gives its exit code.
func (p *peer) command(dir string, program ...string) int {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), asCommand+"=1", "OPENSSL_CONF=", "http_proxy=", "HTTP_PROXY=")
	for len(program) > 0 && strings.HasPrefix(program[0], "OPENSSL_CONF=") {
		cmd.Env, program = append(cmd.Env, program[0]), program[1:]
	}
	cmd.Path, cmd.Args = mustFind(p.T, program[0]), program
	secret, err := os.Open(p.path("secret.txt"))
	if err == nil { // some peers have none
		defer func() { _ = secret.Close() }()
		cmd.ExtraFiles = []*os.File{secret}
	}
	cmd.Stdin = strings.NewReader("s3cret\n")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.Fatalf("%v: %v\n%s", program, err, out)
	}
	if err != nil {
		p.Logf("%v: %v\n%s", program[0], err, out)
	}
	return cmd.ProcessState.ExitCode()
}

func mustFind(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSameFilesAsOpenSSL runs the same command lines with openssl cmp and with
// this command, against the same CA: exit codes and the files that are there
// must be the same, and those that do not depend on randomness equal.
func TestSameFilesAsOpenSSL(t *testing.T) {
	p := startPeer(t)
	for _, name := range []string{"id.key", "new.key"} {
		p.command(p.dir, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name)
	}
	p.command(p.dir, "openssl", "pkcs8", "-topk8", "-in", "new.key", "-passout", "pass:phrase", "-out", "encrypted.key")
	p.command(p.dir, "openssl", "pkcs8", "-topk8", "-v2", "des3", "-in", "new.key", "-passout", "pass:phrase", "-out", "des3.key")
	p.command(p.dir, "openssl", "ec", "-aes128", "-in", "new.key", "-passout", "pass:phrase", "-out", "legacy.key")
	t.Setenv("CERTLOOP_TEST_PHRASE", "phrase")
	writeTestFile(t, p.path("phrase.txt"), "phrase\nnot this\n")
	writeTestFile(t, p.path("ext.cnf"), "[ext]\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\nsubjectAltName = @names\n[names]\nDNS.1 = a.example\nIP.1 = 10.0.0.9\n")
	p.command(p.dir, "openssl", "req", "-new", "-key", "new.key", "-subj", "/CN=csr", "-addext", "subjectAltName=DNS:csr.example", "-out", "new.csr")
	writeTestFile(t, p.path("cmp.cnf"), "[cmp]\ncmd = cr\ncert = ../id.pem\nkey = ../id.key\ntrusted = ../state/ca.crt\n[new]\nnewkey = ../new.key\nsubject = /CN=conf\ncertout = c.pem\n[quiet]\nverbosity = 3\ntrusted =\n")
	const mac = " -ref 1234 -secret file:../secret.txt"
	const sign = " -cert ../id.pem -key ../id.key -trusted ../state/ca.crt"
	tests := []struct {
		name, line string
		code       int
	}{
		{"ir", "-cmd ir -newkey ../id.key -subject /O=shop/CN=id -certout c.pem -chainout chain.pem -cacertsout ca.pem -extracertsout extra.pem -out_trusted ../state/ca.crt" + mac, 0},
		{"ir DER", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.der -certform DER -cacertsout ca.der" + mac, 0},
		{"ir with SHA-256", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.pem -mac hmacWithSHA256 -digest sha384" + mac, 0},
		{"encrypted key", "-cmd ir -newkey ../encrypted.key -newkeypass pass:phrase -subject /CN=id -certout c.pem" + mac, 0},
		{"wrong pass phrase", "-cmd ir -newkey ../encrypted.key -newkeypass pass:no -subject /CN=id -certout c.pem -reqout r.der" + mac, 1},
		{"wrong secret", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.pem -cacertsout ca.pem -reqout r.der -rspout s.der -ref 1234 -secret pass:no", 1},
		{"cr", "-cmd cr -newkey ../new.key -subject /CN=web -certout c.pem -chainout chain.pem -extracertsout extra.pem -cacertsout ca.pem" + sign, 0},
		{"cr with SANs", "-cmd cr -newkey ../new.key -certout c.pem -sans web.example,10.0.0.1,spiffe://shop/web,critical -subject /CN=web" + sign, 0},
		{"cr from a CSR", "-cmd cr -newkey ../new.key -csr ../new.csr -certout c.pem" + sign, 0},
		{"cr unconfirmed", "-cmd cr -newkey ../new.key -certout c.pem -disable_confirm -reqout 1,2 -rspout 3,4" + sign, 0},
		{"files of messages", "-cmd cr -newkey ../new.key -certout c.pem -reqout 1,2,5 -rspout 3,4,6" + sign, 0},
		{"p10cr", "-cmd p10cr -csr ../new.csr -certout c.pem -chainout chain.pem" + sign, 0},
		{"kur", "-cmd kur -newkey ../new.key -certout c.pem -oldcert ../id.pem" + sign, 0},
		{"pinned", "-cmd cr -newkey ../new.key -certout c.pem -srvcert ../state/ca.crt -cert ../id.pem -key ../id.key", 0},
		{"unexpected sender", "-cmd cr -newkey ../new.key -certout c.pem -expect_sender /CN=other" + sign, 1},
		{"not trusted", "-cmd cr -newkey ../new.key -certout c.pem -cert ../id.pem -key ../id.key -trusted ../id.pem", 1},
		{"not trusted when issued", "-cmd cr -newkey ../new.key -certout c.pem -out_trusted ../id.pem" + sign, 1},
		{"refused by the CA", "-cmd cr -newkey ../new.key -subject /CN=x -popo 0 -certout c.pem -chainout chain.pem" + sign, 1},
		{"rr", "-cmd rr -oldcert c.pem -revreason 4" + sign, 0},
		{"a configuration", "-config ../cmp.cnf -section cmp,new", 0},
		{"a configuration, overridden", "-config ../cmp.cnf -section cmp,new,quiet -trusted ../state/ca.crt -certout other.pem", 0},
		{"no such section", "-config ../cmp.cnf -section nosuch", 1},
		{"no certout", "-cmd cr -newkey ../new.key" + sign, 1},
		{"unknown option", "-frobnicate -cmd cr", 1},
		{"unknown command", "-cmd ccr" + sign, 1},
		{"no server answers", "-server 127.0.0.1:1 -cmd cr -newkey ../new.key -certout c.pem -reqout r.der" + sign, 1},
		{"PKCS#12", "-cmd cr -newkey ../new.key -certout c.pem -trusted ../state/ca.crt -cert ../id.p12 -key ../id.p12 -keypass pass:phrase", 0},
		{"PKCS#12, wrong pass phrase", "-cmd cr -newkey ../new.key -certout c.pem -reqout r.der -trusted ../state/ca.crt -cert ../id.p12 -key ../id.p12 -keypass pass:no", 1},
		{"old PEM, phrase in the environment", "-cmd ir -newkey ../legacy.key -newkeypass env:CERTLOOP_TEST_PHRASE -subject /CN=id -certout c.pem" + mac, 0},
		{"triple DES, phrase in a file", "-cmd ir -newkey ../des3.key -newkeypass file:../phrase.txt -subject /CN=id -certout c.pem" + mac, 0},
		{"absent phrase", "-cmd ir -newkey ../des3.key -newkeypass env:CERTLOOP_ABSENT -subject /CN=id -certout c.pem" + mac, 1},
		{"secret of a descriptor", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.pem -ref 1234 -secret fd:3", 0},
		{"secret of stdin", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.pem -ref 1234 -secret stdin", 0},
		{"secret without a source", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.pem -ref 1234 -secret s3cret", 0},
		{"unknown reference", "-cmd ir -newkey ../id.key -subject /CN=id -certout c.pem -ref 99 -secret pass:s3cret", 1},
		{"extensions of a section", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -config ../ext.cnf -reqexts ext" + sign, 0},
		{"no such extensions", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -config ../ext.cnf -reqexts nosuch" + sign, 1},
		{"policies", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -policy_oids 1.2.3.4,1.2.3.5" + sign, 0},
		{"no names by default", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -san_nodefault" + sign, 0},
		{"days", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -days 3" + sign, 0},
		{"SHA-512", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -digest sha512" + sign, 0},
		{"unknown digest", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -digest frobnicate" + sign, 1},
		{"implicit confirmation not granted", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -implicit_confirm -reqout 1,2,3" + sign, 0},
		{"another recipient", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -recipient /CN=somebody" + sign, 0},
		{"an issuer", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -issuer /CN=somebody" + sign, 0},
		{"generalInfo", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -geninfo 1.2.3.4:int:5" + sign, 0},
		{"bad generalInfo", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -geninfo 1.2.3.4:real:5" + sign, 1},
		{"more extraCerts", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -extracerts ../state/ca.crt" + sign, 0},
		{"own chain", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -own_trusted ../state/ca.crt" + sign, 0},
		{"own chain that leads nowhere", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -own_trusted ../id.pem -untrusted ../id.pem -cert ../state/ca.crt -key ../id.key -trusted ../state/ca.crt", 1},
		{"a name without a slash", "-cmd cr -newkey ../new.key -subject CN=e -certout c.pem" + sign, 1},
		{"a key that is not that of the certificate", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -cert ../id.pem -key ../new.key -trusted ../state/ca.crt", 1},
		{"no such file", "-cmd cr -newkey ../absent.key -subject /CN=e -certout c.pem" + sign, 1},
		{"bad format", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -certform P7" + sign, 1},
		{"a number that is none", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -days many" + sign, 1},
		{"kur of the signer", "-cmd kur -newkey ../new.key -certout c.pem -chainout chain.pem" + sign, 0},
		{"kur of nothing", "-cmd kur -newkey ../new.key -certout c.pem" + mac, 1},
		{"p10cr without a request", "-cmd p10cr -certout c.pem" + sign, 1},
		{"rr by request", "-cmd rr -csr ../new.csr -revreason 1" + sign, 1},
		{"rr of nothing", "-cmd rr" + sign, 1},
		{"rr for no reason there is", "-cmd rr -oldcert c.pem -revreason 11" + sign, 1},
		{"genm", "-cmd genm -infotype currentCRL" + sign, 0},
		{"genm by secret", "-cmd genm -infotype suppLangTags" + mac, 0},
		{"genm for what has no name", "-cmd genm -infotype frobnicate" + sign, 1},
		{"twice", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -repeat 2 -reqout 1,2,3,4" + sign, 0},
		{"no persistent connection", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -keep_alive 0" + sign, 0},
		{"persistent connection required", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -keep_alive 2" + sign, 0},
		{"no such proxy", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -proxy 127.0.0.1:1" + sign, 1},
		{"not for this host", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -proxy 127.0.0.1:1 -no_proxy 127.0.0.1" + sign, 0},
		{"unprotected", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -unprotected_requests" + sign, 1},
		{"another path", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -path nowhere" + sign, 1},
		{"the right path", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -path pkix/" + sign, 0},
		{"the file of the environment", "OPENSSL_CONF=../cmp.cnf -section cmp,new -san_nodefault", 0},
		{"the file of the system", "OPENSSL_CONF=/etc/ssl/openssl.cnf -section default -cmd cr -newkey ../new.key -subject /CN=e -certout c.pem" + sign, 0},
		{"to be replayed", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -rspout 3,4" + sign, 0},
		{"replayed", "-cmd cr -newkey ../new.key -subject /CN=e -certout c.pem -rspin ../to_be_replayed.ours/3,../to_be_replayed.ours/4" + sign, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := p.both(tt.name, tt.line)
			if ours.code != tt.code || theirs.code != tt.code {
				t.Errorf("exit code %d, with openssl cmp %d, want %d", ours.code, theirs.code, tt.code)
			}
			if !slices.Equal(ours.files, theirs.files) {
				t.Errorf("files %v, with openssl cmp %v", ours.files, theirs.files)
			}
			for _, name := range theirs.files {
				sameContent(t, filepath.Join(ours.dir, name), filepath.Join(theirs.dir, name))
			}
		})
		if tt.name == "ir" {
			writeTestFile(t, p.path("id.pem"), readTestFile(t, p.path("ir.ours/c.pem")))
			p.command(p.dir, "openssl", "pkcs12", "-export", "-in", "id.pem", "-inkey", "id.key", "-passout", "pass:phrase", "-out", "id.p12")
		}
	}
}

// outcomeOf is what one client has left behind.
type outcomeOf struct {
	dir   string
	code  int
	files []string
}

// both runs one line with either client, each in a directory of its own, where
// for rr there is a certificate to revoke.
func (p *peer) both(name, line string) (ours, theirs outcomeOf) {
	p.Helper()
	dir := strings.ReplaceAll(name, " ", "_")
	ours.dir, theirs.dir = p.path(dir+".ours"), p.path(dir+".theirs")
	args := append([]string{"-server", p.server}, strings.Fields(line)...)
	var environment []string
	if strings.HasPrefix(args[2], "OPENSSL_CONF=") {
		environment = []string{args[2]}
		args = slices.Delete(args, 2, 3)
	} else if !strings.Contains(line, "-config") {
		args = append(args, "-config", "")
	}
	for o, client := range map[*outcomeOf][]string{&ours: {os.Args[0]}, &theirs: {"openssl", "cmp"}} {
		if err := os.MkdirAll(o.dir, 0o700); err != nil {
			p.Fatal(err)
		}
		if strings.Contains(line, "-cmd rr") {
			p.command(o.dir, "openssl", "cmp", "-config", "", "-server", p.server, "-cmd", "cr", "-newkey", "../new.key", "-certout", "c.pem",
				"-cert", "../id.pem", "-key", "../id.key", "-trusted", "../state/ca.crt")
		}
		o.code = p.command(o.dir, slices.Concat(environment, client, args)...)
		entries, err := os.ReadDir(o.dir)
		if err != nil {
			p.Fatal(err)
		}
		for _, e := range entries {
			o.files = append(o.files, e.Name())
		}
	}
	return ours, theirs
}

// sameContent compares two files: certificates by what does not depend on time
// and chance, other files by their number of certificates or their first byte.
func sameContent(t *testing.T, ours, theirs string) {
	t.Helper()
	a, b := parsed(t, ours), parsed(t, theirs)
	if len(a) != len(b) {
		t.Errorf("%s has %d certificates, with openssl cmp %d", ours, len(a), len(b))
		return
	}
	for i := range a {
		same := bytes.Equal(a[i].RawSubject, b[i].RawSubject) && bytes.Equal(a[i].RawSubjectPublicKeyInfo, b[i].RawSubjectPublicKeyInfo) &&
			bytes.Equal(a[i].RawIssuer, b[i].RawIssuer) && sameExtensions(a[i], b[i])
		if !same {
			t.Errorf("%s: certificate %d differs: %s and with openssl cmp %s", ours, i, a[i].Subject, b[i].Subject)
		}
	}
}

// parsed reads the certificates of a file; a file with a message has none.
func parsed(t *testing.T, path string) []*x509.Certificate {
	t.Helper()
	if strings.HasSuffix(path, ".pem") || filepath.Base(path) == "c.der" || filepath.Base(path) == "ca.der" {
		if readTestFile(t, path) == "" {
			return nil
		}
		certs, err := certificates(path, noPhrase)
		if err != nil {
			t.Fatal(err)
		}
		return certs
	}
	if _, _, err := message(path); err != nil {
		t.Errorf("no PKIMessage: %v", err)
	}
	return nil
}

func sameExtensions(a, b *x509.Certificate) bool {
	return slices.EqualFunc(a.Extensions, b.Extensions, func(x, y pkix.Extension) bool {
		return x.Id.Equal(y.Id) && x.Critical == y.Critical && bytes.Equal(x.Value, y.Value)
	})
}

// TestExtensionsAsOpenSSL encodes sections of extensions as the openssl tool does.
func TestExtensionsAsOpenSSL(t *testing.T) {
	p := &peer{T: t, dir: t.TempDir()}
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	section := `subjectAltName = @names
keyUsage = critical, digitalSignature, keyAgreement, decipherOnly
extendedKeyUsage = serverAuth, clientAuth, 1.2.3.4, anyExtendedKeyUsage
basicConstraints = critical, CA:TRUE, pathlen:0
certificatePolicies = 1.2.3.4, 1.2.3.5
1.2.3.4.5 = critical, DER:30:03:01:01:ff
[names]
DNS.1 = a.example
DNS.2 = *.b.example
IP.1 = 10.0.0.1
IP.2 = fd00::1
URI = spiffe://shop/web
email = a@b.example
RID = 1.2.3.4
`
	writeTestFile(t, p.path("ext.cnf"), "[req]\ndistinguished_name = dn\nreq_extensions = ext\n[dn]\n[ext]\n"+section)
	p.command(p.dir, "openssl", "genpkey", "-algorithm", "ED25519", "-out", "k")
	if code := p.command(p.dir, "openssl", "req", "-new", "-key", "k", "-subj", "/CN=a", "-config", "ext.cnf", "-out", "r"); code != 0 {
		t.Fatalf("openssl req: exit code %d", code)
	}
	csr, err := certificateRequest(p.path("r"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadConf(p.path("ext.cnf"))
	if err != nil {
		t.Fatal(err)
	}
	s := &settings{values: values{"reqexts": "ext"}, conf: c}
	ours, err := s.sectionExtensions("reqexts")
	if err != nil {
		t.Fatal(err)
	}
	if len(ours) != 6 || len(csr.Extensions) != 6 {
		t.Fatalf("%d extensions, with openssl %d, want 6", len(ours), len(csr.Extensions))
	}
	for i, x := range csr.Extensions {
		if got := ours[i]; !got.Id.Equal(x.Id) || got.Critical != x.Critical || !bytes.Equal(got.Value, x.Value) {
			t.Errorf("%s: %s (critical: %t), with openssl %s (%t)", x.Id, hex.EncodeToString(got.Value), got.Critical, hex.EncodeToString(x.Value), x.Critical)
		}
	}
}
