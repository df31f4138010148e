package cmpcmd

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// plan is what to ask and how.
type plan struct {
	client  *cmp.Client // nil: there is no server
	config  cmp.Config
	request cmp.Request
	shape   shape
	old     *x509.Certificate // root to ask an update for
}

// builder makes a plan from settings.
type builder struct {
	*settings
	log     *reporter
	secrets *passwords
	now     func() time.Time

	untrusted []*x509.Certificate // -untrusted, and what comes behind -cert
	cert, old *x509.Certificate   // -cert and -oldcert
	csr       *x509.CertificateRequest
	key       crypto.Signer // -key
}

// build makes the plan. Secrets are read in the order of OpenSSL: TLS, protection, request.
func (b *builder) build() (*plan, error) {
	b.warnOfUnused()
	if err := b.load(); err != nil {
		return nil, err
	}
	p := new(plan)
	var err error
	if p.client, err = b.client(); err != nil {
		return nil, err
	}
	if p.config, err = b.protection(); err != nil {
		return nil, err
	}
	if p.shape, err = b.shape(p.config.Credential); err != nil {
		return nil, err
	}
	if p.request, err = b.request(); err != nil {
		return nil, err
	}
	if p.config.Recipient, err = b.recipient(); err != nil {
		return nil, err
	}
	if b.values["infotype"] == "rootCaCert" {
		p.old, _, err = b.certificateOf("oldwithold")
	}
	return p, err
}

// load reads the certificates and the request that several options refer to.
func (b *builder) load() (err error) {
	var more []*x509.Certificate
	if b.cert, more, err = b.certificateOf("cert"); err != nil {
		return err
	}
	if b.old, _, err = b.certificateOf("oldcert"); err != nil {
		return err
	}
	if b.untrusted, err = b.certificatesOf("untrusted"); err != nil {
		return err
	}
	b.untrusted = append(b.untrusted, more...)
	if b.has("csr") && b.values["cmd"] != "genm" {
		b.csr, err = certificateRequest(b.values["csr"])
	}
	return err
}

// reference is the certificate defaults are taken from.
func (b *builder) reference() *x509.Certificate {
	if b.old != nil {
		return b.old
	}
	return b.cert
}

// uses says which commands an option is for, where that is not all of them.
var uses = []struct{ commands, options string }{
	{"ir cr kur", "newkey newkeypass days reqexts sans san_nodefault policies policy_oids policy_oids_critical popo"},
	{"ir cr kur p10cr", "out_trusted implicit_confirm disable_confirm certout chainout"},
	{"ir cr kur rr", "issuer"},
	{"ir cr kur p10cr rr", "oldcert csr"},
	{"rr", "serial revreason"},
	{"genm", "infotype oldwithold newwithnew newwithold oldwithnew crlcert oldcrl crlout template keyspec"},
}

// warnOfUnused names the options that have no effect in this run.
func (b *builder) warnOfUnused() {
	for _, u := range uses {
		for option := range strings.FieldsSeq(u.options) {
			if b.has(option) && !slices.Contains(strings.Fields(u.commands), b.values["cmd"]) {
				b.log.warn("-%s has no effect with -cmd %s", option, b.values["cmd"])
			}
		}
	}
	tls := []string{"tls_cert", "tls_key", "tls_keypass", "tls_extra", "tls_trusted", "tls_host"}
	if !b.has("tls_used") && !strings.HasPrefix(b.values["server"], "https://") && slices.ContainsFunc(tls, b.has) {
		b.log.warn("TLS options have no effect without -tls_used")
	}
	for option, needed := range map[string]string{"own_trusted": "cert", "reqin_new_tid": "reqin", "policy_oids_critical": "policy_oids"} {
		if b.has(option) && !b.has(needed) {
			b.log.warn("-%s has no effect without -%s", option, needed)
		}
	}
	if b.has("reqin") && b.has("rspin") {
		b.log.warn("-reqin has no effect with -rspin")
	}
}

// name reads the distinguished name of an option; nil if it is absent.
func (b *builder) name(option string) (cmp.Name, error) {
	if !b.has(option) {
		return nil, nil
	}
	text := b.values[option]
	if text[0] != '/' {
		return nil, fmt.Errorf("-%s: a name begins with a slash: /type=value/type=value", option)
	}
	name, err := cmp.ParseName(text)
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", option, err)
	}
	for _, skipped := range cmp.SkippedAttributes(text) {
		b.log.warn("-%s: %q is left out: its type is unknown, or it has no value", option, skipped)
	}
	return name, nil
}

// protection is everything that is the same for all messages.
func (b *builder) protection() (cmp.Config, error) {
	cfg := cmp.Config{
		ImplicitConfirm:   b.has("implicit_confirm"),
		UnprotectedErrors: b.has("unprotected_errors"),
		TotalTimeout:      seconds(b.number("total_timeout", 0)),
		Now:               b.now,
		Rand:              rand.Reader,
	}
	var err error
	if cfg.Trust, err = b.trust(); err != nil {
		return cfg, err
	}
	if cfg.Credential, err = b.credential(); err != nil {
		return cfg, err
	}
	if cfg.Sender, err = b.sender(); err != nil {
		return cfg, err
	}
	_, mac := cfg.Credential.(*cmp.SharedSecret)
	trusting := len(cfg.Trust.Roots) > 0 || cfg.Trust.ServerCertificate != nil || cfg.Trust.AnchorInIP
	if (!mac || !b.has("secret")) && !trusting {
		return cfg, errors.New("there is nothing to authenticate the server by: give -trusted, -srvcert or -secret")
	}
	return cfg, nil
}

// trust is who may sign answers and issue certificates.
func (b *builder) trust() (cmp.Trust, error) {
	t := cmp.Trust{Intermediates: b.untrusted, IgnoreKeyUsage: b.has("ignore_keyusage"), AnchorInIP: b.has("ta_in_ip_extracerts")}
	var err error
	if t.ServerCertificate, _, err = b.certificateOf("srvcert"); err != nil {
		return t, err
	}
	if t.ServerCertificate == nil {
		t.Roots, err = b.certificatesOf("trusted")
	} else if b.has("trusted") {
		b.log.warn("-trusted has no effect with -srvcert")
	}
	if err != nil {
		return t, err
	}
	if t.IssuedRoots, err = b.certificatesOf("out_trusted"); err != nil {
		return t, err
	}
	if t.ExpectedSender, err = b.name("expect_sender"); err != nil {
		return t, err
	}
	if t.ExpectedSender == nil && t.ServerCertificate != nil {
		t.ExpectedSender = t.ServerCertificate.RawSubject
	}
	if t.AnchorInIP {
		b.log.warn("-ta_in_ip_extracerts: whoever answers first can say whom to trust")
	}
	return t, nil
}

// credential is a shared secret if there is one, as in OpenSSL, else a certificate and its key.
func (b *builder) credential() (cmp.Credential, error) {
	switch {
	case b.has("secret"):
		secret, err := b.sharedSecret()
		if err == nil && b.has("key") {
			b.log.warn("-cert and -key do not protect messages, since there is -secret")
			b.key, err = b.privateKey("key")
		}
		return secret, err
	case b.has("key") && b.has("cert"):
		return b.signer()
	case b.has("unprotected_requests"):
		return throwaway(), b.loadKey()
	case !b.has("key"):
		return nil, errors.New("give -secret, or -cert and -key, or -unprotected_requests")
	}
	return nil, errors.New("-key needs its -cert")
}

func (b *builder) loadKey() (err error) {
	if b.has("key") {
		b.key, err = b.privateKey("key")
	}
	return err
}

// throwaway is a credential nobody else has, for requests that are sent without protection.
func throwaway() *cmp.SharedSecret {
	return &cmp.SharedSecret{Reference: []byte("none"), Secret: []byte(rand.Text())}
}

// macs are the MACs of -mac by OpenSSL's names.
var macs = map[string]crypto.Hash{
	"hmac-sha1": crypto.SHA1, "hmacWithSHA1": crypto.SHA1,
	"hmacWithSHA256": crypto.SHA256, "hmacWithSHA384": crypto.SHA384, "hmacWithSHA512": crypto.SHA512,
}

func (b *builder) sharedSecret() (*cmp.SharedSecret, error) {
	if !b.has("ref") {
		return nil, errors.New("-secret needs -ref: a server knows by the reference value whose secret it is")
	}
	mac, ok := crypto.SHA1, true
	if b.has("mac") {
		mac, ok = macs[b.values["mac"]]
	}
	if !ok {
		return nil, fmt.Errorf("-mac %.40s is not supported: use hmac-sha1, hmacWithSHA256, hmacWithSHA384 or hmacWithSHA512", b.values["mac"])
	}
	owf, err := b.digest()
	if err != nil {
		return nil, err
	}
	secret, err := b.secrets.from("secret", b.values["secret"])
	if err != nil {
		return nil, err
	}
	return &cmp.SharedSecret{Reference: []byte(b.values["ref"]), Secret: secret, OWF: owf, MAC: mac, AllowSHA1: true}, nil
}

// digest is the hash of -digest; 0 if it is absent.
func (b *builder) digest() (crypto.Hash, error) {
	switch name := strings.ToLower(b.values["digest"]); name {
	case "":
		return 0, nil
	case "sha1", "sha-1":
		if !b.has("secret") {
			return 0, errors.New("-digest sha1 is not supported: signatures with it are forgeable (RFC 9481 §3)")
		}
		return crypto.SHA1, nil
	case "sha256", "sha-256", "sha2-256":
		return crypto.SHA256, nil
	case "sha384", "sha-384", "sha2-384":
		return crypto.SHA384, nil
	case "sha512", "sha-512", "sha2-512":
		return crypto.SHA512, nil
	default:
		return 0, fmt.Errorf("-digest %.40s is not supported: use sha256, sha384 or sha512", name)
	}
}

// signer signs with -cert and -key. Its chain comes from -untrusted and from what is behind -cert.
func (b *builder) signer() (*cmp.Signer, error) {
	hash, err := b.digest()
	if err != nil {
		return nil, err
	}
	if err := b.loadKey(); err != nil {
		return nil, err
	}
	if !sameKey(b.key.Public(), b.cert.PublicKey) {
		return nil, errNoKeyMatch
	}
	roots, err := b.certificatesOf("own_trusted")
	if err != nil {
		return nil, err
	}
	if len(roots) > 0 {
		if err := leadsTo(b.cert, roots, b.untrusted); err != nil {
			return nil, err
		}
	}
	if b.has("ref") {
		b.log.info("-ref is not used: requests are signed with -cert, which names itself")
	}
	return &cmp.Signer{Key: b.key, Certificate: b.cert, Chain: chainOf(b.cert, b.untrusted), Hash: hash}, nil
}

// sender is the sender where there is no certificate to take it from: the
// subject of -cert, -oldcert or -subject. nil: CN=reference value.
func (b *builder) sender() (cmp.Name, error) {
	if reference := b.cert; reference != nil {
		return reference.RawSubject, nil
	}
	if b.old != nil {
		return b.old.RawSubject, nil
	}
	subject, err := b.name("subject")
	if subject.Empty() {
		return nil, err
	}
	return subject, err
}

// recipient is the first name known for the CA, in OpenSSL's order.
func (b *builder) recipient() (cmp.Name, error) {
	for _, option := range []string{"recipient", "srvcert", "issuer"} {
		if option == "srvcert" {
			if c, _, err := b.certificateOf(option); c != nil || err != nil {
				return rawSubject(c), err
			}
			continue
		}
		if name, err := b.name(option); name != nil || err != nil {
			return name, err
		}
	}
	if c := b.reference(); c != nil {
		return c.RawIssuer, nil
	}
	b.log.debug("no option says who the recipient is: the NULL-DN")
	return nil, nil
}

func rawSubject(c *x509.Certificate) cmp.Name {
	if c == nil {
		return nil
	}
	return c.RawSubject
}
