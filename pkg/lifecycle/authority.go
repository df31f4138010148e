package lifecycle

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// authority is an issuer with everything needed to ask it: where it is, what protects
// our messages, what we trust of its answers. What is common to all attempts is shared and
// never changed; an attempt has its own copy with the credential it uses.
type authority struct {
	*inputs
	read           time.Time
	client         *cmp.Client
	config         cmp.Config // without a credential until an attempt chooses
	name           cmp.Name   // of the CA that is to issue; nil when it is not asked for by name
	messageTimeout time.Duration
	totalTimeout   time.Duration
	chain          []*x509.Certificate // provided by the operator, in place of the response's
	bootstrap      credential
	identity       credential
}

// credential is what protects requests, or why there is none.
type credential struct {
	cmp.Credential
	problem error
}

// authorize finds out how to ask the CA, and with which credential. An *unmetError says
// what is missing or wrong. What is missing in an issuer that is remembered may have come since.
func (a *attempt) authorize(ctx context.Context, purpose string) error {
	for {
		ca, fresh, err := a.issuer(ctx)
		if err != nil {
			return err
		}
		own := *ca
		own.config.Credential, err = a.credential(ctx, ca, purpose)
		if err == nil {
			a.ca = &own
			return a.o.hold(ctx, a.ca)
		}
		if fresh {
			return err
		}
		a.o.known.forget(a.issuerKey())
	}
}

// issuer is the issuer of the certificate. What reading it anew has brought to light is reported.
func (a *attempt) issuer(ctx context.Context) (ca *authority, fresh bool, err error) {
	ca, fresh, err = a.o.authority(ctx, a.issuerKey())
	if !fresh || ca == nil {
		return ca, fresh, err
	}
	news, reportErr := a.o.reportIssuer(ctx, ca, a.in, err)
	if reportErr != nil {
		return ca, fresh, reportErr
	}
	for _, e := range news {
		a.tell(e)
	}
	return ca, fresh, err
}

// changedMeanwhile reads the issuer again and tells whether it is another one, or its Secrets
// are, than those this attempt has used: then what the CA refused is not what it would be asked now.
func (a *attempt) changedMeanwhile(ctx context.Context) (bool, error) {
	a.o.known.forget(a.issuerKey())
	ca, _, err := a.issuer(ctx)
	var why *unmetError
	if err != nil && !errors.As(err, &why) {
		return false, err
	}
	return issuerState(ca) != issuerState(a.ca), nil
}

// issuerState is what a parked certificate waits for to change.
func issuerState(ca *authority) string {
	if ca == nil {
		return ""
	}
	return ca.state()
}

// credential is what protects a request: the certificate in use for a key update
// (unless the issuer wants the identity, or that certificate cannot sign any more), the
// bootstrap secret for the identity, the identity for everything else. A transaction in flight goes on with
// what it began with.
func (a *attempt) credential(ctx context.Context, ca *authority, purpose string) (cmp.Credential, error) {
	identity := a.cert.Spec.Type == model.CMPIdentity
	if purpose == ledger.ForRenewal && (identity || ca.issuer.Spec.Renewal.SignedBy != model.SignedByIdentity) && a.currentSigns() {
		c := a.rec.Current
		return &cmp.Signer{Key: c.Key.Signer(), Certificate: c.Certificate(), Chain: c.Chain[1:], Hash: ca.digest()}, nil
	}
	if identity {
		return ca.bootstrap.Credential, ca.bootstrap.problem
	}
	if former := a.formerIdentity(ctx, ca); former != nil {
		return former, nil
	}
	return ca.identity.Credential, ca.identity.problem
}

// currentSigns: the certificate in use may sign requests, its key is there, and it has not
// expired. It takes a digitalSignature usage (RFC 9483 §3.2); no usage at all allows every use.
func (a *attempt) currentSigns() bool {
	c := a.rec.Current
	if c == nil || c.Key.Signer() == nil || !a.o.now().Before(c.Certificate().NotAfter) {
		return false
	}
	usage := c.Certificate().KeyUsage
	return usage == 0 || usage&x509.KeyUsageDigitalSignature != 0
}

// digest is the one of the issuer's authentication; 0 leaves it to the key.
func (in *inputs) digest() crypto.Hash {
	if a := in.issuer.Spec.Authentication; a != nil {
		return hashOf(string(a.Digest))
	}
	return 0
}

// formerIdentity is the identity that the transaction in flight began with, when the identity was
// renewed since; nil when it was not, or nothing is known of it. A CA knows a transaction by who began it,
// so that polls and the confirmation must come from the same (RFC 9483 §3.5, §4.4).
func (a *attempt) formerIdentity(ctx context.Context, ca *authority) cmp.Credential {
	f := a.rec.Flight
	if f == nil || f.Signer == "" || f.Signer == signedBy(ca.identity.Credential) || ca.issuer.Spec.Authentication == nil {
		return nil
	}
	var found cmp.Credential
	q := ledger.Query{Namespace: ca.home, SecretName: ca.issuer.Spec.Authentication.SecretName}
	err := a.o.Ledger.Certificates(ctx, q, func(c *model.CMPCertificate) error {
		if c.Spec.Type != model.CMPIdentity {
			return nil
		}
		rec, err := a.o.Ledger.Record(ctx, c)
		if err != nil {
			return err
		}
		for _, i := range rec.Former {
			if fingerprint(i.Certificate().Raw) == f.Signer {
				found = &cmp.Signer{Key: i.Key.Signer(), Certificate: i.Certificate(), Chain: i.Chain[1:], Hash: ca.digest()}
			}
		}
		return nil
	})
	if err != nil { // the present identity is tried; a CA that insists makes the attempt begin anew
		a.o.Log.WarnContext(ctx, "looking for the former identity", "certificate", a.key.String(), "err", err)
	}
	return found
}

// signedBy is the fingerprint of the certificate that signs by a credential; empty for a MAC.
func signedBy(c cmp.Credential) string {
	if s, ok := c.(*cmp.Signer); ok && s != nil {
		return fingerprint(s.Certificate.Raw)
	}
	return ""
}

// authority is what was read of an issuer not long ago, or reads it now. An *unmetError says
// what is missing or wrong; what was read so far is given nevertheless, nil when there is no issuer.
func (o *Obtainer) authority(ctx context.Context, key types.NamespacedName) (ca *authority, fresh bool, err error) {
	ca, err = o.known.get(ctx, key, o.now(), func(former *authority) (*authority, error) {
		fresh = true
		in, err := o.readInputs(ctx, key)
		if in == nil {
			return nil, err
		}
		ca := &authority{inputs: in, read: o.now()}
		if err != nil {
			return ca, err
		}
		return ca, ca.build(o.now, former)
	})
	return ca, fresh, err
}

// build makes of the inputs what asking the CA needs.
func (ca *authority) build(now func() time.Time, former *authority) (err error) {
	spec := &ca.issuer.Spec
	ca.messageTimeout, ca.totalTimeout = spec.MessageLimit(), spec.TransactionLimit()
	ca.config = cmp.Config{
		ImplicitConfirm: spec.Implicit(), TotalTimeout: ca.totalTimeout, Now: now,
		UnprotectedErrors:    spec.Policies.UnprotectedErrors == model.UnprotectedAccepted,
		SameProtection:       spec.Policies.MACAnsweredWithSignature == model.SignatureRefused,
		MessageTimeTolerance: max(spec.Policies.Tolerance(), 1), // package cmp takes 0 for its default
	}
	if spec.Policies.GrantedModifications == model.ModificationsRejected {
		ca.config.Differences = cmp.RejectDifferences
	}
	if ca.config.Recipient, err = parseName(spec.Recipient, "spec.recipient"); err != nil {
		return err
	}
	if ca.name, err = parseName(spec.Issuer, "spec.issuer"); err != nil {
		return err
	}
	if ca.config.Trust, err = ca.trust(now()); err != nil {
		return err
	}
	if ca.chain, err = ca.manualChain(); err != nil {
		return err
	}
	ca.config.Trust.Intermediates = append(ca.config.Trust.Intermediates, ca.chain...)
	ca.config.Trust.Paths = new(cmp.PathCache)
	if former != nil && former.config.Trust.Paths != nil {
		ca.config.Trust.Paths = former.config.Trust.Paths
	}
	ca.identity, ca.bootstrap = ca.identityCredential(now()), ca.bootstrapCredential(now())
	return ca.connect(former)
}

// connect makes the client, or goes on with that of the former reading when nothing of it has changed,
// so that its connections are used again.
func (ca *authority) connect(former *authority) error {
	if former != nil && former.client != nil && former.transport() == ca.transport() {
		ca.client = former.client
		return nil
	}
	config, err := ca.tls()
	ca.client = &cmp.Client{URL: ca.issuer.Spec.Server, Timeout: ca.messageTimeout, TLS: config, KeepAlive: true}
	return err
}

// transport identifies what a client is made of.
func (ca *authority) transport() string {
	of := fmt.Sprint(ca.issuer.UID, ca.issuer.Spec.Server, ca.messageTimeout)
	t := ca.issuer.Spec.TLS
	if t == nil {
		return of
	}
	version := func(name string) string { return ca.versions()[name] }
	of += fmt.Sprint(t.ServerName, ca.issuer.Generation)
	if t.Trust != nil {
		of += version(t.Trust.SecretName)
	}
	if t.ClientCertificate != nil {
		of += "," + version(t.ClientCertificate.SecretName)
	}
	return of
}

// tls is how an https server is authenticated; nil for what Go does by itself.
func (ca *authority) tls() (*tls.Config, error) {
	spec := ca.issuer.Spec.TLS
	if spec == nil {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: spec.ServerName}
	if t := spec.Trust; t != nil {
		roots, err := ca.certificates(t.SecretName, t.DataKey(), "spec.tls.trust")
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool(roots)
	}
	if c := spec.ClientCertificate; c != nil {
		key, chain, err := ca.pair(c, "spec.tls.clientCertificate")
		if err != nil {
			return nil, err
		}
		presented := tls.Certificate{PrivateKey: key.Signer(), Leaf: chain[0]}
		for _, cert := range chain {
			presented.Certificate = append(presented.Certificate, cert.Raw)
		}
		config.Certificates = []tls.Certificate{presented}
	}
	return config, nil
}

func parseName(s, field string) (cmp.Name, error) {
	if s == "" {
		return nil, nil
	}
	name, err := wholeName(s)
	if err != nil {
		return nil, &unmetError{model.ReasonIssuerInvalid, fmt.Sprintf("issuer %s: %v", field, err)}
	}
	return name, nil
}

func (in *inputs) trust(now time.Time) (trust cmp.Trust, err error) {
	src := in.issuer.Spec.Trust
	key, pinned := src.Anchors()
	anchors, err := in.certificates(src.SecretName, key, "spec.trust")
	if err != nil {
		return trust, err
	}
	if pinned {
		trust.ServerCertificate = anchors[0]
	} else {
		trust.Roots = anchors
	}
	if trust.ExpectedSigner, err = parseName(src.ExpectedSender, "spec.trust.expectedSender"); err != nil {
		return trust, err
	}
	if err := anyValid(anchors, now); err != nil {
		return trust, &unmetError{model.ReasonTrustExpired, fmt.Sprintf("Secret %s/%s, named by spec.trust of %s: %v: put the CA's present root certificates there", in.home, src.SecretName, in, err)}
	}
	if src.IntermediatesKey != "" {
		trust.Intermediates, err = in.certificates(src.SecretName, src.IntermediatesKey, "spec.trust")
	}
	return trust, err
}

// anyValid: of several anchors one must be good, because the next one is put beside the
// present one before that ends.
func anyValid(anchors []*x509.Certificate, now time.Time) error {
	last := lastEnd(anchors)
	if now.Before(last) {
		return nil
	}
	return fmt.Errorf("no trust anchor is valid any more, the last one ended at %s", last.UTC().Format(time.RFC3339))
}

func lastEnd(anchors []*x509.Certificate) time.Time {
	return slices.MaxFunc(anchors, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
}

// trustEnd is until when one of the trust anchors is valid; nil when they cannot be read.
func (ca *authority) trustEnd() *metav1.Time {
	anchors := ca.config.Trust.Roots
	if pinned := ca.config.Trust.ServerCertificate; pinned != nil {
		anchors = []*x509.Certificate{pinned}
	}
	if len(anchors) == 0 {
		return nil
	}
	return new(metav1.NewTime(lastEnd(anchors)))
}

func (in *inputs) manualChain() ([]*x509.Certificate, error) {
	src := in.issuer.Spec.Chain.Manual
	if src == nil || in.issuer.Spec.Chain.Source != model.ChainManual {
		return nil, nil
	}
	return in.certificates(src.SecretName, src.DataKey(), "spec.chain.manual")
}

// bootstrapCredential protects the request for the CMP identity.
func (in *inputs) bootstrapCredential(now time.Time) credential {
	switch initial := in.issuer.Spec.InitialAuthentication; {
	case initial == nil:
		return credential{problem: &unmetError{model.ReasonBootstrapNotConfigured, fmt.Sprintf("%s has no spec.initialAuthentication: a cmpIdentity needs a shared secret or a pre-provisioned certificate", in)}}
	case initial.MAC != nil:
		secret, err := in.sharedSecret(initial.MAC)
		return credential{secret, err}
	default:
		signer, err := in.signer(initial.Signature, now, "spec.initialAuthentication.signature")
		return credential{signer, err}
	}
}

func (in *inputs) sharedSecret(src *model.SharedSecretSource) (cmp.Credential, error) {
	const field = "spec.initialAuthentication.mac"
	secret, err := in.secret(src.SecretName, field)
	if err != nil {
		return nil, err
	}
	referenceKey, key := src.DataKeys()
	reference, err := in.value(secret, referenceKey, field)
	if err != nil {
		return nil, err
	}
	password, err := in.value(secret, key, field)
	if err != nil {
		return nil, err
	}
	if src.PasswordFormat == model.PasswordOpenSSL {
		rest, ok := strings.CutPrefix(string(password), "pass:")
		if !ok || rest == "" {
			return nil, in.invalid(secret, key, field, errors.New("does not begin with pass: and go on, as passwordFormat openssl-pass wants it"))
		}
		password = []byte(rest)
	}
	return &cmp.SharedSecret{Reference: reference, Secret: password, OWF: hashOf(string(src.Digest)), MAC: hashOf(string(src.MAC))}, nil
}

// hashOf is a hash by its name, also in the name of a MAC; 0, which leaves the choice to
// package cmp, when there is none.
func hashOf(name string) crypto.Hash {
	return map[string]crypto.Hash{"SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512}[strings.TrimPrefix(name, "HMAC")]
}

// identityCredential protects all requests but the first one.
func (in *inputs) identityCredential(now time.Time) credential {
	src := in.issuer.Spec.Authentication
	if src == nil {
		return credential{problem: &unmetError{model.ReasonIdentityNotConfigured, fmt.Sprintf("%s has no spec.authentication: name the Secret of the CMP identity that signs requests for endEntity certificates", in)}}
	}
	signer, err := in.signer(src, now, "spec.authentication")
	var why *unmetError
	if errors.As(err, &why) && why.reason == model.ReasonSecretNotFound {
		err = &unmetError{model.ReasonIdentityNotReady, "the CMP identity does not exist yet: " + why.message}
	}
	return credential{signer, err}
}

func (in *inputs) signer(src *model.KeyPairSource, now time.Time, field string) (cmp.Credential, error) {
	key, chain, err := in.pair(src, field)
	if err != nil {
		return nil, err
	}
	if !now.Before(chain[0].NotAfter) {
		return nil, &unmetError{model.ReasonIdentityExpired, fmt.Sprintf("the certificate in Secret %s/%s, named by %s of %s, expired at %s: annotate its CMPCertificate with %s, or put another one there", in.home, src.SecretName, field, in, chain[0].NotAfter.UTC().Format(time.RFC3339), model.RecreateAnnotation)}
	}
	return &cmp.Signer{Key: key.Signer(), Certificate: chain[0], Chain: chain[1:], Hash: hashOf(string(src.Digest))}, nil
}

// pair reads a private key and its certificate, which is followed by what is sent along.
func (in *inputs) pair(src *model.KeyPairSource, field string) (key ledger.PrivateKey, chain []*x509.Certificate, err error) {
	secret, err := in.secret(src.SecretName, field)
	if err != nil {
		return key, nil, err
	}
	keyKey, certKey := src.DataKeys()
	encoded, err := in.value(secret, keyKey, field)
	if err != nil {
		return key, nil, err
	}
	if key, err = ledger.ParseKey(encoded); err != nil {
		return key, nil, in.invalid(secret, keyKey, field, err)
	}
	if chain, err = in.chain(secret, certKey, field); err != nil {
		return key, nil, err
	}
	if !key.Fits(chain[0]) {
		return key, nil, in.invalid(secret, certKey, field, errors.New("is not the certificate of the private key beside it"))
	}
	if src.ExtraCertificatesKey == "" {
		return key, chain, nil
	}
	extra, err := in.chain(secret, src.ExtraCertificatesKey, field)
	return key, append(chain, extra...), err
}

// usable says what keeps an issuer from being asked at all. A credential that is not
// needed may be missing: the shared secret once there is an identity, the identity while it can be obtained.
func (ca *authority) usable() error {
	if ca.identity.problem == nil || ca.bootstrap.problem == nil {
		return nil
	}
	var bootstrap, identity *unmetError
	if errors.As(ca.bootstrap.problem, &bootstrap) && bootstrap.reason != model.ReasonBootstrapNotConfigured {
		return bootstrap
	}
	if errors.As(ca.identity.problem, &identity) {
		return identity
	}
	return ca.identity.problem
}

// readiness says in words what an issuer that can be used is ready for.
func (ca *authority) readiness() string {
	if ca.identity.problem != nil {
		return "trust and bootstrap credentials can be read; the CMP identity is not there yet"
	}
	return "trust and credentials can be read"
}

// anchors finds the trust anchor a chain ends in; none when answers are trusted by a
// pinned certificate.
func (ca *authority) anchors(chain []*x509.Certificate) []*x509.Certificate {
	opts := x509.VerifyOptions{
		Roots: pool(ca.config.Trust.Roots), Intermediates: pool(chain[1:], ca.config.Trust.Intermediates),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: ca.config.Now(),
	}
	paths, err := chain[0].Verify(opts)
	if err != nil || len(paths) == 0 {
		return nil
	}
	return paths[0][len(paths[0])-1:]
}

// chainOf is a new certificate followed by its issuers: those of the response, or those the
// operator provides. Where these did not issue it the response's are taken, and difference says so: the
// certificate is good, and a workload is better off with it than without.
func (ca *authority) chainOf(issued *cmp.Issued) (chain []*x509.Certificate, difference string) {
	chain = []*x509.Certificate{issued.Certificate}
	if ca.chain == nil {
		return append(chain, issued.Chain...), ""
	}
	for {
		next := issuerOf(chain[len(chain)-1], ca.chain)
		if next == nil || len(chain) > len(ca.chain) {
			break
		}
		chain = append(chain, next)
	}
	if len(chain) == 1 {
		return append(chain, issued.Chain...), fmt.Sprintf("chain: nothing in Secret %s/%s, named by spec.chain.manual, has issued the certificate: the chain of the response is used", ca.home, ca.issuer.Spec.Chain.Manual.SecretName)
	}
	return chain, ""
}

// tolerated are the differences between what was asked for and what was granted that people
// are to be told.
func (ca *authority) tolerated(issued *cmp.Issued) (all []string) {
	if ca.issuer.Spec.Policies.GrantedModifications == model.ModificationsAccepted {
		return nil
	}
	for _, d := range issued.Differences {
		all = append(all, d.String())
	}
	return all
}

func issuerOf(cert *x509.Certificate, candidates []*x509.Certificate) *x509.Certificate {
	for _, c := range candidates {
		if !c.Equal(cert) && cert.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}

func pool(sets ...[]*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, certs := range sets {
		for _, c := range certs {
			p.AddCert(c)
		}
	}
	return p
}

// Bounds of what is remembered of issuers, in age and number.
const (
	rememberFor      = 5 * time.Second
	rememberedAtMost = 256
)

// authorities remembers what was read of issuers for a few seconds, so that an enrolment
// under load reads neither issuer nor Secrets. Whoever finds an issuer not remembered reads it while
// others wait. Only what can be used is remembered: what is missing may come at any moment.
type authorities struct {
	mu sync.Mutex
	by map[types.NamespacedName]*remembered
}

type remembered struct {
	turn  chan struct{} // holds one token: whose turn it is to read
	ca    *authority    // as read last; nil at first. Guarded by turn
	stale atomic.Bool   // must be read again
}

func (r *authorities) entry(key types.NamespacedName) *remembered {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.by[key]; e != nil {
		return e
	}
	if r.by == nil || len(r.by) >= rememberedAtMost {
		r.by = map[types.NamespacedName]*remembered{} // who holds an entry goes on with it
	}
	e := &remembered{turn: make(chan struct{}, 1)}
	r.by[key] = e
	return e
}

// get is what is remembered of an issuer, or what read finds; read is given what was known before.
func (r *authorities) get(ctx context.Context, key types.NamespacedName, now time.Time, read func(former *authority) (*authority, error)) (*authority, error) {
	e := r.entry(key)
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// Cleared before reading: who says meanwhile that it is stale is heard.
	if stale := e.stale.Swap(false); !stale && e.ca != nil && now.Sub(e.ca.read).Abs() <= rememberFor {
		return e.ca, nil
	}
	ca, err := read(e.ca)
	if err != nil {
		e.stale.Store(true)
		return ca, err
	}
	e.ca = ca
	return ca, nil
}

// forget lets the next look at an issuer read it again.
func (r *authorities) forget(key types.NamespacedName) { r.entry(key).stale.Store(true) }
