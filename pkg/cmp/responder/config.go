package responder

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// Defaults of the fields of [Config].
const (
	DefaultName        = "certloop CA"
	DefaultValidity    = 90 * 24 * time.Hour
	DefaultConfirmWait = 10 * time.Minute
	DefaultPollWait    = 7 * 24 * time.Hour
	DefaultMaxOpen     = 10_000
	DefaultMaxIssued   = 200_000
)

// Config says what a [Server] is. The zero value of every field is usable, but
// without SharedSecrets and ClientCAs nobody can authenticate.
type Config struct {
	// Name is the common name of the CA; DefaultName if empty. A CA that exists
	// in Dir keeps its name.
	Name string
	// Dir holds keys, certificates and transactions, mode 0700. Empty: in memory
	// only, with a new CA each time.
	Dir string
	// Intermediate puts an issuing CA under the root: end entities then need it
	// in their chain, and it signs the answers. A CA that exists in Dir stays as it is.
	Intermediate bool
	// KeyType is that of the keys of a new CA; P256 if empty. A CA that exists in
	// Dir keeps its keys.
	KeyType KeyType
	// PSS makes RSA keys sign certificates, CRLs and messages with RSASSA-PSS and SHA-256.
	PSS bool
	// Successor makes a root that is to follow that of a new CA, and answers
	// questions for rootCaCert with it (RFC 9483 §4.3.2). It never issues.
	Successor bool
	// Infos are answers to genm, such as certReqTemplate or suppLangTags, for types
	// the server has no answers of its own for; the others get one without a value.
	Infos []cmp.InfoTypeAndValue
	// CRLDistributionPoints are URLs put into what is issued. The server itself
	// has its CRL at every path that ends in /crl.
	CRLDistributionPoints []string
	// SharedSecrets maps reference values to secrets.
	SharedSecrets map[string]string
	// AllowSHA1 accepts HMAC-SHA1 in password-based MACs, the default of OpenSSL's client.
	AllowSHA1 bool
	// ClientCAs are roots of certificates that may sign requests besides our own,
	// such as those a vendor puts into devices (3GPP TS 33.310).
	ClientCAs []*x509.Certificate
	// Validity is the lifetime of a certificate when the request names none, and
	// the end of the longest that is granted, counted from now; DefaultValidity if 0.
	Validity time.Duration
	// ConfirmWait is how long a certificate may stay unconfirmed; DefaultConfirmWait if 0.
	ConfirmWait time.Duration
	// PollWait is how long a transaction may stay in polling; DefaultPollWait if 0.
	PollWait time.Duration
	// MessageTimeTolerance bounds how far messageTime may be from now; 0 means it
	// is not looked at, because a client that sends a stored message again after
	// an outage repeats its messageTime.
	MessageTimeTolerance time.Duration
	// MaxOpen bounds the transactions that are polled or unconfirmed; beyond it
	// requests are refused with systemUnavail. DefaultMaxOpen if 0.
	MaxOpen int
	// MaxIssued bounds the certificates remembered; DefaultMaxIssued if 0.
	MaxIssued int
	// Behaviour is what the server does from the start; see [Server.Behave].
	Behaviour Behaviour
	// OnMessage is called after each message, before its answer is sent, from
	// the goroutine that serves it. It must not block.
	OnMessage func(Event)
	// Log gets one line per message and nothing secret; nil means none.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Rand is the source of serial numbers and nonces; nil means crypto/rand.Reader.
	Rand io.Reader
}

func (c *Config) validate() error {
	errs := []error{c.KeyType.check()}
	for reference, secret := range c.SharedSecrets {
		if reference == "" || len(reference) > cmp.MaxNonceBytes || secret == "" {
			errs = append(errs, fmt.Errorf("shared secret %q: a reference value of 1 to %d bytes and a secret are needed", reference, cmp.MaxNonceBytes))
		}
	}
	if c.Validity < 0 || c.ConfirmWait < 0 || c.PollWait < 0 || c.MessageTimeTolerance < 0 || c.MaxOpen < 0 || c.MaxIssued < 0 {
		errs = append(errs, errors.New("durations and bounds must not be negative"))
	}
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	def(&c.Name, DefaultName)
	def(&c.Validity, DefaultValidity)
	def(&c.ConfirmWait, DefaultConfirmWait)
	def(&c.PollWait, DefaultPollWait)
	def(&c.MaxOpen, DefaultMaxOpen)
	def(&c.MaxIssued, DefaultMaxIssued)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
