package cmp

import tag "golang.org/x/crypto/cryptobyte/asn1"

// maxCommonName is the most characters of a commonName (RFC 5280 appendix A.1).
const maxCommonName = 64

// commonName is the name with a single commonName.
func commonName(value []byte) Name {
	var w writer
	m := w.open(tag.SEQUENCE)
	set := w.open(tag.SET)
	ava := w.open(tag.SEQUENCE)
	w.raw([]byte{6, 3, 2*40 + 5, 4, 3})
	w.primitive(tag.UTF8String, value)
	w.close(ava)
	w.close(set)
	w.close(m)
	return w.b
}
