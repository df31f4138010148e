package interop

import (
	order "cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

const goldenFile = "testdata/matrix.md"

var update = flag.Bool("update", false, "write "+goldenFile+" anew")

// cell is one thing tried: what a client asked of a server, and how.
type cell struct {
	pair       string // client and server
	operation  string
	protection string
	key        string // type of the new key; empty where there is none
}

func (c cell) name() string {
	return strings.Join(slices.DeleteFunc([]string{c.operation, c.protection, c.key}, func(s string) bool { return s == "" }), " by ")
}

// matrix collects what became of the cells.
type matrix struct {
	mu    sync.Mutex
	tried []cell
	why   map[cell]*refusal
}

// try runs a cell as a subtest.
func (m *matrix) try(t *testing.T, c cell, attempt func(t *testing.T) error) {
	t.Helper()
	t.Run(c.name(), func(t *testing.T) { m.judge(t, c, attempt(t)) })
}

// judge holds the outcome of a cell against the list of refusals.
func (m *matrix) judge(t *testing.T, c cell, err error) {
	t.Helper()
	r := refusalOf(c)
	switch {
	case err == nil && r != nil:
		t.Errorf("passed, but refusals_test.go says it is refused: %s", r.why)
	case err != nil && r == nil:
		t.Errorf("got %v, want it to pass", err)
	case err != nil && !strings.Contains(err.Error(), r.says):
		t.Errorf("got %v, want a refusal that says %q", err, r.says)
	default:
		m.record(c, r)
	}
}

func (m *matrix) record(c cell, r *refusal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried = append(m.tried, c)
	m.why[c] = r
}

// section renders the table of one pair: protections down, operations across.
func (m *matrix) section(pair string) string {
	cells := slices.DeleteFunc(slices.Clone(m.tried), func(c cell) bool { return c.pair != pair })
	slices.SortFunc(cells, compareCells)
	across := distinct(cells, func(c cell) string { return c.operation })
	down := slices.DeleteFunc(protectionNames(), func(name string) bool {
		return !slices.ContainsFunc(cells, func(c cell) bool { return c.protection == name })
	})
	notes := notes{}
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n| protection | %s |\n|---|%s\n", pair, strings.Join(across, " | "), strings.Repeat("---|", len(across)))
	for _, protection := range down {
		row := []string{protection}
		for _, operation := range across {
			row = append(row, m.outcome(cells, operation, protection, &notes))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String() + notes.String()
}

// compareCells sorts by operation, protection and key, in the order of their lists.
func compareCells(a, b cell) int {
	names := protectionNames()
	return order.Or(
		slices.Index(operations, a.operation)-slices.Index(operations, b.operation),
		slices.Index(names, a.protection)-slices.Index(names, b.protection),
		slices.Index(allKeys, a.key)-slices.Index(allKeys, b.key), order.Compare(a.key, b.key),
	)
}

// outcome sums up the key types of one operation under one protection.
func (m *matrix) outcome(cells []cell, operation, protection string, n *notes) string {
	var passed, parts []string
	refused := map[*refusal][]string{}
	var reasons []*refusal
	for _, c := range cells {
		if c.operation != operation || c.protection != protection {
			continue
		}
		r := m.why[c]
		if r == nil {
			passed = append(passed, c.key)
			continue
		}
		if refused[r] == nil {
			reasons = append(reasons, r)
		}
		refused[r] = append(refused[r], c.key)
	}
	if passed != nil {
		parts = append(parts, "pass"+keys(passed))
	}
	for _, r := range reasons {
		parts = append(parts, fmt.Sprintf("refused%s [%d]", keys(refused[r]), n.number(r)))
	}
	return strings.Join(parts, "; ")
}

// keys names key types, "all" standing for those of every table.
func keys(names []string) string {
	switch {
	case len(names) == 1 && names[0] == "":
		return ""
	case len(names) >= len(newKeys) && slices.Equal(names[:len(newKeys)], newKeys):
		return " " + strings.Join(append([]string{"all"}, names[len(newKeys):]...), ", ")
	}
	return " " + strings.Join(names, ", ")
}

func distinct(cells []cell, of func(cell) string) []string {
	var out []string
	for _, c := range cells {
		if v := of(c); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// notes numbers the reasons of refusals below a table.
type notes []*refusal

func (n *notes) number(r *refusal) int {
	if !slices.Contains(*n, r) {
		*n = append(*n, r)
	}
	return slices.Index(*n, r) + 1
}

func (n *notes) String() string {
	var b strings.Builder
	for i, r := range *n {
		fmt.Fprintf(&b, "\n[%d] %s\n", i+1, r.why)
	}
	return b.String()
}

func preface() string {
	return "# Interoperability of pkg/cmp\n\n" +
		"Written by `go test ./test/interop -update`, compared by `go test ./test/interop`. Made with OpenSSL 3.0 and Bouncy Castle 1.72.\n" +
		"A cell says with which new keys an operation was tried and what came of it; all means " + strings.Join(newKeys, ", ") + ".\n" +
		"A pass is a certificate for that key, with the subject, names and usages asked for, below the CA's root, and confirmed;\n" +
		"a revocation after which the certificate no longer authenticates; or a general answer that was verified.\n"
}

// report prints the tables and compares them with the golden file, leaving out pairs that were skipped.
func (m *matrix) report(t *testing.T) {
	t.Helper()
	ran := slices.DeleteFunc(slices.Clone(pairs), func(pair string) bool {
		return !slices.ContainsFunc(m.tried, func(c cell) bool { return c.pair == pair })
	})
	sections := []string{preface()}
	for _, pair := range ran {
		sections = append(sections, m.section(pair))
	}
	t.Logf("%d cells\n%s", len(m.tried), strings.Join(sections, "\n"))
	if *update && len(ran) == len(pairs) {
		if err := os.WriteFile(goldenFile, []byte(strings.Join(sections, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(golden)
	for _, section := range sections {
		before, after, found := strings.Cut(rest, section)
		if !found {
			t.Errorf("%s does not have this section; see the difference with -update and git diff:\n%s", goldenFile, section)
			continue
		}
		rest = before + after
	}
	if rest = strings.TrimSpace(rest); len(ran) == len(pairs) && rest != "" {
		t.Errorf("%s has more:\n%s", goldenFile, rest)
	}
}

// TestInterop runs the matrix: pairs of programs that need not know of each other, at the same time.
func TestInterop(t *testing.T) {
	m := &matrix{why: map[cell]*refusal{}}
	r := &rig{matrix: m, wishes: newWishes(t)}
	complete := t.Run("cells", func(t *testing.T) {
		t.Run("client and openssl-ca", r.testOpenSSLCA)
		t.Run("client and bouncycastle-ca", r.testBouncyCastleCA)
		t.Run("client and openssl cmp -port", r.testMock)
		t.Run("openssl cmp and responder", r.testResponder)
	})
	if complete {
		m.report(t)
	}
}

// rig is what all cells share.
type rig struct {
	matrix *matrix
	wishes wishes
}

// The pairs, in the order of the report.
const (
	pairOpenSSLCA = "pkg/cmp client × openssl-ca (libcrypto)"
	pairBouncy    = "pkg/cmp client × bouncycastle-ca (Java)"
	pairMock      = "pkg/cmp client × openssl cmp -port (mock server)"
	pairResponder = "openssl cmp client × pkg/cmp/responder"
)

var pairs = []string{pairOpenSSLCA, pairBouncy, pairMock, pairResponder}

// The operations, in the order of the report.
const (
	opIR           = "ir"
	opCR           = "cr"
	opP10CR        = "p10cr"
	opKUR          = "kur"
	opImplicit     = "cr, implicitConfirm"
	opNotGranted   = "cr, implicitConfirm not granted"
	opPolling      = "cr, polling"
	opPollingP10CR = "p10cr, polling"
	opReject       = "cr, rejected in certConf"
	opWaitConfirm  = "cr, certConf waiting"
	opNested       = "cr, nested"
	opAuthority    = "cr, signed by the CA with"
	opRR           = "rr"
	opRRSerial     = "rr, issuer and serial"
	opRRRequest    = "rr, PKCS #10"
	opRRReasons    = "rr, each reason"
	opCACerts      = "genm caCerts"
	opRootUpdate   = "genm rootCaCert"
	opTemplate     = "genm certReqTemplate"
	opCurrentCRL   = "genm currentCRL"
	opCRLs         = "genm crlStatusList"
	opLanguages    = "genm suppLangTags"
	opUnknown      = "genm unknown"
)

var operations = []string{
	opIR, opCR, opP10CR, opKUR, opImplicit, opNotGranted, opPolling, opPollingP10CR, opReject, opWaitConfirm, opNested, opAuthority,
	opRR, opRRSerial, opRRRequest, opRRReasons, opCACerts, opRootUpdate, opTemplate, opCurrentCRL, opCRLs, opLanguages, opUnknown,
}
