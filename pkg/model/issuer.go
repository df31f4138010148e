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

// CMPClusterIssuer is a CMPIssuer that certificates of every namespace may name. The
// Secrets it names are in certloop's own namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=cmpci,categories=certloop
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.spec.server`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CMPClusterIssuer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   CMPIssuerSpec   `json:"spec"`
	Status CMPIssuerStatus `json:"status,omitempty"`
}

// CMPClusterIssuerList is a list of cluster issuers.
//
// +kubebuilder:object:root=true
type CMPClusterIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CMPClusterIssuer `json:"items"`
}

// CMPIssuerList is a list of issuers.
//
// +kubebuilder:object:root=true
type CMPIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CMPIssuer `json:"items"`
}

// SecretName is the name of a Secret that people or certloop provide; a record of certloop is none.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
// +kubebuilder:validation:XValidation:rule="!self.endsWith('.certloop-record')",message="must not be a record of certloop"
type SecretName = string

// DataKey is a key in the data of a Secret.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
type DataKey = string

// DN is a distinguished name: /type=value/… as OpenSSL writes it, where a single slash is the empty
// name, or RFC 4514.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:Pattern=`^(/|/[A-Za-z0-9.]+=.*| *[A-Za-z0-9.-]+ *=.*)$`
type DN = string

// CMPIssuerSpec is what is wanted of an issuer. The Secrets it names are in its own
// namespace, those of a CMPClusterIssuer in certloop's.
//
// +kubebuilder:validation:XValidation:rule="!has(self.messageTimeout) || duration(self.messageTimeout) <= (has(self.totalTimeout) ? duration(self.totalTimeout) : duration('24h'))",message="messageTimeout must not be longer than totalTimeout, which is 24h by default"
// +kubebuilder:validation:XValidation:rule="!has(self.tls) || !isURL(self.server) || url(self.server).getScheme() == 'https'",message="tls is for a server with an https URL: change server, or remove tls"
type CMPIssuerSpec struct {
	// server is the URL of the CMP service: scheme (http or https), host, port (80 or 443 when absent) and path.
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http','https'] && url(self).getHostname() != '' && (url(self).getPort() == '' || (int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535)) && !self.contains('#') && !self.matches('^[A-Za-z]+://[^/?]*@')",message="server must be an http or https URL without user name or fragment, for example http://ca.example.com:8080/pkix/"
	Server string `json:"server"`

	// recipient is the distinguished name of the CMP server, put into the header of every request:
	// /type=value/… as OpenSSL writes it, or RFC 4514.
	// +optional
	Recipient DN `json:"recipient,omitempty"`

	// issuer is the distinguished name asked for in the certificate template, to choose a CA behind an RA.
	// +optional
	Issuer DN `json:"issuer,omitempty"`

	// totalTimeout bounds one whole transaction, polling included. Default 24h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="totalTimeout must be positive"
	TotalTimeout *metav1.Duration `json:"totalTimeout,omitempty"`

	// messageTimeout bounds one request and its answer. Default 30s, or totalTimeout when that is shorter.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="messageTimeout must be positive"
	MessageTimeout *metav1.Duration `json:"messageTimeout,omitempty"`

	// initialAuthentication protects the first request, the one that obtains the CMP identity.
	// Leave it out when the Secret that authentication names is provisioned by hand: then that is the identity.
	// +optional
	InitialAuthentication *InitialAuthentication `json:"initialAuthentication,omitempty"`

	// authentication protects all other requests: the CMP identity's key and certificate.
	// +optional
	Authentication *KeyPairSource `json:"authentication,omitempty"`

	// trust says what may sign the CA's answers and what new certificates must chain to.
	Trust TrustSource `json:"trust"`

	// tls is used when server is an https URL; its trust is apart from that of CMP messages.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// confirmation is explicit (certConf and pkiConf are exchanged) or implicit (asked for, and used when granted).
	// +optional
	// +kubebuilder:validation:Enum=explicit;implicit
	// +kubebuilder:default=explicit
	Confirmation string `json:"confirmation,omitempty"`

	// chain says where the certificates between a new certificate and its trust anchor come from.
	// +optional
	// +kubebuilder:default={}
	Chain ChainSource `json:"chain,omitempty"`

	// renewal says how key updates are made.
	// +optional
	// +kubebuilder:default={}
	Renewal RenewalPolicy `json:"renewal,omitempty"`

	// policies say what is tolerated of the CA.
	// +optional
	// +kubebuilder:default={}
	Policies Policies `json:"policies,omitempty"`

	// retry says how failed attempts are repeated, and how fast the CA may be asked.
	// +optional
	// +kubebuilder:default={}
	Retry RetryPolicy `json:"retry,omitempty"`
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

// Digest is a hash function by the name OCCM and JCA give it.
//
// +kubebuilder:validation:Enum=SHA256;SHA384;SHA512
type Digest string

// MACAlgorithm is a keyed hash.
//
// +kubebuilder:validation:Enum=HMACSHA256;HMACSHA384;HMACSHA512
type MACAlgorithm string

// Formats of a password in a Secret.
const (
	PasswordRaw     = "raw"          // byte for byte
	PasswordOpenSSL = "openssl-pass" // as an OpenSSL password argument: the prefix pass: is not part of it
)

// SharedSecretSource names the Secret that holds a reference and a shared secret.
type SharedSecretSource struct {
	SecretName SecretName `json:"secretName"`
	// referenceKey is the data key of the reference (senderKID). Default "reference".
	// +optional
	// +kubebuilder:default=reference
	ReferenceKey DataKey `json:"referenceKey,omitempty"`
	// passwordKey is the data key of the shared secret. Default "password".
	// +optional
	// +kubebuilder:default=password
	PasswordKey DataKey `json:"passwordKey,omitempty"`
	// passwordFormat is raw (byte for byte) or openssl-pass (pass:… as in OpenSSL's password arguments).
	// +optional
	// +kubebuilder:validation:Enum=raw;openssl-pass
	// +kubebuilder:default=raw
	PasswordFormat string `json:"passwordFormat,omitempty"`
	// digest is the one-way function that derives the key from the secret.
	// +optional
	// +kubebuilder:default=SHA256
	Digest Digest `json:"digest,omitempty"`
	// mac is the keyed hash over each message.
	// +optional
	// +kubebuilder:default=HMACSHA256
	MAC MACAlgorithm `json:"mac,omitempty"`
}

// KeyPairSource names the Secret that holds a private key and its certificate.
type KeyPairSource struct {
	SecretName SecretName `json:"secretName"`
	// privateKeyKey is the data key of the private key in PEM or DER. Default "tls.key".
	// +optional
	// +kubebuilder:default=tls.key
	PrivateKeyKey DataKey `json:"privateKeyKey,omitempty"`
	// certificateKey is the data key of the certificate, in PEM with its chain or in DER. Default "tls.crt".
	// +optional
	// +kubebuilder:default=tls.crt
	CertificateKey DataKey `json:"certificateKey,omitempty"`
	// extraCertificatesKey is the data key of further certificates to send along, in PEM: the issuers of the certificate.
	// +optional
	ExtraCertificatesKey DataKey `json:"extraCertificatesKey,omitempty"`
	// digest of the signatures. Default: what suits the key.
	// +optional
	Digest Digest `json:"digest,omitempty"`
}

// TrustSource names the Secret that holds trust anchors.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.serverCertificateKey) && has(self.rootsKey))",message="set rootsKey or serverCertificateKey, not both: a pinned server certificate would make the roots meaningless"
// +kubebuilder:validation:XValidation:rule="!(has(self.serverCertificateKey) && has(self.expectedSender))",message="set expectedSender or serverCertificateKey, not both: a pinned server certificate is the only sender already"
type TrustSource struct {
	SecretName SecretName `json:"secretName"`
	// rootsKey is the data key of the root certificates in PEM. "ca.crt" when serverCertificateKey is absent too.
	// +optional
	RootsKey DataKey `json:"rootsKey,omitempty"`
	// intermediatesKey is the data key of intermediate certificates in PEM, used to build chains and never trusted by themselves.
	// +optional
	IntermediatesKey DataKey `json:"intermediatesKey,omitempty"`
	// serverCertificateKey is the data key of the one certificate that may sign answers.
	// +optional
	ServerCertificateKey DataKey `json:"serverCertificateKey,omitempty"`
	// expectedSender is the distinguished name that every signed answer must have as its sender, which is the subject of the certificate
	// that signs it: /type=value/… as OpenSSL writes it, or RFC 4514. Default: anybody whose certificate leads to the roots.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self != '/'",message="expectedSender must not be the empty name: give the CA's, or leave it out"
	ExpectedSender DN `json:"expectedSender,omitempty"`
}

// TLS says how an https server is authenticated and how we authenticate to it.
type TLS struct {
	// trust holds the roots that the server's certificate chains to. Default: the system's.
	// +optional
	Trust *CertificatesSource `json:"trust,omitempty"`
	// clientCertificate is presented to the server.
	// +optional
	ClientCertificate *KeyPairSource `json:"clientCertificate,omitempty"`
	// serverName is expected in the server's certificate and sent as SNI. Default: the host of server.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="isIP(self) || self.matches('^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$')",message="serverName must be a host name or an IP address"
	ServerName string `json:"serverName,omitempty"`
}

// CertificatesSource names certificates in a Secret.
type CertificatesSource struct {
	SecretName SecretName `json:"secretName"`
	// key is the data key of the certificates in PEM. Default "ca.crt".
	// +optional
	// +kubebuilder:default=ca.crt
	Key DataKey `json:"key,omitempty"`
}

// Sources of a chain.
const (
	ChainFromResponse = "response" // extraCerts and caPubs of the CA's answers, and the intermediates of trust
	ChainManual       = "manual"   // what the operator provides
)

// ChainSource says where a chain comes from.
//
// +kubebuilder:validation:XValidation:rule="(has(self.source) && self.source == 'manual') == has(self.manual)",message="set manual when source is manual, and only then"
type ChainSource struct {
	// source is response (extractCertChainFromCmpResponse: true) or manual.
	// +optional
	// +kubebuilder:validation:Enum=response;manual
	// +kubebuilder:default=response
	Source string `json:"source,omitempty"`
	// manual names the chain when source is manual.
	// +optional
	Manual *CertificatesSource `json:"manual,omitempty"`
}

// Signers of a key update request.
const (
	SignedByCurrentCertificate = "currentCertificate"
	SignedByIdentity           = "cmpIdentity"
)

// RenewalPolicy says how key updates are made.
type RenewalPolicy struct {
	// signedBy chooses what protects a key update request: the certificate being renewed, or the CMP identity.
	// +optional
	// +kubebuilder:validation:Enum=currentCertificate;cmpIdentity
	// +kubebuilder:default=currentCertificate
	SignedBy string `json:"signedBy,omitempty"`
}

// What policies tolerate.
const (
	UnprotectedIgnored  = "ignore"
	UnprotectedAccepted = "accept"

	SignatureAllowed = "allow"
	SignatureRefused = "strict"

	ModificationsAccepted = "accept"
	ModificationsTold     = "warn"
	ModificationsRejected = "reject"
)

// Policies say what is tolerated of a CA.
type Policies struct {
	// unprotectedErrors is ignore (an unprotected error is never believed) or accept (it may end a transaction, and never makes it succeed).
	// +optional
	// +kubebuilder:validation:Enum=ignore;accept
	// +kubebuilder:default=ignore
	UnprotectedErrors string `json:"unprotectedErrors,omitempty"`
	// macAnsweredWithSignature is allow or strict (the answer to a request protected by a MAC must be protected by the same).
	// +optional
	// +kubebuilder:validation:Enum=allow;strict
	// +kubebuilder:default=allow
	MACAnsweredWithSignature string `json:"macAnsweredWithSignature,omitempty"`
	// grantedModifications is accept, warn (accepted and told) or reject: what becomes of a certificate that differs from
	// what was asked for in names, usages or validity. Another key, a CA or an untrusted issuer is always rejected.
	// +optional
	// +kubebuilder:validation:Enum=accept;warn;reject
	// +kubebuilder:default=warn
	GrantedModifications string `json:"grantedModifications,omitempty"`
	// clockTolerance is how far the CA's messageTime may be from ours. Default 5m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="clockTolerance must not be negative"
	ClockTolerance *metav1.Duration `json:"clockTolerance,omitempty"`
}

// Retry policies.
const (
	RetryBackoff  = "backoff"  // 30 s, then longer and longer, up to 10 min
	RetryFixed30s = "fixed30s" // every 30 s, whatever the CA answered
)

// RetryPolicy says how failed attempts are repeated.
type RetryPolicy struct {
	// policy is backoff or fixed30s. Neither ever gives up. fixed30s repeats refusals too.
	// +optional
	// +kubebuilder:validation:Enum=backoff;fixed30s
	// +kubebuilder:default=backoff
	Policy string `json:"policy,omitempty"`
	// releasePerSecond is how many certificates a second are let go again when the CA is back after an outage.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=10
	ReleasePerSecond int32 `json:"releasePerSecond,omitempty"`
}

// CMPIssuerStatus is what was last seen of an issuer.
type CMPIssuerStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// circuit is there while the CA does not answer, when nobody but a probe asks it, and while what waited meanwhile is let go.
	// +optional
	Circuit *Circuit `json:"circuit,omitempty"`
	// inputs are the resourceVersions of the Secrets the issuer names, when they were last read, by name.
	// +optional
	Inputs map[string]string `json:"inputs,omitempty"`
	// trustNotAfter is until when one of the trust anchors is valid, so that answers and certificates can be verified: by then
	// the CA's next root has to stand beside the present one.
	// +optional
	TrustNotAfter *metav1.Time `json:"trustNotAfter,omitempty"`
	// readyCause identifies the event that brought about the condition Ready as it is. Delivered again it tells of it again.
	// +optional
	ReadyCause string `json:"readyCause,omitempty"`
}

// Circuit is the state of a circuit breaker that is open, or was until now.
type Circuit struct {
	// openedAt is when the CA stopped answering.
	OpenedAt metav1.Time `json:"openedAt"`
	// nextProbe is when the CA is tried again, by one certificate, or when the next certificates are let go.
	NextProbe metav1.Time `json:"nextProbe"`
	// failures in a row.
	Failures int64 `json:"failures"`
	// message of the failure that opened it.
	// +optional
	Message string `json:"message,omitempty"`
	// answeredAt is when the CA answered again. From then on what waits is let go, nearest expiry first.
	// +optional
	AnsweredAt *metav1.Time `json:"answeredAt,omitempty"`
	// prober is the certificate that tries the CA, as namespace/name; another one takes turns with it after some probes.
	// +optional
	Prober string `json:"prober,omitempty"`
}

// InUseFinalizer keeps an issuer that certificates refer to. While an issuer bears it,
// the ValidatingAdmissionPolicy certloop-issuers refuses to delete it and to change what matters in it.
const InUseFinalizer = "certloop.io/in-use"

// InUseFinalizerOf is the finalizer by which an installation that serves only some namespaces
// keeps a CMPClusterIssuer: others may use it too, of which it knows nothing, so that each of
// them has its own. home is the installation's own namespace.
func InUseFinalizerOf(home string) string { return home + "." + InUseFinalizer }
