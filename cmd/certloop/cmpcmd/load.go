package cmpcmd

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/certloop/certloop/pkg/cmp"
)

// maxFileBytes bounds the files with keys, certificates and messages.
const maxFileBytes = 4 << 20

// readFile reads a file of at most limit bytes. A path may be a file: URI.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(strings.TrimPrefix(path, "file:")) //nolint:gosec // the user named it
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return content, nil
}

// pemBlocks are the blocks of PEM in a file; none: it is DER.
func pemBlocks(content []byte) []*pem.Block {
	var blocks []*pem.Block
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	return blocks
}

// certificates reads all certificates in a file: PEM, DER or PKCS #12, where that
// of the key comes first.
func certificates(path string, secret phrase) ([]*x509.Certificate, error) {
	content, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, err
	}
	if looksLikePKCS12(content) {
		_, certs, err := openPKCS12(content, secret)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return certs, nil
	}
	certs, err := parseCertificates(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

func parseCertificates(content []byte) ([]*x509.Certificate, error) {
	var ders []byte
	blocks := pemBlocks(content)
	for _, block := range blocks {
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			ders = append(ders, block.Bytes...)
		case "TRUSTED CERTIFICATE":
			return nil, errors.New("trust settings in certificates are not supported: give it as CERTIFICATE")
		}
	}
	if len(blocks) == 0 {
		ders = content
	}
	certs, err := x509.ParseCertificates(ders)
	switch {
	case err != nil:
		return nil, cmp.ExplainKey(ders, err)
	case len(certs) == 0:
		return nil, errors.New("there is no certificate in it")
	}
	return certs, nil
}

// passOf is the option with the source of the pass phrase of a file, as
// openssl-cmp(1) has it.
func passOf(option string) string {
	switch option {
	case "cert", "oldcert", "key":
		return "keypass"
	case "tls_cert", "tls_key":
		return "tls_keypass"
	case "newkey":
		return "newkeypass"
	}
	return "otherpass"
}

// phrase gives the pass phrase of a file that an option names.
func (b *builder) phrase(option, path string) phrase {
	return func() ([]byte, error) {
		if pass := passOf(option); b.has(pass) {
			return b.secrets.from(pass, b.values[pass])
		}
		return b.secrets.ask(path)
	}
}

// certificatesOf reads the certificates of all files an option names.
func (b *builder) certificatesOf(option string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, path := range b.list(option) {
		certs, err := certificates(path, b.phrase(option, path))
		if err != nil {
			return nil, fmt.Errorf("-%s: %w", option, err)
		}
		all = append(all, certs...)
	}
	return all, nil
}

// certificateOf reads the first certificate of the file an option names, and
// those behind it. Without the option there is none.
func (b *builder) certificateOf(option string) (first *x509.Certificate, more []*x509.Certificate, err error) {
	path := b.values[option]
	if path == "" {
		return nil, nil, nil
	}
	certs, err := certificates(path, b.phrase(option, path))
	if err != nil {
		return nil, nil, fmt.Errorf("-%s: %w", option, err)
	}
	return certs[0], certs[1:], nil
}

// privateKey reads the key of an option.
func (b *builder) privateKey(option string) (crypto.Signer, error) {
	path := b.values[option]
	content, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", option, err)
	}
	key, err := parseKey(content, b.phrase(option, path))
	if err != nil {
		return nil, fmt.Errorf("-%s: %s: %w", option, path, err)
	}
	return key, nil
}

// parseKey reads a private key: PKCS#8, PKCS#1 or SEC 1, PEM or DER, encrypted or
// not, or that of a PKCS#12 file.
func parseKey(content []byte, secret phrase) (crypto.Signer, error) {
	if looksLikePKCS12(content) {
		key, _, err := openPKCS12(content, secret)
		return key, err
	}
	blocks := pemBlocks(content)
	for _, block := range blocks {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if !strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return parseKeyDER(block.Bytes, secret)
		}
		der, err := decryptPEM(block, secret)
		if err != nil {
			return nil, err
		}
		return parseKeyDER(der, secret)
	}
	if len(blocks) > 0 {
		return nil, errNoPrivateKey
	}
	return parseKeyDER(content, secret)
}

// decryptPEM decrypts as OpenSSL did before PKCS#8 (RFC 1423 §1.1).
func decryptPEM(block *pem.Block, secret phrase) ([]byte, error) {
	text, err := secret()
	if err != nil {
		return nil, err
	}
	der, err := x509.DecryptPEMBlock(block, text) //nolint:staticcheck // weak, but the file is there
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, errPassPhrase
	case err != nil:
		return nil, errors.New("its encryption is not supported: convert it with openssl pkcs8 -topk8")
	}
	return der, nil
}

// Why there is no key.
var (
	errNoPrivateKey = errors.New("there is no private key in it")
	errCurve        = errors.New("the key's curve is not supported: use P-256, P-384 or P-521")
	errKeyType      = errors.New("keys of this type are not supported: use RSA, P-256, P-384, P-521 or Ed25519")
)

func parseKeyDER(der []byte, secret phrase) (crypto.Signer, error) {
	if encrypted, ok := parseEncryptedKey(der); ok {
		text, err := secret()
		if err != nil {
			return nil, err
		}
		if der, err = encrypted.decrypt(text); err != nil {
			return nil, err
		}
	}
	var key any
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if key, err = otherKey(der, err); err != nil {
			return nil, err
		}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// otherKey tries the forms of private keys that are older than PKCS#8.
func otherKey(der []byte, cause error) (any, error) {
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	switch {
	case strings.Contains(cause.Error(), "unknown elliptic curve"):
		return nil, cmp.ExplainKey(der, errCurve)
	case strings.Contains(cause.Error(), "unknown algorithm"):
		return nil, errKeyType
	}
	return nil, errNoPrivateKey // what x509 says could quote a key
}

// publicKey reads a public key, PEM or DER.
func publicKey(path string) (crypto.PublicKey, error) {
	content, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, err
	}
	der := content
	for _, block := range pemBlocks(content) {
		der = block.Bytes
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, cmp.ExplainKey(der, errors.New("neither a private nor a public key that is supported")))
	}
	return key, nil
}

// certificateRequest reads a PKCS#10 request, PEM or DER.
func certificateRequest(path string) (*x509.CertificateRequest, error) {
	content, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("-csr: %w", err)
	}
	der := content
	for _, block := range pemBlocks(content) {
		if strings.HasSuffix(block.Type, "CERTIFICATE REQUEST") {
			der = block.Bytes
			break
		}
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("-csr: %s: %w", path, cmp.ExplainKey(der, err))
	}
	return csr, nil
}

// revocationList reads a CRL, PEM or DER.
func revocationList(path string) (*x509.RevocationList, error) {
	content, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, err
	}
	if blocks := pemBlocks(content); len(blocks) > 0 {
		content = blocks[0].Bytes
	}
	list, err := x509.ParseRevocationList(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// message reads a PKIMessage, DER or PEM, and gives its DER as well.
func message(path string) (*cmp.Message, []byte, error) {
	der, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, nil, err
	}
	if blocks := pemBlocks(der); len(blocks) > 0 {
		der = blocks[0].Bytes
	}
	m, err := cmp.ParseMessage(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, der, nil
}
