package cmp

import (
	"bytes"
	"crypto/x509/pkix"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	long := strings.Repeat("x", 65)
	for _, test := range []struct {
		text    string
		want    string // in RFC 4514; empty: an error
		skipped []string
	}{
		{"/", "/", nil},
		{"/CN=web", "CN=web", nil},
		{"/C=DE/O=certloop/CN=web", "CN=web,O=certloop,C=DE", nil},
		{"/CN=web/", "CN=web", nil},
		{"/CN=a\\/b", "CN=a/b", nil},
		{"/CN=a\\+b/O=c", "O=c,CN=a\\+b", nil},
		{"/CN=a\\\\b", "CN=a\\\\b", nil},
		{"/OU=a+OU=b", "OU=a+OU=b", nil},
		{"/OU=b+OU=a", "OU=a+OU=b", nil},
		{"/CN= a ", "CN=\\ a\\ ", nil},
		{"/CN=a=b", "CN=a=b", nil},
		{"/2.5.4.3=web", "CN=web", nil},
		{"/commonName=web", "CN=web", nil},
		{"/1.2.3.4=x", "1.2.3.4=x", nil},
		{"/cn=web/O=certloop", "O=certloop", []string{"cn"}},
		{"/CN=web/nonsense=x+O=y", "O=y+CN=web", []string{"nonsense"}},
		{"/CN=/O=y", "O=y", []string{"CN"}},
		{"/DC=org/DC=example", "DC=example,DC=org", nil},
		{"/emailAddress=a@b.example", "emailAddress=a@b.example", nil},
		{"", "", nil},
		{"CN", "", nil},
		{"/CN", "", nil},
		{"/CN=a//", "", nil},
		{"/CN=a\\", "", nil},
		{"/C=D", "", nil},
		{"/C=DEU", "", nil},
		{"/C=ÄÖ", "", nil},
		{"/serialNumber=a@b", "", nil},
		{"/emailAddress=ä@b.example", "", nil},
		{"/CN=" + long, "", nil},
		{"/CN=\xff", "", nil},
		{"/L=" + long, "L=" + long, nil},
		{"CN=web,O=certloop,C=DE", "CN=web,O=certloop,C=DE", nil},
		{"cn = web , o=certloop", "CN=web,O=certloop", nil},
		{"CN=a\\,b", "CN=a\\,b", nil},
		{"CN=a\\2cb", "CN=a\\,b", nil},
		{"CN=\\c3\\a4", "CN=ä", nil},
		{"CN=#0c0161", "CN=a", nil},
		{"CN=#130161", "CN=a", nil},
		{"C=#0c0161", "C=#0c0161", nil},
		{"/UID=a/uid=b", "uniqueIdentifier=b,UID=a", nil},
		{"uid=a,UniqueIdentifier=b", "UID=a,uniqueIdentifier=b", nil},
		{"/n3=276/c3=DEU", "c3=DEU,n3=276", nil},
		{"/n3=27a", "", nil},
		{"/n3=27", "", nil},
		{"/mail=ä@b.example", "", nil},
		{"C=#0c02c3a4", "C=#0c02c3a4", nil},
		{"C=#0c024445", "C=DE", nil},
		{"CN=#0c", "", nil},
		{"CN=\\#a", "CN=\\#a", nil},
		{"CN=#0g", "", nil},
		{"=a", "", nil},
		{strings.Repeat("/CN=a", MaxNameRDNs+1), "", nil},
		{"/CN=a\tb", "CN=a\\09b", nil},
		{"CN=a+OU=b,O=c", "OU=b+CN=a,O=c", nil},
		{"nonsense=a", "", nil},
		{"CN=a,", "", nil},
		{"CN=\"a\"", "", nil},
		{"CN=a\\", "", nil},
	} {
		n, err := ParseName(test.text)
		if (err == nil) != (test.want != "") {
			t.Errorf("%q: error %v, want one: %t", test.text, err, test.want == "")
			continue
		}
		want := test.want
		if sorted := sortRDNs(want); err == nil && sortRDNs(n.String()) != sorted {
			t.Errorf("%q is %q, want %q", test.text, n, want)
		}
		if got := SkippedAttributes(test.text); err == nil && !slices.Equal(got, test.skipped) {
			t.Errorf("%q skips %q, want %q", test.text, got, test.skipped)
		}
	}
}

// sortRDNs forgets the order within RDNs, which is that of DER.
func sortRDNs(text string) string {
	if strings.Contains(text, "\\") {
		return text
	}
	rdns := strings.Split(text, ",")
	for i, rdn := range rdns {
		attributes := strings.Split(rdn, "+")
		slices.Sort(attributes)
		rdns[i] = strings.Join(attributes, "+")
	}
	return strings.Join(rdns, ",")
}

// Names are encoded as openssl req encodes them.
func TestParseNameAsOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	for _, text := range []string{
		"/CN=web", "/C=DE/ST=Bayern/L=München/O=certloop/OU=a+OU=b/CN=web", "/CN=a\\/b\\+c\\\\d", "/DC=org/DC=example/UID=x",
		"/SN=s/GN=g/initials=i/title=t/serialNumber=1/dnQualifier=q/pseudonym=p/street=s/postalCode=1/description=d",
		"/emailAddress=a@b.example/name=n/generationQualifier=x/businessCategory=b/organizationIdentifier=o",
		"/OU=zz+CN=a+OU=b", "/jurisdictionC=DE/unstructuredName=u/O= blanks  stay ",
	} {
		compareWithOpenSSL(t, text)
	}
}

// Each type of attribute by each of its names, and by its OID.
func TestEveryAttributeAsOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	var texts []string
	for _, a := range attributes {
		value := "123456789ABC"
		switch {
		case a.most == 2:
			value = "DE"
		case a.tag == tagNumericString:
			value = "276"
		case a.most == 3:
			value = "DEU"
		}
		for _, kind := range []string{a.short, a.long, a.oid.String()} {
			if kind != "" {
				texts = append(texts, "/"+kind+"="+value)
			}
		}
	}
	for some := range slices.Chunk(texts, MaxNameRDNs) {
		text := strings.Join(some, "")
		if skipped := SkippedAttributes(text); len(skipped) > 0 {
			t.Errorf("skipped: %q", skipped)
		}
		compareWithOpenSSL(t, text)
	}
}

// No attribute type of X.520 that OpenSSL names is skipped, but for those whose values are no texts.
func TestAttributesOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "list", "-objects").Output()
	if err != nil {
		t.Fatal(err)
	}
	noText := "14 21 22 28 29 30 31 32 33 34 35 36 37 38 39 40 47 48 49 50 52 53" // guides, names, certificates, sequences
	named := 0
	for line := range strings.Lines(string(out)) {
		names, oid, ok := strings.Cut(strings.TrimSpace(line), "2.5.4.")
		if !ok || !slices.ContainsFunc([]string{"= ", ", "}, func(s string) bool { return strings.HasSuffix(names, s) }) {
			continue
		}
		if n, err := strconv.Atoi(oid); err != nil || n > 100 { // what may have come since
			continue
		}
		named++
		short, _, _ := strings.Cut(names, " = ")
		if _, known := attributeByName(short); known == slices.Contains(strings.Fields(noText), oid) {
			t.Errorf("%s (2.5.4.%s): known %t", short, oid, known)
		}
	}
	if named < 40 {
		t.Errorf("openssl names %d types", named)
	}
}

// What is written in RFC 4514 is read again, without regard to case: no type has the name of another.
func TestAttributesHaveNamesOfTheirOwn(t *testing.T) {
	for _, a := range attributes {
		for _, kind := range []string{a.short, strings.ToLower(a.short), strings.ToUpper(a.short)} {
			if got, known := attributeByFoldedName(kind); !known || !got.oid.Equal(a.oid) {
				t.Errorf("%s is %s, want %s", kind, got.oid, a.oid)
			}
		}
	}
}

// compareWithOpenSSL wants the name in a request of openssl req to be ours.
func compareWithOpenSSL(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "openssl", "req", "-new", "-config", "/dev/null", "-utf8", "-newkey", "ec", "-pkeyopt",
		"ec_paramgen_curve:P-256", "-nodes", "-keyout", dir+"/key", "-multivalue-rdn", "-subj", text, "-outform", "DER")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl req -subj %q: %v", text, err)
	}
	if want := mustName(t, text); !bytes.Contains(out, want) {
		t.Errorf("%q: %x is not in %x", text, want, out)
	}
}

func TestNameEqual(t *testing.T) {
	utf8Name := mustName(t, "/O=Cert  Loop/CN=Web")
	printable := encodeName([][][]byte{
		{encodeAVA(x520(10), []byte("\x13\x0a cert loop"))}, {encodeAVA(x520(3), []byte("\x1e\x06\x00w\x00E\x00b"))},
	})
	for name, test := range map[string]struct {
		a, b Name
		want bool
	}{
		"itself":                 {utf8Name, utf8Name, true},
		"case, blanks and types": {utf8Name, printable, true},
		"order in an RDN":        {mustName(t, "/OU=a+OU=b"), mustName(t, "/OU=b+OU=a"), true},
		"order of RDNs":          {mustName(t, "/O=a/CN=b"), mustName(t, "/CN=b/O=a"), false},
		"one RDN or two":         {mustName(t, "/OU=a+OU=b"), mustName(t, "/OU=a/OU=b"), false},
		"other type":             {mustName(t, "/CN=a"), mustName(t, "/O=a"), false},
		"prefix":                 {mustName(t, "/CN=a"), mustName(t, "/CN=a/O=b"), false},
		"nothing":                {nil, nil, true},
		"nothing and NULL-DN":    {nil, NullDN(), false},
		"rubbish":                {Name("x"), mustName(t, "/CN=a"), false},
		"Latin-1":                {mustName(t, "CN=#1402e464"), mustName(t, "/CN=Äd"), true},
		"four octets each":       {mustName(t, "CN=#1c08000000e400000064"), mustName(t, "/CN=äd"), true},
		"three octets":           {mustName(t, "CN=#1c030000e4"), mustName(t, "/CN=ä"), false},
		"octets that look alike": {mustName(t, "CN=#040161"), mustName(t, "CN=a"), false},
	} {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
		if got := test.b.Equal(test.a); got != test.want {
			t.Errorf("%s, the other way round: %t, want %t", name, got, test.want)
		}
	}
}

func TestNameOf(t *testing.T) {
	n, err := NameOf(pkix.Name{Country: []string{"DE"}, Organization: []string{"certloop"}, CommonName: "web"})
	if err != nil || !n.Equal(mustName(t, "/C=DE/O=certloop/CN=web")) {
		t.Errorf("%s, %v", n, err)
	}
}
