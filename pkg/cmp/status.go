package cmp

import (
	"fmt"
	"log/slog"
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Status is a PKIStatus (RFC 9810 §5.2.3).
type Status int64

// The values of PKIStatus.
const (
	StatusAccepted               Status = 0
	StatusGrantedWithMods        Status = 1
	StatusRejection              Status = 2
	StatusWaiting                Status = 3
	StatusRevocationWarning      Status = 4
	StatusRevocationNotification Status = 5
	StatusKeyUpdateWarning       Status = 6
)

var statusNames = [...]string{
	"accepted", "grantedWithMods", "rejection", "waiting",
	"revocationWarning", "revocationNotification", "keyUpdateWarning",
}

// String is the RFC's name of s.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return fmt.Sprintf("PKIStatus(%d)", int64(s))
	}
	return statusNames[s]
}

// FailureInfo is a set of PKIFailureInfo bits (RFC 9810 §5.2.3): bit n of the
// BIT STRING is 1<<n here. Bits the RFC does not name are kept up to bit 31.
type FailureInfo uint32

// The bits of PKIFailureInfo.
const (
	FailBadAlg FailureInfo = 1 << iota
	FailBadMessageCheck
	FailBadRequest
	FailBadTime
	FailBadCertID
	FailBadDataFormat
	FailWrongAuthority
	FailIncorrectData
	FailMissingTimeStamp
	FailBadPOP
	FailCertRevoked
	FailCertConfirmed
	FailWrongIntegrity
	FailBadRecipientNonce
	FailTimeNotAvailable
	FailUnacceptedPolicy
	FailUnacceptedExtension
	FailAddInfoNotAvailable
	FailBadSenderNonce
	FailBadCertTemplate
	FailSignerNotTrusted
	FailTransactionIDInUse
	FailUnsupportedVersion
	FailNotAuthorized
	FailSystemUnavail
	FailSystemFailure
	FailDuplicateCertReq
)

var failureNames = [...]string{
	"badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId", "badDataFormat", "wrongAuthority",
	"incorrectData", "missingTimeStamp", "badPOP", "certRevoked", "certConfirmed", "wrongIntegrity",
	"badRecipientNonce", "timeNotAvailable", "unacceptedPolicy", "unacceptedExtension", "addInfoNotAvailable",
	"badSenderNonce", "badCertTemplate", "signerNotTrusted", "transactionIdInUse", "unsupportedVersion",
	"notAuthorized", "systemUnavail", "systemFailure", "duplicateCertReq",
}

// Has tells whether every bit of want is set.
func (f FailureInfo) Has(want FailureInfo) bool { return f&want == want }

// Names are the RFC's names of the bits set, lowest bit first.
func (f FailureInfo) Names() []string {
	var names []string
	for n := range 32 {
		switch {
		case f>>n&1 == 0:
		case n < len(failureNames):
			names = append(names, failureNames[n])
		default:
			names = append(names, fmt.Sprintf("bit%d", n))
		}
	}
	return names
}

// String is the names of the bits set, separated by commas.
func (f FailureInfo) String() string { return strings.Join(f.Names(), ",") }

// Class says what a requester can do about a failure.
type Class int

// The classes of failures.
const (
	ClassPermanent Class = iota // the same request will be refused again
	ClassRetryable              // the same request may succeed later
	ClassSecurity               // the peer does not trust us, or what reached it was altered
)

// String names the class.
func (c Class) String() string {
	switch c {
	case ClassRetryable:
		return "retryable"
	case ClassSecurity:
		return "security"
	case ClassPermanent:
	}
	return "permanent"
}

const (
	retryableFailures = FailBadTime | FailTimeNotAvailable | FailTransactionIDInUse | FailSystemUnavail | FailSystemFailure
	securityFailures  = FailBadMessageCheck | FailWrongIntegrity | FailBadRecipientNonce | FailBadSenderNonce |
		FailBadPOP | FailSignerNotTrusted | FailNotAuthorized
)

// Class sorts f; security outranks permanent, and permanent outranks retryable.
func (f FailureInfo) Class() Class {
	switch {
	case f&securityFailures != 0:
		return ClassSecurity
	case f != 0 && f&^retryableFailures == 0:
		return ClassRetryable
	}
	return ClassPermanent
}

// StatusInfo is a PKIStatusInfo (RFC 9810 §5.2.3). Text is as received; what is
// shown to people goes through [Error], which makes it harmless.
type StatusInfo struct {
	Status   Status
	Text     []string // statusString
	FailInfo FailureInfo

	failBits uint8 // length of failInfo in bits where it was not the shortest, or 1 + that length 0
}

const sectionStatus = "RFC 9810 §5.2.3"

func (p *parser) statusInfo(s *StatusInfo, field string) {
	info := p.enterAt(inStatus, field)
	p.path = field
	s.Status = Status(p.integer(".status"))
	if p.peek(tag.SEQUENCE) {
		s.Text = p.utf8Strings(".statusString")
	}
	if p.peek(tag.BIT_STRING) {
		p.failInfo(s)
	}
	p.leave(info, field)
}

// failInfo reads a named bit list. DER drops its trailing zeros (X.690 §11.2.2),
// not everybody does, and an error message should not be lost for that.
func (p *parser) failInfo(s *StatusInfo) {
	content := p.content(tag.BIT_STRING, ".failInfo")
	if len(content) < 1 || len(content) > 5 {
		p.fail(".failInfo")
		return
	}
	unused, octets := content[0], content[1:]
	length := len(octets)*8 - int(unused)
	var word uint32
	for i, b := range octets {
		word |= uint32(bits.Reverse8(b)) << (8 * i)
	}
	s.FailInfo = FailureInfo(word)
	p.check(unused < 8 && length >= 0 && bits.Len32(word) <= length, ".failInfo")
	if bits.Len32(word) != length || length == 0 {
		s.failBits = uint8(length) + 1
	}
}

func (w *writer) statusInfo(s *StatusInfo) {
	m := w.open(tag.SEQUENCE)
	w.integer(int64(s.Status))
	if s.Text != nil {
		w.utf8Strings(s.Text)
	}
	if s.FailInfo != 0 || s.failBits != 0 {
		w.failInfo(s)
	}
	w.close(m)
}

func (w *writer) failInfo(s *StatusInfo) {
	length := bits.Len32(uint32(s.FailInfo))
	if s.failBits != 0 && int(s.failBits)-1 >= length {
		length = int(s.failBits) - 1
	}
	m := w.open(tag.BIT_STRING)
	octets := (length + 7) / 8
	w.b = append(w.b, byte(octets*8-length))
	for i := range octets {
		w.b = append(w.b, bits.Reverse8(byte(s.FailInfo>>(8*i))))
	}
	w.close(m)
}

// Error is what the peer said instead of what was asked for: an error message,
// or a response whose status is not one that grants the request.
type Error struct {
	Status   Status
	Failure  FailureInfo
	Text     []string // statusString and errorDetails, made printable and at most MaxTextBytes together
	Code     int64    // errorCode of an error message, 0 if absent
	Body     BodyType // the body that brought it
	Verified bool     // false: not protected, or not verifiably, hence not to be believed
}

// Error says who refused and why.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "peer answers %s, status %s", e.Body, e.Status)
	if e.Failure != 0 {
		fmt.Fprintf(&b, " (%s)", e.Failure)
	}
	if e.Code != 0 {
		fmt.Fprintf(&b, ", errorCode %d", e.Code)
	}
	if len(e.Text) > 0 {
		fmt.Fprintf(&b, ": %q", strings.Join(e.Text, "; "))
	}
	if !e.Verified {
		b.WriteString(" [unverified]")
	}
	return b.String()
}

// Retryable tells whether the same request may be granted later. What is not
// verified is never a reason to give up, hence retryable.
func (e *Error) Retryable() bool { return !e.Verified || e.Failure.Class() == ClassRetryable }

// LogValue implements [slog.LogValuer].
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("body", e.Body.String()),
		slog.String("status", e.Status.String()),
		slog.String("failInfo", e.Failure.String()),
		slog.String("text", strings.Join(e.Text, "; ")),
		slog.Bool("verified", e.Verified),
	)
}

// printable makes texts of a peer fit for terminals and logs: valid UTF-8
// without control or formatting characters, at most MaxTextBytes together.
func printable(texts ...[]string) []string {
	var out []string
	left := MaxTextBytes
	for _, list := range texts {
		for _, s := range list {
			s = truncate(strings.Map(visible, strings.ToValidUTF8(s, "\uFFFD")), left)
			if s != "" {
				out = append(out, s)
			}
			left -= len(s)
		}
	}
	return out
}

func visible(r rune) rune {
	if r == ' ' || unicode.IsGraphic(r) && !unicode.Is(unicode.Zs, r) {
		return r
	}
	return ' '
}

// truncate cuts s to at most n bytes at the boundary of a character.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
