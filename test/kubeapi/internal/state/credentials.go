package state

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of the serving certificate: longer than anyone keeps a test directory.
const lifetime = 10 * 365 * 24 * time.Hour

// credentials are what a server is recognised by and recognises its admin by.
type credentials struct {
	ca    []byte // PEM
	token string
}

// loadCredentials reads dir, after creating it as a whole if it does not exist.
func loadCredentials(dir string) (credentials, error) {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = createCredentials(dir)
	}
	if err != nil {
		return credentials{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return credentials{}, err
	}
	ca, err1 := root.ReadFile("ca.crt")
	token, err2 := root.ReadFile("token")
	return credentials{ca: ca, token: string(token)}, errors.Join(err1, err2, root.Close())
}

// createCredentials fills a directory beside dir and renames it, so that a
// process killed half-way leaves no half of a key pair behind.
func createCredentials(dir string) error {
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	files, err := newCredentials(time.Now())
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o600); err != nil {
			return err
		}
	}
	return os.Rename(tmp, dir)
}

// newCredentials makes the content of every credential file. The CA signs one
// certificate and its key is then forgotten.
func newCredentials(now time.Time) (map[string][]byte, error) {
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	serverKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	accountKey, err3 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	ca, server := certificateTemplates(now)
	caDER, err1 := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	serverDER, err2 := x509.CreateCertificate(rand.Reader, server, ca, serverKey.Public(), caKey)
	serverKeyPEM, err3 := keyPEM(serverKey)
	accountKeyPEM, err4 := keyPEM(accountKey)
	secret := make([]byte, 16)
	_, err5 := rand.Read(secret)
	token := hex.EncodeToString(secret)
	return map[string][]byte{
		"ca.crt":              certificatePEM(caDER),
		"server.crt":          certificatePEM(serverDER),
		"server.key":          serverKeyPEM,
		"service-account.pem": accountKeyPEM,
		"token":               []byte(token),
		"tokens.csv":          []byte(token + `,admin,admin,"system:masters"` + "\n"),
	}, errors.Join(err1, err2, err3, err4, err5)
}

func certificateTemplates(now time.Time) (ca, server *x509.Certificate) {
	ca = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubeapi"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server = &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	return ca, server
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}
