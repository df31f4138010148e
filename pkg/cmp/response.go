package cmp

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// handleCertRep takes what ip, cp and kup bring (RFC 9810 §5.3.4, RFC 9483 §4.1.1).
func (t *Transaction) handleCertRep(m *Message, body *CertRepMessage) error {
	if len(body.Response) != 1 {
		return &ReplyError{Field: "response", Section: sectionCertRep, Detail: fmt.Sprintf("%d entries", len(body.Response)), Failure: FailBadDataFormat}
	}
	r := &body.Response[0]
	if !t.asksFor(r.CertReqID) {
		return &ReplyError{Field: "response.certReqId", Section: sectionCertRep, Detail: fmt.Sprintf("%d was not asked for", r.CertReqID), Failure: FailBadRequest}
	}
	switch r.Status.Status {
	case StatusRejection:
		return peerError(m, true)
	case StatusWaiting:
		return t.startPolling(r.CertReqID)
	case StatusAccepted, StatusGrantedWithMods, StatusRevocationWarning, StatusRevocationNotification:
		return t.granted(m, r)
	case StatusKeyUpdateWarning:
		if m.Type == TypeKUP {
			return t.granted(m, r)
		}
	}
	return &ReplyError{Field: "response.status", Section: sectionStatus, Detail: r.Status.Status.String(), Failure: FailBadRequest}
}

// asksFor tells whether a certReqId is ours: 0, for p10cr -1 (RFC 9483 §4.1.4),
// where some CAs say 0.
func (t *Transaction) asksFor(id int64) bool {
	return id == 0 || id == -1 && t.first.Type == TypeP10CR
}

// granted takes a certificate, or refuses it.
func (t *Transaction) granted(m *Message, r *CertResponse) error {
	der, err := certificateIn(r)
	if err != nil {
		return err
	}
	confirmBy, err := confirmWaitTime(&m.Header)
	if err != nil {
		return err
	}
	c, err := parseCertificate(der)
	if err != nil {
		return &ReplyError{Field: "response.certifiedKeyPair.certificate", Section: sectionCertRep, Failure: FailIncorrectData, Err: err}
	}
	t.state.Certificate = bytes.Clone(der)
	t.state.CertReqID, t.state.Status, t.state.Text = r.CertReqID, r.Status.Status, printable(r.Status.Text)
	t.state.Polling = false
	t.state.ConfirmBy = confirmBy
	refused := t.examine(c)
	t.issued = t.describe(c)
	if refused == nil && len(t.issued.Differences) > 0 && t.minds(r.Status.Status) {
		refused = &ReplyError{Field: "certificate." + t.issued.Differences[0].Field, Section: sectionIssued,
			Detail: t.issued.Differences[0].String(), Failure: FailBadCertTemplate}
	}
	t.state.Phase = phaseConfirm
	if t.waived(m) {
		t.state.Phase = phaseDone
	}
	if refused == nil {
		return nil
	}
	if t.state.Phase == phaseConfirm {
		t.state.Rejection = &refusal{Failure: refused.Failure, Text: refused.Field}
	}
	return refused
}

// certificateIn is the certificate of a response that grants one: with
// failInfo, or encrypted, it cannot be had.
func certificateIn(r *CertResponse) ([]byte, error) {
	switch {
	case r.Status.FailInfo != 0:
		return nil, &ReplyError{Field: "response.status.failInfo", Section: sectionStatus, Detail: "although a certificate is granted", Failure: FailBadDataFormat}
	case r.Certified == nil:
		return nil, &ReplyError{Field: "response.certifiedKeyPair", Section: sectionCertRep, Detail: "absent", Failure: FailBadDataFormat}
	case r.Certified.Certificate == nil:
		return nil, &ReplyError{Field: "response.certifiedKeyPair.encryptedCert", Section: sectionCertRep, Detail: "encrypted certificates are not supported", Failure: FailBadRequest}
	}
	return r.Certified.Certificate, nil
}

// minds tells whether differences are a reason to refuse.
func (t *Transaction) minds(s Status) bool {
	switch t.cfg.Differences {
	case RejectDifferences:
		return true
	case RejectUnannounced:
		return s != StatusGrantedWithMods
	case ReportDifferences:
	}
	return false
}

// waived tells whether there is to be no certConf: we asked, and it was granted (RFC 9810 §5.1.1.1).
func (t *Transaction) waived(m *Message) bool {
	_, asked := t.first.Header.Info(InfoImplicitConfirm)
	_, granted := m.Header.Info(InfoImplicitConfirm)
	return asked && granted
}

// confirmWaitTime is until when the CA waits for certConf (RFC 9810 §5.1.1.2); zero if it does not say.
// One that cannot be read is not taken for none: whoever confirms after it has a certificate that may be
// revoked, and would not know until when there is time.
func confirmWaitTime(h *Header) (until time.Time, err error) {
	value, ok := h.Info(InfoConfirmWaitTime)
	if !ok {
		return time.Time{}, nil
	}
	p := newParser(value, inHeader)
	until = p.generalizedTime("confirmWaitTime")
	p.done("confirmWaitTime")
	if !p.ok() {
		return time.Time{}, &ReplyError{Field: "confirmWaitTime", Section: sectionConfirmWait, Detail: "not a GeneralizedTime in UTC", Failure: FailBadDataFormat}
	}
	return until, nil
}

// examine checks a new certificate and finds its chain.
func (t *Transaction) examine(c *x509.Certificate) *ReplyError {
	now := t.cfg.Now()
	untrusted, caPubs := t.certificates(t.state.Untrusted), t.certificates(t.state.CAPubs)
	refused := t.asked.acceptable(c, now)
	var chain []*x509.Certificate
	var err error
	if anchors := append(slices.Clip(t.cfg.Trust.issuedRoots()), t.certificates(t.state.Anchors)...); len(anchors) > 0 {
		chain, err = newPathfinder(t.cfg.Trust.Paths, anchors, untrusted, t.cfg.Trust.Intermediates, caPubs).verifyIssued(c, now)
	} else {
		chain = withoutAnchor(gatherChain(c, untrusted, t.cfg.Trust.Intermediates, caPubs), caPubs)
	}
	t.state.Chain = nil
	for _, issuer := range chain {
		t.state.Chain = append(t.state.Chain, issuer.Raw)
	}
	if refused == nil && err != nil {
		refused = &ReplyError{Field: "certificate", Section: sectionIssued, Detail: "no path to the roots", Failure: FailIncorrectData, Err: err}
	}
	return refused
}

// withoutAnchor drops a self-issued end of a chain that caPubs, from whom we
// share a secret with, offers for trust.
func withoutAnchor(chain, caPubs []*x509.Certificate) []*x509.Certificate {
	if n := len(chain); n > 0 && selfIssued(chain[n-1]) {
		for _, anchor := range caPubs {
			if anchor.Equal(chain[n-1]) {
				return chain[:n-1]
			}
		}
	}
	return chain
}

// describe puts together what the caller gets.
func (t *Transaction) describe(c *x509.Certificate) *Issued {
	return &Issued{
		Certificate: c, Chain: t.certificates(t.state.Chain), CAPubs: t.certificates(t.state.CAPubs), Anchors: t.certificates(t.state.Anchors),
		Status: t.state.Status, Text: t.state.Text, Differences: t.asked.differences(c), ConfirmBy: t.state.ConfirmBy,
	}
}
