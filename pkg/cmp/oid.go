package cmp

import "encoding/asn1"

// Object identifiers, each once, with the document that assigns it.
var (
	// Protection (RFC 9481 §6, RFC 4211 §4.4, RFC 9810 §5.1.3).
	oidPasswordBasedMac = asn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 13}
	oidPBMAC1           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14} // RFC 8018 §7.1
	oidPBKDF2           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12} // RFC 8018 §5.2
	oidPBES2            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13} // RFC 8018 §6.2; written by some for the one above

	// Keyed hashes (RFC 4211 §6, RFC 8018 appendix B.1.2).
	oidHMACSHA1       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 1, 2}
	oidHMACWithSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACWithSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACWithSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}

	// Hashes (RFC 3279 §2.2, RFC 5754 §2).
	oidSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}

	// Signatures (RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3).
	oidSHA1WithRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	oidSHA256WithRSA   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidSHA384WithRSA   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}
	oidSHA512WithRSA   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}
	oidRSASSAPSS       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidECDSAWithSHA1   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSAWithSHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSAWithSHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
	oidEd25519         = asn1.ObjectIdentifier{1, 3, 101, 112}

	// Kinds of public keys (RFC 3279 §2.3).
	oidRSAEncryption = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidECPublicKey   = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}

	// CRMF controls (RFC 4211 §6).
	oidRegToken      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 1}
	oidAuthenticator = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 2}
	oidOldCertID     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 5}
	oidAlgID         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 11} // RFC 9810 §5.3.19.16
	oidRSAKeyLen     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 12} // RFC 9810 §5.3.19.16

	// Extensions that make one certificate of a path matter to the others (RFC 5280 §4.2.1).
	oidNameConstraints   = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidPolicyConstraints = asn1.ObjectIdentifier{2, 5, 29, 36}
	oidInhibitAnyPolicy  = asn1.ObjectIdentifier{2, 5, 29, 54}

	// Extended key usages we look at (RFC 6402 §2.10).
	oidCMCCA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 27}
	oidCMCRA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 28}
)

// Extensions of certificates and of entries in a CRL (RFC 5280 §4.2.1, §5.3.1).
var (
	ExtensionSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	ExtensionKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	ExtensionSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	ExtensionBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	ExtensionCRLReason        = asn1.ObjectIdentifier{2, 5, 29, 21}
	ExtensionPolicies         = asn1.ObjectIdentifier{2, 5, 29, 32}
	ExtensionAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	ExtensionExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// Types of InfoTypeAndValue in generalInfo, genm and genp (RFC 9810 §5.1.1, §5.3.19).
var (
	InfoImplicitConfirm = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 13}
	InfoConfirmWaitTime = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 14}
	InfoOrigPKIMessage  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 15}
	InfoCACerts         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 17}
	InfoRootCAKeyUpdate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 18}
	InfoCertReqTemplate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 19}
	InfoRootCACert      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 20}
	InfoCertProfile     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 21}
	InfoCRLStatusList   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 22}
	InfoCRLs            = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 23}
	InfoCurrentCRL      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 6}
)

// knownOIDs finds the object identifiers above by their DER, so that reading one allocates nothing.
var knownOIDs = internOIDs(
	oidPasswordBasedMac, oidPBMAC1, oidPBKDF2,
	oidHMACSHA1, oidHMACWithSHA1, oidHMACWithSHA256, oidHMACWithSHA384, oidHMACWithSHA512,
	oidSHA1, oidSHA256, oidSHA384, oidSHA512,
	oidSHA1WithRSA, oidSHA256WithRSA, oidSHA384WithRSA, oidSHA512WithRSA, oidRSASSAPSS, oidMGF1,
	oidECDSAWithSHA1, oidECDSAWithSHA256, oidECDSAWithSHA384, oidECDSAWithSHA512, oidEd25519,
	oidRSAEncryption, oidECPublicKey,
	oidRegToken, oidAuthenticator, oidOldCertID, oidAlgID, oidRSAKeyLen,
	ExtensionSubjectKeyID, ExtensionKeyUsage, ExtensionSubjectAltName, ExtensionBasicConstraints, ExtensionCRLReason, ExtensionPolicies,
	ExtensionAuthorityKeyID, ExtensionExtKeyUsage, oidCMCCA, oidCMCRA,
	InfoImplicitConfirm, InfoConfirmWaitTime, InfoOrigPKIMessage, InfoCACerts, InfoRootCAKeyUpdate, InfoCertReqTemplate,
	InfoRootCACert, InfoCertProfile, InfoCRLStatusList, InfoCRLs, InfoCurrentCRL,
)

// oidTable finds object identifiers by their DER: a hash table, open and half empty.
type oidTable [128]struct {
	der string
	oid asn1.ObjectIdentifier
}

func internOIDs(oids ...asn1.ObjectIdentifier) *oidTable {
	t := new(oidTable)
	for _, oid := range oids {
		var w writer
		w.oid(oid)
		i := oidHash(w.b)
		for t[i].oid != nil {
			i = (i + 1) % len(t)
		}
		t[i].der, t[i].oid = string(w.b), oid
	}
	return t
}

// find is nil for an object identifier that is not in t.
func (t *oidTable) find(der []byte) asn1.ObjectIdentifier {
	if len(der) < 3 {
		return nil
	}
	for i := oidHash(der); t[i].oid != nil; i = (i + 1) % len(t) {
		if t[i].der == string(der) {
			return t[i].oid
		}
	}
	return nil
}

// oidHash goes by what differs among those we know: length and last arcs.
func oidHash(der []byte) int {
	n := len(der)
	return (n*37 + int(der[n-1])*5 + int(der[n-2])*11) % len(oidTable{})
}
