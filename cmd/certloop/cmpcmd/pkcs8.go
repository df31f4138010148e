package cmpcmd

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	_ "crypto/sha1" //nolint:gosec // HMAC-SHA1 is the default PRF of PBKDF2
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// maxKeyIterations bounds the work a key file can make us do.
const maxKeyIterations = 10_000_000

// Algorithms of encrypted keys (RFC 8018 appendices A.2, A.4, B.1 and B.2.5).
var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// encryptedKey is an EncryptedPrivateKeyInfo (RFC 5958 §3).
type encryptedKey struct {
	scheme     asn1.ObjectIdentifier
	parameters cryptobyte.String
	data       []byte
}

// parseEncryptedKey tells whether der is an EncryptedPrivateKeyInfo.
func parseEncryptedKey(der []byte) (*encryptedKey, bool) {
	in := cryptobyte.String(der)
	var outer, algorithm cryptobyte.String
	k := new(encryptedKey)
	ok := in.ReadASN1(&outer, tag.SEQUENCE) && in.Empty() &&
		outer.ReadASN1(&algorithm, tag.SEQUENCE) && algorithm.ReadASN1ObjectIdentifier(&k.scheme) &&
		outer.ReadASN1Bytes(&k.data, tag.OCTET_STRING) && outer.Empty()
	k.parameters = algorithm
	return k, ok
}

var errEncryption = errors.New("its encryption is not supported: use PBKDF2 and AES-CBC, as openssl pkcs8 -topk8 does")

// decrypt gives the PrivateKeyInfo. Only PBES2 with PBKDF2 and AES is supported.
func (k *encryptedKey) decrypt(phrase []byte) ([]byte, error) {
	var pbes2, kdf, encryption cryptobyte.String
	var kdfID, cipherID asn1.ObjectIdentifier
	var iv []byte
	ok := k.scheme.Equal(oidPBES2) && k.parameters.ReadASN1(&pbes2, tag.SEQUENCE) &&
		pbes2.ReadASN1(&kdf, tag.SEQUENCE) && kdf.ReadASN1ObjectIdentifier(&kdfID) && kdfID.Equal(oidPBKDF2) &&
		pbes2.ReadASN1(&encryption, tag.SEQUENCE) && encryption.ReadASN1ObjectIdentifier(&cipherID) &&
		encryption.ReadASN1Bytes(&iv, tag.OCTET_STRING) && len(iv) == aes.BlockSize
	size := keySize(cipherID)
	if !ok || size == 0 {
		return nil, errEncryption
	}
	key, err := deriveKey(kdf, phrase, size)
	if err != nil {
		return nil, err
	}
	return decryptCBC(key, iv, k.data)
}

// keySize is the size of a cipher's key in bytes, 0 if it is not supported.
func keySize(id asn1.ObjectIdentifier) int {
	switch {
	case id.Equal(oidAES128CBC):
		return 16
	case id.Equal(oidAES192CBC):
		return 24
	case id.Equal(oidAES256CBC):
		return 32
	}
	return 0
}

// deriveKey applies PBKDF2 with parameters in DER (RFC 8018 appendix A.2).
func deriveKey(parameters cryptobyte.String, phrase []byte, size int) ([]byte, error) {
	var p, algorithm cryptobyte.String
	var salt []byte
	var iterations, length int
	prf := oidHMACSHA1
	ok := parameters.ReadASN1(&p, tag.SEQUENCE) && p.ReadASN1Bytes(&salt, tag.OCTET_STRING) && p.ReadASN1Integer(&iterations) &&
		p.ReadOptionalASN1Integer(&length, tag.INTEGER, size)
	if ok && !p.Empty() {
		ok = p.ReadASN1(&algorithm, tag.SEQUENCE) && algorithm.ReadASN1ObjectIdentifier(&prf)
	}
	hash := prfHash(prf)
	switch {
	case !ok || length != size || hash == 0:
		return nil, errEncryption
	case iterations < 1 || iterations > maxKeyIterations:
		return nil, fmt.Errorf("%d iterations of PBKDF2 are not between 1 and %d", iterations, maxKeyIterations)
	}
	return pbkdf2.Key(hash.New, string(phrase), salt, iterations, size)
}

func prfHash(id asn1.ObjectIdentifier) crypto.Hash {
	switch {
	case id.Equal(oidHMACSHA1):
		return crypto.SHA1
	case id.Equal(oidHMACSHA256):
		return crypto.SHA256
	case id.Equal(oidHMACSHA384):
		return crypto.SHA384
	case id.Equal(oidHMACSHA512):
		return crypto.SHA512
	}
	return 0
}

var errPassPhrase = errors.New("wrong pass phrase")

// decryptCBC decrypts and takes the padding off (RFC 8018 §6.1.2).
func decryptCBC(key, iv, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, errEncryption
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, data)
	padding := int(out[len(out)-1])
	if padding < 1 || padding > aes.BlockSize {
		return nil, errPassPhrase
	}
	for _, b := range out[len(out)-padding:] {
		if int(b) != padding {
			return nil, errPassPhrase
		}
	}
	return out[:len(out)-padding], nil
}
