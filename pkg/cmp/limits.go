package cmp

import "time"

// Limits on what a peer may send and on what it may make us do. A message that
// exceeds one is refused before the work it asks for is done.
const (
	// MaxMessageBytes is the largest PKIMessage ParseMessage accepts, in bytes.
	MaxMessageBytes = 1 << 20
	// MaxExtraCerts is the largest number of certificates in extraCerts, and in caPubs.
	MaxExtraCerts = 32
	// MaxChain is the largest number of certificates between a certificate and its trust anchor.
	MaxChain = 10
	// MaxEntries is the largest number of elements of any other list in a message.
	MaxEntries = 64
	// MaxNameRDNs is the largest number of RDNs in a Name.
	MaxNameRDNs = 32
	// MaxNonceBytes is the longest transactionID, nonce or key identifier, in bytes.
	MaxNonceBytes = 128
	// MaxTextBytes is the longest text taken over from a peer's free texts, in bytes.
	MaxTextBytes = 1 << 10
	// MaxSaltBytes is the longest salt of password-based protection, in bytes.
	MaxSaltBytes = 128
	// MaxRSABits is the largest modulus of an RSA key with which anything of a peer is verified, in bits.
	MaxRSABits = 8192
	// DefaultIterations is the PBM iterationCount we send.
	DefaultIterations = 1024
	// MinIterations is the smallest iterationCount accepted (RFC 4211 §4.4).
	MinIterations = 100
	// DefaultMaxIterations is the largest iterationCount accepted from a peer
	// unless [Config.MaxIterations] says otherwise. For PBMAC1 it is half as many,
	// since each costs twice as much.
	DefaultMaxIterations = 100_000
	// DefaultMaxResponse is the largest HTTP response body read, in bytes.
	DefaultMaxResponse = 256 << 10
)

// Defaults for the times of a transaction; each has a field of [Config] that changes it.
const (
	// MinCheckAfter is the shortest time between two polls.
	MinCheckAfter = time.Second
	// DefaultMaxCheckAfter bounds the checkAfter a peer may ask for.
	DefaultMaxCheckAfter = time.Hour
	// DefaultMessageTimeTolerance is how far messageTime may be from our clock.
	DefaultMessageTimeTolerance = 5 * time.Minute
	// DefaultMaxPolls bounds the number of pollReq in one transaction.
	DefaultMaxPolls = 100_000
)

const (
	// nonceBytes is the length of our transactionIDs, nonces and salts (RFC 9810 §5.1.1: 128 bits).
	nonceBytes = 16
	// maxCandidates bounds the signatures verified to find who protected one message.
	maxCandidates = 10
	// courtesyTime is how long the answer to the last message of a failed transaction is waited for.
	courtesyTime = 5 * time.Second
	// maxElements bounds the names, or the purposes, of an extension that are compared one by one;
	// with more of them it is compared as a whole.
	maxElements = 1024
	// maxSeenNonces bounds the peer's nonces remembered to notice a repetition.
	maxSeenNonces = 16
)
