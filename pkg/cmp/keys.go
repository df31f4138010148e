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

// secp256k1 is the curve's name in DER, 1.3.132.0.10 (SEC 2 §A.2), as it is in
// keys of either sort, requests and certificates.
var secp256k1 = []byte{6, 5, 0x2b, 0x81, 4, 0, 0x0a}

// ExplainKey adds to an error of crypto/x509 about a key, a request or a
// certificate, whose DER it is, why that is and what to use instead, where that
// is the key's curve. Other errors it returns as they are.
func ExplainKey(der []byte, err error) error {
	if err != nil && bytes.Contains(der, secp256k1) {
		return fmt.Errorf("%w (%w)", errSecp256k1, err)
	}
	return err
}

// parseCertificate is [x509.ParseCertificate] with an error that helps.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	return c, ExplainKey(der, err)
}

// parseCSR is [x509.ParseCertificateRequest] with an error that helps.
func parseCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("PKCS #10 request: %w", ExplainKey(der, err))
	}
	return csr, nil
}
