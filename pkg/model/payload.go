package model

// Payload is the zero value of the data that an event type bears, nil when it bears
// none; optional says that an event without data is as good. The JSON Schemas in
// schemas are made from it.
func Payload(eventType string) (data any, optional bool) {
	switch eventType {
	case ConfigCreated, ConfigUpdated:
		return CMPCertificate{}, false
	case IssuerCreated, IssuerUpdated:
		return CMPIssuer{}, false
	case RefAdd, RefUpdate, RefDelete:
		return ObjectReference{}, false
	case EnrollmentRequested, RenewalRequested, RecreationRequested:
		return Work{}, true
	case IssuerRelease:
		return ReleaseWork{}, true
	case RevocationRequested:
		return RevocationFact{}, true
	case InputChanged:
		return InputFact{}, false
	case SweepContinued:
		return SweepWork{}, true
	default:
		return factOf(eventType), false
	}
}

func factOf(eventType string) any {
	switch eventType {
	case ConfigRejected:
		return RejectedFact{}
	case ConfigApplied:
		return ChangeFact{}
	case IssuerReady, IssuerFailed, IssuerUnavailable, IssuerAvailable:
		return IssuerFact{}
	case CertificateIssued, CertificateRenewed, CertificateRestored, CertificateExpiring, CertificateExpired, CertificateAdopted, CertificateReady:
		return CertificateFact{}
	case CertificateWaiting, CertificateFailed, CertificateParked:
		return AttemptFact{}
	case CertificateRevoked:
		return RevocationFact{}
	case CertificateEnded:
		return EndFact{}
	case SecretModified, SecretDeleted, SecretContended:
		return SecretFact{}
	case ScanCompleted:
		return ScanFact{}
	case ScanHeld:
		return HeldFact{}
	case IssuanceMaybeOrphan:
		return OrphanFact{}
	default:
		return nil
	}
}
