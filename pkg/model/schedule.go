package model

import "time"

// RenewalTime is when a certificate becomes due: renewBefore ahead of its end, or a
// third of its lifetime when renewBefore is zero. It is never earlier than a third of
// the lifetime after its beginning, whatever was configured and whatever the CA
// granted, so that a renewal cannot make the next one due at once.
func RenewalTime(notBefore, notAfter time.Time, renewBefore time.Duration) time.Time {
	third := notAfter.Sub(notBefore) / 3
	if renewBefore <= 0 {
		renewBefore = third
	}
	due := notAfter.Add(-renewBefore)
	if floor := notBefore.Add(third); due.Before(floor) {
		return floor
	}
	return due
}

const day = 24 * time.Hour

// RequestedValidity is the lifetime to ask for; zero leaves it to the CA.
func (s *CMPCertificateSpec) RequestedValidity() time.Duration {
	if s.Validity != nil {
		return s.Validity.Duration
	}
	return time.Duration(s.ValidityDays) * day
}

// RenewLead is how long before its end a certificate of the given lifetime is to be
// renewed; zero leaves it to RenewalTime.
func (s *CMPCertificateSpec) RenewLead(lifetime time.Duration) time.Duration {
	switch {
	case s.RenewBefore != nil:
		return s.RenewBefore.Duration
	case s.RenewBeforePercentage > 0:
		return lifetime / 100 * time.Duration(s.RenewBeforePercentage)
	default:
		return time.Duration(s.RenewBeforeDays) * day
	}
}

// RenewalDay is the value of status.renewalDay: the UTC day of a time.
func RenewalDay(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Retry intervals after a failed attempt.
const (
	FirstRetry  = 30 * time.Second
	LastRetry   = 10 * time.Minute
	UrgentRetry = time.Minute // the longest while less than a tenth of the lifetime is left
)

// Urgent tells whether less than a tenth of the lifetime of a certificate is left.
func Urgent(lifetime, left time.Duration) bool { return lifetime > 0 && left < lifetime/10 }

// RetryDelay is how long to wait after the given number of failed attempts (1 for the
// first): 30 s, then growing by half each time up to 10 minutes, or up to one minute where
// less than a tenth of the lifetime of the certificate in use is left, because that is worth
// a request. lifetime is zero when there is no certificate to lose. jitter in [0,1)
// spreads certificates that failed together over a further tenth.
func RetryDelay(attempts int64, lifetime, left time.Duration, jitter float64) time.Duration {
	longest := LastRetry
	if Urgent(lifetime, left) {
		longest = UrgentRetry
	}
	d := FirstRetry
	for range min(attempts, 20) - 1 {
		d += d / 2
	}
	d = min(d, longest*10/11) // with its jitter at most the longest
	return d + time.Duration(jitter*float64(d)/10)
}
