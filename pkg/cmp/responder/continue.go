package responder

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// errorPollID is the certReqId of polls for what is no certificate (RFC 9810 §5.3.22).
const errorPollID = -1

// continued handles the messages that go on with a transaction.
func (s *Server) continued(x *exchange) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	r := s.ledger.records[string(x.req.Header.TransactionID)]
	if r == nil {
		return answer{}, malformed(cmp.FailBadRequest, "no such transaction")
	}
	if !r.Peer.same(x.peer) {
		return answer{}, malformed(cmp.FailWrongIntegrity, "not protected by who made the request (RFC 9810 §5.3.21)")
	}
	if err := r.acknowledge(x.req.Header.RecipNonce); err != nil {
		return answer{}, err
	}
	x.record = r
	defer x.sees(r)
	switch body := x.req.Body.(type) {
	case cmp.CertConf:
		return s.confirmation(x, r, body)
	case cmp.PollReq:
		return s.poll(x, r, body)
	default:
		return s.aborted(x, r)
	}
}

// Verdicts of a certConf.
const (
	verdictAccepted = "accepted"
	verdictRejected = "rejected"
)

func (s *Server) confirmation(x *exchange, r *record, body cmp.CertConf) (answer, error) {
	switch {
	case r.State == stateWaiting:
		return answer{}, malformed(cmp.FailBadRequest, "nothing has been issued yet")
	case r.Implicit:
		return answer{}, malformed(cmp.FailCertConfirmed, "the certificate was confirmed implicitly")
	case x.behaviour.RefuseCertConf:
		return answer{}, malformed(cmp.FailBadRequest, "certConf is refused")
	}
	verdict, err := r.verdict(x.req.Header.PVNO, body)
	if err != nil {
		return answer{}, err
	}
	if r.Verdict == "" && r.State == stateUnconfirmed {
		r.Verdict, r.ConfirmWaits = verdict, x.behaviour.WaitConfirm
	}
	if r.ConfirmWaits == 0 {
		return s.conclude(x, r, verdict)
	}
	waiting := &cmp.ErrorMsg{Status: cmp.StatusInfo{Status: cmp.StatusWaiting}}
	return answer{kind: cmp.TypeError, body: waiting}, s.settle(x, r, func() { r.ConfirmWaits-- })
}

// verdict reads what a certConf says about the certificate (RFC 9810 §5.3.18).
func (r *record) verdict(pvno int64, body cmp.CertConf) (string, error) {
	if len(body) == 0 {
		return verdictRejected, nil // rejects all that was issued
	}
	cert, err := x509.ParseCertificate(r.Issued.Certificate)
	if err != nil {
		return "", fmt.Errorf("reading a certificate of the ledger: %w", err)
	}
	status := &body[0]
	hash, ok := certHash(cert, status.HashAlg)
	switch {
	case len(body) != 1 || status.CertReqID != r.ReqID:
		return "", malformed(cmp.FailBadRequest, "certConf must be about certReqId %d only", r.ReqID)
	case status.HashAlg != nil && pvno != cmp.PVNO3:
		return "", malformed(cmp.FailBadRequest, "hashAlg needs pvno 3 (RFC 9810 §7)")
	case !ok:
		return "", malformed(cmp.FailBadAlg, "hashAlg is not supported")
	case string(status.CertHash) != string(hash):
		return "", malformed(cmp.FailBadCertID, "certHash is not that of the certificate")
	case status.StatusInfo != nil && status.StatusInfo.Status != cmp.StatusAccepted:
		return verdictRejected, nil
	}
	return verdictAccepted, nil
}

// Hashes a certConf may choose (RFC 5754 §2).
var hashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// certHash uses the hash of the certificate's signature, unless certConf names another.
func certHash(cert *x509.Certificate, alg *cmp.AlgorithmIdentifier) ([]byte, bool) {
	if alg == nil {
		hash, needed := cmp.CertHash(cert)
		return hash, needed == nil
	}
	for _, h := range hashes {
		if h.oid.Equal(alg.Algorithm) {
			digest := h.hash.New()
			digest.Write(cert.Raw)
			return digest.Sum(nil), true
		}
	}
	return nil, false
}

// conclude carries out a verdict, once; the same again is confirmed again.
func (s *Server) conclude(x *exchange, r *record, verdict string) (answer, error) {
	accepted := verdict == verdictAccepted
	switch {
	case accepted && r.Issued.Revoked:
		return answer{}, malformed(cmp.FailCertRevoked, "the certificate is revoked: %s", r.Issued.Reason)
	case !accepted && r.State == stateConfirmed:
		return answer{}, malformed(cmp.FailCertConfirmed, "the certificate is confirmed already: revoke it")
	}
	err := s.settle(x, r, func() {
		switch {
		case r.State != stateUnconfirmed:
		case accepted:
			r.State, r.Issued.Confirmed = stateConfirmed, true
		default:
			r.revoke("rejected by its owner", x.now)
		}
	})
	return answer{kind: cmp.TypePKIConf, body: cmp.PKIConf{}}, err
}

func (s *Server) poll(x *exchange, r *record, body cmp.PollReq) (answer, error) {
	confirming := r.Verdict != ""
	expected := r.ReqID
	if confirming {
		expected = errorPollID
	}
	if len(body) != 1 || body[0] != expected {
		return answer{}, malformed(cmp.FailBadRequest, "pollReq must be about certReqId %d only", expected)
	}
	switch {
	case confirming && r.ConfirmWaits > 0:
		return s.pollAgain(x, r, expected, func() { r.ConfirmWaits-- })
	case confirming:
		return s.conclude(x, r, r.Verdict)
	case r.State != stateWaiting: // the answer to the last poll was lost
		if err := s.settle(x, r, func() {}); err != nil {
			return answer{}, err
		}
		return s.present(x, r)
	case r.Waits > 0:
		return s.pollAgain(x, r, expected, func() { r.Waits-- })
	case r.Waits < 0 && x.behaviour.Wait != 0:
		return s.pollAgain(x, r, expected, func() {})
	}
	return s.decideLater(x, r)
}

func (s *Server) pollAgain(x *exchange, r *record, id int64, change func()) (answer, error) {
	entry := cmp.PollRepEntry{CertReqID: id, CheckAfter: int64(x.behaviour.CheckAfter / time.Second)}
	return answer{kind: cmp.TypePollRep, body: cmp.PollRep{entry}}, s.settle(x, r, change)
}

// decideLater decides about a request that has waited. Its protection was
// verified when it came.
func (s *Server) decideLater(x *exchange, r *record) (answer, error) {
	original, err := cmp.ParseMessage(r.Original)
	if err != nil {
		return answer{}, err
	}
	w, err := readWish(original)
	if err != nil {
		return answer{}, err
	}
	return s.decide(x, r, w)
}

// aborted handles an error message: the client gives up (RFC 9810 §5.3.21).
func (s *Server) aborted(x *exchange, r *record) (answer, error) {
	a := answer{kind: cmp.TypePKIConf, body: cmp.PKIConf{}}
	if r.State == stateWaiting {
		s.ledger.remove(r)
		return a, nil
	}
	return a, s.settle(x, r, func() {
		if r.State == stateUnconfirmed {
			r.revoke("its owner sent an error", x.now)
		}
	})
}
