package model

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CMPIssuer describes one certification authority that speaks CMPv2, how it is
// reached, how we authenticate to it and what we trust of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=cmpi,categories=certloop
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.spec.server`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CMPIssuer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   CMPIssuerSpec   `json:"spec"`
	Status CMPIssuerStatus `json:"status,omitempty"`
}

// CMPIssuerList is a list of issuers.
//
// +kubebuilder:object:root=true
type CMPIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CMPIssuer `json:"items"`
}

// CMPIssuerSpec is what is wanted of an issuer.
type CMPIssuerSpec struct {
	// server is the URL of the CMP service: scheme (http or https), host, port (80 or 443 when absent) and path.
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http','https']",message="server must be an http or https URL, for example http://ca.example.com:8080/pkix/"
	Server string `json:"server"`

	// recipient is the distinguished name of the CMP server, put into the header of every request:
	// /type=value/… as OpenSSL writes it, or RFC 4514.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Recipient string `json:"recipient,omitempty"`

	// issuer is the distinguished name asked for in the certificate template, to choose a CA behind an RA.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer,omitempty"`

	// totalTimeout bounds one whole transaction, polling included. Default 24h.
	// +optional
	TotalTimeout *metav1.Duration `json:"totalTimeout,omitempty"`

	// messageTimeout bounds one request and its answer. Default 30s.
	// +optional
	MessageTimeout *metav1.Duration `json:"messageTimeout,omitempty"`

	// initialAuthentication protects the first request, the one that obtains the CMP identity.
	// +optional
	InitialAuthentication *InitialAuthentication `json:"initialAuthentication,omitempty"`

	// authentication protects all other requests: the CMP identity's key and certificate.
	// +optional
	Authentication *KeyPairSource `json:"authentication,omitempty"`

	// trust says what may sign the CA's answers and what new certificates must chain to.
	Trust TrustSource `json:"trust"`

	// confirmation is explicit (certConf and pkiConf are exchanged) or implicit (asked for, and used when granted).
	// +optional
	// +kubebuilder:validation:Enum=explicit;implicit
	// +kubebuilder:default=explicit
	Confirmation string `json:"confirmation,omitempty"`

	// renewal says how key updates are made.
	// +optional
	// +kubebuilder:default={}
	Renewal RenewalPolicy `json:"renewal,omitempty"`
}

// InitialAuthentication is a shared secret or a pre-provisioned key and certificate.
//
// +kubebuilder:validation:XValidation:rule="has(self.mac) != has(self.signature)",message="set exactly one of mac and signature"
type InitialAuthentication struct {
	// mac authenticates with a reference and a shared secret (PasswordBasedMac).
	// +optional
	MAC *SharedSecretSource `json:"mac,omitempty"`
	// signature authenticates with a key and certificate provisioned beforehand.
	// +optional
	Signature *KeyPairSource `json:"signature,omitempty"`
}

// SharedSecretSource names the Secret that holds a reference and a shared secret.
type SharedSecretSource struct {
	// secretName is the name of a Secret in the issuer's namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
	// referenceKey is the data key of the reference (senderKID). Default "reference".
	// +optional
	// +kubebuilder:default=reference
	ReferenceKey string `json:"referenceKey,omitempty"`
	// passwordKey is the data key of the shared secret, taken byte for byte. Default "password".
	// +optional
	// +kubebuilder:default=password
	PasswordKey string `json:"passwordKey,omitempty"`
}

// KeyPairSource names the Secret that holds a private key and its certificate.
type KeyPairSource struct {
	// secretName is the name of a Secret in the issuer's namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
	// privateKeyKey is the data key of the private key in PEM. Default "tls.key".
	// +optional
	// +kubebuilder:default=tls.key
	PrivateKeyKey string `json:"privateKeyKey,omitempty"`
	// certificateKey is the data key of the certificate and its chain in PEM. Default "tls.crt".
	// +optional
	// +kubebuilder:default=tls.crt
	CertificateKey string `json:"certificateKey,omitempty"`
}

// TrustSource names the Secret that holds trust anchors.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.serverCertificateKey) && has(self.rootsKey))",message="set rootsKey or serverCertificateKey, not both: a pinned server certificate would make the roots meaningless"
type TrustSource struct {
	// secretName is the name of a Secret in the issuer's namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
	// rootsKey is the data key of the root certificates in PEM. "ca.crt" when serverCertificateKey is absent too.
	// +optional
	RootsKey string `json:"rootsKey,omitempty"`
	// intermediatesKey is the data key of intermediate certificates in PEM, used to build chains and never trusted by themselves.
	// +optional
	IntermediatesKey string `json:"intermediatesKey,omitempty"`
	// serverCertificateKey is the data key of the one certificate that may sign answers.
	// +optional
	ServerCertificateKey string `json:"serverCertificateKey,omitempty"`
}

// RenewalPolicy says how key updates are made.
type RenewalPolicy struct {
	// signedBy chooses what protects a key update request: the certificate being renewed, or the CMP identity.
	// +optional
	// +kubebuilder:validation:Enum=currentCertificate;cmpIdentity
	// +kubebuilder:default=currentCertificate
	SignedBy string `json:"signedBy,omitempty"`
}

// CMPIssuerStatus is what was last seen of an issuer.
type CMPIssuerStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
