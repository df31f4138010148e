package cmpcmd

import (
	"crypto/ecdsa"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

func TestParseKey(t *testing.T) {
	tests := []struct{ file, phrase, fail string }{
		{"pbes2-sha1.pem", "phrase", ""},
		{"pbes2-sha256.pem", "phrase", ""},
		{"pbes2-sha512.pem", "phrase", ""},
		{"pbes2-sha256.pem", "wrong", "wrong pass phrase"},
		{"pbes2-sha256.pem", "", "wrong pass phrase"},
		{"sec1.pem", "", ""},
		{"scrypt.pem", "phrase", "its encryption is not supported"},
		{"legacy.pem", "phrase", "the old encryption of PEM is not supported"},
		{"pkcs12.p12", "phrase", "PKCS#12 is not supported"},
		{"secp256k1.pem", "", "use P-256, P-384 or P-521"},
		{"ir-mac.txt", "", "no private key"},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.phrase, func(t *testing.T) {
			content := []byte(readTestFile(t, filepath.Join("testdata", tt.file)))
			key, err := parseKey(content, func() ([]byte, error) { return []byte(tt.phrase), nil })
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
		if _, err := parseKey(der, func() ([]byte, error) { return []byte("phrase"), nil }); err != nil {
			t.Errorf("%s as DER: %v", file, err)
		}
	}
}

// TestPassPhraseIsAskedForLast: one that is not needed is not read.
func TestPassPhraseIsAskedForLast(t *testing.T) {
	content := []byte(readTestFile(t, "testdata/sec1.pem"))
	_, err := parseKey(content, func() ([]byte, error) { return nil, errors.New("asked for a pass phrase") })
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
		key, err := parseKey(content, func() ([]byte, error) { return nil, errors.New("no pass phrase") })
		if (key == nil) == (err == nil) {
			t.Errorf("key %v and error %v", key != nil, err)
		}
	})
}

func TestIterationsAreBounded(t *testing.T) {
	for name, count := range map[string]int64{"none": 0, "negative": -1, "too many": maxKeyIterations + 1} {
		t.Run(name, func(t *testing.T) {
			var b cryptobyte.Builder
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1OctetString([]byte("8 octets"))
				b.AddASN1Int64(count)
			})
			_, err := deriveKey(b.BytesOrPanic(), []byte("phrase"), 16)
			checkError(t, err, "iterations of PBKDF2 are not between")
		})
	}
}

func TestCertificates(t *testing.T) {
	for file, fail := range map[string]string{
		"testdata/pkcs12.p12": "PKCS#12 is not supported",
		"testdata/sec1.pem":   "there is no certificate in it",
		"testdata/absent":     "no such file",
	} {
		_, err := certificates(file)
		checkError(t, err, fail)
	}
}
