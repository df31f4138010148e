package ledger_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

func TestGenerateKey(t *testing.T) {
	tests := map[string]struct {
		want model.PrivateKey
		size int
	}{
		"nothing said":   {model.PrivateKey{}, 256},
		"P-256":          {model.PrivateKey{Algorithm: model.ECDSA, Size: 256}, 256},
		"P-384":          {model.PrivateKey{Algorithm: model.ECDSA, Size: 384}, 384},
		"P-521":          {model.PrivateKey{Algorithm: model.ECDSA, Size: 521}, 521},
		"RSA":            {model.PrivateKey{Algorithm: model.RSA}, 2048},
		"RSA 3072":       {model.PrivateKey{Algorithm: model.RSA, Size: 3072}, 3072},
		"Ed25519":        {model.PrivateKey{Algorithm: model.Ed25519}, 256},
		"RSA, too short": {model.PrivateKey{Algorithm: model.RSA, Size: 512}, 2048},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := generate(t, tt.want)
			size := 0
			switch public := key.Signer().Public().(type) {
			case *ecdsa.PublicKey:
				size = public.Params().BitSize
			case *rsa.PublicKey:
				size = public.N.BitLen()
			case ed25519.PublicKey:
				size = 8 * len(public)
			}
			if size != tt.size {
				t.Errorf("got %T of %d bits, want %d", key.Signer(), size, tt.size)
			}
			again, err := ledger.ParseKey(encode(t, key))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encode(t, again), encode(t, key)) {
				t.Error("the key changes when it is written and read")
			}
		})
	}
}

// keys are one of each kind that may be read.
func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{
		"ECDSA":   generate(t, model.PrivateKey{}).Signer(),
		"RSA":     generate(t, model.PrivateKey{Algorithm: model.RSA}).Signer(),
		"Ed25519": ed,
	}
}

// secrets are the numbers that make a private key private, as anything could write them.
func secrets(t testing.TB, key crypto.Signer) (forms []string) {
	t.Helper()
	var numbers [][]byte
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		scalar, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		numbers = [][]byte{scalar}
		forms = append(forms, key.D.String()) //nolint:staticcheck // fmt would look into this field
	case *rsa.PrivateKey:
		numbers = [][]byte{key.D.Bytes(), key.Primes[0].Bytes(), key.Primes[1].Bytes()}
		forms = append(forms, key.D.String(), key.Primes[0].String(), key.Primes[1].String())
	case ed25519.PrivateKey:
		numbers = [][]byte{key.Seed()}
	}
	for _, n := range numbers {
		forms = append(forms, string(n), hex.EncodeToString(n), strings.ToUpper(hex.EncodeToString(n)), strings.Trim(fmt.Sprintf("%d", n), "[]"),
			strings.TrimRight(base64.StdEncoding.EncodeToString(n), "=")[:len(n)])
	}
	return forms
}

// Every way in which somebody could print a key without meaning to.
func TestPrivateKeyPrintsRedacted(t *testing.T) {
	for name, signer := range keys(t) {
		t.Run(name, func(t *testing.T) {
			key := parse(t, signer)
			type hidden struct {
				name string
				key  ledger.PrivateKey
			}
			open := map[string]any{
				"value": key, "pointer": &key, "slice": []ledger.PrivateKey{key}, "map": map[string]ledger.PrivateKey{"k": key},
				"issuance": ledger.Issuance{Key: key}, "pointer to flight": &ledger.Flight{Key: key},
				"struct": struct{ Key ledger.PrivateKey }{key},
			}
			for form, v := range open {
				for how, printed := range prints(t, v) {
					if !strings.Contains(printed, "redacted") {
						t.Errorf("%s by %s: got %q, want it redacted", form, how, printed)
					}
					wantNone(t, form+" by "+how, printed, signer)
				}
			}
			// Methods are not asked for in an unexported field: what is there must not show all the same.
			closed := map[string]any{
				"unexported field": hidden{"k", key}, "pointer to it": &hidden{"k", key}, "slice of it": []hidden{{"k", key}},
				"record": &ledger.Record{Current: &ledger.Issuance{Key: key}, Flight: &ledger.Flight{Key: key}},
				"signer": struct{ k any }{key},
			}
			for form, v := range closed {
				for how, printed := range prints(t, v) {
					wantNone(t, form+" by "+how, printed, signer)
				}
			}
		})
	}
}

func prints(t testing.TB, v any) map[string]string {
	t.Helper()
	out := map[string]string{"Sprint": fmt.Sprint(v), "Errorf": fmt.Errorf("key %v", v).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%o", "%10.3v"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	js, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out["json"] = string(js)
	var text, lines bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "key", v)
	slog.New(slog.NewJSONHandler(&lines, nil)).Info("m", "key", v)
	out["slog text"], out["slog json"] = text.String(), lines.String()
	return out
}

func wantNone(t testing.TB, where, printed string, signer crypto.Signer) {
	t.Helper()
	for i, secret := range secrets(t, signer) {
		if strings.Contains(printed, secret) {
			t.Errorf("%s: the private key shows, in form %d", where, i)
		}
	}
}

// The check above finds what it looks for.
func TestSecretsAreFound(t *testing.T) {
	for name, signer := range keys(t) {
		found := false
		printed := fmt.Sprintf("%v", signer)
		for _, secret := range secrets(t, signer) {
			found = found || strings.Contains(printed, secret)
		}
		// The standard library prints RSA and Ed25519 keys in full, and ECDSA keys too.
		if !found {
			t.Errorf("%s: the private key is not found in what fmt prints of a %T", name, signer)
		}
	}
}

func TestNoKey(t *testing.T) {
	var none ledger.PrivateKey
	if none.Signer() != nil || none.Fits(newAuthority(t, "root", nil).cert) {
		t.Error("the zero value holds a key")
	}
	if text, err := none.PEM(); err == nil {
		t.Errorf("PEM gives %q, want an error", text)
	}
	if got := fmt.Sprintf("%v %#v", none, none); strings.Contains(got, "nil") {
		t.Errorf("got %q: whether there is a key is nobody's concern", got)
	}
}

func TestFits(t *testing.T) {
	root := newAuthority(t, "root", nil)
	for name, signer := range keys(t) {
		key, other := parse(t, signer), generate(t, model.PrivateKey{})
		cert := root.sign(t, name, signer.Public(), &x509.Certificate{})
		if !key.Fits(cert) {
			t.Errorf("%s: the key does not fit its own certificate", name)
		}
		if other.Fits(cert) || key.Fits(nil) {
			t.Errorf("%s: a key fits a certificate that is not its own", name)
		}
	}
}

func TestParseKey(t *testing.T) {
	key := generate(t, model.PrivateKey{})
	ec, ok := key.Signer().(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("got a %T", key.Signer())
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	good := encode(t, key)
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}})
	certificate := ledger.EncodeCertificates(newAuthority(t, "root", nil).cert)
	tests := map[string]struct {
		text []byte
		ok   bool
	}{
		"PKCS #8":                {good, true},
		"SEC 1":                  {block("EC PRIVATE KEY", sec1), true},
		"parameters before it":   {append(parameters, block("EC PRIVATE KEY", sec1)...), true},
		"a certificate before":   {append(certificate, good...), true},
		"text around it":         {[]byte("Bag Attributes\n  friendlyName: x\n" + string(good) + "\ntrailing"), true},
		"Windows line ends":      {bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), true},
		"nothing":                {nil, false},
		"rubbish":                {[]byte("not a key"), false},
		"a certificate":          {certificate, false},
		"truncated":              {good[:len(good)/2], false},
		"truncated DER":          {block("PRIVATE KEY", sec1[:20]), false},
		"the wrong label":        {block("RSA PRIVATE KEY", sec1), false},
		"encrypted":              {block("ENCRYPTED PRIVATE KEY", sec1), false},
		"encrypted, by header":   {[]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"), false},
		"SEC 1 in DER":           {sec1, true},
		"PKCS #8 in DER":         {pkcs8(t, good), true},
		"DER cut off":            {sec1[:len(sec1)-1], false},
		"a certificate in DER":   {newAuthority(t, "root", nil).cert.Raw, false},
		"cannot sign (X25519)":   {x25519(t), false},
		"no octets in the block": {block("PRIVATE KEY", nil), false},
		"exactly at the limit":   {append(bytes.Repeat([]byte("\n"), ledger.MaxPEMBytes-len(good)), good...), true},
		"one octet too many":     {append(bytes.Repeat([]byte("\n"), ledger.MaxPEMBytes-len(good)+1), good...), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ledger.ParseKey(tt.text)
			switch {
			case (err == nil) != tt.ok:
				t.Fatalf("got error %v, want success %v", err, tt.ok)
			case err != nil && (got.Signer() != nil || holds(err.Error(), tt.text)):
				t.Errorf("got key %v and error %q: want no key, and nothing of what was read in the error", got, err)
			case err == nil && !bytes.Equal(encode(t, got), good):
				t.Error("got another key")
			}
		})
	}
}

// pkcs8 is what a block of PEM holds.
func pkcs8(t testing.TB, text []byte) []byte {
	t.Helper()
	b, _ := pem.Decode(text)
	if b == nil {
		t.Fatal("no PEM")
	}
	return b.Bytes
}

func block(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func x25519(t testing.TB) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

// holds tells whether a text repeats eight octets of what it must not repeat.
func holds(text string, data []byte) bool {
	for i := 0; i+8 <= len(data); i++ {
		if strings.Contains(text, string(data[i:i+8])) {
			return true
		}
	}
	return false
}

// A key that was cut off anywhere is no key.
func TestParseKeyTruncated(t *testing.T) {
	good := encode(t, parse(t, keys(t)["Ed25519"]))
	end := bytes.LastIndex(good, []byte("-----")) + len("-----") // the line end after it is nobody's concern
	for n := range end {
		if _, err := ledger.ParseKey(good[:n]); err == nil {
			t.Errorf("%d octets of %d are taken for a key", n, len(good))
		}
	}
}

func TestParseCertificates(t *testing.T) {
	root := newAuthority(t, "root", nil)
	issuing := newAuthority(t, "issuing", root)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := issuing.sign(t, "leaf", key.Public(), &x509.Certificate{})
	chain := ledger.EncodeCertificates(leaf, issuing.cert)
	tests := map[string]struct {
		text []byte
		want int // certificates; 0 for an error
	}{
		"one":                  {ledger.EncodeCertificates(leaf), 1},
		"a chain":              {chain, 2},
		"a key between":        {append(append(ledger.EncodeCertificates(leaf), block("PRIVATE KEY", []byte("x"))...), ledger.EncodeCertificates(root.cert)...), 2},
		"text around":          {[]byte("subject=CN = leaf\n" + string(chain) + "\n# end"), 2},
		"the second cut off":   {chain[:len(chain)-30], 1},
		"nothing":              {nil, 0},
		"rubbish":              {[]byte("not a certificate"), 0},
		"a key":                {encode(t, generate(t, model.PrivateKey{})), 0},
		"DER":                  {leaf.Raw, 1},
		"a chain in DER":       {append(bytes.Clone(leaf.Raw), issuing.cert.Raw...), 2},
		"DER and a tail":       {append(bytes.Clone(leaf.Raw), "tail"...), 0},
		"a key in DER":         {pkcs8(t, encode(t, generate(t, model.PrivateKey{}))), 0},
		"DER cut off":          {block("CERTIFICATE", leaf.Raw[:100]), 0},
		"DER with a tail":      {block("CERTIFICATE", append(bytes.Clone(leaf.Raw), 0)), 0},
		"the second not DER":   {append(ledger.EncodeCertificates(leaf), block("CERTIFICATE", []byte("rubbish"))...), 0},
		"a request":            {block("CERTIFICATE REQUEST", leaf.Raw), 0},
		"exactly at the limit": {append(bytes.Repeat([]byte("\n"), ledger.MaxPEMBytes-len(chain)), chain...), 2},
		"one octet too many":   {append(bytes.Repeat([]byte("\n"), ledger.MaxPEMBytes-len(chain)+1), chain...), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ledger.ParseCertificates(tt.text)
			if len(got) != tt.want || (err == nil) != (tt.want > 0) {
				t.Fatalf("got %d certificates and error %v, want %d", len(got), err, tt.want)
			}
			if tt.want > 0 && !got[0].Equal(leaf) {
				t.Errorf("the first is %s, want the leaf", got[0].Subject)
			}
		})
	}
}
