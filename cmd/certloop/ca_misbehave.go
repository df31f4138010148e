package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// misbehaviour is a way for the CA to depart from what is correct, by its name on the command line.
type misbehaviour struct {
	name    string
	value   string // what stands behind an equals sign, for people; "" when nothing does
	help    string
	strikes bool // it spoils answers, so that --only restricts it
	apply   func(b *responder.Behaviour, value string) error
}

// Values of misbehaviours, for people.
const (
	valueBits   = "BITS"
	valueNumber = "N"
	valueCode   = "CODE"
	valueTime   = "TIME"
)

func misbehaviours() []misbehaviour {
	type behaviour = responder.Behaviour
	reject := func(asError bool) func(*behaviour, string) error {
		return func(b *behaviour, value string) error {
			bits, err := failures(value)
			b.Reject, b.RejectAsError = &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: bits}, asError
			return err
		}
	}
	return []misbehaviour{
		{"reject", valueBits, "refuse requests with these bits of failInfo, in ip, cp and kup", false, reject(false)},
		{"reject-by-error", valueBits, "the same in an error message", false, reject(true)},
		{"wait-confirm", valueNumber, "answer waiting N times before a certConf is accepted", false, numbered(func(b *behaviour) *int { return &b.WaitConfirm })},
		{"refuse-confirm", "", "answer certConf with an error: the certificate stays unconfirmed", false, switched(func(b *behaviour) *bool { return &b.RefuseCertConf })},
		{"no-implicit-confirm", "", "never grant implicit confirmation", false, switched(func(b *behaviour) *bool { return &b.NoImplicitConfirm })},
		{"grant-implicit-confirm", "", "grant implicit confirmation to who did not ask", false, switched(func(b *behaviour) *bool { return &b.GrantImplicitConfirm })},
		{"modify-subject", "", "issue for another common name, with status grantedWithMods", false, func(b *behaviour, _ string) error {
			b.Modify = func(template *x509.Certificate) { template.RawSubject, template.Subject.CommonName = nil, "modified" }
			return nil
		}},
		{"wrong-key", "", "issue for another public key", false, switched(func(b *behaviour) *bool { return &b.WrongKey })},
		{"foreign-issuer", "", "issue under the CA's name with a key that is not the CA's", false, switched(func(b *behaviour) *bool { return &b.ForeignIssuer })},

		{"bad-nonce", "", "a recipNonce that is not the request's senderNonce", true, switched(func(b *behaviour) *bool { return &b.BadNonce })},
		{"wrong-transaction-id", "", "another transactionID", true, switched(func(b *behaviour) *bool { return &b.WrongTransactionID })},
		{"wrong-signature", "", "protect with another key, or another secret", true, switched(func(b *behaviour) *bool { return &b.WrongSignature })},
		{"sign-mac", "", "sign answers to requests protected by a shared secret", true, switched(func(b *behaviour) *bool { return &b.SignMAC })},
		{"unprotected", "", "leave all protection out", true, switched(func(b *behaviour) *bool { return &b.Unprotected })},
		{"unprotected-errors", "", "leave protection out of errors and refusals", true, switched(func(b *behaviour) *bool { return &b.UnprotectedErrors })},
		{"garbage", "", "answer with bytes that are no CMP message", true, switched(func(b *behaviour) *bool { return &b.Garbage })},
		{"http-status", valueCode, "answer with this status of HTTP and a page of HTML; the request is processed", true, coded(func(b *behaviour) *int { return &b.HTTPStatus })},
		{"cmp-status", valueCode, "send CMP answers under this status of HTTP", true, coded(func(b *behaviour) *int { return &b.CMPStatus })},
		{"drop", valueNumber, "process N requests and close their connections without an answer", true, numbered(func(b *behaviour) *int { return &b.DropReply })},
		{"delay", valueTime, "hold answers back for this long; the request is processed", true, func(b *behaviour, value string) (err error) {
			b.Delay, err = time.ParseDuration(value)
			return err
		}},

		{"only-http-1.0", "", "answer requests of HTTP/1.1 with 505", false, switched(func(b *behaviour) *bool { return &b.OnlyHTTP10 })},
		{"only-http-1.1", "", "answer requests of HTTP/1.0 with 505", false, switched(func(b *behaviour) *bool { return &b.OnlyHTTP11 })},
	}
}

func switched(field func(*responder.Behaviour) *bool) func(*responder.Behaviour, string) error {
	return func(b *responder.Behaviour, _ string) error {
		*field(b) = true
		return nil
	}
}

// numbered takes a number from 1 on.
func numbered(field func(*responder.Behaviour) *int) func(*responder.Behaviour, string) error {
	return func(b *responder.Behaviour, value string) error { return number(field(b), value, 1, 1_000_000) }
}

// coded takes a final status of HTTP.
func coded(field func(*responder.Behaviour) *int) func(*responder.Behaviour, string) error {
	return func(b *responder.Behaviour, value string) error { return number(field(b), value, 200, 599) }
}

func number(into *int, value string, least, most int) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return fmt.Errorf("%q is not a number from %d to %d", value, least, most)
	}
	*into = n
	return nil
}

// failures reads the RFC's names of bits of failInfo, separated by commas.
func failures(names string) (bits cmp.FailureInfo, err error) {
	known := failureNames()
	for name := range strings.SplitSeq(names, ",") {
		n := slices.Index(known, name)
		if n < 0 {
			return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(known, ", "))
		}
		bits |= 1 << n
	}
	return bits, nil
}

// failureNames are the names of the bits of failInfo, by their numbers.
func failureNames() (names []string) {
	for bit := cmp.FailBadAlg; bit <= cmp.FailDuplicateCertReq; bit <<= 1 {
		names = append(names, bit.String())
	}
	return names
}

// answerTypes are what --only takes.
func answerTypes() []cmp.BodyType {
	return []cmp.BodyType{cmp.TypeIP, cmp.TypeCP, cmp.TypeKUP, cmp.TypeRP, cmp.TypeGenP, cmp.TypePKIConf, cmp.TypePollRep, cmp.TypeError}
}

// behaviour makes of --misbehave and --only what the CA does.
func behaviour(named, only []string) (b responder.Behaviour, err error) {
	strikes := false
	for _, text := range named {
		name, value, valued := strings.Cut(text, "=")
		m, err := misbehaviourOf(name)
		switch {
		case err != nil:
			return b, err
		case valued != (m.value != ""):
			return b, fmt.Errorf("--misbehave %s: write %s", text, m.usage())
		}
		if err := m.apply(&b, value); err != nil {
			return b, fmt.Errorf("--misbehave %s: %w", text, err)
		}
		strikes = strikes || m.strikes
	}
	if len(only) > 0 && !strikes {
		return b, errors.New("--only restricts a --misbehave that spoils answers, and there is none")
	}
	b.Only, err = answersNamed(only)
	return b, err
}

func misbehaviourOf(name string) (misbehaviour, error) {
	all := misbehaviours()
	i := slices.IndexFunc(all, func(m misbehaviour) bool { return m.name == name })
	if i < 0 {
		return misbehaviour{}, fmt.Errorf("--misbehave %s is not one of those that certloop ca --help lists", name)
	}
	return all[i], nil
}

// usage is how m is written.
func (m *misbehaviour) usage() string {
	if m.value == "" {
		return m.name
	}
	return m.name + "=" + m.value
}

func answersNamed(names []string) (types []cmp.BodyType, err error) {
	known := answerTypes()
	for _, name := range names {
		i := slices.IndexFunc(known, func(t cmp.BodyType) bool { return t.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("--only %s is not one of %v", name, known)
		}
		types = append(types, known[i])
	}
	return types, nil
}

// misbehaviourHelp lists all of them.
func misbehaviourHelp() string {
	var b strings.Builder
	for _, m := range misbehaviours() {
		_, _ = fmt.Fprintf(&b, "  %-24s %s\n", m.usage(), m.help)
	}
	return b.String()
}

// completeMisbehaviour proposes names, and bits of failInfo where these follow.
func completeMisbehaviour(_ *cobra.Command, _ []string, begun string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	name, bits, valued := strings.Cut(begun, "=")
	if m, err := misbehaviourOf(name); valued && err == nil && m.value == valueBits {
		before := begun[:len(begun)-len(bits)+strings.LastIndexByte(bits, ',')+1]
		for _, bit := range failureNames() {
			all = append(all, before+bit)
		}
		return all, directive
	}
	for _, m := range misbehaviours() {
		text := m.name
		if m.value != "" {
			text += "="
		}
		all = append(all, cobra.CompletionWithDesc(text, m.help))
	}
	return all, directive
}
