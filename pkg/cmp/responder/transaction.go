package responder

import (
	order "cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

const (
	maxIDBytes = 64 // of a transactionID; the RFC recommends 16 (RFC 9810 §5.1.1)
	// maxNonces bounds the nonces of ours that may continue a transaction: each
	// answer that got lost leaves one.
	maxNonces = 16
)

// state is how far a transaction has come.
type state string

const (
	stateWaiting     state = "waiting"     // the client polls for the decision
	stateUnconfirmed state = "unconfirmed" // issued
	stateConfirmed   state = "confirmed"
	stateRejected    state = "rejected" // by its owner, or not confirmed in time
)

// Issuance is a certificate of the ledger.
type Issuance struct {
	Serial        string       `json:"serial"` // lower-case hexadecimal
	Subject       string       `json:"subject"`
	PublicKeyHash string       `json:"publicKeyHash"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	TransactionID string       `json:"transactionID"` // hexadecimal
	Request       cmp.BodyType `json:"request"`
	Authenticated string       `json:"authenticated"` // "mac:REFERENCE" or "signature:SERIAL SUBJECT"
	Time          time.Time    `json:"time"`
	NotAfter      time.Time    `json:"notAfter"`
	Replaces      string       `json:"replaces,omitempty"` // serial of the certificate a kur updated
	Confirmed     bool         `json:"confirmed"`          // by certConf, or implicitly
	Revoked       bool         `json:"revoked"`
	Reason        string       `json:"reason,omitempty"` // why it is revoked
	RevokedAt     time.Time    `json:"revokedAt,omitzero"`
	Certificate   []byte       `json:"certificate"` // DER
}

// record is a transaction, as long as it is remembered.
type record struct {
	ID       []byte         `json:"id"`
	Request  cmp.BodyType   `json:"request"`
	Digest   []byte         `json:"digest"` // of the request's body
	Peer     peer           `json:"peer"`
	ReqID    int64          `json:"certReqId"`
	State    state          `json:"state"`
	Deadline time.Time      `json:"deadline"` // of the states waiting and unconfirmed
	Nonces   [][]byte       `json:"nonces"`   // ours, oldest first, from the last one the client repeated on
	Waits    int            `json:"waits,omitempty"`
	Original []byte         `json:"original,omitempty"` // DER of the request, while waiting
	Implicit bool           `json:"implicit,omitempty"` // confirmed implicitly
	Status   cmp.StatusInfo `json:"status"`             // that came with the certificate
	Issued   *Issuance      `json:"issued,omitempty"`
	Number   int64          `json:"number,omitempty"` // of the certificate, in the order of issuing

	AskedImplicit bool   `json:"askedImplicit,omitempty"`
	Verdict       string `json:"verdict,omitempty"`      // of certConf
	ConfirmWaits  int    `json:"confirmWaits,omitempty"` // answers waiting still to come before pkiConf
}

func (r *record) open() bool { return r.State == stateWaiting || r.State == stateUnconfirmed }

func (r *record) name() string { return hex.EncodeToString(r.ID) }

// bodyDigest identifies a body whatever its header says.
func bodyDigest(m *cmp.Message) ([]byte, error) {
	der, err := (&cmp.Message{Type: m.Type, Body: m.Body}).Marshal()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

// acknowledge checks that a message repeats a nonce of ours, the last one or one
// of an answer that may have been lost, and forgets those before it.
func (r *record) acknowledge(recipNonce []byte) error {
	i := slices.IndexFunc(r.Nonces, func(n []byte) bool { return string(n) == string(recipNonce) })
	if i < 0 {
		return malformed(cmp.FailBadRecipientNonce, "recipNonce is not the senderNonce of our last answer (RFC 9810 §5.1.1)")
	}
	r.Nonces = r.Nonces[i:]
	return nil
}

// offer remembers the nonce of an answer, and keeps the first: the client may have no other.
func (r *record) offer(nonce []byte) {
	if len(r.Nonces) >= maxNonces {
		r.Nonces = slices.Delete(r.Nonces, 1, 2)
	}
	r.Nonces = append(r.Nonces, nonce)
}

// revoke ends the usefulness of what was issued.
func (r *record) revoke(reason string, now time.Time) {
	if r.State == stateUnconfirmed {
		r.State = stateRejected
	}
	if r.Issued != nil && !r.Issued.Revoked {
		r.Issued.Revoked, r.Issued.Reason, r.Issued.RevokedAt = true, reason, now
	}
}

// revive takes a certificate off hold.
func (r *record) revive() {
	r.Issued.Revoked, r.Issued.Reason, r.Issued.RevokedAt = false, "", time.Time{}
}

// ledger holds all transactions. It is guarded by Server.mu.
type ledger struct {
	files     *files
	records   map[string]*record // by transactionID
	bySerial  map[string]*record
	issued    []*record // in order of number
	number    int64     // of the latest certificate
	openCount int
	next      time.Time // no deadline is before this
	maxOpen   int
	maxIssued int
}

var errTooManyOpen = malformed(cmp.FailSystemUnavail, "too many open transactions")

// openLedger reads the transactions in a directory; without one it is empty and stays in memory.
func openLedger(cfg *Config, dir *os.Root) (*ledger, error) {
	l := &ledger{records: map[string]*record{}, bySerial: map[string]*record{}, maxOpen: cfg.MaxOpen, maxIssued: cfg.MaxIssued}
	if dir == nil {
		return l, nil
	}
	var err error
	if l.files, err = openFiles(dir); err != nil {
		return nil, err
	}
	records, err := l.files.load()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		l.add(r)
	}
	slices.SortFunc(l.issued, func(a, b *record) int { return order.Compare(a.Number, b.Number) })
	return l, nil
}

// add enters a record into the indexes.
func (l *ledger) add(r *record) {
	l.records[string(r.ID)] = r
	if r.open() {
		l.openCount++
		l.expect(r.Deadline)
	}
	if r.Issued != nil {
		l.index(r)
	}
}

func (l *ledger) index(r *record) {
	if r.Number == 0 {
		r.Number = l.number + 1
	}
	l.number = max(l.number, r.Number)
	l.bySerial[r.Issued.Serial] = r
	l.issued = append(l.issued, r)
}

func (l *ledger) expect(deadline time.Time) {
	if l.next.IsZero() || deadline.Before(l.next) {
		l.next = deadline
	}
}

// update applies a change to a record that is in the ledger, or enters it, and stores it.
func (l *ledger) update(r *record, change func()) error {
	known, wasOpen, hadIssued := l.records[string(r.ID)] == r, r.open(), r.Issued != nil
	if !known {
		if l.openCount >= l.maxOpen {
			return errTooManyOpen
		}
		wasOpen, hadIssued = false, false
		l.records[string(r.ID)] = r
	}
	change()
	switch {
	case r.open() && !wasOpen:
		l.openCount++
	case !r.open() && wasOpen:
		l.openCount--
	}
	if r.open() {
		l.expect(r.Deadline)
	}
	if r.Issued != nil && !hadIssued {
		l.index(r)
		l.forgetOldest()
	}
	return l.files.save(r)
}

// forgetOldest keeps the number of certificates within its bound.
func (l *ledger) forgetOldest() {
	for len(l.issued) > l.maxIssued {
		oldest := l.issued[0]
		l.issued[0] = nil
		l.issued = l.issued[1:]
		l.remove(oldest)
	}
}

func (l *ledger) remove(r *record) {
	if r.open() {
		l.openCount--
	}
	delete(l.records, string(r.ID))
	if r.Issued != nil {
		delete(l.bySerial, r.Issued.Serial)
	}
	l.files.remove(r)
}

// expire ends what has waited too long: certificates nobody confirmed are
// revoked, transactions nobody polls are forgotten.
func (l *ledger) expire(now time.Time) error {
	if l.next.IsZero() || now.Before(l.next) {
		return nil
	}
	l.next = time.Time{}
	var errs []error
	for _, r := range l.records {
		switch {
		case !r.open():
		case now.Before(r.Deadline):
			l.expect(r.Deadline)
		case r.State == stateWaiting:
			l.remove(r)
		default:
			errs = append(errs, l.update(r, func() { r.revoke("not confirmed in time", now) }))
		}
	}
	return errors.Join(errs...)
}

// valid finds the record of a certificate of ours that may still be used.
func (l *ledger) valid(cert *x509.Certificate) (*record, bool) {
	r := l.bySerial[cert.SerialNumber.Text(16)]
	if r == nil || r.Issued.Revoked || string(r.Issued.Certificate) != string(cert.Raw) {
		return nil, false
	}
	return r, true
}

// Issued is the ledger: the certificates issued, oldest first. What nobody
// confirmed in time is revoked before.
func (s *Server) Issued() []Issuance {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	out := make([]Issuance, len(s.ledger.issued))
	for i, r := range s.ledger.issued {
		out[i] = *r.Issued
	}
	return out
}

// Open is the number of transactions that are polled or unconfirmed.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return s.ledger.openCount
}

func (s *Server) expire() {
	if err := s.ledger.expire(s.cfg.Now()); err != nil {
		s.cfg.Log.Error("storing expired transactions", "err", err)
	}
}
