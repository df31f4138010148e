package responder

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

const (
	serialBytes = 16 // of a serialNumber: at most 20 (RFC 5280 §4.1.2.2)
	caLifetime  = 10 * 365 * 24 * time.Hour
	caBackdate  = time.Hour // so that clocks behind ours accept a new CA
)

// authority is the CA: a root and, under it or the same, what issues.
type authority struct {
	root    *x509.Certificate
	issuing *x509.Certificate
	key     crypto.Signer // of issuing
	pss     bool          // an RSA key signs with RSASSA-PSS
	next    *successor    // nil: none
}

// chain are the certificates above an end entity, without the root.
func (a *authority) chain() []*x509.Certificate {
	if a.issuing == a.root {
		return nil
	}
	return []*x509.Certificate{a.issuing}
}

// signer protects the answers.
func (a *authority) signer() *cmp.Signer {
	return &cmp.Signer{Key: a.key, Certificate: a.issuing, Chain: a.chain(), PSS: a.algorithm() != 0}
}

// algorithm is that of our signatures; 0: what is usual for the key.
func (a *authority) algorithm() x509.SignatureAlgorithm { return signatureOf(a.key, a.pss) }

func signatureOf(key crypto.Signer, pss bool) x509.SignatureAlgorithm {
	if _, ok := key.Public().(*rsa.PublicKey); ok && pss {
		return x509.SHA256WithRSAPSS
	}
	return 0
}

// issue signs a certificate.
func (a *authority) issue(random io.Reader, template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	template.SignatureAlgorithm = a.algorithm()
	return x509.CreateCertificate(random, template, a.issuing, public, a.key)
}

func newAuthority(cfg *Config) (*authority, error) {
	root, rootKey, err := newCA(cfg, cfg.Name, nil, nil)
	if err != nil {
		return nil, err
	}
	a := &authority{root: root, issuing: root, key: rootKey, pss: cfg.PSS}
	if cfg.Successor {
		if a.next, err = newSuccessor(cfg, root, rootKey); err != nil {
			return nil, err
		}
	}
	if cfg.Intermediate {
		a.issuing, a.key, err = newCA(cfg, cfg.Name+" issuing", root, rootKey)
	}
	return a, err
}

// newCA makes a CA under an issuer, or a root if that is nil.
func newCA(cfg *Config, name string, issuer *x509.Certificate, issuerKey crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	key, err := cfg.KeyType.generate(cfg.Rand)
	if err != nil {
		return nil, nil, err
	}
	template, err := caTemplate(cfg, name)
	if err != nil {
		return nil, nil, err
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	cert, err := certify(cfg, template, issuer, key.Public(), issuerKey)
	return cert, key, err
}

// certify signs the certificate of a CA.
func certify(cfg *Config, template, issuer *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	template.SignatureAlgorithm = signatureOf(key, cfg.PSS)
	der, err := x509.CreateCertificate(cfg.Rand, template, issuer, public, key)
	if err != nil {
		return nil, fmt.Errorf("making a CA certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func caTemplate(cfg *Config, name string) (*x509.Certificate, error) {
	serial, err := newSerial(cfg.Rand)
	if err != nil {
		return nil, err
	}
	now := cfg.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-caBackdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil
}

func newSerial(random io.Reader) (*big.Int, error) {
	octets := make([]byte, serialBytes)
	if _, err := io.ReadFull(random, octets); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	octets[0] = octets[0]&0x7f | 0x40 // positive and always of full length
	return new(big.Int).SetBytes(octets), nil
}

// Files of a CA in its directory. Without an intermediate there are only the first two.
const (
	rootCertFile    = "ca.crt"
	rootKeyFile     = "ca.key"
	issuingCertFile = "issuing.crt"
	issuingKeyFile  = "issuing.key"
)

// openAuthority loads the CA in a directory, or makes one there. A root above
// an issuing CA leaves no key behind: it will never be needed again.
func openAuthority(cfg *Config, dir *os.Root) (*authority, error) {
	a, err := loadAuthority(dir)
	if err == nil {
		a.pss = cfg.PSS
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	if a, err = newAuthority(cfg); err != nil {
		return nil, err
	}
	return a, a.save(dir)
}

func loadAuthority(dir *os.Root) (*authority, error) {
	root, err := readCertificate(dir, rootCertFile)
	if err != nil {
		return nil, err
	}
	a := &authority{root: root, issuing: root}
	keyFile := rootKeyFile
	issuing, err := readCertificate(dir, issuingCertFile)
	if err == nil {
		a.issuing, keyFile = issuing, issuingKeyFile
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if a.next, err = loadSuccessor(dir); err != nil {
		return nil, err
	}
	if a.key, err = readKey(dir, keyFile); err != nil {
		return nil, err
	}
	if !samePublicKey(a.issuing.PublicKey, a.key.Public()) {
		return nil, fmt.Errorf("%s: not the key of the certificate beside it", filepath.Join(dir.Name(), keyFile))
	}
	return a, nil
}

// save writes the root's certificate last: where it is, the CA is complete.
func (a *authority) save(dir *os.Root) error {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("encoding the CA key: %w", err)
	}
	keyFile := rootKeyFile
	if a.issuing != a.root {
		keyFile = issuingKeyFile
		if err := writePEM(dir, issuingCertFile, certificateLabel, a.issuing.Raw); err != nil {
			return err
		}
	}
	if err := writePEM(dir, keyFile, "PRIVATE KEY", key); err != nil {
		return err
	}
	if err := a.next.save(dir); err != nil {
		return err
	}
	return writePEM(dir, rootCertFile, certificateLabel, a.root.Raw)
}

const certificateLabel = "CERTIFICATE"

func writePEM(dir *os.Root, name, label string, der []byte) error {
	return replaceFile(dir, name, pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

func readPEM(dir *os.Root, name string) ([]byte, error) {
	text, err := dir.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir.Name(), name), err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", filepath.Join(dir.Name(), name))
	}
	return block.Bytes, nil
}

func readCertificate(dir *os.Root, name string) (*x509.Certificate, error) {
	der, err := readPEM(dir, name)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir.Name(), name), err)
	}
	return cert, nil
}

func readKey(dir *os.Root, name string) (crypto.Signer, error) {
	der, err := readPEM(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		// a certificate whose key is missing is not a CA that is yet to be made
		return nil, fmt.Errorf("%s is missing", filepath.Join(dir.Name(), name))
	}
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir.Name(), name), err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: not a key for signatures", filepath.Join(dir.Name(), name))
	}
	return signer, nil
}
