package cmp

import (
	"bytes"
	"crypto/hmac"
	"crypto/x509"
	"fmt"
	"slices"
)

// verify makes every check that precedes belief, in the order of RFC 9483
// §3.5, without changing t. signer is who signed m; nil if m is protected by MAC.
func (t *Transaction) verify(m *Message) (signer *x509.Certificate, err error) {
	for _, check := range []func(*Message) error{
		t.checkVersion, t.checkTransactionID, t.checkRecipNonce, t.checkSenderNonce, t.checkSender, t.checkProtected, t.checkKind,
	} {
		if err := check(m); err != nil {
			return nil, err
		}
	}
	if m.ProtectedByMAC() {
		err = t.checkMAC(m)
	} else {
		signer, err = t.findSigner(m)
	}
	if err != nil {
		return nil, err
	}
	return signer, t.checkMessageTime(m)
}

// learnsAnchor tells whether m may bring the root it is to be believed by.
func (t *Transaction) learnsAnchor(m *Message) bool {
	return t.cfg.Trust.AnchorInIP && m.Type == TypeIP && t.first.Type == TypeIR && !m.ProtectedByMAC()
}

func (t *Transaction) trustFor(m *Message) Trust {
	trust := t.cfg.Trust
	if t.learnsAnchor(m) {
		trust.Roots = append(slices.Clip(trust.Roots), selfSigned(t.certificates(m.ExtraCerts))...)
	}
	return trust
}

// certificates is parseAll for what comes again and again in a transaction, or
// is in its configuration: that it is known says nothing about trust.
func (t *Transaction) certificates(ders [][]byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, der := range ders {
		if c := t.decoded(der); c != nil {
			certs = append(certs, c)
			continue
		}
		fresh := parseAll([][]byte{der})
		certs = append(certs, fresh...)
		if len(t.parsed) < 2*MaxExtraCerts {
			t.parsed = append(t.parsed, fresh...)
		}
	}
	return certs
}

// decoded is the certificate der stands for, if it has been decoded before.
func (t *Transaction) decoded(der []byte) *x509.Certificate {
	lists := [][]*x509.Certificate{t.parsed, t.cfg.Trust.Intermediates}
	if own, ok := t.cfg.Credential.(*Signer); ok {
		lists = append(lists, own.Chain)
	}
	for _, list := range lists {
		i := slices.IndexFunc(list, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, der) && !oversized(c.PublicKey) })
		if i >= 0 {
			return list[i]
		}
	}
	return nil
}

// findSigner finds who signed m. Who has signed the transaction's first answer
// signs all of them, so that nobody else below the roots can speak for the CA
// later on; those answers need not bring the certificate along (RFC 9483 §3.3).
func (t *Transaction) findSigner(m *Message) (*x509.Certificate, error) {
	trust := t.trustFor(m)
	s := search{trust: &trust, message: m, at: t.cfg.Now(), parse: t.certificates}
	if t.signer != nil && trust.ServerCertificate == nil { // a pinned one is the only one anyway
		return trust.verifyAgain(s, t.signer)
	}
	return trust.verify(s)
}

// checkVersion: the peer answers in the version of the request; an error may
// say that it does not know ours (RFC 9810 §7).
func (t *Transaction) checkVersion(m *Message) error {
	switch v := m.Header.PVNO; {
	case v == PVNO2, v == PVNO3 && (t.pvno == PVNO3 || m.Type == TypeError):
		return nil
	default:
		return &ProtectionError{Check: CheckVersion, Section: sectionVersion, Detail: fmt.Sprintf("pvno %d", v)}
	}
}

// checkTransactionID: the same in all messages of a transaction (RFC 9810 §5.1.1).
func (t *Transaction) checkTransactionID(m *Message) error {
	if !bytes.Equal(m.Header.TransactionID, t.ID()) {
		return &ProtectionError{Check: CheckTransactionID, Section: sectionHeader, Detail: "not ours"}
	}
	return nil
}

// checkRecipNonce: recipNonce must repeat our last senderNonce (RFC 9810
// §5.1.1). What ends polling may repeat that of the message it answers, request
// or certConf, instead, as some CAs have it; a pollRep may not.
func (t *Transaction) checkRecipNonce(m *Message) error {
	nonce := m.Header.RecipNonce
	if hmac.Equal(nonce, t.state.LastNonce) {
		return nil
	}
	if t.state.Polling && m.Type != TypePollRep && t.answersDelayed(nonce) {
		return nil
	}
	return &ProtectionError{Check: CheckRecipNonce, Section: sectionHeader, Detail: "does not repeat our senderNonce"}
}

// answersDelayed tells whether a nonce is that of the message whose answer is
// polled for. A state stored before that was kept in it knows the request's only.
func (t *Transaction) answersDelayed(nonce []byte) bool {
	if t.state.DelayedNonce == nil {
		return t.state.Phase == phaseRequest && hmac.Equal(nonce, t.first.Header.SenderNonce)
	}
	return hmac.Equal(nonce, t.state.DelayedNonce)
}

// checkSenderNonce: the peer's nonce must be there and be new (RFC 9810 §5.1.1).
// RFC 9483 §3.1 wants 128 bits of it; fewer are no reason to refuse.
func (t *Transaction) checkSenderNonce(m *Message) error {
	nonce := m.Header.SenderNonce
	seen := slices.ContainsFunc(t.state.Seen, func(old []byte) bool { return bytes.Equal(old, nonce) })
	if len(nonce) == 0 || seen {
		return &ProtectionError{Check: CheckSenderNonce, Section: sectionHeader, Detail: "absent or used before"}
	}
	return nil
}

// checkSender: a directoryName, and the one expected where one is (RFC 9483 §3.5).
func (t *Transaction) checkSender(m *Message) error {
	sender, ok := m.Header.Sender.Name()
	if !ok {
		return &ProtectionError{Check: CheckSender, Section: sectionChecks, Detail: "not a directoryName"}
	}
	if want := t.cfg.Trust.ExpectedSender; want != nil && !want.Equal(sender) {
		return &ProtectionError{Check: CheckSender, Section: sectionChecks, Detail: fmt.Sprintf("%q is not the expected %q", sender, want)}
	}
	return nil
}

// checkProtected: nothing is believed without protection (RFC 9483 §3.5).
func (t *Transaction) checkProtected(m *Message) error {
	if m.Protection == nil || m.Header.ProtectionAlg.Algorithm == nil {
		return &ProtectionError{Check: CheckProtected, Section: sectionProtection, Detail: "absent"}
	}
	return nil
}

// checkKind: a MAC never answers a signature; a signature may answer a MAC
// where there is something to trust it by, unless SameProtection forbids it.
func (t *Transaction) checkKind(m *Message) error {
	ours, theirs := t.first.ProtectedByMAC(), m.ProtectedByMAC()
	switch {
	case ours == theirs:
		return nil
	case ours && !t.cfg.SameProtection && t.cfg.Trust.signatures():
		return nil
	}
	return &ProtectionError{Check: CheckKind, Section: sectionChecks, Detail: "protection is of another kind than that of the request"}
}

func (t *Transaction) checkMAC(m *Message) error {
	secret, ok := t.cfg.Credential.(*SharedSecret)
	if !ok {
		return &ProtectionError{Check: CheckKind, Section: sectionChecks, Detail: "no shared secret"}
	}
	alg := m.Header.ProtectionAlg
	if t.peerKey == nil || !sameAlgorithm(alg, t.peerAlg) {
		key, err := secret.derive(alg, t.cfg.MaxIterations)
		if err != nil {
			return &ProtectionError{Check: CheckMAC, Section: sectionPBM, Err: err}
		}
		t.peerKey, t.peerAlg = key, alg
	}
	return m.verifyMAC(t.peerKey)
}

func sameAlgorithm(a, b AlgorithmIdentifier) bool {
	return a.Algorithm.Equal(b.Algorithm) && bytes.Equal(a.Parameters, b.Parameters)
}

// checkMessageTime: not far from our clock (RFC 9483 §3.5). An answer that had
// to be waited for may have been made at any time since the request.
func (t *Transaction) checkMessageTime(m *Message) error {
	made, now, tolerance := m.Header.MessageTime, t.cfg.Now(), t.cfg.MessageTimeTolerance
	switch {
	case tolerance < 0:
		return nil
	case made.IsZero():
		if t.cfg.RequireMessageTime {
			return &ProtectionError{Check: CheckMessageTime, Section: sectionHeader, Detail: "absent"}
		}
		return nil
	}
	earliest := now
	if t.state.Polling && t.state.Started.Before(now) {
		earliest = t.state.Started
	}
	if made.Before(earliest.Add(-tolerance)) || made.After(now.Add(tolerance)) {
		return &ProtectionError{
			Check: CheckMessageTime, Section: sectionHeader,
			Detail: fmt.Sprintf("%s is too far from %s", timeText(made), timeText(now)),
		}
	}
	return nil
}

// accept takes over what an authentic message brings for the rest of the
// transaction. It comes after every check, never before (RFC 9483 §3.5).
func (t *Transaction) accept(m *Message, signer *x509.Certificate) {
	if signer != nil {
		t.signer, t.state.Signer = signer, signer.Raw
	}
	t.state.RecipNonce = bytes.Clone(m.Header.SenderNonce)
	t.state.Seen = append(t.state.Seen, t.state.RecipNonce)
	if len(t.state.Seen) > maxSeenNonces {
		t.state.Seen = t.state.Seen[1:]
	}
	t.state.Untrusted = mergeDER(t.state.Untrusted, m.ExtraCerts)
	if t.learnsAnchor(m) && signer != nil {
		extra := t.certificates(m.ExtraCerts)
		for _, anchor := range leadsTo(signer, selfSigned(extra), append(extra, t.cfg.Trust.Intermediates...), t.cfg.Now()) {
			t.state.Anchors = mergeDER(t.state.Anchors, [][]byte{anchor.Raw})
		}
	}
	// caPubs deserve trust only from whom the secret is shared with (RFC 9810 §5.3.2)
	if body, ok := m.Body.(*CertRepMessage); ok && m.ProtectedByMAC() {
		t.state.CAPubs = mergeDER(t.state.CAPubs, body.CAPubs)
	}
}

// mergeDER adds what is new, up to MaxExtraCerts in all.
func mergeDER(list, more [][]byte) [][]byte {
	for _, der := range more {
		if len(list) < MaxExtraCerts && !containsDER(list, der) {
			list = append(list, bytes.Clone(der))
		}
	}
	return list
}
