package cmp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// A corruption makes one field of a good reply wrong; the reply is then
// protected again, so that nothing but the field is wrong.
type corruption struct {
	spoil func(t *testing.T, s *scene, m *Message)
	want  string // check of the ProtectionError, or field of the ReplyError or SyntaxError, or "peer" for an Error
}

// headers are corruptions that fit any reply.
var headers = map[string]corruption{
	"pvno 1":   {func(_ *testing.T, _ *scene, m *Message) { m.Header.PVNO = 1 }, "pvno"},
	"pvno 3":   {func(_ *testing.T, _ *scene, m *Message) { m.Header.PVNO = 3 }, "pvno"},
	"pvno 0":   {func(_ *testing.T, _ *scene, m *Message) { m.Header.PVNO = 0 }, "pvno"},
	"pvno -2":  {func(_ *testing.T, _ *scene, m *Message) { m.Header.PVNO = -2 }, "pvno"},
	"pvno max": {func(_ *testing.T, _ *scene, m *Message) { m.Header.PVNO = 1<<63 - 1 }, "pvno"},

	"no transactionID":      {func(_ *testing.T, _ *scene, m *Message) { m.Header.TransactionID = nil }, "transactionID"},
	"empty transactionID":   {func(_ *testing.T, _ *scene, m *Message) { m.Header.TransactionID = []byte{} }, "transactionID"},
	"other transactionID":   {func(t *testing.T, _ *scene, m *Message) { m.Header.TransactionID = randomNonce(t) }, "transactionID"},
	"shorter transactionID": {func(_ *testing.T, _ *scene, m *Message) { m.Header.TransactionID = m.Header.TransactionID[:15] }, "transactionID"},
	"longer transactionID": {func(_ *testing.T, _ *scene, m *Message) {
		m.Header.TransactionID = append(bytes.Clone(m.Header.TransactionID), 0)
	}, "transactionID"},
	"transactionID too long":  {func(_ *testing.T, _ *scene, m *Message) { m.Header.TransactionID = make([]byte, MaxNonceBytes+1) }, "header.transactionID"},
	"no recipNonce":           {func(_ *testing.T, _ *scene, m *Message) { m.Header.RecipNonce = nil }, "recipNonce"},
	"other recipNonce":        {func(t *testing.T, _ *scene, m *Message) { m.Header.RecipNonce = randomNonce(t) }, "recipNonce"},
	"shorter recipNonce":      {func(_ *testing.T, _ *scene, m *Message) { m.Header.RecipNonce = m.Header.RecipNonce[:15] }, "recipNonce"},
	"no senderNonce":          {func(_ *testing.T, _ *scene, m *Message) { m.Header.SenderNonce = nil }, "senderNonce"},
	"empty senderNonce":       {func(_ *testing.T, _ *scene, m *Message) { m.Header.SenderNonce = []byte{} }, "senderNonce"},
	"sender is a dNSName":     {func(_ *testing.T, _ *scene, m *Message) { m.Header.Sender = GeneralName("\x82\x01a") }, "sender"},
	"sender is an rfc822Name": {func(_ *testing.T, _ *scene, m *Message) { m.Header.Sender = GeneralName("\x81\x01a") }, "sender"},
	"sender is a SEQUENCE":    {func(_ *testing.T, _ *scene, m *Message) { m.Header.Sender = GeneralName("\x30\x00") }, "header.sender"},
	"messageTime long ago":    {func(_ *testing.T, _ *scene, m *Message) { m.Header.MessageTime = epoch.Add(-time.Hour) }, "messageTime"},
	"messageTime just too old": {func(_ *testing.T, _ *scene, m *Message) {
		m.Header.MessageTime = epoch.Add(-DefaultMessageTimeTolerance - time.Second)
	}, "messageTime"},
	"messageTime in the future": {func(_ *testing.T, _ *scene, m *Message) { m.Header.MessageTime = epoch.Add(time.Hour) }, "messageTime"},
	"messageTime missing": {func(_ *testing.T, s *scene, m *Message) {
		m.Header.MessageTime = time.Time{}
	}, "messageTime"},
}

// bodies are corruptions of a response with a certificate.
var bodies = map[string]corruption{
	"certReqId 1":    {response(func(r *CertResponse) { r.CertReqID = 1 }), "response.certReqId"},
	"certReqId -1":   {response(func(r *CertResponse) { r.CertReqID = -1 }), "response.certReqId"},
	"no response":    {func(_ *testing.T, _ *scene, m *Message) { m.Body.(*CertRepMessage).Response = nil }, "response"},
	"two responses":  {twice, "response"},
	"failInfo":       {response(func(r *CertResponse) { r.Status.FailInfo = FailBadAlg }), "response.status.failInfo"},
	"no certificate": {response(func(r *CertResponse) { r.Certified = nil }), "response.certifiedKeyPair"},
	"encryptedCert": {response(func(r *CertResponse) {
		r.Certified = &CertifiedKeyPair{Encrypted: []byte{0x30, 0}}
	}), "response.certifiedKeyPair.encryptedCert"},
	"certificate is rubbish": {response(func(r *CertResponse) {
		r.Certified.Certificate = []byte{0x30, 3, 2, 1, 1}
	}), "response.certifiedKeyPair.certificate"},
	"certificate is a string":      {response(func(r *CertResponse) { r.Certified.Certificate = []byte{4, 0} }), "response.certifiedKeyPair.certificate"},
	"confirmWaitTime is a string":  {confirmWait([]byte{4, 0}), "confirmWaitTime"},
	"confirmWaitTime is a UTCTime": {confirmWait([]byte("\x17\x0d260102030405Z")), "confirmWaitTime"},
	"confirmWaitTime is absent":    {confirmWait(nil), "confirmWaitTime"},
	"another key": {func(t *testing.T, s *scene, m *Message) {
		other := &x509.Certificate{RawSubject: s.req.Template.Subject}
		setCertificate(m, s.ca.issue(t, other, newKey(t).Public(), s.ca.root))
	}, "certificate.subjectPublicKeyInfo"},
	"expired": {reissued(x509.Certificate{NotBefore: epoch.AddDate(-2, 0, 0), NotAfter: epoch.AddDate(-1, 0, 0)}), "certificate.validity.notAfter"},
	"not yet": {reissued(x509.Certificate{NotBefore: epoch.Add(time.Hour), NotAfter: epoch.AddDate(1, 0, 0)}), "certificate.validity.notBefore"},
	"a CA":    {reissued(x509.Certificate{IsCA: true, BasicConstraintsValid: true}), "certificate.basicConstraints"},
	"another CA's": {func(t *testing.T, s *scene, m *Message) {
		stranger := newAuthority(t, "Test CA")
		setCertificate(m, stranger.issue(t, &x509.Certificate{RawSubject: s.req.Template.Subject}, s.req.Key.Public(), stranger.root))
	}, "certificate"},
	"rejection": {response(func(r *CertResponse) {
		*r = CertResponse{Status: StatusInfo{Status: StatusRejection, FailInfo: FailBadPOP, Text: []string{"no"}}}
	}), "peer"},
	"status 6":   {response(func(r *CertResponse) { r.Status.Status = StatusKeyUpdateWarning }), "response.status"},
	"status 7":   {response(func(r *CertResponse) { r.Status.Status = 7 }), "response.status"},
	"status -1":  {response(func(r *CertResponse) { r.Status.Status = -1 }), "response.status"},
	"an error":   {func(_ *testing.T, _ *scene, m *Message) { *m = asError(m, StatusRejection) }, "peer"},
	"odd error":  {func(_ *testing.T, _ *scene, m *Message) { *m = asError(m, StatusAccepted) }, "peer"},
	"no polling": {func(_ *testing.T, _ *scene, m *Message) { m.Type, m.Body = TypePollRep, PollRep{{}} }, "body"},
}

func response(spoil func(*CertResponse)) func(*testing.T, *scene, *Message) {
	return func(_ *testing.T, _ *scene, m *Message) { spoil(&m.Body.(*CertRepMessage).Response[0]) }
}

func confirmWait(value []byte) func(*testing.T, *scene, *Message) {
	return func(_ *testing.T, _ *scene, m *Message) {
		m.Header.GeneralInfo = append(m.Header.GeneralInfo, InfoTypeAndValue{Type: InfoConfirmWaitTime, Value: value})
	}
}

func twice(_ *testing.T, _ *scene, m *Message) {
	b := m.Body.(*CertRepMessage)
	b.Response = append(b.Response, b.Response[0])
}

func setCertificate(m *Message, c *x509.Certificate) {
	m.Body.(*CertRepMessage).Response[0].Certified.Certificate = c.Raw
}

// reissued replaces the certificate by one with the right key and name that is otherwise like template.
func reissued(template x509.Certificate) func(*testing.T, *scene, *Message) {
	return func(t *testing.T, s *scene, m *Message) {
		template.RawSubject = s.req.Template.Subject
		setCertificate(m, s.ca.issue(t, &template, s.req.Key.Public(), s.ca.root))
	}
}

func asError(m *Message, s Status) Message {
	return Message{Header: m.Header, Type: TypeError, Body: &ErrorMsg{Status: StatusInfo{Status: s, FailInfo: FailBadRequest}}}
}

// signers are corruptions of who signs, and how.
var signers = map[string]corruption{
	"stranger": {func(t *testing.T, s *scene, _ *Message) { s.reply = newAuthority(t, "Test CA").credential() }, "signer"},
	"another certificate of the same name": {func(t *testing.T, s *scene, _ *Message) {
		key := newKey(t)
		forged := s.ca.issue(t, &x509.Certificate{RawSubject: s.ca.signer.RawSubject, SubjectKeyId: s.ca.signer.SubjectKeyId}, key.Public(), s.ca.root)
		s.reply = &Signer{Key: key, Certificate: forged}
	}, "ok"},
	"expired": {func(t *testing.T, s *scene, _ *Message) {
		s.signAs(t, x509.Certificate{NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.Add(-time.Second)})
	}, "signer"},
	"not yet valid": {func(t *testing.T, s *scene, _ *Message) {
		s.signAs(t, x509.Certificate{NotBefore: epoch.Add(time.Second), NotAfter: epoch.AddDate(1, 0, 0)})
	}, "signer"},
	"may not sign": {func(t *testing.T, s *scene, _ *Message) {
		s.signAs(t, x509.Certificate{KeyUsage: x509.KeyUsageKeyEncipherment})
	}, "signer"},
	"other sender": {func(t *testing.T, _ *scene, m *Message) { m.Header.Sender = DirectoryName(mustName(t, "/CN=somebody")) }, "signer"},
	"NULL-DN":      {func(_ *testing.T, _ *scene, m *Message) { m.Header.Sender = DirectoryName(nil) }, "signer"},
	"MAC": {func(_ *testing.T, s *scene, _ *Message) {
		s.reply = &SharedSecret{Reference: []byte("ref"), Secret: []byte("known to the attacker")}
	}, "protectionAlg"},
}

// signAs makes the CA sign with a certificate like template.
func (s *scene) signAs(t *testing.T, template x509.Certificate) {
	key := newKey(t)
	template.Subject = pkix.Name{CommonName: "odd"}
	s.reply = &Signer{Key: key, Certificate: s.ca.issue(t, &template, key.Public(), s.ca.root)}
}

// macs are corruptions of protection by MAC.
var macs = map[string]corruption{
	"other secret":     {macWith(func(c *SharedSecret) { c.Secret = []byte("guess") }), "MAC"},
	"HMAC-SHA1":        {macWith(func(c *SharedSecret) { c.MAC, c.AllowSHA1 = 3, true }), "MAC"},
	"owf SHA-1":        {macWith(func(c *SharedSecret) { c.OWF, c.AllowSHA1 = 3, true }), "MAC"},
	"signed, no roots": {func(_ *testing.T, s *scene, _ *Message) { s.reply = s.ca.credential() }, "protectionAlg"},
}

func macWith(change func(*SharedSecret)) func(*testing.T, *scene, *Message) {
	return func(_ *testing.T, s *scene, _ *Message) {
		c := *s.cfg.Credential.(*SharedSecret)
		change(&c)
		s.reply = &c
	}
}

// outcome names the check or field an error is about, in the words of the tables.
func outcome(err error) string {
	var protection *ProtectionError
	var refused *ReplyError
	var syntax *SyntaxError
	var peer *Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &protection):
		return string(protection.Check)
	case errors.As(err, &refused):
		return refused.Field
	case errors.As(err, &syntax):
		return syntax.Field
	case errors.As(err, &peer):
		return "peer"
	}
	return err.Error()
}

// cites tells whether an error says where its rule is written.
func cites(err error) bool {
	var peer *Error
	return errors.As(err, &peer) || strings.Contains(err.Error(), "RFC ") && strings.Contains(err.Error(), "§")
}

// tryReply spoils the CA's answer to a first message and checks what comes of it.
func tryReply(t *testing.T, s *scene, c corruption) {
	t.Helper()
	s.cfg.RequireMessageTime = true
	tr := s.begin(t)
	request := tr.Step().Send
	m := s.ca.granted(t, request)
	c.spoil(t, s, m)
	step, err := bounded(t, tr, seal(t, m, s.reply))
	judge(t, tr, c, step, err)
	if !errors.Is(err, ErrProtection) {
		return
	}
	// what was not authentic has changed nothing
	if again := tr.Step(); !bytes.Equal(again.Send, request) || again.Issued != nil {
		t.Errorf("afterwards the step is %+v", again)
	}
}

// maxRefusal is the most memory that refusing one reply may take, in bytes.
const maxRefusal = 4 << 20

// mostRefusal is the most CPU time that bounded has seen a reply take.
var mostRefusal time.Duration

// bounded gives a reply to a transaction and looks at the memory and the CPU time that takes.
func bounded(t *testing.T, tr *Transaction, reply []byte) (Step, error) {
	t.Helper()
	return boundedBy(t, maxRefusalTime, tr, reply)
}

func boundedBy(t *testing.T, most time.Duration, tr *Transaction, reply []byte) (Step, error) {
	t.Helper()
	stored, err := tr.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := cpuTime(t)
	step, err := tr.Next(reply)
	took := time.Duration(cpuTime(t) - began)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > maxRefusal {
		t.Errorf("allocates %d bytes, want at most %d", took, maxRefusal)
	}
	for try := 0; took > most && try < 5; try++ { // a collection of garbage is not part of it each time
		took = min(took, timeOf(t, tr.cfg, stored, reply))
	}
	if took > most {
		t.Errorf("takes %s of CPU time, want at most %s", took, most)
	}
	mostRefusal = max(mostRefusal, took)
	return step, err
}

// timeOf is the CPU time that a reply to a stored transaction takes.
func timeOf(t *testing.T, cfg Config, stored, reply []byte) time.Duration {
	t.Helper()
	tr, err := Resume(cfg, stored)
	if err != nil {
		t.Fatal(err)
	}
	began := cpuTime(t)
	_, _ = tr.Next(reply)
	return time.Duration(cpuTime(t) - began)
}

func judge(t *testing.T, tr *Transaction, c corruption, step Step, err error) {
	t.Helper()
	if got := outcome(err); got != c.want {
		t.Errorf("got %q (%v), want %q", got, err, c.want)
	}
	if err == nil {
		return
	}
	if !cites(err) {
		t.Errorf("the error cites no section: %v", err)
	}
	if step.Done || step.Issued != nil || tr.Step().Done || tr.Step().Issued != nil {
		t.Errorf("a certificate in spite of %v", err)
	}
}

// Two certificates of the same name and key identifier: the one that signed is found.
func TestSignerWithANamesake(t *testing.T) {
	tryReply(t, signed(t), signers["another certificate of the same name"])
}

// trials are tests of one corruption each, by name.
type trials map[string]func(*testing.T)

// minCorruptions is how many ways to spoil a good reply there must be in the tests.
const minCorruptions = 300

// Every single-field corruption of a good reply is refused, for the reason it
// deserves, and gives no certificate.
func TestCorruptions(t *testing.T) {
	all := trials{}
	for kind, some := range map[string]trials{
		"first reply": corruptedReplies(), "body": wrongBodies(), "later reply": corruptedLaterReplies(), "element": corruptedElements(t),
	} {
		t.Logf("%s: %d", kind, len(some))
		for name, run := range some {
			all[kind+"/"+name] = run
		}
	}
	if len(all) < minCorruptions {
		t.Fatalf("%d corruptions, want at least %d", len(all), minCorruptions)
	}
	mostRefusal = 0
	for name, run := range all {
		t.Run(name, run)
	}
	t.Logf("%d corrupted replies refused, each in at most %s of CPU time", len(all), mostRefusal)
}

// corruptedReplies spoils the answers to all requests for certificates, by both kinds of protection.
func corruptedReplies() trials {
	scenes := map[string]func(testing.TB) *scene{
		"signature": signed,
		"MAC": func(t testing.TB) *scene {
			s := shared(t)
			s.cfg.Trust.IssuedRoots, s.cfg.Trust.Roots = s.cfg.Trust.Roots, nil
			return s
		},
	}
	special := map[string]map[string]corruption{"signature": signers, "MAC": macs}
	out := trials{}
	for protection, newScene := range scenes {
		for kind, fine := range map[BodyType]string{TypeIR: "", TypeCR: "", TypeKUR: "status 6", TypeP10CR: "certReqId -1"} {
			for _, table := range []map[string]corruption{headers, bodies, special[protection]} {
				for name, c := range table {
					if name != fine && c.want != "ok" {
						out[fmt.Sprintf("%s by %s/%s", kind, protection, name)] = func(t *testing.T) { tryReply(t, newScene(t).asking(t, kind), c) }
					}
				}
			}
		}
	}
	return out
}

// Every arm of PKIBody but the right one is refused, for every request.
func wrongBodies() trials {
	out := trials{}
	for _, kind := range []BodyType{TypeIR, TypeCR, TypeKUR, TypeP10CR} {
		for i := range bodyNames {
			body := BodyType(i)
			if body == responseTo[kind] || body == TypeError {
				continue
			}
			c := corruption{func(t *testing.T, s *scene, m *Message) { *m = *s.withBody(t, m, body) }, "body"}
			out[fmt.Sprintf("%s answered by %s", kind, body)] = func(t *testing.T) { tryReply(t, signed(t).asking(t, kind), c) }
		}
	}
	return out
}

// corruptedElements spoils, one after the other, the elements of the DER of a
// good reply: those of its header, body and protection, without a look into
// certificates. Some spoilt elements are still DER: those the protection gives away.
func corruptedElements(t *testing.T) trials {
	s := signed(t)
	tr := s.begin(t)
	reply := seal(t, s.ca.granted(t, tr.Step().Send), s.reply)
	stored, err := tr.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	out := trials{}
	for _, at := range elementsOf(reply, 0, len(reply), 0) {
		for name, spoil := range map[string]func([]byte, int) []byte{
			"tag": func(b []byte, i int) []byte { b[i] ^= 0x04; return b },
			"length of one less": func(b []byte, i int) []byte {
				b[at.content-1]--
				return b
			},
			"length of one more": func(b []byte, i int) []byte { b[at.content-1]++; return b },
			"indefinite length":  func(b []byte, i int) []byte { b[i+1] = 0x80; return b },
			"last octet":         func(b []byte, i int) []byte { b[at.end-1] ^= 0x01; return b },
			"cut off":            func(b []byte, i int) []byte { return b[:i] },
		} {
			bad := spoil(bytes.Clone(reply), at.start)
			out[fmt.Sprintf("%d %#02x/%s", at.start, reply[at.start], name)] = func(t *testing.T) {
				tr, err := Resume(s.cfg, stored)
				if err != nil {
					t.Fatal(err)
				}
				step, err := bounded(t, tr, bad)
				var syntax *SyntaxError
				if !errors.As(err, &syntax) && !errors.Is(err, ErrProtection) || !cites(err) || step.Issued != nil || step.Done {
					t.Errorf("%+v, %v", step, err)
				}
			}
		}
	}
	return out
}

// span is where an element begins, its content begins, and it ends.
type span struct{ start, content, end int }

// elementsOf finds the elements of DER down to a depth, but for extraCerts.
func elementsOf(der []byte, from, to, depth int) []span {
	var out []span
	for from < to {
		p := newParser(der[from:to], inMessage)
		end := p.header(p.anyTag("element"), "element")
		if !p.ok() {
			break
		}
		at := span{from, from + p.at, from + end}
		from = at.end
		if at.content == at.end || depth == 1 && der[at.start] == byte(explicit(1)) && at.end == len(der) {
			continue
		}
		out = append(out, at)
		if der[at.start]&0x20 != 0 && depth < 6 {
			out = append(out, elementsOf(der, at.content, at.end, depth+1)...)
		}
	}
	return out
}

// withBody is m with some body of another type.
func (s *scene) withBody(t *testing.T, m *Message, body BodyType) *Message {
	t.Helper()
	out := &Message{Header: m.Header, Type: body}
	if m.Body.fits(body) {
		out.Body = m.Body
		return out
	}
	samples := []Body{
		CertReqMessages{{}}, P10CR{0x30, 0}, RevReq{}, &RevRep{Status: []StatusInfo{{}}}, PKIConf{}, GenMsg{},
		CertConf{}, PollReq{}, PollRep{}, Opaque{5, 0}, Nested{{Type: TypePKIConf, Body: PKIConf{}}},
	}
	i := slices.IndexFunc(samples, func(b Body) bool { return b.fits(body) })
	out.Body = samples[i]
	return out
}

// The answers to pollReq and certConf pass the same checks as the first.
func corruptedLaterReplies() trials {
	polls := map[string]corruption{
		"other certReqId":    {pollWith(func(e *PollRepEntry) { e.CertReqID = 1 }), "pollRep.certReqId"},
		"negative":           {pollWith(func(e *PollRepEntry) { e.CheckAfter = -1 }), "pollRep.checkAfter"},
		"none":               {func(_ *testing.T, _ *scene, m *Message) { m.Body = PollRep{} }, "pollRep"},
		"two":                {func(_ *testing.T, _ *scene, m *Message) { m.Body = PollRep{{}, {}} }, "pollRep"},
		"nonce of the first": {func(_ *testing.T, s *scene, m *Message) { m.Header.RecipNonce = s.firstNonce }, "recipNonce"},
		"waiting again":      {func(t *testing.T, s *scene, m *Message) { *m = *s.again(t, m) }, "status"},
		"pkiconf":            {func(_ *testing.T, _ *scene, m *Message) { m.Type, m.Body = TypePKIConf, PKIConf{} }, "body"},
	}
	confirms := map[string]corruption{
		"pollRep": {func(_ *testing.T, _ *scene, m *Message) { m.Type, m.Body = TypePollRep, PollRep{{}} }, "body"},
		"genp":    {func(_ *testing.T, _ *scene, m *Message) { m.Type, m.Body = TypeGenP, GenMsg{} }, "body"},
		"ip":      {func(t *testing.T, s *scene, m *Message) { *m = *s.again(t, m) }, "body"},
	}
	out := trials{}
	for phase, table := range map[string]map[string]corruption{"polling": polls, "confirming": confirms} {
		table = maps.Clone(table)
		maps.Copy(table, headers)
		table["senderNonce again"] = corruption{func(_ *testing.T, s *scene, m *Message) { m.Header.SenderNonce = s.peerNonce }, "senderNonce"}
		for name, c := range table {
			for _, kind := range []BodyType{TypeIR, TypeP10CR} {
				out[fmt.Sprintf("%s %s/%s", phase, kind, name)] = func(t *testing.T) { tryLater(t, signed(t).asking(t, kind), phase, c) }
			}
		}
	}
	return out
}

func pollWith(spoil func(*PollRepEntry)) func(*testing.T, *scene, *Message) {
	return func(_ *testing.T, _ *scene, m *Message) { spoil(&m.Body.(PollRep)[0]) }
}

// again is another waiting where something else is due.
func (s *scene) again(t *testing.T, m *Message) *Message {
	t.Helper()
	id := map[BodyType]int64{TypeP10CR: -1}[s.req.Type]
	body := &CertRepMessage{Response: []CertResponse{{CertReqID: id, Status: StatusInfo{Status: StatusWaiting}}}}
	return &Message{Header: m.Header, Type: responseTo[s.req.Type], Body: body}
}

func tryLater(t *testing.T, s *scene, phase string, c corruption) {
	t.Helper()
	s.cfg.RequireMessageTime = true
	tr := s.begin(t)
	first := tr.Step().Send
	s.firstNonce = mustParse(t, first).Header.SenderNonce
	m := s.ca.waiting(t, first)
	if phase == "confirming" {
		m = s.ca.granted(t, first)
	}
	s.peerNonce = m.Header.SenderNonce
	step := s.next(t, tr, m)
	if phase == "confirming" {
		m = s.ca.confirmed(t, step.Send)
	} else {
		m = s.ca.pollRep(t, step.Send, 5)
	}
	c.spoil(t, s, m)
	step, err := bounded(t, tr, seal(t, m, s.reply))
	if got := outcome(err); got != c.want || !cites(err) {
		t.Errorf("got %q (%v), want %q", got, err, c.want)
	}
	if step.Done || tr.Step().Done {
		t.Errorf("done in spite of %v", err)
	}
}

// Any single bit flipped on the way is noticed. Bits of certificates that are
// not protected, because they are in extraCerts, are noticed by their signature.
func TestFlippedBits(t *testing.T) {
	for name, newScene := range map[string]func(testing.TB) *scene{"signature": signed, "MAC": shared} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tr := s.begin(t)
			reply := seal(t, s.ca.granted(t, tr.Step().Send), s.reply)
			stored, err := tr.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			for i := range reply {
				bad := bytes.Clone(reply)
				bad[i] ^= 1 << (i % 8)
				tr, err := Resume(s.cfg, stored)
				if err != nil {
					t.Fatal(err)
				}
				step, err := tr.Next(bad)
				var syntax *SyntaxError
				if !errors.Is(err, ErrProtection) && !errors.As(err, &syntax) || step.Issued != nil {
					t.Errorf("byte %d: %v, %+v", i, err, step)
				}
				refused++
			}
			t.Logf("%d corrupted replies refused", refused)
		})
	}
}

// A reply without protection is not believed, whatever it says.
func TestPitfall03UnprotectedErrors(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*Message)
		allow bool
		want  string
	}{
		"certificate":          {func(*Message) {}, false, "protection"},
		"certificate, allowed": {func(*Message) {}, true, "protection"},
		"pkiconf, allowed":     {func(m *Message) { m.Type, m.Body = TypePKIConf, PKIConf{} }, true, "protection"},
		"error":                {func(m *Message) { *m = asError(m, StatusRejection) }, false, "protection"},
		"error, allowed":       {func(m *Message) { *m = asError(m, StatusRejection) }, true, "peer"},
		"error of another transaction, allowed": {func(m *Message) {
			*m = asError(m, StatusRejection)
			m.Header.TransactionID = []byte("another")
		}, true, "transactionID"},
		"error without transactionID, allowed": {func(m *Message) {
			*m = asError(m, StatusRejection)
			m.Header.TransactionID, m.Header.RecipNonce = nil, nil
		}, true, "peer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			s.cfg.UnprotectedErrors = test.allow
			tr := s.begin(t)
			m := s.ca.granted(t, tr.Step().Send)
			test.spoil(m)
			der, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			step, err := tr.Next(der)
			judge(t, tr, corruption{want: test.want}, step, err)
			var peer *Error
			if isError := strings.HasPrefix(name, "error"); errors.As(err, &peer) != isError || isError && peer.Verified {
				t.Errorf("the error shows %+v, want an unverified one: %t", peer, isError)
			}
		})
	}
}
