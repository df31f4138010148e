package model

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CMPCertificate describes one certificate that certloop keeps: who it is for,
// who issues it, and the Secret it is delivered in.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=cmpc,categories=certloop
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.status.renewalDay`
// +kubebuilder:selectablefield:JSONPath=`.spec.issuerRef.kind`
// +kubebuilder:selectablefield:JSONPath=`.spec.issuerRef.name`
// +kubebuilder:selectablefield:JSONPath=`.spec.output.secretName`
// +kubebuilder:selectablefield:JSONPath=`.spec.output.privateKey.secretName`
// +kubebuilder:selectablefield:JSONPath=`.spec.output.certificate.secretName`
// +kubebuilder:selectablefield:JSONPath=`.spec.output.chain.secretName`
// +kubebuilder:selectablefield:JSONPath=`.spec.output.caBundle.secretName`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.spec.output.secretName`
// +kubebuilder:printcolumn:name="Issuer",type=string,JSONPath=`.spec.issuerRef.name`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.notAfter`
// +kubebuilder:printcolumn:name="Renewal",type=string,JSONPath=`.status.renewalTime`
// +kubebuilder:printcolumn:name="Revision",type=integer,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Serial",type=string,priority=1,JSONPath=`.status.serial`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 237",message="name must be at most 237 characters, so that the record Secret can be named after it"
type CMPCertificate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   CMPCertificateSpec   `json:"spec"`
	Status CMPCertificateStatus `json:"status,omitempty"`
}

// CMPCertificateList is a list of certificates.
//
// +kubebuilder:object:root=true
type CMPCertificateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CMPCertificate `json:"items"`
}

// Certificate types.
const (
	CMPIdentity = "cmpIdentity" // signs CMP requests
	EndEntity   = "endEntity"   // a workload's certificate
)

// Origins of a certificate.
const (
	OriginCreate    = "create"    // a new key and a new certificate
	OriginAdopt     = "adopt"     // what already is in the output Secret, until its first renewal
	OriginAutomatic = "AUTOMATIC" // create, as OCCM calls it
	OriginManual    = "MANUAL"    // adopt, likewise
)

// What becomes of output Secrets when a configuration is withdrawn.
const (
	DeletionKeep            = "keep"
	DeletionDelete          = "delete"
	DeletionRevokeAndDelete = "revokeAndDelete"
)

// CMPCertificateSpec is what is wanted of a certificate.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.validity) || has(self.validityDays)) || !(has(self.renewBefore) || has(self.renewBeforeDays)) || (has(self.renewBefore) ? duration(self.renewBefore).getSeconds() : self.renewBeforeDays * 86400) < (has(self.validity) ? duration(self.validity).getSeconds() : self.validityDays * 86400)",message="what is renewed before its end must be shorter than the validity asked for"
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || (has(self.caBundle.key) ? self.caBundle.key : 'ca.crt') != (has(self.output.caBundle) && has(self.output.caBundle.key) ? self.output.caBundle.key : 'ca.crt') || self.caBundle.secretName != (has(self.output.caBundle) && has(self.output.caBundle.secretName) ? self.output.caBundle.secretName : self.output.secretName)",message="caBundle must not be the place that it is copied to"
// +kubebuilder:validation:XValidation:rule="!has(self.networkFunction) || !has(self.subjectAltNames) || !has(self.subjectAltNames.uris) || self.subjectAltNames.uris.all(u, !u.matches('^[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:') || u.matches('^[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$'))",message="the urn:uuid: of a network function is its instance id, a UUID of version 4 (3GPP TS 29.571)"
// +kubebuilder:validation:XValidation:rule="!(has(self.validity) && has(self.validityDays))",message="set validity or validityDays, not both"
// +kubebuilder:validation:XValidation:rule="[has(self.renewBefore), has(self.renewBeforeDays), has(self.renewBeforePercentage)].filter(x, x).size() <= 1",message="set one of renewBefore, renewBeforeDays and renewBeforePercentage"
// +kubebuilder:validation:XValidation:rule="has(self.subject) || has(self.subjectAltNames)",message="set subject, subjectAltNames or both"
type CMPCertificateSpec struct {
	// type is cmpIdentity for the certificate that signs CMP requests, endEntity for a workload's.
	// +optional
	// +kubebuilder:validation:Enum=cmpIdentity;endEntity
	// +kubebuilder:default=endEntity
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="type cannot be changed: make a new CMPCertificate"
	Type string `json:"type,omitempty"`

	// networkFunction the certificate is for, such as AMF; a label on the output Secrets.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`
	NetworkFunction string `json:"networkFunction,omitempty"`

	// purpose of the certificate, such as SBI; likewise.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`
	Purpose string `json:"purpose,omitempty"`

	// issuerRef names the CMPIssuer, in the same namespace, or the CMPClusterIssuer.
	IssuerRef IssuerReference `json:"issuerRef"`

	// origin is create (a new key and certificate; AUTOMATIC: likewise, over whatever already is in the output Secret) or adopt (MANUAL: what already is in the output Secret is
	// taken over as it is, and follows this configuration from its first renewal).
	// +optional
	// +kubebuilder:validation:Enum=create;adopt;AUTOMATIC;MANUAL
	// +kubebuilder:default=create
	Origin string `json:"origin,omitempty"`

	// privateKey says what key is generated: a new one for every certificate and every renewal.
	// +optional
	// +kubebuilder:default={}
	PrivateKey PrivateKey `json:"privateKey,omitempty"`

	// subject is the distinguished name asked for.
	// +optional
	Subject *Subject `json:"subject,omitempty"`

	// subjectAltNames are the alternative names asked for.
	// +optional
	SubjectAltNames *SubjectAltNames `json:"subjectAltNames,omitempty"`

	// keyUsages asked for. Default digitalSignature.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	KeyUsages []KeyUsage `json:"keyUsages,omitempty"`

	// extendedKeyUsages asked for. Default serverAuth and clientAuth for an endEntity, none for a cmpIdentity.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=6
	ExtendedKeyUsages []ExtendedKeyUsage `json:"extendedKeyUsages,omitempty"`

	// basicConstraints is endEntity: certloop never asks for a CA certificate, and refuses one.
	// +optional
	// +kubebuilder:validation:Enum=endEntity
	BasicConstraints string `json:"basicConstraints,omitempty"`

	// validity is the lifetime asked for, for example 2160h. The CA may grant another one; renewal follows what was granted.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s') && duration(self) <= duration('876000h')",message="validity must be at least 10s and at most 876000h"
	Validity *metav1.Duration `json:"validity,omitempty"`

	// validityDays is the lifetime asked for, in days.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=36500
	ValidityDays int32 `json:"validityDays,omitempty"`

	// renewBefore is how long before the end of its validity the certificate is renewed. Default: a third of the granted
	// lifetime. However it is set, a third of the granted lifetime passes before the first renewal.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="renewBefore must be positive"
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`

	// renewBeforeDays is renewBefore in days.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=36500
	RenewBeforeDays int32 `json:"renewBeforeDays,omitempty"`

	// renewBeforePercentage is renewBefore in percent of the granted lifetime.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=66
	RenewBeforePercentage int32 `json:"renewBeforePercentage,omitempty"`

	// output says where key and certificate are delivered.
	Output Output `json:"output"`

	// caBundle names the certificates that the workload is to trust, copied to the output. Default: the trust anchor that
	// the certificate chains to.
	// +optional
	CABundle *CertificatesSource `json:"caBundle,omitempty"`

	// record says what certloop keeps for itself.
	// +optional
	// +kubebuilder:default={}
	Record RecordPolicy `json:"record,omitempty"`

	// deletionPolicy says what becomes of the output Secrets when this configuration is withdrawn: keep, delete, or
	// revokeAndDelete (the CA is asked to revoke first).
	// +optional
	// +kubebuilder:validation:Enum=keep;delete;revokeAndDelete
	// +kubebuilder:default=keep
	DeletionPolicy string `json:"deletionPolicy,omitempty"`

	// paused stops everything certloop does for this certificate, renewals and repairs included.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// RecordPolicy says what certloop keeps for itself.
type RecordPolicy struct {
	// keepKey keeps a second copy of the private key in the record, from which a lost output is restored without the CA.
	// Without it a deleted output is enrolled anew.
	// +optional
	// +kubebuilder:default=true
	KeepKey *bool `json:"keepKey,omitempty"`
}

// IssuerReference names an issuer.
type IssuerReference struct {
	// kind is CMPIssuer or CMPClusterIssuer.
	// +optional
	// +kubebuilder:validation:Enum=CMPIssuer;CMPClusterIssuer
	// +kubebuilder:default=CMPIssuer
	Kind string `json:"kind,omitempty"`
	// name of the issuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Name string `json:"name"`
}

// Key algorithms.
const (
	ECDSA   = "ECDSA"
	RSA     = "RSA"
	Ed25519 = "Ed25519"
)

// PrivateKey says what key to generate.
//
// +kubebuilder:validation:XValidation:rule="!has(self.size) || (self.algorithm == 'RSA' ? self.size in [2048,3072,4096] : self.algorithm == 'Ed25519' ? false : self.size in [256,384,521])",message="size must be 2048, 3072 or 4096 for RSA, 256, 384 or 521 for ECDSA and absent for Ed25519"
type PrivateKey struct {
	// algorithm is ECDSA, RSA or Ed25519.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.lowerAscii() != 'secp256k1'",message="secp256k1 is no curve of TLS or 3GPP TS 33.310: use ECDSA with size 256, which is P-256 (secp256r1)"
	// +kubebuilder:validation:XValidation:rule="self.lowerAscii() == 'secp256k1' || self in ['ECDSA','RSA','Ed25519']",message="algorithm must be ECDSA, RSA or Ed25519"
	// +kubebuilder:default=ECDSA
	Algorithm string `json:"algorithm,omitempty"`
	// size in bits: 256, 384 or 521 for ECDSA (default 256), 2048, 3072 or 4096 for RSA (default 2048).
	// +optional
	Size int `json:"size,omitempty"`
}

// Subject is a distinguished name. Its attributes are encoded in the order country,
// stateOrProvince, locality, organization, organizationalUnit, commonName, serialNumber.
//
// +kubebuilder:validation:XValidation:rule="[has(self.distinguishedName), has(self.country), has(self.stateOrProvince), has(self.locality), has(self.organization), has(self.organizationalUnit), has(self.commonName), has(self.serialNumber)].exists(x, x)",message="set at least one attribute, or leave subject out"
// +kubebuilder:validation:XValidation:rule="!has(self.distinguishedName) || [has(self.country), has(self.stateOrProvince), has(self.locality), has(self.organization), has(self.organizationalUnit), has(self.commonName), has(self.serialNumber)].filter(x, x).size() == 0",message="set distinguishedName alone, or the single attributes"
type Subject struct {
	// +optional
	// +kubebuilder:validation:Pattern=`^[A-Z]{2}$`
	Country string `json:"country,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=128
	StateOrProvince string `json:"stateOrProvince,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Locality string `json:"locality,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Organization string `json:"organization,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=64
	OrganizationalUnit string `json:"organizationalUnit,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=64
	CommonName string `json:"commonName,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9 '()+,./:=?-]+$`
	SerialNumber string `json:"serialNumber,omitempty"`
	// distinguishedName is a whole name, /type=value/… as OpenSSL writes it or RFC 4514, where the attributes above are not enough.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self != '/'",message="is the empty name: leave subject out"
	DistinguishedName DN `json:"distinguishedName,omitempty"`
}

// MaxSubjectAltNames bounds the names of one kind in a certificate.
const MaxSubjectAltNames = 64

// SubjectAltNames are the alternative names of a certificate (RFC 5280 §4.2.1.6).
//
// +kubebuilder:validation:XValidation:rule="[has(self.dnsNames) && size(self.dnsNames) > 0, has(self.ipAddresses) && size(self.ipAddresses) > 0, has(self.uris) && size(self.uris) > 0, has(self.emailAddresses) && size(self.emailAddresses) > 0].exists(x, x)",message="set at least one name, or leave subjectAltNames out"
type SubjectAltNames struct {
	// dnsNames, a leading *. allowed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^([*][.])?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`
	DNSNames []string `json:"dnsNames,omitempty"`
	// ipAddresses, IPv4 and IPv6.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="ipAddresses must be IPv4 or IPv6 addresses"
	IPAddresses []string `json:"ipAddresses,omitempty"`
	// uris are API roots (https://host[:port][/prefix]) or any other absolute URI, such as urn:uuid: with the
	// instance id of a network function.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z][A-Za-z0-9+.-]*:(//([A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?([/?#]([!-$&-~]|%[0-9A-Fa-f]{2})*)?|([!-$&-.0-~]|%[0-9A-Fa-f]{2})([!-$&-~]|%[0-9A-Fa-f]{2})*)$`
	// +kubebuilder:validation:XValidation:rule="self.all(u, !u.matches('^[Hh][Tt][Tt][Pp][Ss]?:') || u.matches('^[A-Za-z]+://[^?#]+$'))",message="an http or https URI is an API root: scheme://host[:port][/prefix], without user, query and fragment"
	// +kubebuilder:validation:XValidation:rule="self.all(u, !u.matches('^[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:') || u.matches('^[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$'))",message="urn:uuid: is followed by a UUID"
	URIs []string `json:"uris,omitempty"`
	// emailAddresses, such as operator@example.com.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=320
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+([.][A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`
	EmailAddresses []string `json:"emailAddresses,omitempty"`
}

// KeyUsage is one bit of the keyUsage extension, by its name in RFC 5280 §4.2.1.3.
//
// +kubebuilder:validation:Enum=digitalSignature;contentCommitment;keyEncipherment;dataEncipherment;keyAgreement
type KeyUsage string

// ExtendedKeyUsage is a purpose of RFC 5280 §4.2.1.12.
//
// +kubebuilder:validation:Enum=serverAuth;clientAuth;codeSigning;emailProtection;timeStamping;OCSPSigning
type ExtendedKeyUsage string

// Output says where key and certificate are delivered. By default one Secret of type
// kubernetes.io/tls with the data keys tls.key, tls.crt (the certificate followed by
// its chain) and ca.crt (the trust anchor the chain ends in, when it is known).
//
// Parts in different Secrets cannot be replaced at one instant: for a moment a reader may
// see a key beside the former certificate. certloop warns of that and does it.
//
// +kubebuilder:validation:XValidation:rule="(has(self.certificate) && has(self.certificate.key) ? self.certificate.key : 'tls.crt') != (has(self.privateKey) && has(self.privateKey.key) ? self.privateKey.key : 'tls.key') || (has(self.certificate) && has(self.certificate.secretName) ? self.certificate.secretName : self.secretName) != (has(self.privateKey) && has(self.privateKey.secretName) ? self.privateKey.secretName : self.secretName)",message="certificate must not go to the same data key of the same Secret as privateKey"
// +kubebuilder:validation:XValidation:rule="(has(self.caBundle) && has(self.caBundle.key) ? self.caBundle.key : 'ca.crt') != (has(self.privateKey) && has(self.privateKey.key) ? self.privateKey.key : 'tls.key') || (has(self.caBundle) && has(self.caBundle.secretName) ? self.caBundle.secretName : self.secretName) != (has(self.privateKey) && has(self.privateKey.secretName) ? self.privateKey.secretName : self.secretName)",message="caBundle must not go to the same data key of the same Secret as privateKey"
// +kubebuilder:validation:XValidation:rule="(has(self.caBundle) && has(self.caBundle.key) ? self.caBundle.key : 'ca.crt') != (has(self.certificate) && has(self.certificate.key) ? self.certificate.key : 'tls.crt') || (has(self.caBundle) && has(self.caBundle.secretName) ? self.caBundle.secretName : self.secretName) != (has(self.certificate) && has(self.certificate.secretName) ? self.certificate.secretName : self.secretName)",message="caBundle must not go to the same data key of the same Secret as certificate"
// +kubebuilder:validation:XValidation:rule="!has(self.chain) || (has(self.chain) && has(self.chain.key) ? self.chain.key : 'chain.crt') != (has(self.privateKey) && has(self.privateKey.key) ? self.privateKey.key : 'tls.key') || (has(self.chain) && has(self.chain.secretName) ? self.chain.secretName : self.secretName) != (has(self.privateKey) && has(self.privateKey.secretName) ? self.privateKey.secretName : self.secretName)",message="chain must not go to the same data key of the same Secret as privateKey"
// +kubebuilder:validation:XValidation:rule="!has(self.chain) || (has(self.chain) && has(self.chain.key) ? self.chain.key : 'chain.crt') != (has(self.certificate) && has(self.certificate.key) ? self.certificate.key : 'tls.crt') || (has(self.chain) && has(self.chain.secretName) ? self.chain.secretName : self.secretName) != (has(self.certificate) && has(self.certificate.secretName) ? self.certificate.secretName : self.secretName)",message="chain must not go to the same data key of the same Secret as certificate"
// +kubebuilder:validation:XValidation:rule="!has(self.chain) || (has(self.chain) && has(self.chain.key) ? self.chain.key : 'chain.crt') != (has(self.caBundle) && has(self.caBundle.key) ? self.caBundle.key : 'ca.crt') || (has(self.chain) && has(self.chain.secretName) ? self.chain.secretName : self.secretName) != (has(self.caBundle) && has(self.caBundle.secretName) ? self.caBundle.secretName : self.secretName)",message="chain must not go to the same data key of the same Secret as caBundle"
type Output struct {
	// secretName is the name of the Secret, in the same namespace. certloop creates it, puts back
	// what others change in it, and does not overwrite one that others made.
	SecretName SecretName `json:"secretName"`
	// privateKey goes to the data key tls.key by default, in PEM (PKCS #8).
	// +optional
	PrivateKey *OutputPart `json:"privateKey,omitempty"`
	// certificate goes to the data key tls.crt by default, in PEM, followed by the chain unless chain is set.
	// +optional
	Certificate *OutputPart `json:"certificate,omitempty"`
	// chain, when set, receives the issuers of the certificate upward; the certificate then stands alone.
	// +optional
	Chain *OutputPart `json:"chain,omitempty"`
	// caBundle goes to the data key ca.crt by default, in PEM.
	// +optional
	CABundle *OutputPart `json:"caBundle,omitempty"`
}

// Encodings of an output part.
const (
	PEM = "PEM"
	DER = "DER"
)

// OutputPart is a place in a Secret.
type OutputPart struct {
	// secretName is the Secret of this part. Default: that of the output.
	// +optional
	SecretName SecretName `json:"secretName,omitempty"`
	// key is the data key of this part.
	// +optional
	Key DataKey `json:"key,omitempty"`
	// encoding is PEM or DER. Several certificates in DER follow each other without anything between.
	// +optional
	// +kubebuilder:validation:Enum=PEM;DER
	// +kubebuilder:default=PEM
	Encoding string `json:"encoding,omitempty"`
}

// CleanUpFinalizer keeps a withdrawn configuration until its deletionPolicy is carried out.
const CleanUpFinalizer = "certloop.io/clean-up"

// Condition types of a CMPCertificate, as kstatus reads them.
const (
	Ready       = "Ready"       // the output holds a valid certificate that satisfies the configuration
	Reconciling = "Reconciling" // certloop is working on it and will go on by itself
	Stalled     = "Stalled"     // nothing happens until somebody changes something
)

// CMPCertificateStatus is what was last seen of a certificate.
type CMPCertificateStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// +optional
	NotBefore *metav1.Time `json:"notBefore,omitempty"`
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
	// renewalTime is when the certificate becomes due.
	// +optional
	RenewalTime *metav1.Time `json:"renewalTime,omitempty"`
	// renewalDay is the UTC day of renewalTime, YYYY-MM-DD, by which a scan selects; empty when nothing was issued yet.
	// +optional
	RenewalDay string `json:"renewalDay,omitempty"`
	// serial number of the certificate, hex.
	// +optional
	Serial string `json:"serial,omitempty"`
	// fingerprint is the SHA-256 of the certificate, hex.
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`
	// revision counts the certificates issued for this configuration.
	// +optional
	Revision int64 `json:"revision,omitempty"`
	// extraIssuances counts certificates the CA may have issued that never reached us, each after an interrupted request.
	// +optional
	ExtraIssuances int64 `json:"extraIssuances,omitempty"`
	// transactionID of the CMP transaction in flight, hex.
	// +optional
	TransactionID string `json:"transactionID,omitempty"`
	// attempts that failed since the last success.
	// +optional
	Attempts int64 `json:"attempts,omitempty"`
	// renewRequest and recreateRequest are the values of the annotations certloop.io/renew and certloop.io/recreate that were
	// carried out last.
	// +optional
	RenewRequest string `json:"renewRequest,omitempty"`
	// +optional
	RecreateRequest string `json:"recreateRequest,omitempty"`
	// differences between what was asked for, or is adopted, and the configuration.
	// +optional
	// +listType=atomic
	Differences []string `json:"differences,omitempty"`
	// secrets are the resourceVersions of the record, the output Secrets and the Secret of caBundle, when they were last
	// written or read, by name. What still has them needs no look.
	// +optional
	Secrets map[string]string `json:"secrets,omitempty"`
	// nextAttempt is when certloop tries or polls again.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
}
