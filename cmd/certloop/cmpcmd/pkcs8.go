package cmpcmd

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // what openssl genrsa -des3 writes has to be read
	"crypto/pbkdf2"
	_ "crypto/sha1" //nolint:gosec // HMAC-SHA1 is the default PRF of PBKDF2
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/scrypt"
)

// Bounds on the work and the memory a key file can make us use.
const (
	maxKeyIterations = 10_000_000
	maxScryptMemory  = 256 << 20 // bytes: 128 × N × r
	maxScryptLanes   = 16        // p
)

// Algorithms of encrypted keys (RFC 8018 appendices A.2, A.4, B.1 and B.2, RFC 7914 §7).
var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	oidDESEDE3CBC = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
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

var errEncryption = errors.New("its encryption is not supported: use PBKDF2 or scrypt and AES-CBC, as openssl pkcs8 -topk8 does")

// blockCipher is a cipher of PBES2, used in CBC.
type blockCipher struct {
	id      asn1.ObjectIdentifier
	keySize int // in bytes
	new     func(key []byte) (cipher.Block, error)
}

func blockCiphers() []blockCipher {
	return []blockCipher{
		{oidAES128CBC, 16, aes.NewCipher}, {oidAES192CBC, 24, aes.NewCipher}, {oidAES256CBC, 32, aes.NewCipher},
		{oidDESEDE3CBC, 24, des.NewTripleDESCipher},
	}
}

// decrypt gives the PrivateKeyInfo. Only PBES2 is supported.
func (k *encryptedKey) decrypt(phrase []byte) ([]byte, error) {
	var pbes2, kdf, encryption cryptobyte.String
	var kdfID, cipherID asn1.ObjectIdentifier
	var iv []byte
	ok := k.scheme.Equal(oidPBES2) && k.parameters.ReadASN1(&pbes2, tag.SEQUENCE) &&
		pbes2.ReadASN1(&kdf, tag.SEQUENCE) && kdf.ReadASN1ObjectIdentifier(&kdfID) &&
		pbes2.ReadASN1(&encryption, tag.SEQUENCE) && encryption.ReadASN1ObjectIdentifier(&cipherID) &&
		encryption.ReadASN1Bytes(&iv, tag.OCTET_STRING)
	if !ok {
		return nil, errEncryption
	}
	for _, c := range blockCiphers() {
		if c.id.Equal(cipherID) {
			return c.decrypt(kdfID, kdf, phrase, iv, k.data)
		}
	}
	return nil, errEncryption
}

func (c *blockCipher) decrypt(kdfID asn1.ObjectIdentifier, kdf cryptobyte.String, phrase, iv, data []byte) ([]byte, error) {
	key, err := deriveKey(kdfID, kdf, phrase, c.keySize)
	if err != nil {
		return nil, err
	}
	block, err := c.new(key)
	if err != nil {
		return nil, err
	}
	if len(iv) != block.BlockSize() {
		return nil, errEncryption
	}
	return decryptCBC(block, iv, data)
}

// deriveKey derives a key with a function whose parameters are in DER.
func deriveKey(id asn1.ObjectIdentifier, parameters cryptobyte.String, phrase []byte, size int) ([]byte, error) {
	var p cryptobyte.String
	var salt []byte
	if !parameters.ReadASN1(&p, tag.SEQUENCE) || !p.ReadASN1Bytes(&salt, tag.OCTET_STRING) {
		return nil, errEncryption
	}
	switch {
	case id.Equal(oidPBKDF2):
		return deriveByPBKDF2(p, phrase, salt, size)
	case id.Equal(oidScrypt):
		return deriveByScrypt(p, phrase, salt, size)
	}
	return nil, errEncryption
}

// deriveByPBKDF2 applies PBKDF2 with what follows the salt (RFC 8018 appendix A.2).
func deriveByPBKDF2(p cryptobyte.String, phrase, salt []byte, size int) ([]byte, error) {
	var algorithm cryptobyte.String
	var iterations, length int
	prf := oidHMACSHA1
	ok := p.ReadASN1Integer(&iterations) && p.ReadOptionalASN1Integer(&length, tag.INTEGER, size)
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

// deriveByScrypt applies scrypt with what follows the salt (RFC 7914 §7.1).
func deriveByScrypt(p cryptobyte.String, phrase, salt []byte, size int) ([]byte, error) {
	var cost, blockSize, lanes int64
	var length int
	ok := p.ReadASN1Integer(&cost) && p.ReadASN1Integer(&blockSize) && p.ReadASN1Integer(&lanes) &&
		p.ReadOptionalASN1Integer(&length, tag.INTEGER, size) && p.Empty() && length == size
	const most = maxScryptMemory / 128
	switch {
	case !ok || cost < 2 || blockSize < 1 || lanes < 1:
		return nil, errEncryption
	case cost > most || blockSize > most || cost*blockSize > most || lanes > maxScryptLanes:
		return nil, fmt.Errorf("scrypt with N=%d, r=%d and p=%d needs more than %d MiB or %d lanes", cost, blockSize, lanes, maxScryptMemory>>20, maxScryptLanes)
	}
	return scrypt.Key(phrase, salt, int(cost), int(blockSize), int(lanes), size)
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
func decryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	if len(data) == 0 || len(data)%block.BlockSize() != 0 {
		return nil, errEncryption
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, data)
	padding := int(out[len(out)-1])
	if padding < 1 || padding > block.BlockSize() {
		return nil, errPassPhrase
	}
	for _, b := range out[len(out)-padding:] {
		if int(b) != padding {
			return nil, errPassPhrase
		}
	}
	return out[:len(out)-padding], nil
}
