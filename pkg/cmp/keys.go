package cmp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
)

// errSecp256k1 is the one curve people ask for that cannot be had.
var errSecp256k1 = errors.New("the key is on the curve secp256k1: Go's crypto/x509 has neither keys nor certificates of it, " +
	"and RFC 5480 does not name it for certificates; use P-256 in its place, or P-384 or P-521")

// secp256k1 is how the algorithm of such a key begins: id-ecPublicKey (RFC 5480
// §2.1.1) and the curve's name (SEC 2 §A.2).
var secp256k1 = []byte{
	6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1,
	6, 5, 0x2b, 0x81, 4, 0, 0x0a,
}

// explained adds to an error of crypto/x509 about a key, a request or a
// certificate, whose DER it is, why that is and what to use instead.
func explained(der []byte, err error) error {
	if err != nil && bytes.Contains(der, secp256k1) {
		return fmt.Errorf("%w (%w)", errSecp256k1, err)
	}
	return err
}

// parseCertificate is [x509.ParseCertificate] with an error that helps.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	return c, explained(der, err)
}

// parseCSR is [x509.ParseCertificateRequest] with an error that helps.
func parseCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("PKCS #10 request: %w", explained(der, err))
	}
	return csr, nil
}
