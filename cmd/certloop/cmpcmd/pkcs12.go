package cmpcmd

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
	"software.sslmate.com/src/go-pkcs12"
)

// phrase gives the pass phrase of a file, where one is needed.
type phrase func() ([]byte, error)

// looksLikePKCS12 tells whether DER begins as a PFX does: a SEQUENCE with INTEGER 3 (RFC 7292 §4).
func looksLikePKCS12(der []byte) bool {
	return len(der) > 16 && der[0] == 0x30 && bytes.Contains(der[:8], []byte{2, 1, 3, 0x30})
}

// openPKCS12 gives the key of a PKCS #12 file and its certificates, that of the
// key first. The empty pass phrase is tried before one is asked for.
func openPKCS12(der []byte, secret phrase) (crypto.Signer, []*x509.Certificate, error) {
	if tooMuchWork(der, 0) {
		return nil, nil, fmt.Errorf("PKCS#12: it wants more than %d iterations to derive a key", maxKeyIterations)
	}
	key, first, others, err := pkcs12.DecodeChain(der, "")
	if err != nil && !isIncomplete(err) {
		text, fault := secret()
		if fault != nil {
			return nil, nil, fault
		}
		key, first, others, err = pkcs12.DecodeChain(der, string(text))
	}
	if err != nil {
		return nil, nil, explainPKCS12(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("PKCS#12: a %T cannot sign", key)
	}
	return signer, ownFirst(signer.Public(), append([]*x509.Certificate{first}, others...)), nil
}

// isIncomplete tells whether a file could be read and lacks something.
func isIncomplete(err error) bool { return strings.HasSuffix(err.Error(), "missing") }

// explainPKCS12 says what is wrong with a file, without repeating what may be a part of it.
func explainPKCS12(err error) error {
	var unknown pkcs12.NotImplementedError
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return fmt.Errorf("PKCS#12: %w", errPassPhrase)
	case isIncomplete(err):
		return errors.New("PKCS#12: a key and its certificate are needed: take certificates alone out of it with openssl pkcs12")
	case strings.Contains(err.Error(), "unknown elliptic curve"):
		return fmt.Errorf("PKCS#12: %w", errCurve)
	case errors.As(err, &unknown):
		return fmt.Errorf("PKCS#12: not supported: %w", unknown)
	}
	return errors.New("PKCS#12: it cannot be read: convert it with openssl pkcs12")
}

// ownFirst puts the certificate of a key before the others.
func ownFirst(public crypto.PublicKey, certs []*x509.Certificate) []*x509.Certificate {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return sameKey(public, c.PublicKey) })
	if i < 0 {
		return certs
	}
	return slices.Concat(certs[i:i+1], certs[:i], certs[i+1:])
}

// maxNesting bounds how deep tooMuchWork looks: the counts in a PFX are eleven levels down.
const maxNesting = 16

// tooMuchWork looks for a number of iterations above our bound. In the key
// derivations of RFC 7292 and RFC 8018 it follows the salt. What is encrypted is
// not seen; by then whoever knows the pass phrase has vouched for it by a MAC.
func tooMuchWork(der cryptobyte.String, depth int) bool {
	salt := false
	for depth < maxNesting && !der.Empty() {
		var element cryptobyte.String
		var kind tag.Tag
		if !der.ReadAnyASN1(&element, &kind) {
			return false
		}
		if salt && kind == tag.INTEGER && aboveBound(element) {
			return true
		}
		salt = kind == tag.OCTET_STRING
		if (salt || kind&0x20 != 0) && tooMuchWork(element, depth+1) {
			return true
		}
	}
	return false
}

// aboveBound tells whether the content of an INTEGER is above maxKeyIterations.
func aboveBound(content []byte) bool {
	n := 0
	for _, b := range content {
		if n = n<<8 | int(b); n > maxKeyIterations {
			return true
		}
	}
	return false
}
