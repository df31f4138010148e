package interop

import "strings"

// refusal is a reason why cells do not pass, and what the side that says no says.
type refusal struct {
	pair       string // empty: any
	operation  string // prefix
	protection string // prefix
	key        string // empty: any
	says       string // part of the error
	why        string
}

func (r *refusal) covers(c cell) bool {
	return (r.pair == "" || r.pair == c.pair) && (r.key == "" || r.key == c.key) &&
		strings.HasPrefix(c.operation, r.operation) && strings.HasPrefix(c.protection, r.protection)
}

// refusalOf finds the reason why a cell is expected to be refused; nil: it is expected to pass.
func refusalOf(c cell) *refusal {
	for i := range refusals {
		if refusals[i].covers(c) {
			return &refusals[i]
		}
	}
	return nil
}

const (
	whySHA1    = "by our client, before anything is sent: RFC 9481 §3 has no signatures with SHA-1; use SHA-256 or better."
	whyRequest = "by the server: OpenSSL finds a certificate by issuer and serialNumber only (RFC 9483 §4.2), and its answer, without either, is no CMP."
)

// refusals are the cells that are refused by design, ours or the peer's; the first that covers a cell counts.
var refusals = []refusal{
	{
		pair: pairResponder, protection: "ECDSA P-256 SHA-1", says: "badMessageCheck",
		why: "by the responder: RFC 9481 §3 has no signatures with SHA-1; use SHA-256 or better.",
	},
	{
		protection: "ECDSA P-256 SHA-1", says: "not among SHA-256, SHA-384 and SHA-512", why: whySHA1,
	},
	{
		pair: pairOpenSSLCA, operation: opNested, says: "unexpected pkibody",
		why: "by the server: the CMP of OpenSSL 3.0 takes no nested messages (badRequest).",
	},
	{
		pair: pairOpenSSLCA, protection: "PBMAC1", says: "no suitable sender cert",
		why: "by the server: the CMP of OpenSSL 3.0 has PasswordBasedMac only and takes PBMAC1 for a signature (badRequest).",
	},
	{
		pair: pairMock, protection: "PBMAC1", says: "no suitable sender cert",
		why: "by the server: the CMP of OpenSSL 3.0 has PasswordBasedMac only and takes PBMAC1 for a signature (badRequest).",
	},
	{
		pair: pairOpenSSLCA, operation: opRRRequest, says: "malformed rp.revCerts", why: whyRequest,
	},
	{
		pair: pairMock, operation: opRRRequest, says: "malformed rp.revCerts", why: whyRequest,
	},
	{
		pair: pairResponder, protection: "Ed25519", says: "unsupported key type",
		why: "by the client: the CMP of OpenSSL 3.0 verifies protection with Ed25519 but cannot make it.",
	},
	{
		pair: pairResponder, key: keySecp256k1, says: "elliptic curve",
		why: "by the responder: crypto/x509 has no certificates for secp256k1; use P-256, P-384 or P-521.",
	},
	{
		pair: pairResponder, key: keyRSAPSS, says: "badAlg",
		why: "by the responder: crypto/x509 has no certificates for keys restricted to RSASSA-PSS; use an ordinary RSA key, which can sign with PSS.",
	},
	{
		pair: pairResponder, key: keyEd448, says: "badAlg",
		why: "by the responder: Go has no Ed448; use Ed25519.",
	},
}
