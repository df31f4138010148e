package ledger

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// RecordType is the type of the Secrets that hold records.
const RecordType corev1.SecretType = "certloop.io/record"

// Data keys of a record.
const (
	stateKey       = "state.json"
	caKey          = "ca.crt"
	bundleKey      = "bundle.crt"
	nextKeyKey     = "next.key"
	nextChainKey   = "next.crt"
	transactionKey = "transaction"
)

// Record is what is known of one certificate: what was issued last, and the
// transaction that is in flight.
type Record struct {
	Current *Issuance // the certificate in use; nil before the first
	Flight  *Flight   // the transaction in flight; nil when there is none
	Lease   *Lease    // who works on it; nil when nobody does
	Fence   int64     // counts claims; a higher one beats a lower one
	Attempt Attempts  // what failed since the last success
	Contest Contest   // who else writes the output
	// Superseded are the fingerprints of the certificates that were in use before, latest first.
	Superseded []string
	Applied    *Applied    // the configuration that was acted on last; nil before the first
	Revoke     *Revocation // what the CA is still to revoke; nil when there is nothing
	Former     []*Issuance // of a CMP identity: what it was before, latest first, for transactions begun with it
	Untold     []Untold    // what may not have been told yet, oldest first
	owner      *model.CMPCertificate
	secret     *corev1.Secret // as read; nil when there is none yet
}

// Issuance is a certificate with its key.
type Issuance struct {
	Key      PrivateKey          // the zero value when the record keeps none and it was not found elsewhere
	Keyless  bool                // the record keeps no key
	Adopted  bool                // it was found in the output, not issued to us
	Chain    []*x509.Certificate // the certificate, then its issuers upward
	Anchors  []*x509.Certificate // the trust anchor the chain ends in
	Bundle   []*x509.Certificate // what workloads are to trust instead of Anchors; nil when nothing was said
	Revision int64               // 1 for the first certificate of a configuration
	Config   string              // digest of the configuration it was asked with
	Stored   time.Time           // when it was stored
	Cause    string              // correlation id of the event it was issued for
	// Differences between what was asked for and what the CA granted, for people.
	Differences []string
}

// Untold is a fact about a certificate and the event that led to it. It is stored with what makes it
// true: should nobody hear of it, because who was to tell it died or the broker was away, the same
// event comes again, finds it done, and has this to tell.
type Untold struct {
	Cause string          `json:"cause"` // id of the event
	Since time.Time       `json:"since"`
	Type  string          `json:"type"`
	ID    string          `json:"id"`
	Data  json.RawMessage `json:"data"`
}

// Bounds of what a record keeps of facts.
const (
	maxUntold = 8
	untoldFor = 24 * time.Hour // an event that comes again later is told nothing
)

// Keep keeps a fact for when its cause comes again. It takes effect with Save.
func (r *Record) Keep(fact Untold) {
	r.Untold = slices.DeleteFunc(r.Untold, func(u Untold) bool { return u.ID == fact.ID || fact.Since.Sub(u.Since) > untoldFor })
	r.Untold = append(r.Untold, fact)
	r.Untold = r.Untold[max(0, len(r.Untold)-maxUntold):]
}

// Certificate is the certificate itself.
func (i *Issuance) Certificate() *x509.Certificate { return i.Chain[0] }

// Purposes of a Flight.
const (
	ForEnrollment = "enrollment"
	ForRenewal    = "renewal"
)

// Flight is a CMP transaction that has begun and not ended.
type Flight struct {
	Purpose     string              // ForEnrollment or ForRenewal
	Config      string              // digest of the configuration asked for
	ID          string              // transactionID, hex
	Key         PrivateKey          // the next key
	Transaction []byte              // cmp.Transaction, marshalled; holds no secret
	Chain       []*x509.Certificate // what the CA issued, before it is confirmed; nil before
	Begun       time.Time
	NextPoll    time.Time // the CA makes us wait until then; zero when it does not
	Cause       string    // correlation id of the event it was begun for
	Lost        int64     // how often its request was sent, or may have been, and no answer came that counts
	Signer      string    // fingerprint of the certificate that signs its messages; empty for a shared secret
	Differences []string  // between what was asked for and Chain
}

// Lease says who is working on a certificate. Beat counts while the holder lives.
type Lease struct {
	Holder string `json:"holder"`
	Beat   int64  `json:"beat"`
}

// Attempts is what is remembered between attempts.
type Attempts struct {
	Failed  int64     `json:"failed,omitempty"`  // since the last success
	Next    time.Time `json:"next,omitzero"`     // not before this time
	Reason  string    `json:"reason,omitempty"`  // of the last failure
	Message string    `json:"message,omitempty"` // of the last failure
	Parked  string    `json:"parked,omitempty"`  // what must change before the next attempt: digest of configuration and issuer
	Orphans int64     `json:"orphans,omitempty"` // requests that were abandoned and may have been answered
	// Refused counts certificates in a row that were issued and not acceptable.
	Refused int64 `json:"refused,omitempty"`
	// Insisted is what a person asked for and has not got yet.
	Insisted string `json:"insisted,omitempty"`
}

// Contest is what is remembered of others who write the output.
type Contest struct {
	Rewrites []time.Time `json:"rewrites,omitempty"` // when the output was found rewritten by somebody else, the latest ones
	Stopped  time.Time   `json:"stopped,omitzero"`   // since when the output is left to the others; zero when it is not
	Seen     string      `json:"seen,omitempty"`     // what the output was when it was looked at last, while it is left to them
	Config   int64       `json:"config,omitempty"`   // generation of the configuration that was given up for
}

// Applied is a configuration as it was acted on.
type Applied struct {
	Generation int64                    `json:"generation"`
	Spec       model.CMPCertificateSpec `json:"spec"`
}

// Revocation is a certificate that somebody wants revoked.
type Revocation struct {
	Serial string    `json:"serial"`          // hex
	Issuer []byte    `json:"issuer"`          // distinguished name, DER
	Reason string    `json:"reason"`          // a CRLReason by its name in RFC 5280 §5.3.1
	Cause  string    `json:"cause,omitempty"` // correlation id of the event that asked for it
	Failed int64     `json:"failed,omitempty"`
	Next   time.Time `json:"next,omitzero"` // not before this time
}

// state is the part of a record that is no key and no certificate, as JSON.
type state struct {
	Revision    int64        `json:"revision,omitempty"`
	Config      string       `json:"config,omitempty"`
	Stored      time.Time    `json:"stored,omitzero"`
	Cause       string       `json:"cause,omitempty"`
	Differences []string     `json:"differences,omitempty"`
	Applied     *Applied     `json:"applied,omitempty"`
	Revoke      *Revocation  `json:"revoke,omitempty"`
	Flight      *flightState `json:"flight,omitempty"`
	Lease       *Lease       `json:"lease,omitempty"`
	Fence       int64        `json:"fence,omitempty"`
	Attempt     Attempts     `json:"attempt,omitzero"`
	Contest     *Contest     `json:"contest,omitempty"`
	Superseded  []string     `json:"superseded,omitempty"`
	Keyless     bool         `json:"keyless,omitempty"`
	Adopted     bool         `json:"adopted,omitempty"`
	Untold      []Untold     `json:"untold,omitempty"`
}

type flightState struct {
	Purpose     string    `json:"purpose"`
	Config      string    `json:"config"`
	ID          string    `json:"id"`
	Begun       time.Time `json:"begun"`
	NextPoll    time.Time `json:"nextPoll,omitzero"`
	Cause       string    `json:"cause,omitempty"`
	Lost        int64     `json:"lost,omitempty"`
	Signer      string    `json:"signer,omitempty"`
	Differences []string  `json:"differences,omitempty"`
}

// NewRecord is the record of a certificate for which none was ever written. Save
// finds out: ErrConflict when there is one after all.
func NewRecord(cert *model.CMPCertificate) *Record { return &Record{owner: cert} }

// Record reads the record of a certificate. One that does not exist yet is empty,
// and the first Save creates it.
func (s *Store) Record(ctx context.Context, cert *model.CMPCertificate) (*Record, error) {
	secret, err := s.Secret(ctx, recordKey(cert))
	if errors.Is(err, ErrNotFound) {
		return NewRecord(cert), nil
	}
	if err != nil {
		return nil, err
	}
	if !metav1.IsControlledBy(secret, cert) {
		return nil, fmt.Errorf("secret %s: %w", recordKey(cert), ErrNotManaged)
	}
	rec, err := decode(secret)
	if err != nil {
		return nil, fmt.Errorf("record %s %w: %w", recordKey(cert), ErrSpoilt, err)
	}
	rec.owner, rec.secret = cert, secret
	return rec, nil
}

func recordKey(cert *model.CMPCertificate) types.NamespacedName {
	return types.NamespacedName{Namespace: cert.Namespace, Name: model.RecordName(cert.Name)}
}

// Version identifies this state of the record; it changes with every write. It is
// empty for a record that does not exist.
func (r *Record) Version() string {
	if r.secret == nil {
		return ""
	}
	return r.secret.ResourceVersion
}

// Claim makes holder the one who works on the certificate, with a fence higher than
// any before. It takes effect with Save.
func (r *Record) Claim(holder string) {
	r.Fence++
	r.Lease = &Lease{Holder: holder}
}

// Promote makes what was issued the certificate in use and ends the transaction and
// the lease. It takes effect with Save.
func (r *Record) Promote(anchors []*x509.Certificate, now time.Time) {
	next := &Issuance{Key: r.Flight.Key, Chain: r.Flight.Chain, Anchors: anchors, Config: r.Flight.Config, Stored: now, Cause: r.Flight.Cause, Differences: r.Flight.Differences}
	r.retire(now)
	orphans := r.Attempt.Orphans
	r.Replace(next)
	r.Flight, r.Lease, r.Attempt = nil, nil, Attempts{Orphans: orphans}
}

// maxSuperseded bounds the certificates that are remembered by their fingerprints.
const maxSuperseded = 8

// Replace makes another certificate the one in use. It takes effect with Save. The revisions of
// a record that was lost are continued from the status: what is told of one is told once.
func (r *Record) Replace(next *Issuance) {
	next.Revision = r.owner.Status.Revision + 1
	if c := r.Current; c != nil {
		next.Revision, next.Bundle = c.Revision+1, c.Bundle
		sum := sha256.Sum256(c.Certificate().Raw)
		r.Superseded = append([]string{hex.EncodeToString(sum[:])}, r.Superseded...)
		r.Superseded = r.Superseded[:min(len(r.Superseded), maxSuperseded)]
	}
	r.Current = next
}

// WasInUse tells whether a certificate was the one in use before.
func (r *Record) WasInUse(c *x509.Certificate) bool {
	sum := sha256.Sum256(c.Raw)
	return slices.Contains(r.Superseded, hex.EncodeToString(sum[:]))
}

// Save writes the record if nobody has written it since it was read, and takes over
// its new version; otherwise ErrConflict.
func (s *Store) Save(ctx context.Context, r *Record) error {
	next, err := r.encode()
	if err != nil {
		return err
	}
	key := recordKey(r.owner)
	req := s.core.Post().Namespace(key.Namespace).Resource("secrets")
	if r.secret != nil {
		next.ResourceVersion = r.secret.ResourceVersion
		req = s.core.Put().Namespace(key.Namespace).Resource("secrets").Name(key.Name)
	}
	written := new(corev1.Secret)
	err = req.Param("fieldManager", model.StatusFieldManager).Body(next).Do(ctx).Into(written)
	if err := explain(err, "writing", "secrets", key); err != nil {
		return err
	}
	r.secret = written
	return nil
}

func (r *Record) encode() (*corev1.Secret, error) {
	st := state{Applied: r.Applied, Revoke: r.Revoke, Lease: r.Lease, Fence: r.Fence, Attempt: r.Attempt, Superseded: r.Superseded, Untold: r.Untold}
	if len(r.Contest.Rewrites) > 0 || !r.Contest.Stopped.IsZero() {
		st.Contest = &r.Contest
	}
	data := map[string][]byte{}
	if c := r.Current; c != nil {
		st.Revision, st.Config, st.Stored, st.Cause, st.Differences = c.Revision, c.Config, c.Stored, c.Cause, c.Differences
		st.Keyless, st.Adopted = c.Keyless, c.Adopted
		if err := c.encode(data); err != nil {
			return nil, err
		}
	}
	if f := r.Flight; f != nil {
		st.Flight = &flightState{f.Purpose, f.Config, f.ID, f.Begun, f.NextPoll, f.Cause, f.Lost, f.Signer, f.Differences}
		key, err := f.Key.PEM()
		if err != nil {
			return nil, err
		}
		data[nextKeyKey], data[transactionKey] = key, f.Transaction
		if f.Chain != nil {
			data[nextChainKey] = EncodeCertificates(f.Chain...)
		}
	}
	if err := r.encodeFormer(data); err != nil {
		return nil, err
	}
	js, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	data[stateKey] = js
	return r.wrap(data), nil
}

// encode puts an issuance into the data of a record.
func (i *Issuance) encode(data map[string][]byte) (err error) {
	if !i.Keyless {
		if data[corev1.TLSPrivateKeyKey], err = i.Key.PEM(); err != nil {
			return err
		}
	}
	data[corev1.TLSCertKey] = EncodeCertificates(i.Chain...)
	if len(i.Anchors) > 0 {
		data[caKey] = EncodeCertificates(i.Anchors...)
	}
	if len(i.Bundle) > 0 {
		data[bundleKey] = EncodeCertificates(i.Bundle...)
	}
	return nil
}

func (r *Record) wrap(data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: model.RecordName(r.owner.Name), Namespace: r.owner.Namespace,
			Labels:          labels(r.owner, model.RoleRecord),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.owner, model.GroupVersion.WithKind(model.CertificateKind))},
		},
		Type: RecordType,
		Data: data,
	}
}

func labels(cert *model.CMPCertificate, role string) map[string]string {
	return map[string]string{
		model.ManagedByLabel:   model.ManagedBy,
		model.CertificateLabel: model.LabelValue(cert.Name),
		model.RoleLabel:        role,
	}
}

func decode(secret *corev1.Secret) (*Record, error) {
	var st state
	if err := json.Unmarshal(secret.Data[stateKey], &st); err != nil {
		return nil, fmt.Errorf("%s: %w", stateKey, err)
	}
	r := &Record{Applied: st.Applied, Revoke: st.Revoke, Lease: st.Lease, Fence: st.Fence, Attempt: st.Attempt, Superseded: st.Superseded, Untold: st.Untold, Former: decodeFormer(secret.Data)}
	if st.Contest != nil {
		r.Contest = *st.Contest
	}
	var err error
	if st.Revision > 0 {
		if r.Current, err = decodeIssuance(secret.Data, st); err != nil {
			return nil, err
		}
	}
	if st.Flight != nil {
		if r.Flight, err = decodeFlight(secret.Data, st.Flight); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func decodeIssuance(data map[string][]byte, st state) (i *Issuance, err error) {
	i = &Issuance{Keyless: st.Keyless, Adopted: st.Adopted, Revision: st.Revision, Config: st.Config, Stored: st.Stored, Cause: st.Cause, Differences: st.Differences}
	if !st.Keyless {
		if i.Key, err = ParseKey(data[corev1.TLSPrivateKeyKey]); err != nil {
			return nil, fmt.Errorf("%s: %w", corev1.TLSPrivateKeyKey, err)
		}
	}
	if i.Chain, err = ParseCertificates(data[corev1.TLSCertKey]); err != nil {
		return nil, fmt.Errorf("%s: %w", corev1.TLSCertKey, err)
	}
	for key, into := range map[string]*[]*x509.Certificate{caKey: &i.Anchors, bundleKey: &i.Bundle} {
		if len(data[key]) == 0 {
			continue
		}
		if *into, err = ParseCertificates(data[key]); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return i, nil
}

func decodeFlight(data map[string][]byte, st *flightState) (*Flight, error) {
	key, err := ParseKey(data[nextKeyKey])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nextKeyKey, err)
	}
	f := &Flight{
		Purpose: st.Purpose, Config: st.Config, ID: st.ID, Key: key, Transaction: data[transactionKey],
		Begun: st.Begun, NextPoll: st.NextPoll, Cause: st.Cause, Lost: st.Lost, Signer: st.Signer, Differences: st.Differences,
	}
	if pem := data[nextChainKey]; len(pem) > 0 {
		if f.Chain, err = ParseCertificates(pem); err != nil {
			return nil, fmt.Errorf("%s: %w", nextChainKey, err)
		}
	}
	return f, nil
}
