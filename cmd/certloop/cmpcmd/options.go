package cmpcmd

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// kind is what an option takes.
type kind string

const (
	text     kind = "val"
	number   kind = "int"
	natural  kind = "nonneg"
	positive kind = "+int"
	flag     kind = ""
)

// option is one option of the command. Its name is also the key in sections of
// a configuration file. One with a reason is known and refused.
type option struct {
	name   string
	kind   kind
	help   string
	reason string
}

// group is a headline of the help and the options under it.
type group struct {
	title   string
	options []option
}

// Reasons why options are refused.
const (
	noMock       = "there is no mock server here: certloop ca runs a CA"
	noProviders  = "keys are handled by Go's cryptography, which has no engines and no providers"
	noRandom     = "random numbers come from the operating system"
	noVerifyOpt  = "paths are verified as RFC 5280 has it, at the present time, without revocation and policies"
	noCentralKey = "a key that the CA makes is not the key of one client only (RFC 9483 §4.1.6 is not supported)"
)

// groups is the table of all options. Adding an option is adding a row.
var groups = []group{
	{"General", []option{
		{name: "help", help: "show this summary"},
		{name: "config", kind: text, help: "configuration file; \"\" is none. Default: the environment variable OPENSSL_CONF"},
		{name: "section", kind: text, help: "section(s) of the configuration file, later ones first; \"\" is 'default'. Default 'cmp'"},
		{name: "verbosity", kind: natural, help: "3=errors, 4=warnings, 6=progress (the default), 7=debug, 8=trace"},
		{name: "show", help: "show every message decoded; alone with -reqin or -rspin: only show those files (not in OpenSSL)"},
	}},
	{"Generic message", []option{
		{name: "cmd", kind: text, help: "request to send: ir, cr, kur, p10cr, rr or genm"},
		{name: "infotype", kind: text, help: "what to ask with genm, such as caCerts, rootCaCert, certReqTemplate, crlStatusList"},
		{name: "profile", kind: text, help: "certificate profile, in generalInfo of the request"},
		{name: "geninfo", kind: text, help: "OID:int:N or OID:str:TEXT, separated by commas, in generalInfo of the request"},
		{name: "template", kind: text, help: "file to save the certTemplate of a certReqTemplate in, DER"},
		{name: "keyspec", kind: text, help: "file to save the keySpec of a certReqTemplate in, DER"},
	}},
	{"Certificate enrolment", []option{
		{name: "newkey", kind: text, help: "private key (public, without a proof of possession) to certify. Default: that of -csr, else -key"},
		{name: "newkeypass", kind: text, help: "source of the pass phrase of -newkey"},
		{name: "centralkeygen", reason: noCentralKey},
		{name: "newkeyout", kind: text, reason: noCentralKey},
		{name: "subject", kind: text, help: "subject to ask for, /type=value/…; \"/\" is none. Default: that of -csr, else of the reference certificate"},
		{name: "days", kind: natural, help: "validity to ask for, in days from now"},
		{name: "reqexts", kind: text, help: "section of the configuration file with extensions to ask for"},
		{name: "sans", kind: text, help: "names (IP addresses, DNS names, URIs) to ask for as subjectAltName, and 'critical'"},
		{name: "san_nodefault", help: "do not take subjectAltName over from the reference certificate"},
		{name: "policies", kind: text, help: "section of the configuration file with certificatePolicies to ask for"},
		{name: "policy_oids", kind: text, help: "OIDs of policies to ask for"},
		{name: "policy_oids_critical", help: "make the extension of -policy_oids critical"},
		{name: "popo", kind: number, help: "proof of possession: 1 signature (the default), 0 raVerified, -1 none"},
		{name: "csr", kind: text, help: "PKCS#10 request: sent as it is with p10cr, names a certificate with rr, a source of subject, key and extensions otherwise"},
		{name: "out_trusted", kind: text, help: "trust anchors of new certificates. Default: those of -trusted"},
		{name: "implicit_confirm", help: "ask to do without confirmation"},
		{name: "disable_confirm", help: "do not confirm, without asking (violates RFC 9810)"},
		{name: "certout", kind: text, help: "file to save the new certificate in"},
		{name: "chainout", kind: text, help: "file to save the chain of the new certificate in"},
	}},
	{"Certificate enrolment and revocation", []option{
		{name: "oldcert", kind: text, help: "certificate to update or to revoke, and reference for subject and subjectAltName. Default: -cert"},
		{name: "issuer", kind: text, help: "issuer to ask for; with rr, that of the certificate to revoke"},
		{name: "serial", kind: text, help: "serial number of the certificate to revoke, decimal or 0x…"},
		{name: "revreason", kind: number, help: "reason of a revocation: 0 to 6, 8 to 10. Default -1: unspecified"},
	}},
	{"Message transfer", []option{
		{name: "server", kind: text, help: "[http[s]://]host[:port][/path] of the CA"},
		{name: "proxy", kind: text, help: "[http[s]://]host[:port] of a proxy. Default: http_proxy or https_proxy"},
		{name: "no_proxy", kind: text, help: "hosts to reach without the proxy. Default: the environment variable no_proxy or NO_PROXY"},
		{name: "recipient", kind: text, help: "name of the CA. Default: subject of -srvcert, -issuer, issuer of -oldcert or -cert"},
		{name: "path", kind: text, help: "path at the server. Default: that of -server, else /"},
		{name: "keep_alive", kind: natural, help: "persistent connections: 0 no, 1 (the default) if the server keeps them, 2 required"},
		{name: "msg_timeout", kind: natural, help: "seconds for one message and its answer, 0: no bound. Default 120"},
		{name: "total_timeout", kind: natural, help: "seconds for everything, polling included, 0 (the default): no bound"},
	}},
	{"Server authentication", []option{
		{name: "trusted", kind: text, help: "trust anchors for signed answers, unless -srvcert is given"},
		{name: "untrusted", kind: text, help: "intermediate certificates for all paths"},
		{name: "srvcert", kind: text, help: "the certificate answers must be signed with"},
		{name: "expect_sender", kind: text, help: "sender that answers must have. Default: subject of -srvcert"},
		{name: "ignore_keyusage", help: "accept signers without keyUsage digitalSignature"},
		{name: "unprotected_errors", help: "let unprotected errors end the transaction (they are shown as unverified)"},
		{name: "nonmatched_error_nonces", reason: "an answer without our transactionID and nonce may be an answer to anything"},
		{name: "ta_in_ip_extracerts", help: "learn trust anchors from the extraCerts of an ip (3GPP TS 33.310)"},
		{name: "no_cache_extracerts", help: "no effect: extraCerts are kept for the transaction only"},
		{name: "srvcertout", kind: text, help: "file to save the certificate that signed the answers in"},
		{name: "extracertsout", kind: text, help: "file to save the extraCerts of the answer in"},
		{name: "cacertsout", kind: text, help: "file to save the caPubs of the answer, or caCerts, in"},
		{name: "oldwithold", kind: text, help: "root to ask an update for, with -infotype rootCaCert"},
		{name: "newwithnew", kind: text, help: "file to save the new root in"},
		{name: "newwithold", kind: text, help: "file to save newWithOld in"},
		{name: "oldwithnew", kind: text, help: "file to save oldWithNew in"},
		{name: "crlcert", kind: text, help: "certificate that says which CRL, with -infotype crlStatusList"},
		{name: "oldcrl", kind: text, help: "CRL to ask an update for, with -infotype crlStatusList"},
		{name: "crlout", kind: text, help: "file to save the CRL in"},
	}},
	{"Client authentication", []option{
		{name: "ref", kind: text, help: "reference value of -secret"},
		{name: "secret", kind: text, help: "source of the secret shared with the CA; preferred to -cert and -key"},
		{name: "cert", kind: text, help: "certificate to sign requests with, possibly with its chain; reference certificate"},
		{name: "own_trusted", kind: text, help: "trust anchors the chain of -cert must lead to"},
		{name: "key", kind: text, help: "private key of -cert"},
		{name: "keypass", kind: text, help: "source of the pass phrase of -key, -cert and -oldcert"},
		{name: "digest", kind: text, help: "digest in protection and proof of possession: sha256 (the default), sha384, sha512"},
		{name: "mac", kind: text, help: "MAC with -secret: hmac-sha1 (the default), hmacWithSHA256, hmacWithSHA384, hmacWithSHA512"},
		{name: "extracerts", kind: text, help: "certificates to send along in extraCerts"},
		{name: "unprotected_requests", help: "send requests without protection"},
	}},
	{"Credentials format", []option{
		{name: "certform", kind: text, help: "PEM (the default) or DER, of certificates that are saved"},
		{name: "crlform", kind: text, help: "DER (the default) or PEM, of CRLs that are saved"},
		{name: "keyform", kind: text, help: "PEM, DER or P12; all are recognised without it"},
		{name: "otherpass", kind: text, help: "source of the pass phrase of PKCS#12 files with certificates other than -cert, -oldcert and -tls_cert"},
		{name: "engine", kind: text, reason: noProviders},
		{name: "provider-path", kind: text, reason: noProviders},
		{name: "provider", kind: text, reason: noProviders},
		{name: "provparam", kind: text, reason: noProviders},
		{name: "propquery", kind: text, reason: noProviders},
		{name: "rand", kind: text, reason: noRandom},
		{name: "writerand", kind: text, reason: noRandom},
	}},
	{"TLS connection", []option{
		{name: "tls_used", help: "use TLS"},
		{name: "tls_cert", kind: text, help: "certificate of the client, possibly with its chain"},
		{name: "tls_key", kind: text, help: "private key of -tls_cert"},
		{name: "tls_keypass", kind: text, help: "source of the pass phrase of -tls_key and -tls_cert"},
		{name: "tls_extra", kind: text, help: "further certificates for the server"},
		{name: "tls_trusted", kind: text, help: "trust anchors for the server; its name is then verified, too"},
		{name: "tls_host", kind: text, help: "name to verify in place of that of -server"},
	}},
	{"Debugging", []option{
		{name: "batch", help: "do not ask for pass phrases on the terminal"},
		{name: "repeat", kind: positive, help: "do it this many times"},
		{name: "reqin", kind: text, help: "files with requests to send in place of our own"},
		{name: "reqin_new_tid", help: "give the requests of -reqin a new transactionID"},
		{name: "reqout", kind: text, help: "files to save our requests in"},
		{name: "reqout_only", kind: text, help: "file to save the first request in; nothing is sent"},
		{name: "rspin", kind: text, help: "files with answers to use in place of the server's"},
		{name: "rspout", kind: text, help: "files to save the answers in"},
		{name: "use_mock_srv", reason: noMock},
	}},
	{"Mock server", refusedOptions(noMock, text, "port", "srv_ref", "srv_secret", "srv_cert", "srv_key", "srv_keypass", "srv_trusted",
		"srv_untrusted", "ref_cert", "rsp_cert", "rsp_key", "rsp_keypass", "rsp_crl", "rsp_extracerts", "rsp_capubs", "rsp_newwithnew",
		"rsp_newwithold", "rsp_oldwithnew", "max_msgs", "poll_count", "check_after", "pkistatus", "failure", "failurebits", "statusstring")},
	{"Mock server", refusedOptions(noMock, flag, "grant_implicitconf", "send_error", "send_unprotected", "send_unprot_err",
		"accept_unprotected", "accept_unprot_err", "accept_raverified")},
	{"Verification", refusedOptions(noVerifyOpt, text, "policy", "purpose", "verify_name", "verify_depth", "auth_level", "attime",
		"verify_hostname", "verify_email", "verify_ip")},
	{"Verification", refusedOptions(noVerifyOpt, flag, "ignore_critical", "crl_check", "crl_check_all", "policy_check",
		"explicit_policy", "inhibit_any", "inhibit_map", "x509_strict", "extended_crl", "use_deltas", "policy_print", "check_ss_sig",
		"suiteB_128_only", "suiteB_128", "suiteB_192", "no_check_time", "allow_proxy_certs")},
	{"Verification", []option{
		{name: "partial_chain", help: "no effect: every certificate given as trusted is an anchor"},
		{name: "trusted_first", help: "no effect: all paths are tried"},
		{name: "no_alt_chains", help: "no effect, as in OpenSSL"},
		{name: "issuer_checks", help: "no effect, as in OpenSSL"},
	}},
}

// refusedOptions are rows for options that are all refused for one reason.
func refusedOptions(reason string, k kind, names ...string) []option {
	rows := make([]option, len(names))
	for i, name := range names {
		rows[i] = option{name: name, kind: k, reason: reason}
	}
	return rows
}

// lookup finds the row of an option.
func lookup(name string) (option, bool) {
	for _, g := range groups {
		for _, o := range g.options {
			if o.name == name {
				return o, true
			}
		}
	}
	return option{}, false
}

// values are options that were given, by name. An absent one has its default.
// A flag that is set has "1".
type values map[string]string

// Format shows the names only: among the values may be secrets.
func (v values) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "values%v", slices.Sorted(maps.Keys(v)))
}

func (v values) has(name string) bool { return v[name] != "" }

// number is the value of an option whose value was checked by set.
func (v values) number(name string, byDefault int) int {
	n, err := strconv.Atoi(v[name])
	if err != nil {
		return byDefault
	}
	return n
}

// list splits a value at commas and white space.
func (v values) list(name string) []string { return splitList(v[name]) }

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || strings.ContainsRune(" \t\r\n\v\f", r) })
}

// only tells whether of all options at most those named were given.
func (v values) only(names ...string) bool {
	n := 0
	for _, name := range names {
		if v.has(name) {
			n++
		}
	}
	return n == len(v)
}

// set takes over one option. An empty value undoes an earlier one, as in OpenSSL.
func (v values) set(o option, value string) error {
	delete(v, o.name)
	if value == "" || o.kind == flag && value == "0" {
		return nil
	}
	if o.reason != "" {
		return fmt.Errorf("-%s is not supported: %s", o.name, o.reason)
	}
	if err := o.check(value); err != nil {
		return err
	}
	v[o.name] = value
	return nil
}

// check tells whether a value is of the option's kind.
func (o option) check(value string) error {
	if o.kind == text {
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 32)
	switch {
	case err != nil:
		return fmt.Errorf("-%s needs a number, not %q", o.name, value)
	case o.kind == natural && n < 0:
		return fmt.Errorf("-%s must not be negative", o.name)
	case o.kind == positive && n <= 0:
		return fmt.Errorf("-%s must be positive", o.name)
	case o.kind == flag && n != 1:
		return fmt.Errorf("-%s is 0 or 1, not %q", o.name, value)
	}
	return nil
}

// argument is an option on the command line.
type argument struct {
	option option
	value  string
}

// Format shows the option only: its value may be a secret.
func (a argument) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "-%s", a.option.name) }

// parseArguments reads a command line as OpenSSL does: -name value or
// -name=value, with one hyphen or two. No error repeats what may be a secret.
func parseArguments(args []string) ([]argument, error) {
	var out []argument
	all := len(args)
	for len(args) > 0 {
		a, rest, err := parseArgument(args)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", all-len(args)+1, err)
		}
		out, args = append(out, a), rest
	}
	return out, nil
}

func parseArgument(args []string) (a argument, rest []string, err error) {
	name, value, inline := strings.Cut(args[0], "=")
	if !strings.HasPrefix(name, "-") || strings.Trim(name, "-") == "" {
		return a, nil, errors.New("an option is expected, which begins with a hyphen")
	}
	name = strings.TrimPrefix(strings.TrimPrefix(name, "-"), "-")
	o, known := lookup(name)
	rest = args[1:]
	switch {
	case !known:
		return a, nil, fmt.Errorf("there is no option -%.40s", name[:letters(name)])
	case o.kind == flag && inline:
		return a, nil, fmt.Errorf("-%s takes no value", name)
	case o.kind == flag:
		return argument{o, "1"}, rest, nil
	case inline:
		return argument{o, value}, rest, nil
	case len(rest) == 0:
		return a, nil, fmt.Errorf("-%s needs a value", name)
	}
	return argument{o, rest[0]}, rest[1:], nil
}

// helpText is the summary of all options.
func helpText() string {
	var b strings.Builder
	b.WriteString("Usage: certloop cmp [options]\n\nThe options are those of openssl cmp. docs/cmp-command.md has what differs.\n")
	for _, g := range groups {
		var rows strings.Builder
		for _, o := range g.options {
			if o.reason == "" {
				fmt.Fprintf(&rows, " %-26s %s\n", strings.TrimRight("-"+o.name+" "+string(o.kind), " "), o.help)
			}
		}
		if rows.Len() > 0 {
			fmt.Fprintf(&b, "\n%s options:\n%s", g.title, rows.String())
		}
	}
	b.WriteString("\nPass phrases and secrets come from pass:TEXT, env:NAME, file:PATH (first line), fd:NUMBER or stdin.\n")
	return b.String()
}
