package model

// Reasons: what conditions, facts and rejections give as their reason. They are an
// interface: scripts and alerts match them, so a code never changes its meaning.
// Each has a row in [Reasons].
const (
	// A certificate.
	ReasonIssued             = "Issued"
	ReasonAdopted            = "Adopted"
	ReasonPending            = "Pending"
	ReasonWaitingForCA       = "WaitingForCA"
	ReasonPaused             = "Paused"
	ReasonConfigInvalid      = "ConfigInvalid"
	ReasonRecordInvalid      = "RecordInvalid"
	ReasonAdoptionImpossible = "AdoptionImpossible"
	ReasonRevocationFailed   = "RevocationFailed"

	// What a certificate needs of its issuer.
	ReasonIssuerNotFound         = "IssuerNotFound"
	ReasonIssuerNotReady         = "IssuerNotReady"
	ReasonIdentityNotConfigured  = "IdentityNotConfigured"
	ReasonIdentityNotReady       = "IdentityNotReady"
	ReasonIdentityExpired        = "IdentityExpired"
	ReasonBootstrapNotConfigured = "BootstrapNotConfigured"

	// What came, or did not come, from the CA.
	ReasonCAUnreachable        = "CAUnreachable"
	ReasonCAUnavailable        = "CAUnavailable"
	ReasonCircuitOpen          = "CircuitOpen"
	ReasonTransactionTimeout   = "TransactionTimeout"
	ReasonRejectedByCA         = "RejectedByCA"
	ReasonCertificateRefused   = "CertificateRefused"
	ReasonResponseNotAuthentic = "ResponseNotAuthentic"
	ReasonResponseInvalid      = "ResponseInvalid"

	// An issuer.
	ReasonUsable        = "Usable"
	ReasonIssuerInvalid = "IssuerInvalid"
	ReasonTrustExpired  = "TrustExpired"

	// Secrets: what is read from them and what is written to them.
	ReasonSecretNotFound  = "SecretNotFound"
	ReasonSecretInvalid   = "SecretInvalid"
	ReasonCABundleInvalid = "CABundleInvalid"
	ReasonOutputConflict  = "OutputConflict"
	ReasonOutputTaken     = "OutputTaken"
	ReasonSecretContended = "SecretContended"
	ReasonSplitOutput     = "SplitOutput"

	// Rights, and configurations that the cluster does not take.
	ReasonForbidden          = "Forbidden"
	ReasonNamespaceNotServed = "NamespaceNotServed"
	ReasonNamespaceNotFound  = "NamespaceNotFound"
	ReasonOwnedByAnother     = "OwnedByAnother"
	ReasonIssuerInUse        = "IssuerInUse"
)

// What a reason is about.
const (
	AboutCertificate   = "certificate"
	AboutIssuer        = "issuer"
	AboutConfiguration = "configuration"
	AboutSecret        = "secret"
)

// Reason is one row of the catalogue of reasons.
//
// +kubebuilder:object:generate=false
type Reason struct {
	Code   string
	About  string // one of the constants above
	Cause  string // what has happened
	Remedy string // what a person does about it; "none" when there is nothing to do
	Alert  bool   // a person has to act before the certificate expires
}

// Reasons is the catalogue of reasons. Its order is that of docs/reasons.md.
func Reasons() []Reason {
	return []Reason{
		{ReasonIssued, AboutCertificate, "The output holds a valid certificate that satisfies the configuration.", "none", false},
		{ReasonAdopted, AboutCertificate, "What was found in the output Secret is tracked as it is; `status.differences` says how it differs from the configuration.", "none: the first renewal follows the configuration. To have it now, annotate the CMPCertificate with certloop.io/renew", false},
		{ReasonPending, AboutCertificate, "A certificate is needed that satisfies the configuration, and an attempt is about to be made.", "none", false},
		{ReasonWaitingForCA, AboutCertificate, "The CA answered `waiting`: it queues requests, or a person has to approve them there.", "approve the request at the CA, if that is how it works; it is asked again at `status.nextAttempt`", false},
		{ReasonPaused, AboutCertificate, "`spec.paused` is true: nothing is renewed or repaired.", "set spec.paused to false before status.notAfter", false},
		{ReasonConfigInvalid, AboutConfiguration, "The configuration breaks a rule; the message names the fields.", "correct the fields that the message names and apply the configuration again", true},
		{ReasonRecordInvalid, AboutSecret, "The record Secret of the certificate was changed by somebody else and cannot be read, or another Secret has its name.", "put the Secret NAME.certloop-record right, or delete it to have a new certificate issued", true},
		{ReasonAdoptionImpossible, AboutCertificate, "`origin` is `adopt`, and the output Secret does not hold a key with its certificate.", "put key and certificate into the output Secret, or set spec.origin to create", true},
		{ReasonRevocationFailed, AboutCertificate, "The CA did not revoke the certificate, so that its output Secrets are still there.", "read the message; revoke it at the CA by hand, then set spec.deletionPolicy to delete or keep", true},

		{ReasonIssuerNotFound, AboutIssuer, "The issuer that `spec.issuerRef` names does not exist.", "create it, or correct spec.issuerRef; what waits for it goes on by itself", true},
		{ReasonIssuerNotReady, AboutIssuer, "The issuer exists and cannot be used; its own Ready condition says why.", "read the conditions of the issuer that spec.issuerRef names, and follow their reason", true},
		{ReasonIdentityNotConfigured, AboutIssuer, "The issuer has no `authentication`, which signs requests for endEntity certificates.", "name the Secret of the CMP identity in spec.authentication of the issuer", true},
		{ReasonIdentityNotReady, AboutIssuer, "The CMP identity that signs the request was not issued yet.", "none when its CMPCertificate exists (see its status); otherwise create one of type cmpIdentity, or put key and certificate into the Secret that spec.authentication names", false},
		{ReasonIdentityExpired, AboutIssuer, "The certificate that is to sign the request has expired.", "when certloop keeps it: annotate its CMPCertificate with certloop.io/recreate. When it was provisioned by hand: replace it in its Secret", true},
		{ReasonBootstrapNotConfigured, AboutIssuer, "A certificate of type cmpIdentity is wanted, and the issuer has no `initialAuthentication`.", "add spec.initialAuthentication to the issuer, or provision the identity by hand and remove the CMPCertificate", true},

		{ReasonCAUnreachable, AboutIssuer, "No answer came from the CA: connection refused, cut off or timed out, or an answer that is not CMP.", "none when it is short. Otherwise check spec.server, spec.tls, the NetworkPolicy and the CA", false},
		{ReasonCAUnavailable, AboutIssuer, "The CA answered that it cannot serve now (systemUnavail, systemFailure and the like).", "none when it is short. Otherwise ask the operator of the CA", false},
		{ReasonCircuitOpen, AboutIssuer, "The CA has not answered for a while: only one probe at a time asks it, everybody else waits.", "check the CA; when it answers again, what waits goes on by itself, nearest expiry first", true},
		{ReasonTransactionTimeout, AboutCertificate, "The CA did not finish within the issuer's totalTimeout.", "approve requests sooner at the CA, or raise spec.totalTimeout; a new request is made by itself", false},
		{ReasonRejectedByCA, AboutCertificate, "The CA refused the request for a reason that repeating does not cure.", "read the failInfo and the text in the message; correct the configuration, or the CA's profile and then annotate the CMPCertificate with certloop.io/recreate", true},
		{ReasonCertificateRefused, AboutCertificate, "The CA issued a certificate that is not acceptable: another key, a CA certificate, from an issuer that is not trusted, or different where policies.grantedModifications is reject. It was told so.", "compare the message with the CA's profile and with spec.trust of the issuer", true},
		{ReasonResponseNotAuthentic, AboutIssuer, "An answer does not come from the CA, as far as spec.trust can tell, and was not used.", "compare spec.trust, or the shared secret, with what the operator of the CA says; look for a proxy between", true},
		{ReasonResponseInvalid, AboutIssuer, "An answer breaks the rules of CMP and was not used.", "compare spec.server with the URL of the CA's CMP service; show the message to the operator of the CA", true},

		{ReasonUsable, AboutIssuer, "Everything the issuer names can be read.", "none", false},
		{ReasonIssuerInvalid, AboutIssuer, "The issuer breaks a rule that only shows when it is used; the message names the field.", "correct the field that the message names", true},
		{ReasonTrustExpired, AboutIssuer, "Every trust anchor of the issuer has expired.", "put the CA's present root certificates into the Secret that spec.trust names", true},

		{ReasonSecretNotFound, AboutSecret, "A Secret that the configuration names does not exist.", "create it, or correct the field that the message names", true},
		{ReasonSecretInvalid, AboutSecret, "A data key of a Secret is missing, empty or not what it should be.", "correct the data key that the message names", true},
		{ReasonCABundleInvalid, AboutSecret, "A warning: the certificate does not chain to what `spec.caBundle` names, which is delivered as it is.", "correct the Secret that spec.caBundle names, unless workloads are to trust another CA; the certificate itself is not concerned", true},
		{ReasonOutputConflict, AboutSecret, "The output Secret exists and is not ours, or an input of the issuer: certloop does not overwrite what others made.", "delete that Secret, name another one, or take it over with spec.origin: adopt", true},
		{ReasonOutputTaken, AboutConfiguration, "Another CMPCertificate delivers to the same Secret; the older one keeps it.", "give one of the two another spec.output.secretName", true},
		{ReasonSecretContended, AboutSecret, "Somebody else keeps rewriting the output Secret. certloop has stopped putting it back.", "find the other writer (metadata.managedFields of the Secret) and stop it, then annotate the CMPCertificate with certloop.io/recreate or change it", true},
		{ReasonSplitOutput, AboutConfiguration, "A warning: key and certificate go to different Secrets, which cannot be replaced at one instant.", "let them share a Secret, unless the workload copes with a key beside its former certificate", false},

		{ReasonForbidden, AboutConfiguration, "The API server does not let certloop do what the configuration needs.", "grant the right that the message names to the function's ServiceAccount, or ask who wrote the admission policy", true},
		{ReasonNamespaceNotServed, AboutConfiguration, "The namespace is not among those this installation serves.", "add it to CERTLOOP_NAMESPACES and grant its RoleBindings, or send the event to who serves it", false},
		{ReasonNamespaceNotFound, AboutConfiguration, "The namespace of the configuration does not exist, or is being deleted.", "create it and publish the configuration again", false},
		{ReasonOwnedByAnother, AboutConfiguration, "Another field manager owns a field that the event wants to set.", "change it where it is kept (the message names the manager), or remove it there and publish the event again", false},
		{ReasonIssuerInUse, AboutConfiguration, "Certificates refer to the issuer, so that it can neither be deleted nor changed in what matters.", "make a new issuer and point the certificates to it, then delete this one; credentials and timeouts can be changed as they are", false},
	}
}
