package responder

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io/fs"
	"os"
)

// successor is the root that will follow ours, with what links the two (RFC 9810
// §4.4, §5.3.19.15). Its key is not kept: it is announced, and never issues.
type successor struct {
	newWithNew, newWithOld, oldWithNew *x509.Certificate
}

func newSuccessor(cfg *Config, old *x509.Certificate, oldKey crypto.Signer) (*successor, error) {
	n := new(successor)
	newWithNew, key, err := newCA(cfg, cfg.Name, nil, nil)
	if err != nil {
		return nil, err
	}
	n.newWithNew = newWithNew
	template, err := caTemplate(cfg, cfg.Name)
	if err != nil {
		return nil, err
	}
	if n.newWithOld, err = certify(cfg, template, old, key.Public(), oldKey); err != nil {
		return nil, err
	}
	if template, err = caTemplate(cfg, cfg.Name); err != nil {
		return nil, err
	}
	n.oldWithNew, err = certify(cfg, template, newWithNew, oldKey.Public(), key)
	return n, err
}

// Files of a successor in the directory of its CA, newWithNew last.
var successorFiles = []string{"old-with-new.crt", "new-with-old.crt", "new.crt"}

func (n *successor) certificates() []**x509.Certificate {
	return []**x509.Certificate{&n.oldWithNew, &n.newWithOld, &n.newWithNew}
}

func (n *successor) save(dir *os.Root) error {
	if n == nil {
		return nil
	}
	for i, cert := range n.certificates() {
		if err := writePEM(dir, successorFiles[i], certificateLabel, (*cert).Raw); err != nil {
			return err
		}
	}
	return nil
}

// loadSuccessor reads what save wrote; nil: there is none.
func loadSuccessor(dir *os.Root) (*successor, error) {
	n := new(successor)
	for i, cert := range n.certificates() {
		var err error
		if *cert, err = readCertificate(dir, successorFiles[i]); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	return n, nil
}

// update is the RootCaKeyUpdateContent for who asks about a root; nil: nothing
// follows it (RFC 9810 §5.3.19.15).
func (a *authority) update(old []byte) ([]byte, error) {
	if a.next == nil || string(old) != string(a.root.Raw) {
		return nil, nil
	}
	type content struct {
		NewWithNew asn1.RawValue
		NewWithOld asn1.RawValue `asn1:"optional,explicit,tag:0"`
		OldWithNew asn1.RawValue `asn1:"optional,explicit,tag:1"`
	}
	return asn1.Marshal(content{
		asn1.RawValue{FullBytes: a.next.newWithNew.Raw},
		explicit(0, a.next.newWithOld.Raw), explicit(1, a.next.oldWithNew.Raw),
	})
}

// explicit wraps an element in a context-specific tag.
func explicit(number int, der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: number, IsCompound: true, Bytes: der}
}
