package cmpcmd

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
	"software.sslmate.com/src/go-pkcs12"
)

func TestParseKey(t *testing.T) {
	tests := []struct{ file, phrase, fail string }{
		{"pbes2-sha1.pem", "phrase", ""},
		{"pbes2-sha256.pem", "phrase", ""},
		{"pbes2-sha512.pem", "phrase", ""},
		{"pbes2-sha256.pem", "wrong", "wrong pass phrase"},
		{"pbes2-sha256.pem", "", "wrong pass phrase"},
		{"sec1.pem", "", ""},
		{"des3.pem", "phrase", ""},
		{"des3.pem", "wrong", "wrong pass phrase"},
		{"pbes1.pem", "phrase", "its encryption is not supported"},
		{"scrypt.pem", "phrase", ""},
		{"scrypt.pem", "wrong", "wrong pass phrase"},
		{"legacy.pem", "phrase", ""},
		{"legacy.pem", "wrong", "wrong pass phrase"},
		{"pkcs12.p12", "phrase", ""},
		{"pkcs12.p12", "wrong", "PKCS#12: wrong pass phrase"},
		{"secp256k1.pem", "", "the curve secp256k1: Go's crypto/x509 has neither keys nor certificates of it"},
		{"secp256k1.pem", "", "use P-256 in its place"},
		{"ed448.pem", "", "keys of this type are not supported: use RSA, P-256"},
		{"ir-mac.txt", "", "no private key"},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.phrase, func(t *testing.T) {
			content := []byte(readTestFile(t, filepath.Join("testdata", tt.file)))
			key, err := parseKey(content, phraseIs(tt.phrase))
			checkError(t, err, tt.fail)
			if _, ok := key.(*ecdsa.PrivateKey); err == nil && !ok {
				t.Errorf("key is a %T, want an ECDSA key", key)
			}
		})
	}
}

func TestParseKeyInDER(t *testing.T) {
	for _, file := range []string{"pbes2-sha256.pem", "sec1.pem"} {
		blocks := pemBlocks([]byte(readTestFile(t, filepath.Join("testdata", file))))
		der := blocks[len(blocks)-1].Bytes
		if _, err := parseKey(der, phraseIs("phrase")); err != nil {
			t.Errorf("%s as DER: %v", file, err)
		}
	}
}

// TestPassPhraseIsAskedForLast: one that is not needed is not read.
func TestPassPhraseIsAskedForLast(t *testing.T) {
	content := []byte(readTestFile(t, "testdata/sec1.pem"))
	_, err := parseKey(content, noPhrase)
	checkError(t, err, "")
}

func FuzzParseKey(f *testing.F) {
	files, err := filepath.Glob("testdata/*.p*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
		if block, _ := pem.Decode(content); block != nil {
			f.Add(block.Bytes)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		key, err := parseKey(content, noPhrase)
		if (key == nil) == (err == nil) {
			t.Errorf("key %v and error %v", key != nil, err)
		}
	})
}

// parameters is a SEQUENCE of a salt and numbers.
func parameters(numbers ...int64) cryptobyte.String {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString([]byte("8 octets"))
		for _, n := range numbers {
			b.AddASN1Int64(n)
		}
	})
	return b.BytesOrPanic()
}

func TestIterationsAreBounded(t *testing.T) {
	for name, count := range map[string]int64{"none": 0, "negative": -1, "too many": maxKeyIterations + 1} {
		t.Run(name, func(t *testing.T) {
			_, err := deriveKey(oidPBKDF2, parameters(count), []byte("phrase"), 16)
			checkError(t, err, "iterations of PBKDF2 are not between")
		})
	}
}

func TestScryptIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		cost, blockSize, lanes int64
		fail                   string
	}{
		"as OpenSSL has it": {16384, 8, 1, ""},
		"cost":              {1 << 40, 8, 1, "needs more than 256 MiB"},
		"block size":        {2, 1 << 62, 1, "needs more than 256 MiB"},
		"both":              {1 << 20, 1 << 20, 1, "needs more than 256 MiB"},
		"lanes":             {2, 1, 1 << 20, "or 16 lanes"},
		"no lanes":          {2, 1, 0, "its encryption is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := deriveKey(oidScrypt, parameters(tt.cost, tt.blockSize, tt.lanes), []byte("phrase"), 32)
			checkError(t, err, tt.fail)
		})
	}
}

func TestCertificates(t *testing.T) {
	for file, fail := range map[string]string{
		"testdata/pkcs12.p12": "asked for a pass phrase",
		"testdata/sec1.pem":   "there is no certificate in it",
		"testdata/absent":     "no such file",
	} {
		_, err := certificates(file, noPhrase)
		checkError(t, err, fail)
	}
}

// TestPKCS12 reads files of every encryption there is, with keys of every type.
func TestPKCS12(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root, issuer := newTestCertificate(t, "root", edwards), newTestCertificate(t, "issuer", edwards)
	for encryption, encoder := range map[string]*pkcs12.Encoder{"3DES": pkcs12.LegacyDES, "RC2": pkcs12.LegacyRC2, "AES": pkcs12.Modern2023, "none": pkcs12.Passwordless} {
		for _, kind := range []string{"P-521", "RSA", "Ed25519"} {
			t.Run(encryption+" "+kind, func(t *testing.T) {
				key := newTestKey(t, kind)
				own, text := newTestCertificate(t, "own", key), "phrase"
				if encryption == "none" {
					text = ""
				}
				der, err := encoder.Encode(key, own, []*x509.Certificate{issuer, root}, text)
				if err != nil {
					t.Fatal(err)
				}
				got, certs, err := openPKCS12(der, phraseIs(text))
				if err != nil {
					t.Fatal(err)
				}
				if !sameKey(got.Public(), key.Public()) || len(certs) != 3 || !certs[0].Equal(own) {
					t.Errorf("another key, or %d certificates that do not begin with its own", len(certs))
				}
				if encryption == "none" {
					return
				}
				_, _, err = openPKCS12(der, phraseIs("wrong"))
				checkError(t, err, "wrong pass phrase")
				_, _, err = openPKCS12(der, noPhrase)
				checkError(t, err, "asked for a pass phrase")
				_, _, err = openPKCS12(der[:len(der)-1], phraseIs(text))
				checkError(t, err, "PKCS#12")
			})
		}
	}
}

func TestPKCS12Refusals(t *testing.T) {
	key := newTestKey(t, "P-256")
	trust, err := pkcs12.Modern2023.EncodeTrustStore([]*x509.Certificate{newTestCertificate(t, "root", key)}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = openPKCS12(trust, noPhrase)
	checkError(t, err, "a key and its certificate are needed")

	heavy, err := pkcs12.Modern2023.WithIterations(3).Encode(key, newTestCertificate(t, "own", key), nil, "phrase")
	if err != nil {
		t.Fatal(err)
	}
	count := []byte{byte(tag.INTEGER), 1, 3}
	if tooMuchWork(heavy, 0) || bytes.Count(heavy, count) < 4 { // version, and the three derivations
		t.Fatalf("3 iterations are too much, or not to be found %d times", bytes.Count(heavy, count))
	}
	last := bytes.LastIndex(heavy, count) // that of the MAC ends the file
	heavy[last+2] = 0x7f
	if tooMuchWork(heavy, 0) {
		t.Error("127 iterations are too much")
	}
	if !tooMuchWork(parameters(maxKeyIterations+1), 0) || tooMuchWork(parameters(maxKeyIterations), 0) {
		t.Errorf("the bound is not %d", maxKeyIterations)
	}
	nested := parameters(1 << 40)
	for range 8 {
		var b cryptobyte.Builder
		b.AddASN1OctetString(nested)
		nested = b.BytesOrPanic()
	}
	if !tooMuchWork(nested, 0) {
		t.Error("what is wrapped in eight octet strings is not found")
	}
}

func newTestKey(tb testing.TB, kind string) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// newTestCertificate makes a self-signed certificate.
func newTestCertificate(tb testing.TB, name string, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}
