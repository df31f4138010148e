package responder

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// certRequest handles ir, cr, kur and p10cr.
func (s *Server) certRequest(x *exchange) (answer, error) {
	digest, err := bodyDigest(x.req)
	if err != nil {
		return answer{}, err
	}
	w, err := readWish(x.req)
	if err != nil {
		return answer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if r := s.ledger.records[string(x.req.Header.TransactionID)]; r != nil {
		return s.repeated(x, r, digest)
	}
	_, asked := x.req.Header.Info(cmp.InfoImplicitConfirm)
	r := &record{
		ID: x.req.Header.TransactionID, Request: x.req.Type, Digest: digest, Peer: x.peer, ReqID: w.reqID, AskedImplicit: asked,
	}
	if x.behaviour.Wait != 0 {
		return s.postpone(x, r)
	}
	return s.decide(x, r, w)
}

// repeated answers a request under a transactionID that is known: the very same
// request gets the same answer, whatever has happened since.
func (s *Server) repeated(x *exchange, r *record, digest []byte) (answer, error) {
	if string(r.Digest) != string(digest) || r.Request != x.req.Type || !r.Peer.same(x.peer) {
		return answer{}, malformed(cmp.FailTransactionIDInUse, "the transactionID belongs to another request")
	}
	x.record = r
	if err := s.settle(x, r, func() {}); err != nil {
		return answer{}, err
	}
	return s.present(x, r)
}

// present is the answer to the request of a transaction as it stands.
func (s *Server) present(x *exchange, r *record) (answer, error) {
	x.sees(r)
	switch {
	case r.State == stateWaiting:
		return x.certRep(r.ReqID, cmp.StatusInfo{Status: cmp.StatusWaiting}, nil), nil
	case r.Issued.Revoked:
		return answer{}, refuse(cmp.FailCertRevoked, "the certificate of this transaction is revoked: %s", r.Issued.Reason)
	}
	return s.granted(x, r), nil
}

// sees remembers a certificate for the report.
func (x *exchange) sees(r *record) {
	if r.Issued != nil {
		issued := *r.Issued
		x.issued = &issued
	}
}

// settle stores what a message changes in its transaction, and the nonce of the answer.
func (s *Server) settle(x *exchange, r *record, change func()) error {
	return s.ledger.update(r, func() {
		r.offer(x.nonce)
		change()
	})
}

// postpone puts a request off: the client is to poll (RFC 9810 §5.3.22).
func (s *Server) postpone(x *exchange, r *record) (answer, error) {
	original, err := x.req.Marshal()
	if err != nil {
		return answer{}, err
	}
	x.record = r
	err = s.settle(x, r, func() {
		r.State, r.Original, r.Waits = stateWaiting, original, x.behaviour.Wait
		if r.Waits > 0 {
			r.Waits-- // this answer
		}
		r.Deadline = x.now.Add(s.cfg.PollWait)
	})
	if err != nil {
		return answer{}, err
	}
	return s.present(x, r)
}

// decide grants a request or refuses it. A refused one leaves no transaction behind.
func (s *Server) decide(x *exchange, r *record, w *wish) (answer, error) {
	x.record = r
	if status := x.behaviour.Reject; status != nil {
		s.forget(r)
		return x.rejected(r, *status), nil
	}
	issued, status, err := s.issue(x, r, w)
	if err != nil {
		s.forget(r)
		return answer{}, err
	}
	err = s.settle(x, r, func() {
		r.Issued, r.Status, r.Original = issued, status, nil
		r.State, r.Deadline = stateUnconfirmed, x.now.Add(s.cfg.ConfirmWait).UTC().Truncate(time.Second)
		if r.AskedImplicit && !x.behaviour.NoImplicitConfirm || x.behaviour.GrantImplicitConfirm {
			r.State, r.Implicit, issued.Confirmed = stateConfirmed, true, true
		}
	})
	if err != nil {
		return answer{}, err
	}
	return s.present(x, r)
}

// forget drops a transaction if it was in the ledger, which it was if it waited.
func (s *Server) forget(r *record) {
	if s.ledger.records[string(r.ID)] == r {
		s.ledger.remove(r)
	}
}

func (x *exchange) rejected(r *record, status cmp.StatusInfo) answer {
	if x.behaviour.RejectAsError {
		return answer{kind: cmp.TypeError, body: &cmp.ErrorMsg{Status: status}}
	}
	return x.certRep(r.ReqID, status, nil)
}

// granted carries the certificate, and says how it is to be confirmed.
func (s *Server) granted(x *exchange, r *record) answer {
	a := x.certRep(r.ReqID, r.Status, r.Issued.Certificate)
	if r.Peer.Reference != "" && a.kind == cmp.TypeIP {
		// who has only a secret learns the root from caPubs (RFC 9810 §5.3.2)
		a.body.(*cmp.CertRepMessage).CAPubs = [][]byte{s.ca.root.Raw}
	}
	if r.Implicit {
		a.info = []cmp.InfoTypeAndValue{{Type: cmp.InfoImplicitConfirm, Value: []byte{0x05, 0x00}}}
	} else {
		a.info = []cmp.InfoTypeAndValue{{Type: cmp.InfoConfirmWaitTime, Value: generalizedTime(r.Deadline)}}
	}
	return a
}

// generalizedTime is the DER of a time (X.690 §11.7).
func generalizedTime(t time.Time) []byte {
	text := t.UTC().Format("20060102150405Z")
	return append([]byte{0x18, byte(len(text))}, text...)
}

// issue signs what is asked for, or what the behaviour makes of it.
func (s *Server) issue(x *exchange, r *record, w *wish) (*Issuance, cmp.StatusInfo, error) {
	var replaces string
	if w.old != nil {
		var err error
		if replaces, err = s.checkUpdate(w, x.now); err != nil {
			return nil, cmp.StatusInfo{}, err
		}
	}
	template, err := w.template(&s.cfg, s.ca, x.now)
	if err != nil {
		return nil, cmp.StatusInfo{}, err
	}
	cert, err := s.sign(x, w, template)
	if err != nil {
		return nil, cmp.StatusInfo{}, err
	}
	status := cmp.StatusInfo{Status: cmp.StatusAccepted}
	if w.modified || x.behaviour.Modify != nil {
		status = cmp.StatusInfo{Status: cmp.StatusGrantedWithMods, Text: texts("not everything is granted as asked for")}
	}
	issued := newIssuance(cert, r, x.now)
	issued.Replaces = replaces
	return issued, status, nil
}

func (s *Server) sign(x *exchange, w *wish, template *x509.Certificate) (*x509.Certificate, error) {
	ca, key := s.ca, w.key
	if x.behaviour.Modify != nil {
		x.behaviour.Modify(template)
	}
	var err error
	if x.behaviour.ForeignIssuer {
		if ca, err = s.foreign(); err != nil {
			return nil, err
		}
	}
	if x.behaviour.WrongKey {
		if key, err = s.otherKey(); err != nil {
			return nil, err
		}
	}
	der, err := ca.issue(s.cfg.Rand, template, key)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		// the parts taken over from the request are the only ones that can be wrong
		return nil, refuse(cmp.FailBadCertTemplate, "what is asked for makes no valid certificate: %s", err.Error())
	}
	return cert, nil
}

func (s *Server) otherKey() (crypto.PublicKey, error) {
	key, err := P256.generate(s.cfg.Rand)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

func newIssuance(cert *x509.Certificate, r *record, now time.Time) *Issuance {
	hash := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return &Issuance{
		Serial: cert.SerialNumber.Text(16), Subject: cert.Subject.String(),
		PublicKeyHash: hex.EncodeToString(hash[:]), TransactionID: r.name(),
		Request: r.Request, Authenticated: r.Peer.Name,
		Time: now, NotAfter: cert.NotAfter, Certificate: cert.Raw,
	}
}

// checkUpdate finds the certificate a kur updates and takes over from it what
// the request leaves out (RFC 9810 §5.3.5, RFC 9483 §4.1.3).
func (s *Server) checkUpdate(w *wish, now time.Time) (serial string, err error) {
	issuer, ok := w.old.Issuer.Name()
	old := s.ledger.bySerial[w.old.SerialNumber.Text(16)]
	if !ok || old == nil || !issuer.Equal(cmp.Name(s.ca.issuing.RawSubject)) {
		return "", refuse(cmp.FailBadCertID, "oldCertID names no certificate of this CA")
	}
	cert, err := x509.ParseCertificate(old.Issued.Certificate)
	if err != nil {
		return "", fmt.Errorf("reading a certificate of the ledger: %w", err)
	}
	switch {
	case old.Issued.Revoked:
		return "", refuse(cmp.FailCertRevoked, "the certificate to update is revoked: %s", old.Issued.Reason)
	case now.After(cert.NotAfter):
		return "", refuse(cmp.FailBadCertID, "the certificate to update has expired")
	case samePublicKey(cert.PublicKey, w.key):
		return "", refuse(cmp.FailBadCertTemplate, "the public key is that of the certificate to update")
	case !w.subject.Empty() && !w.subject.Equal(cmp.Name(cert.RawSubject)):
		return "", refuse(cmp.FailBadCertTemplate, "the subject is not that of the certificate to update")
	}
	w.inherit(cert)
	return old.Issued.Serial, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// inherit fills what the request of an update leaves to the CA.
func (w *wish) inherit(old *x509.Certificate) {
	if w.subject.Empty() {
		w.subject = old.RawSubject
	}
	if len(w.extensions) > 0 {
		return
	}
	for _, e := range old.Extensions {
		if among(grantedExtensions, e.Id) {
			w.extensions = append(w.extensions, e)
		}
	}
}
