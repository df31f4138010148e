package ledger

import (
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/model"
)

// maxFormer bounds the former identities that are kept.
const maxFormer = 2

func formerKeyKey(i int) string   { return fmt.Sprintf("former-%d.key", i) }
func formerChainKey(i int) string { return fmt.Sprintf("former-%d.crt", i) }

// retire keeps the certificate in use for those who still need it when another one takes its
// place: a CMP identity, with which others have begun transactions that must end with it.
func (r *Record) retire(now time.Time) {
	if r.owner == nil || r.owner.Spec.Type != model.CMPIdentity || r.Current == nil || r.Current.Key.Signer() == nil {
		return
	}
	kept := []*Issuance{r.Current}
	for _, f := range r.Former {
		if len(kept) < maxFormer && now.Before(f.Certificate().NotAfter) {
			kept = append(kept, f)
		}
	}
	r.Former = kept
}

func (r *Record) encodeFormer(data map[string][]byte) error {
	for i, f := range r.Former {
		key, err := f.Key.PEM()
		if err != nil {
			return err
		}
		data[formerKeyKey(i)], data[formerChainKey(i)] = key, EncodeCertificates(f.Chain...)
	}
	return nil
}

// decodeFormer passes over what cannot be read: it is good for others' transactions, which
// begin anew without it, and must not spoil what is in use.
func decodeFormer(data map[string][]byte) (all []*Issuance) {
	for i := range maxFormer {
		key, keyErr := ParseKey(data[formerKeyKey(i)])
		chain, err := ParseCertificates(data[formerChainKey(i)])
		if err == nil && keyErr == nil && key.Fits(chain[0]) {
			all = append(all, &Issuance{Key: key, Chain: chain})
		}
	}
	return all
}
