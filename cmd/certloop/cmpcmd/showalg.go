package cmpcmd

import (
	"encoding/asn1"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certloop/certloop/pkg/cmp"
)

// algorithmNames are the names of algorithms in CMP messages (RFC 9481).
var algorithmNames = map[string]string{
	"1.2.840.113533.7.66.13": "PasswordBasedMac", "1.2.840.113549.1.5.14": "PBMAC1", "1.2.840.113549.1.5.12": "PBKDF2",
	"1.3.6.1.5.5.8.1.2": "hmac-sha1", "1.2.840.113549.2.7": "hmacWithSHA1", "1.2.840.113549.2.9": "hmacWithSHA256",
	"1.2.840.113549.2.10": "hmacWithSHA384", "1.2.840.113549.2.11": "hmacWithSHA512",
	"1.3.14.3.2.26": "SHA-1", "2.16.840.1.101.3.4.2.1": "SHA-256", "2.16.840.1.101.3.4.2.2": "SHA-384", "2.16.840.1.101.3.4.2.3": "SHA-512",
	"1.2.840.113549.1.1.5": "sha1WithRSAEncryption", "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
	"1.2.840.113549.1.1.12": "sha384WithRSAEncryption", "1.2.840.113549.1.1.13": "sha512WithRSAEncryption", "1.2.840.113549.1.1.10": "RSASSA-PSS",
	"1.2.840.10045.4.1": "ecdsa-with-SHA1", "1.2.840.10045.4.3.2": "ecdsa-with-SHA256", "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
	"1.2.840.10045.4.3.4": "ecdsa-with-SHA512", "1.3.101.112": "Ed25519", "1.3.101.113": "Ed448",
}

func algorithmName(id asn1.ObjectIdentifier) string {
	if name := algorithmNames[id.String()]; name != "" {
		return name
	}
	return id.String()
}

// algorithmText is the name of an algorithm, for password-based MACs with parameters.
func algorithmText(a cmp.AlgorithmIdentifier) string {
	name := algorithmName(a.Algorithm)
	var p, salt, owf, mac cryptobyte.String
	var owfID, macID asn1.ObjectIdentifier
	var iterations int64
	in := cryptobyte.String(a.Parameters)
	pbm := name == "PasswordBasedMac" && in.ReadASN1(&p, tag.SEQUENCE) && p.ReadASN1(&salt, tag.OCTET_STRING) &&
		p.ReadASN1(&owf, tag.SEQUENCE) && owf.ReadASN1ObjectIdentifier(&owfID) && p.ReadASN1Integer(&iterations) &&
		p.ReadASN1(&mac, tag.SEQUENCE) && mac.ReadASN1ObjectIdentifier(&macID)
	if !pbm {
		return name
	}
	return fmt.Sprintf("%s: %s, %s, %d iterations, salt of %d bytes", name, algorithmName(owfID), algorithmName(macID), iterations, len(salt))
}

// ipText is an address of 4 or 16 bytes.
func ipText(b []byte) string {
	address, _ := netip.AddrFromSlice(b)
	return address.String()
}
