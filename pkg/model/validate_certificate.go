package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate reports everything that is wrong with the specification, all at once.
// The API server enforces the same rules; this serves those who publish events.
func (s *CMPCertificateSpec) Validate() field.ErrorList {
	at := field.NewPath("spec")
	return slices.Concat(
		oneOf(at.Child("type"), s.Type, EndEntity, CMPIdentity),
		checkLabel(at.Child("networkFunction"), s.NetworkFunction),
		checkLabel(at.Child("purpose"), s.Purpose),
		s.IssuerRef.validate(at.Child("issuerRef")),
		oneOf(at.Child("origin"), s.Origin, OriginCreate, OriginAdopt, OriginAutomatic, OriginManual),
		s.PrivateKey.validate(at.Child("privateKey")),
		s.validateNames(at),
		usages(at.Child("keyUsages"), s.KeyUsages, KeyUsageNames()),
		usages(at.Child("extendedKeyUsages"), s.ExtendedKeyUsages, ExtendedKeyUsageOIDs()),
		oneOf(at.Child("basicConstraints"), s.BasicConstraints, EndEntity),
		s.validateTimes(at),
		s.Output.validate(at.Child("output")),
		s.CABundle.validate(at.Child("caBundle")),
		s.validateBundle(at.Child("caBundle")),
		oneOf(at.Child("deletionPolicy"), s.DeletionPolicy, DeletionKeep, DeletionDelete, DeletionRevokeAndDelete),
	)
}

func checkLabel(at *field.Path, value string) field.ErrorList {
	if len(validation.IsValidLabelValue(value)) > 0 {
		return invalid(at, value, "must be at most 63 letters, digits, '-', '_' and '.', the first and last a letter or digit")
	}
	return nil
}

func (r IssuerReference) validate(at *field.Path) (errs field.ErrorList) {
	if r.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "name a CMPIssuer or CMPClusterIssuer"))
	} else {
		errs = invalid(at.Child("name"), r.Name, validation.IsDNS1123Subdomain(r.Name)...)
	}
	return append(errs, oneOf(at.Child("kind"), r.Kind, IssuerKind, ClusterIssuerKind)...)
}

func (k PrivateKey) validate(at *field.Path) field.ErrorList {
	var sizes []int
	switch k.Algorithm {
	case "", ECDSA:
		sizes = []int{256, 384, 521}
	case RSA:
		sizes = []int{2048, 3072, 4096}
	case Ed25519:
	default:
		if strings.EqualFold(k.Algorithm, "secp256k1") {
			return invalid(at.Child("algorithm"), k.Algorithm, "secp256k1 is no curve of TLS or 3GPP TS 33.310: use ECDSA with size 256, which is P-256 (secp256r1)")
		}
		return oneOf(at.Child("algorithm"), k.Algorithm, ECDSA, RSA, Ed25519)
	}
	if k.Size == 0 || slices.Contains(sizes, k.Size) {
		return nil
	}
	return invalid(at.Child("size"), k.Size, "must be 2048, 3072 or 4096 for RSA, 256, 384 or 521 for ECDSA and absent for Ed25519")
}

func (s *CMPCertificateSpec) validateNames(at *field.Path) (errs field.ErrorList) {
	if s.Subject == nil && s.SubjectAltNames == nil {
		errs = absent(at, "subject", "subjectAltNames")
	}
	return slices.Concat(errs, s.Subject.validate(at.Child("subject")), s.SubjectAltNames.validate(at.Child("subjectAltNames"), s.NetworkFunction != ""))
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

func usages[U ~string](at *field.Path, values []U, known map[U]int) (errs field.ErrorList) {
	for i, u := range values {
		switch _, ok := known[u]; {
		case !ok:
			errs = append(errs, oneOf(at.Index(i), u, slices.Sorted(maps.Keys(known))...)...)
		case slices.Contains(values[:i], u):
			errs = append(errs, field.Duplicate(at.Index(i), u))
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

func (s *CMPCertificateSpec) validateTimes(at *field.Path) field.ErrorList {
	errs := slices.Concat(
		within(at.Child("validityDays"), s.ValidityDays, 1, maxDays),
		within(at.Child("renewBeforeDays"), s.RenewBeforeDays, 1, maxDays),
		positive(at.Child("renewBefore"), s.RenewBefore),
		within(at.Child("renewBeforePercentage"), s.RenewBeforePercentage, 1, 66),
	)
	if v := s.Validity; v != nil && (v.Duration < MinValidity || v.Duration > MaxValidity) {
		errs = append(errs, invalid(at.Child("validity"), v.Duration, fmt.Sprintf("must be at least %v and at most %v", MinValidity, MaxValidity))...)
	}
	if s.Validity != nil && s.ValidityDays != 0 {
		errs = append(errs, together(at, "validity", "validityDays")...)
	}
	return append(errs, s.validateLead(at)...)
}

// validateLead: the time before the end that a certificate is renewed at is given once, and is
// less than the lifetime.
func (s *CMPCertificateSpec) validateLead(at *field.Path) field.ErrorList {
	var leads []string
	if s.RenewBefore != nil {
		leads = append(leads, "renewBefore")
	}
	if s.RenewBeforeDays != 0 {
		leads = append(leads, "renewBeforeDays")
	}
	if s.RenewBeforePercentage != 0 {
		leads = append(leads, "renewBeforePercentage")
	}
	lifetime := s.RequestedValidity()
	switch {
	case len(leads) > 1:
		return together(at, leads...)
	case len(leads) == 1 && lifetime > 0 && s.RenewLead(lifetime) >= lifetime:
		return invalid(at.Child(leads[0]), s.RenewLead(lifetime), "must be shorter than the validity asked for, which is "+lifetime.String())
	}
	return nil
}

func (o *Output) validate(at *field.Path) field.ErrorList {
	errs := slices.Concat(
		secretName(at, o.SecretName),
		o.PrivateKey.validate(at.Child("privateKey")),
		o.Certificate.validate(at.Child("certificate")),
		o.Chain.validate(at.Child("chain")),
		o.CABundle.validate(at.Child("caBundle")),
	)
	places := o.Places()
	for i, p := range places {
		for _, other := range places[:i] {
			if p.SecretName == other.SecretName && p.Key == other.Key {
				errs = append(errs, field.Forbidden(at.Child(string(p.Part)), fmt.Sprintf("must not go to the same data key of the same Secret as %s", other.Part)))
			}
		}
	}
	return errs
}

func (p *OutputPart) validate(at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	return slices.Concat(optionalSecretName(at, p.SecretName), dataKeys(at, "key", p.Key), oneOf(at.Child("encoding"), p.Encoding, PEM, DER))
}

// validateBundle: what is copied must not be its own copy.
func (s *CMPCertificateSpec) validateBundle(at *field.Path) field.ErrorList {
	to := s.Output.place(CABundlePart)
	if s.CABundle == nil || s.CABundle.SecretName != to.SecretName || s.CABundle.DataKey() != to.Key {
		return nil
	}
	return invalid(at, to.SecretName+"/"+to.Key, "must not be the place that it is copied to")
}
