package cmpcmd

import (
	"bytes"
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
	f, err := os.Open(strings.TrimPrefix(path, "file:"))
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

// certificates reads all certificates in a file, PEM or DER.
func certificates(path string) ([]*x509.Certificate, error) {
	content, err := readFile(path, maxFileBytes)
	if err != nil {
		return nil, err
	}
	var ders []byte
	blocks := pemBlocks(content)
	for _, block := range blocks {
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
			ders = append(ders, block.Bytes...)
		case "TRUSTED CERTIFICATE":
			return nil, fmt.Errorf("%s: trust settings in certificates are not supported: give it as CERTIFICATE", path)
		}
	}
	if len(blocks) == 0 {
		ders = content
	}
	certs, err := x509.ParseCertificates(ders)
	switch {
	case err != nil && looksLikePKCS12(content):
		return nil, fmt.Errorf("%s: %w", path, errPKCS12)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case len(certs) == 0:
		return nil, fmt.Errorf("%s: there is no certificate in it", path)
	}
	return certs, nil
}

var errPKCS12 = errors.New("PKCS#12 is not supported: convert it with openssl pkcs12")

// looksLikePKCS12 tells whether DER begins as a PFX does: a SEQUENCE with INTEGER 3 (RFC 7292 §4).
func looksLikePKCS12(der []byte) bool {
	return len(der) > 16 && der[0] == 0x30 && bytes.Contains(der[:8], []byte{2, 1, 3, 0x30})
}

// certificatesOf reads the certificates of all files an option names.
func (s *settings) certificatesOf(option string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, path := range s.list(option) {
		certs, err := certificates(path)
		if err != nil {
			return nil, fmt.Errorf("-%s: %w", option, err)
		}
		all = append(all, certs...)
	}
	return all, nil
}

// certificateOf reads the first certificate of the file an option names, and
// those behind it. Without the option there is none.
func (s *settings) certificateOf(option string) (first *x509.Certificate, more []*x509.Certificate, err error) {
	if !s.has(option) {
		return nil, nil, nil
	}
	certs, err := certificates(s.values[option])
	if err != nil {
		return nil, nil, fmt.Errorf("-%s: %w", option, err)
	}
	return certs[0], certs[1:], nil
}

// privateKey reads the key of one option, with the pass phrase of another.
func (s *settings) privateKey(option, pass string, p *passwords) (crypto.Signer, error) {
	content, err := readFile(s.values[option], maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", option, err)
	}
	phrase := func() ([]byte, error) {
		if s.has(pass) {
			return p.from(pass, s.values[pass])
		}
		return p.ask(s.values[option])
	}
	key, err := parseKey(content, phrase)
	if err != nil {
		return nil, fmt.Errorf("-%s: %s: %w", option, s.values[option], err)
	}
	return key, nil
}

// parseKey reads a private key: PKCS#8, encrypted or not, PKCS#1 or SEC 1, PEM or DER.
func parseKey(content []byte, phrase func() ([]byte, error)) (crypto.Signer, error) {
	blocks := pemBlocks(content)
	for _, block := range blocks {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("the old encryption of PEM is not supported: convert it with openssl pkcs8 -topk8")
		}
		return parseKeyDER(block.Bytes, phrase)
	}
	if len(blocks) > 0 {
		return nil, errNoPrivateKey
	}
	return parseKeyDER(content, phrase)
}

var errNoPrivateKey = errors.New("there is no private key in it")

func parseKeyDER(der []byte, phrase func() ([]byte, error)) (crypto.Signer, error) {
	if encrypted, ok := parseEncryptedKey(der); ok {
		secret, err := phrase()
		if err != nil {
			return nil, err
		}
		if der, err = encrypted.decrypt(secret); err != nil {
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
	case looksLikePKCS12(der):
		return nil, errPKCS12
	case strings.Contains(cause.Error(), "unknown elliptic curve"):
		return nil, errors.New("the key's curve is not supported: use P-256, P-384 or P-521")
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
		return nil, fmt.Errorf("%s: neither a private nor a public key that is supported", path)
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
		return nil, fmt.Errorf("-csr: %s: %w", path, err)
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
