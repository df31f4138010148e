package model

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CMPCertificate describes one certificate that certloop keeps: who it is for,
// who issues it, and the Secret it is delivered in.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=cmpc,categories=certloop
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.status.renewalDay`
// +kubebuilder:selectablefield:JSONPath=`.spec.issuerRef.name`
// +kubebuilder:selectablefield:JSONPath=`.spec.output.secretName`
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

// CMPCertificateSpec is what is wanted of a certificate.
//
// +kubebuilder:validation:XValidation:rule="!has(self.renewBefore) || !has(self.validity) || duration(self.renewBefore) < duration(self.validity)",message="renewBefore must be shorter than validity"
// +kubebuilder:validation:XValidation:rule="has(self.subject) || has(self.subjectAltNames)",message="set subject, subjectAltNames or both"
type CMPCertificateSpec struct {
	// type is cmpIdentity for the certificate that signs CMP requests, endEntity for a workload's.
	// +optional
	// +kubebuilder:validation:Enum=cmpIdentity;endEntity
	// +kubebuilder:default=endEntity
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="type cannot be changed: make a new CMPCertificate"
	Type string `json:"type,omitempty"`

	// issuerRef names the CMPIssuer, in the same namespace.
	IssuerRef IssuerReference `json:"issuerRef"`

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
	// +kubebuilder:validation:MaxItems=9
	KeyUsages []KeyUsage `json:"keyUsages,omitempty"`

	// extendedKeyUsages asked for. Default serverAuth and clientAuth for an endEntity, none for a cmpIdentity.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	ExtendedKeyUsages []ExtendedKeyUsage `json:"extendedKeyUsages,omitempty"`

	// validity is the lifetime asked for, for example 2160h. The CA may grant another one; renewal follows what was granted.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="validity must be at least 10s"
	Validity *metav1.Duration `json:"validity,omitempty"`

	// renewBefore is how long before the end of its validity the certificate is renewed. Default: a third of the granted lifetime.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="renewBefore must be positive"
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`

	// output says where key and certificate are delivered.
	Output Output `json:"output"`
}

// IssuerReference names an issuer.
type IssuerReference struct {
	// kind is CMPIssuer.
	// +optional
	// +kubebuilder:validation:Enum=CMPIssuer
	// +kubebuilder:default=CMPIssuer
	Kind string `json:"kind,omitempty"`
	// name of the issuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Key algorithms.
const (
	ECDSA = "ECDSA"
	RSA   = "RSA"
)

// PrivateKey says what key to generate.
//
// +kubebuilder:validation:XValidation:rule="!has(self.size) || (self.algorithm == 'RSA' ? self.size in [2048,3072,4096] : self.size in [256,384,521])",message="size must be 2048, 3072 or 4096 for RSA and 256, 384 or 521 for ECDSA (secp256k1 is not supported: use ECDSA 256, which is P-256)"
type PrivateKey struct {
	// algorithm is ECDSA or RSA.
	// +optional
	// +kubebuilder:validation:Enum=ECDSA;RSA
	// +kubebuilder:default=ECDSA
	Algorithm string `json:"algorithm,omitempty"`
	// size in bits: 256, 384 or 521 for ECDSA (default 256), 2048, 3072 or 4096 for RSA (default 2048).
	// +optional
	Size int `json:"size,omitempty"`
}

// Subject is a distinguished name. Its attributes are encoded in the order country,
// stateOrProvince, locality, organization, organizationalUnit, commonName, serialNumber.
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
	SerialNumber string `json:"serialNumber,omitempty"`
}

// MaxSubjectAltNames bounds the names of one kind in a certificate.
const MaxSubjectAltNames = 64

// SubjectAltNames are the alternative names of a certificate (RFC 5280 §4.2.1.6).
type SubjectAltNames struct {
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	DNSNames []string `json:"dnsNames,omitempty"`
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="ipAddresses must be IPv4 or IPv6 addresses"
	IPAddresses []string `json:"ipAddresses,omitempty"`
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=2048
	URIs []string `json:"uris,omitempty"`
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=320
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

// Output says where key and certificate are delivered: one Secret of type
// kubernetes.io/tls with the data keys tls.key, tls.crt (the certificate followed by
// its chain) and ca.crt (the trust anchor the chain ends in, when it is known).
type Output struct {
	// secretName is the name of the Secret, in the same namespace. certloop creates it, and replaces what others put there.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
}

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
	// nextAttempt is when certloop tries or polls again.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
}
