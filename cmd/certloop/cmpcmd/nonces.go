package cmpcmd

import (
	"fmt"
	"io"

	"github.com/certloop/certloop/pkg/cmp"
)

// idBytes is the length of the transactionIDs and nonces a transaction makes (RFC 9483 §3.1).
const idBytes = 16

// nonces is the source of randomness of a transaction whose messages come from
// files. An answer on file belongs to the transactionID and nonce of the request
// it answered then, and is only accepted if ours has them as well. So the values
// of these, and only these, are foreseen here; everything else is random.
type nonces struct {
	random io.Reader
	begin  [][]byte // transactionID and senderNonce of the first message
	next   []byte   // senderNonce of every further message; nil: random
}

// Read implements [io.Reader].
func (n *nonces) Read(p []byte) (int, error) {
	var foreseen []byte
	switch {
	case len(p) != idBytes:
	case len(n.begin) > 0:
		foreseen, n.begin = n.begin[0], n.begin[1:]
	default:
		foreseen = n.next
	}
	if foreseen != nil {
		return copy(p, foreseen), nil
	}
	return n.random.Read(p)
}

// foreseeable checks a transactionID or nonce of a file.
func foreseeable(path, field string, value []byte) error {
	if len(value) != idBytes {
		return fmt.Errorf("%s: the %s has %d bytes: only messages with %d can be used", path, field, len(value), idBytes)
	}
	return nil
}

// foresee prepares for the first message of a file sequence.
func (x *exchange) foresee() error {
	id, nonce, err := x.onFile()
	if err != nil || nonce == nil {
		return err
	}
	if x.newID {
		id = nil
	}
	x.nonces.begin = [][]byte{id, nonce}
	return nil
}

// foreseeNext prepares for the message after the present one.
func (x *exchange) foreseeNext() (err error) {
	_, x.nonces.next, err = x.onFile()
	return err
}

// onFile is the transactionID and senderNonce that our next message must have
// for the next answer on file, or for the answer to the next request on file.
// Without one they are nil.
func (x *exchange) onFile() (id, nonce []byte, err error) {
	switch {
	case x.rspin.more():
		m, _, err := message(x.rspin.peek())
		if err != nil {
			return nil, nil, fmt.Errorf("-rspin: %w", err)
		}
		return checked(x.rspin.peek(), m.Header.TransactionID, m.Header.RecipNonce, "recipNonce")
	case x.reqin.more():
		m, _, err := message(x.reqin.peek())
		if err != nil {
			return nil, nil, fmt.Errorf("-reqin: %w", err)
		}
		return checked(x.reqin.peek(), m.Header.TransactionID, m.Header.SenderNonce, "senderNonce")
	}
	return nil, nil, nil
}

func checked(path string, id, nonce []byte, field string) ([]byte, []byte, error) {
	if err := foreseeable(path, "transactionID", id); err != nil {
		return nil, nil, err
	}
	return id, nonce, foreseeable(path, field, nonce)
}

// files is a sequence of file names, used one after the other.
type files []string

func (f files) more() bool   { return len(f) > 0 }
func (f files) peek() string { return f[0] }

func (f *files) take() string {
	name := (*f)[0]
	*f = (*f)[1:]
	return name
}

// renewed is a message of a file, fit for the present transaction: with the
// transactionID of ours if newID, and with the nonce it has to answer. Where
// that changes it, it is protected anew.
func (x *exchange) renewed(path string) ([]byte, error) {
	parsed, der, err := message(path)
	if err != nil {
		return nil, fmt.Errorf("-reqin: %w", err)
	}
	header := parsed.Header
	if x.newID {
		header.TransactionID = x.transaction.ID()
	}
	if x.answered != nil {
		header.RecipNonce = x.answered.Header.SenderNonce
	}
	if string(header.TransactionID) == string(parsed.Header.TransactionID) && string(header.RecipNonce) == string(parsed.Header.RecipNonce) {
		return der, nil
	}
	m := &cmp.Message{Header: header, Type: parsed.Type, Body: parsed.Body, ExtraCerts: parsed.ExtraCerts}
	if parsed.Protection != nil {
		if err := m.Protect(x.nonces.random, x.shape.credential); err != nil {
			return nil, fmt.Errorf("-reqin: %s: protecting it anew: %w", path, err)
		}
	}
	return m.Marshal()
}
