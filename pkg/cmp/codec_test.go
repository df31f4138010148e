package cmp

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	diff "github.com/google/go-cmp/cmp"
)

// maker makes random values that are valid.
type maker struct{ *rand.Rand }

func (r maker) some(most int, make func()) {
	for range r.Intn(most + 1) {
		make()
	}
}

func (r maker) bytes(least, most int) []byte {
	b := make([]byte, least+r.Intn(most-least+1))
	r.Read(b)
	return b
}

// maybe is nil half of the time.
func (r maker) maybe(least, most int) []byte {
	if r.Intn(2) == 0 {
		return nil
	}
	return r.bytes(least, most)
}

func (r maker) texts() []string {
	out := []string{"first"}
	r.some(2, func() { out = append(out, strings.Repeat("ä", r.Intn(90))) })
	return out
}

func (r maker) oid() asn1.ObjectIdentifier {
	if r.Intn(2) == 0 {
		return InfoImplicitConfirm
	}
	return asn1.ObjectIdentifier{r.Intn(2), r.Intn(40), r.Intn(1 << 30), r.Intn(200), r.Intn(1 << 14)}
}

func (r maker) element() []byte {
	var w writer
	w.octets(r.bytes(0, 200))
	return w.b
}

func (r maker) name() Name {
	var rdns [][][]byte
	r.some(3, func() { rdns = append(rdns, [][]byte{encodeAVA(r.oid(), r.element())}) })
	return encodeName(rdns)
}

func (r maker) time() time.Time { return time.Unix(r.Int63n(3e9), 0).UTC() }

func (r maker) algorithm() AlgorithmIdentifier {
	a := AlgorithmIdentifier{Algorithm: r.oid()}
	if r.Intn(2) == 0 {
		a.Parameters = r.element()
	}
	return a
}

func (r maker) infos() []InfoTypeAndValue {
	out := []InfoTypeAndValue{{Type: r.oid()}}
	r.some(2, func() { out = append(out, InfoTypeAndValue{Type: r.oid(), Value: r.element()}) })
	return out
}

func (r maker) certificates() [][]byte {
	out := [][]byte{{0x30, 0}}
	r.some(3, func() {
		var w writer
		w.primitive(0x30, r.bytes(0, 400))
		out = append(out, w.b)
	})
	return out
}

func (r maker) header() Header {
	h := Header{PVNO: PVNO2, Sender: DirectoryName(r.name()), Recipient: DirectoryName(r.name())}
	h.SenderKID, h.RecipKID, h.TransactionID = r.maybe(0, 20), r.maybe(0, 20), r.maybe(1, 16)
	h.SenderNonce, h.RecipNonce = r.maybe(1, 16), r.maybe(1, 16)
	if r.Intn(2) == 0 {
		h.MessageTime, h.ProtectionAlg = r.time(), r.algorithm()
		h.FreeText, h.GeneralInfo = r.texts(), r.infos()
	}
	return h
}

func (r maker) status() StatusInfo {
	s := StatusInfo{Status: Status(r.Intn(9)), FailInfo: FailureInfo(r.Uint32() >> r.Intn(32))}
	if r.Intn(2) == 0 {
		s.FailInfo = 0
		s.Text = r.texts()
	}
	return s
}

func (r maker) serial() *big.Int {
	n := new(big.Int).SetBytes(r.bytes(0, 20))
	if r.Intn(2) == 0 {
		n.Neg(n)
	}
	return n
}

func (r maker) extensions() []pkix.Extension {
	out := []pkix.Extension{{Id: ExtensionSubjectAltName, Critical: true, Value: r.bytes(0, 200)}}
	r.some(3, func() { out = append(out, pkix.Extension{Id: r.oid(), Value: []byte{5, 0}}) })
	return out
}

func (r maker) template() CertTemplate {
	var t CertTemplate
	r.some(1, func() { v := int64(r.Intn(3)); t.Version = &v })
	r.some(1, func() { t.SerialNumber = r.serial() })
	r.some(1, func() { a := r.algorithm(); t.SigningAlg = &a })
	r.some(1, func() { t.Issuer = r.name() })
	r.some(1, func() { t.NotBefore = r.time() })
	r.some(1, func() { t.NotAfter = r.time() })
	r.some(1, func() { t.Subject = r.name() })
	r.some(1, func() { t.PublicKeyInfo = r.publicKeyInfo() })
	t.IssuerUID, t.SubjectUID = r.maybe(1, 9), r.maybe(1, 9)
	r.some(1, func() { t.Extensions = r.extensions() })
	return t
}

func (r maker) publicKeyInfo() []byte {
	var w writer
	m := w.open(0x30)
	w.algorithm(r.algorithm())
	w.bits(3, r.bytes(1, 300))
	w.close(m)
	return w.b
}

func (r maker) attributes() []AttributeTypeAndValue {
	return []AttributeTypeAndValue{{Type: r.oid(), Value: r.element()}, {Type: r.oid(), Value: r.element()}}
}

func (r maker) popo() ProofOfPossession {
	switch p := (ProofOfPossession{Type: POPType(r.Intn(5))}); p.Type {
	case POPSignature:
		p.Signature = POPOSigningKey{Algorithm: r.algorithm(), Signature: r.bytes(1, 80)}
		r.some(1, func() { p.Signature.Input = r.certificates()[0] })
		return p
	case POPKeyEncipherment, POPKeyAgreement:
		p.Other = r.element()
		return p
	default:
		return p
	}
}

func (r maker) certReqMsg() CertReqMsg {
	m := CertReqMsg{CertReq: CertRequest{CertReqID: r.Int63() - r.Int63(), CertTemplate: r.template()}, POPO: r.popo()}
	r.some(1, func() { m.CertReq.Controls = r.attributes() })
	r.some(1, func() { m.RegInfo = r.attributes() })
	return m
}

func (r maker) certResponse() CertResponse {
	c := CertResponse{CertReqID: int64(r.Intn(3) - 1), Status: r.status(), RspInfo: r.maybe(1, 300)}
	if r.Intn(2) == 0 {
		c.Certified = &CertifiedKeyPair{Certificate: r.certificates()[0]}
		r.some(1, func() { c.Certified = &CertifiedKeyPair{Encrypted: r.element()} })
		r.some(1, func() { c.Certified.PrivateKey, c.Certified.PublicationInfo = r.element(), r.element() })
	}
	return c
}

func (r maker) certStatus() CertStatus {
	s := CertStatus{CertHash: r.bytes(1, 64), CertReqID: int64(r.Intn(3) - 1)}
	r.some(1, func() { info := r.status(); s.StatusInfo = &info })
	r.some(1, func() { a := r.algorithm(); s.HashAlg = &a })
	return s
}

func (r maker) revRep() *RevRep {
	b := &RevRep{Status: []StatusInfo{r.status()}}
	r.some(1, func() { b.RevCerts = []CertID{{Issuer: DirectoryName(r.name()), SerialNumber: r.serial()}} })
	r.some(1, func() { b.CRLs = r.certificates() })
	return b
}

func (r maker) revReq() RevReq {
	d := RevDetails{CertDetails: r.template()}
	r.some(1, func() { d.CRLEntryDetails = r.extensions() })
	return RevReq{d}
}

func (r maker) errorMsg() *ErrorMsg {
	b := &ErrorMsg{Status: r.status()}
	r.some(1, func() { code := r.Int63() - r.Int63(); b.ErrorCode = &code })
	r.some(1, func() { b.ErrorDetails = r.texts() })
	return b
}

func (r maker) certReqMessages() CertReqMessages {
	out := CertReqMessages{r.certReqMsg()}
	r.some(2, func() { out = append(out, r.certReqMsg()) })
	return out
}

func (r maker) certRepMessage() *CertRepMessage {
	b := &CertRepMessage{Response: []CertResponse{r.certResponse(), r.certResponse()}}
	r.some(1, func() { b.CAPubs = r.certificates() })
	return b
}

// body is a random content for an arm.
func (r maker) body(t BodyType) Body {
	switch t {
	case TypeIR, TypeCR, TypeKUR, TypeKRR, TypeCCR:
		return r.certReqMessages()
	case TypeIP, TypeCP, TypeKUP, TypeCCP:
		return r.certRepMessage()
	case TypeP10CR:
		return P10CR(r.certificates()[0])
	case TypeRR:
		return r.revReq()
	case TypeRP:
		return r.revRep()
	case TypePKIConf:
		return PKIConf{}
	case TypeNested:
		return Nested{r.message(TypePKIConf), r.message(TypeIR)}
	case TypeGenM, TypeGenP:
		return GenMsg(r.infos())
	case TypeError:
		return r.errorMsg()
	case TypeCertConf:
		return CertConf{r.certStatus(), r.certStatus()}
	case TypePollReq:
		return PollReq{-1, 0, r.Int63()}
	case TypePollRep:
		return PollRep{{CertReqID: -1, CheckAfter: r.Int63(), Reason: r.texts()}, {}}
	default:
		return Opaque(r.element())
	}
}

func (r maker) message(t BodyType) *Message {
	m := &Message{Header: r.header(), Type: t, Body: r.body(t)}
	r.some(1, func() { m.Protection = r.bytes(1, 300) })
	r.some(1, func() { m.ExtraCerts = r.certificates() })
	return m
}

// Every message we can build is parsed into what it was built from, and encoded the same again.
func TestRoundTrip(t *testing.T) {
	for i := range bodyNames {
		bodyType := BodyType(i)
		t.Run(bodyType.String(), func(t *testing.T) {
			property := func(seed int64) bool { return roundTrips(t, maker{rand.New(rand.NewSource(seed))}.message(bodyType)) }
			if err := quick.Check(property, &quick.Config{MaxCount: 15}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Encoding into memory that is there allocates nothing, whatever the message.
func TestEncodingAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 1<<14)
	for i := range bodyNames {
		bodyType := BodyType(i)
		t.Run(bodyType.String(), func(t *testing.T) {
			for seed := range int64(15) {
				m := maker{rand.New(rand.NewSource(seed))}.message(bodyType)
				der, err := m.AppendDER(buf)
				if err != nil || len(der) > cap(buf) {
					t.Fatalf("%d bytes, %v", len(der), err)
				}
				if n := testing.AllocsPerRun(10, func() { _, _ = m.AppendDER(buf) }); n != 0 {
					t.Errorf("%v allocations, want none, for %+v", n, m)
				}
			}
		})
	}
}

// all compares unexported fields too, and integers compares them by value.
var (
	all      = diff.Exporter(func(reflect.Type) bool { return true })
	integers = diff.Comparer(func(a, b *big.Int) bool { return a == b || a != nil && b != nil && a.Cmp(b) == 0 })
)

func roundTrips(t *testing.T, m *Message) bool {
	t.Helper()
	der, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseMessage(der)
	if err != nil {
		t.Errorf("%v in %x", err, der)
		return false
	}
	forget(parsed)
	again, err := parsed.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(m, parsed, all, integers); d != "" {
		t.Errorf("parsed is not what was built (-want +got):\n%s", d)
		return false
	}
	return bytes.Equal(again, der)
}

func TestBodyMustFitItsType(t *testing.T) {
	for name, m := range map[string]*Message{
		"no body":        {Type: TypeIR},
		"ip in ir":       {Type: TypeIR, Body: &CertRepMessage{}},
		"pkiconf as ir":  {Type: TypeIR, Body: PKIConf{}},
		"opaque as genm": {Type: TypeGenM, Body: Opaque{5, 0}},
		"unknown":        {Type: 27, Body: Opaque{5, 0}},
	} {
		if der, err := m.Marshal(); err == nil {
			t.Errorf("%s: encoded as %x", name, der)
		}
	}
}

// What is not DER, or beyond the limits, is refused by field and section.
func TestSyntax(t *testing.T) {
	r := maker{rand.New(rand.NewSource(1))}
	deep := &Message{Type: TypeNested, Body: Nested{r.message(TypeNested)}}
	certs := make([][]byte, MaxExtraCerts+1)
	for i := range certs {
		certs[i] = []byte{0x30, 0}
	}
	polls := make(PollReq, MaxEntries+1)
	header := Header{PVNO: 2}
	confs := make(CertConf, MaxEntries+1)
	for i := range confs {
		confs[i].CertHash = []byte{1}
	}
	infos := header
	for range MaxEntries + 1 {
		infos.GeneralInfo = append(infos.GeneralInfo, InfoTypeAndValue{Type: InfoImplicitConfirm})
	}
	fewerInfos := infos
	fewerInfos.GeneralInfo = infos.GeneralInfo[1:]
	longName, longestName := header, header
	rdn := [][]byte{encodeAVA(x520(3), []byte{12, 1, 'x'})}
	longName.Sender = DirectoryName(encodeName(slices.Repeat([][][]byte{rdn}, MaxNameRDNs+1)))
	longestName.Sender = DirectoryName(encodeName(slices.Repeat([][][]byte{rdn}, MaxNameRDNs)))
	long := header
	long.TransactionID = make([]byte, MaxNonceBytes+1)
	other := header
	other.Sender = GeneralName{0x82, 1, 'a'} // allowed here, refused by transactions
	wrong := header
	wrong.Sender = GeneralName{0x30, 0}
	for name, test := range map[string]struct {
		message *Message
		field   string // of the error; empty: there is none
	}{
		"nested twice":         {deep, "nested"},
		"too many certs":       {&Message{Header: header, Type: TypePKIConf, Body: PKIConf{}, ExtraCerts: certs}, "extraCerts"},
		"too many polls":       {&Message{Header: header, Type: TypePollReq, Body: polls}, "pollReq"},
		"too many certConfs":   {&Message{Header: header, Type: TypeCertConf, Body: confs}, "certConf"},
		"most certConfs":       {&Message{Header: header, Type: TypeCertConf, Body: confs[1:]}, ""},
		"too many infos":       {&Message{Header: infos, Type: TypePKIConf, Body: PKIConf{}}, "header.generalInfo"},
		"most infos":           {&Message{Header: fewerInfos, Type: TypePKIConf, Body: PKIConf{}}, ""},
		"name too long":        {&Message{Header: longName, Type: TypePKIConf, Body: PKIConf{}}, "header.sender"},
		"longest name":         {&Message{Header: longestName, Type: TypePKIConf, Body: PKIConf{}}, ""},
		"long transactionID":   {&Message{Header: long, Type: TypePKIConf, Body: PKIConf{}}, "header.transactionID"},
		"sender is a dNSName":  {&Message{Header: other, Type: TypePKIConf, Body: PKIConf{}}, ""},
		"sender is a SEQUENCE": {&Message{Header: wrong, Type: TypePKIConf, Body: PKIConf{}}, "header.sender"},
		"tag of two octets":    {&Message{Header: header, Type: TypeKRP, Body: Opaque{0x1f, 1, 0}}, "body"},
		"empty ir":             {&Message{Header: header, Type: TypeIR, Body: CertReqMessages{}}, "certReqMessages"},
		"pkiconf with content": {&Message{Header: header, Type: TypeKRP, Body: Opaque{5, 0}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			der, err := test.message.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			wantSyntaxError(t, der, test.field)
		})
	}
	t.Run("too long", func(t *testing.T) { wantSyntaxError(t, make([]byte, MaxMessageBytes+1), "PKIMessage (too long)") })
	t.Run("empty", func(t *testing.T) { wantSyntaxError(t, nil, "PKIMessage") })
}

// A length has one form in DER, the shortest (X.690 §10.1).
func TestLengths(t *testing.T) {
	for name, test := range map[string]struct {
		head    []byte
		content int
		want    bool
	}{
		"one octet":                {[]byte{4, 0x7f}, 0x7f, true},
		"two octets":               {[]byte{4, 0x81, 0x80}, 0x80, true},
		"three octets":             {[]byte{4, 0x82, 1, 0}, 0x100, true},
		"two in place of one":      {[]byte{4, 0x81, 0x7f}, 0x7f, false},
		"three in place of two":    {[]byte{4, 0x82, 0, 0x80}, 0x80, false},
		"five in place of two":     {[]byte{4, 0x84, 0, 0, 0, 0x80}, 0x80, false},
		"four octets and a zero":   {[]byte{4, 0x83, 0, 1, 0}, 0x100, false},
		"indefinite":               {[]byte{4, 0x80}, 0, false},
		"more octets than we have": {[]byte{4, 0x81, 0x80}, 0x7f, false},
		"more octets than it says": {[]byte{4, 0x81, 0x80}, 0x81, false},
		"too many octets":          {[]byte{4, 0x85, 1, 0, 0, 0, 0}, 0x100, false},
	} {
		p := newParser(append(test.head, make([]byte, test.content)...), inMessage)
		got := p.content(4, "x")
		p.done("x")
		if p.ok() != test.want || test.want && len(got) != test.content {
			t.Errorf("%s: accepted %t with %d octets, want %t", name, p.ok(), len(got), test.want)
		}
	}
}

func wantSyntaxError(t *testing.T, der []byte, field string) {
	t.Helper()
	_, err := ParseMessage(der)
	var syntax *SyntaxError
	if field == "" && err == nil {
		return
	}
	if !errors.As(err, &syntax) || syntax.Field != field || syntax.Section == "" {
		t.Errorf("error %v, want one about %q", err, field)
	}
}

// failInfo with trailing zeros is not DER, but an error message should not be lost for that.
func TestFailInfoWithTrailingZeros(t *testing.T) {
	for name, der := range map[string][]byte{
		"shortest":       {0x30, 7, 2, 1, 2, 3, 2, 5, 0x20},
		"to the octet":   {0x30, 7, 2, 1, 2, 3, 2, 0, 0x20},
		"to 27 bits":     {0x30, 10, 2, 1, 2, 3, 5, 5, 0x20, 0, 0, 0},
		"to four octets": {0x30, 10, 2, 1, 2, 3, 5, 0, 0x20, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParser(der, inStatus)
			var s StatusInfo
			p.statusInfo(&s, "status")
			if err := p.err(); err != nil || s.FailInfo != FailBadRequest {
				t.Fatalf("failInfo %s, %v, want badRequest", s.FailInfo, err)
			}
			var w writer
			w.statusInfo(&s)
			if !bytes.Equal(w.b, der) {
				t.Errorf("encoded as %x, want %x", w.b, der)
			}
		})
	}
}

// A failInfo that is no bit list, or one of more bits than anybody has.
func TestFailInfoRefused(t *testing.T) {
	for name, bits := range map[string][]byte{
		"nothing": {3, 0}, "too long": {3, 6, 0, 0x20, 0, 0, 0, 0}, "more unused bits than there are": {3, 1, 1}, "unused bits set": {3, 2, 7, 0x20},
	} {
		var s StatusInfo
		p := newParser(append([]byte{0x30, byte(3 + len(bits)), 2, 1, 2}, bits...), inStatus)
		p.statusInfo(&s, "status")
		if p.ok() {
			t.Errorf("%s: read as %s", name, s.FailInfo)
		}
	}
}

// Serial numbers are read as they are, up to a length, and in one form only.
func TestBigIntegersRefused(t *testing.T) {
	for name, test := range map[string]struct {
		content []byte
		want    bool
	}{
		"longest": {bytes.Repeat([]byte{0x7f}, 127), true}, "negative": {[]byte{0xff, 0x7f}, true},
		"too long": {bytes.Repeat([]byte{0x7f}, MaxNonceBytes+1), false}, "nothing": {nil, false}, "a zero too many": {[]byte{0, 0x7f}, false},
	} {
		var w writer
		w.primitive(2, test.content)
		p := newParser(w.b, inMessage)
		if n := p.bigInteger(2, "serialNumber"); p.ok() != test.want || (n != nil) != test.want {
			t.Errorf("%s: %v", name, n)
		}
	}
}

func TestIntegers(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, 1<<63 - 1, -1 << 63} {
		want, err := asn1.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var small, large writer
		small.integer(n)
		large.bigInteger(2, big.NewInt(n))
		if !bytes.Equal(small.b, want) || !bytes.Equal(large.b, want) {
			t.Errorf("%d: %x and %x, want %x", n, small.b, large.b, want)
		}
	}
}
