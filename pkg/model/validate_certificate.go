package model

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"knative.dev/pkg/apis"
)

// Validate reports everything that is wrong with the specification, all at once.
// The API server enforces the same rules; this serves those who publish events.
func (s *CMPCertificateSpec) Validate() (errs *apis.FieldError) {
	errs = errs.Also(oneOf(s.Type, "type", EndEntity, CMPIdentity))
	errs = errs.Also(checkLabel(s.NetworkFunction, "networkFunction")).Also(checkLabel(s.Purpose, "purpose"))
	errs = errs.Also(s.IssuerRef.validate().ViaField("issuerRef"))
	errs = errs.Also(oneOf(s.Origin, "origin", OriginCreate, OriginAdopt, OriginAutomatic, OriginManual))
	errs = errs.Also(s.PrivateKey.validate().ViaField("privateKey"))
	errs = errs.Also(s.validateNames())
	errs = errs.Also(usages(s.KeyUsages, "keyUsages", KeyUsageNames()))
	errs = errs.Also(usages(s.ExtendedKeyUsages, "extendedKeyUsages", ExtendedKeyUsageOIDs()))
	errs = errs.Also(oneOf(s.BasicConstraints, "basicConstraints", EndEntity))
	errs = errs.Also(s.validateTimes())
	errs = errs.Also(s.Output.validate().ViaField("output"))
	errs = errs.Also(s.CABundle.validate().ViaField("caBundle")).Also(s.validateBundle())
	return errs.Also(oneOf(s.DeletionPolicy, "deletionPolicy", DeletionKeep, DeletionDelete, DeletionRevokeAndDelete))
}

func checkLabel(value, path string) *apis.FieldError {
	if len(validation.IsValidLabelValue(value)) > 0 {
		return invalid(value, path, "must be at most 63 letters, digits, '-', '_' and '.', the first and last a letter or digit")
	}
	return nil
}

func (r IssuerReference) validate() (errs *apis.FieldError) {
	if r.Name == "" {
		errs = apis.ErrMissingField("name")
	} else {
		for _, p := range validation.IsDNS1123Subdomain(r.Name) {
			errs = errs.Also(invalid(r.Name, "name", p))
		}
	}
	return errs.Also(oneOf(r.Kind, "kind", IssuerKind, ClusterIssuerKind))
}

func (k PrivateKey) validate() *apis.FieldError {
	var sizes []int
	switch k.Algorithm {
	case "", ECDSA:
		sizes = []int{256, 384, 521}
	case RSA:
		sizes = []int{2048, 3072, 4096}
	case Ed25519:
	default:
		if strings.EqualFold(k.Algorithm, "secp256k1") {
			return invalid(k.Algorithm, "algorithm", "secp256k1 is no curve of TLS or 3GPP TS 33.310: use ECDSA with size 256, which is P-256 (secp256r1)")
		}
		return invalid(k.Algorithm, "algorithm", "must be one of ECDSA, RSA, Ed25519")
	}
	if k.Size == 0 || slices.Contains(sizes, k.Size) {
		return nil
	}
	return invalid(strconv.Itoa(k.Size), "size", "must be 2048, 3072 or 4096 for RSA, 256, 384 or 521 for ECDSA and absent for Ed25519")
}

func (s *CMPCertificateSpec) validateNames() (errs *apis.FieldError) {
	if s.Subject == nil && s.SubjectAltNames == nil {
		errs = errs.Also(apis.ErrMissingOneOf("subject", "subjectAltNames"))
	}
	if s.NetworkFunction != "" && s.SubjectAltNames != nil {
		errs = errs.Also(each(s.SubjectAltNames.URIs, "uris", checkInstanceID).ViaField("subjectAltNames"))
	}
	return errs.Also(s.Subject.validate().ViaField("subject")).Also(s.SubjectAltNames.validate().ViaField("subjectAltNames"))
}

// KeyUsageNames are the usages an end entity may ask for, by their bit in the
// keyUsage extension (RFC 5280 §4.2.1.3).
func KeyUsageNames() map[KeyUsage]int {
	return map[KeyUsage]int{"digitalSignature": 0, "contentCommitment": 1, "keyEncipherment": 2, "dataEncipherment": 3, "keyAgreement": 4}
}

// ExtendedKeyUsageOIDs are the purposes that may be asked for, by their last arc
// under id-kp, 1.3.6.1.5.5.7.3 (RFC 5280 §4.2.1.12).
func ExtendedKeyUsageOIDs() map[ExtendedKeyUsage]int {
	return map[ExtendedKeyUsage]int{"serverAuth": 1, "clientAuth": 2, "codeSigning": 3, "emailProtection": 4, "timeStamping": 8, "OCSPSigning": 9}
}

func usages[U ~string](values []U, path string, known map[U]int) (errs *apis.FieldError) {
	for i, u := range values {
		switch _, ok := known[u]; {
		case !ok:
			names := slices.Sorted(maps.Keys(known))
			errs = errs.Also(invalid(u, apis.CurrentField, fmt.Sprintf("must be one of %v", names)).ViaFieldIndex(path, i))
		case slices.Contains(values[:i], u):
			errs = errs.Also(invalid(u, apis.CurrentField, "is there twice").ViaFieldIndex(path, i))
		}
	}
	return errs
}

// Bounds of the lifetime that may be asked for.
const (
	MinValidity = 10 * time.Second
	MaxValidity = maxDays * day

	maxDays = 36500
)

func (s *CMPCertificateSpec) validateTimes() (errs *apis.FieldError) {
	if v := s.Validity; v != nil && (v.Duration < MinValidity || v.Duration > MaxValidity) {
		errs = errs.Also(invalid(v.Duration, "validity", fmt.Sprintf("must be at least %v and at most %v", MinValidity, MaxValidity)))
	}
	errs = errs.Also(within(s.ValidityDays, "validityDays", 1, maxDays)).Also(within(s.RenewBeforeDays, "renewBeforeDays", 1, maxDays))
	errs = errs.Also(positive(s.RenewBefore, "renewBefore")).Also(within(s.RenewBeforePercentage, "renewBeforePercentage", 1, 66))
	if s.Validity != nil && s.ValidityDays != 0 {
		errs = errs.Also(apis.ErrMultipleOneOf("validity", "validityDays"))
	}
	var leads []string
	for path, set := range map[string]bool{"renewBefore": s.RenewBefore != nil, "renewBeforeDays": s.RenewBeforeDays != 0, "renewBeforePercentage": s.RenewBeforePercentage != 0} {
		if set {
			leads = append(leads, path)
		}
	}
	slices.Sort(leads)
	lifetime := s.RequestedValidity()
	switch {
	case len(leads) > 1:
		errs = errs.Also(apis.ErrMultipleOneOf(leads...))
	case len(leads) == 1 && lifetime > 0 && s.RenewLead(lifetime) >= lifetime:
		errs = errs.Also(invalid(s.RenewLead(lifetime), leads[0], "must be shorter than the validity asked for, which is "+lifetime.String()))
	}
	return errs
}

func (o *Output) validate() *apis.FieldError {
	errs := secretName(o.SecretName)
	for path, part := range map[string]*OutputPart{"privateKey": o.PrivateKey, "certificate": o.Certificate, "chain": o.Chain, "caBundle": o.CABundle} {
		if part != nil {
			errs = errs.Also(part.validate().ViaField(path))
		}
	}
	places := o.Places()
	for i, p := range places {
		for _, other := range places[:i] {
			if p.SecretName == other.SecretName && p.Key == other.Key {
				errs = errs.Also(apis.ErrGeneric(fmt.Sprintf("must not go to the same data key of the same Secret as %s", other.Part), string(p.Part)))
			}
		}
	}
	return errs
}

func (p *OutputPart) validate() *apis.FieldError {
	return optionalSecretName(p.SecretName).Also(dataKeys("key", p.Key)).Also(oneOf(p.Encoding, "encoding", PEM, DER))
}

// validateBundle: what is copied must not be its own copy.
func (s *CMPCertificateSpec) validateBundle() *apis.FieldError {
	to := s.Output.place(CABundlePart)
	if s.CABundle == nil || s.CABundle.SecretName != to.SecretName || s.CABundle.DataKey() != to.Key {
		return nil
	}
	return invalid(to.SecretName+"/"+to.Key, "caBundle", "must not be the place that it is copied to")
}
