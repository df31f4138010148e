package cmp

const sectionVersion = "RFC 9810 §7"

// pvnoFor is 3 where hashAlg is used, else 2 (RFC 9810 §7).
func pvnoFor(body Body) int64 {
	if confirm, ok := body.(CertConf); ok {
		for i := range confirm {
			if confirm[i].HashAlg != nil {
				return PVNO3
			}
		}
	}
	return PVNO2
}

// otherVersion tells whether an authentic error means that the first message is
// to be made again in another version: the peer does not know ours, and the one
// it names is known here (RFC 9810 §7). Once is enough.
func (t *Transaction) otherVersion(m *Message, body *ErrorMsg) bool {
	return body.Status.FailInfo.Has(FailUnsupportedVersion) && t.state.Phase == phaseRequest && !t.state.Polling &&
		!t.state.Negotiated && m.Header.PVNO != t.pvno
}

// beginAgain makes the first message anew in another version. The peer's error
// has ended the transaction, so that this one has another transactionID; what is
// asked for, proof of possession included, stays as it is, and so does the deadline.
func (t *Transaction) beginAgain(pvno int64) error {
	id, err := t.nonce()
	if err != nil {
		return err
	}
	old := &t.first.Header
	m := &Message{Type: t.first.Type, Body: t.first.Body}
	m.Header = Header{PVNO: pvno, TransactionID: id, Recipient: old.Recipient, GeneralInfo: old.GeneralInfo}
	der, err := t.finish(m)
	if err != nil {
		return err
	}
	t.state = state{
		Version: stateVersion, Phase: phaseRequest, Request: der, Negotiated: true, LastNonce: m.Header.SenderNonce,
		Started: t.cfg.Now().UTC(), Deadline: t.state.Deadline,
	}
	t.signer = nil
	return t.readRequest()
}
