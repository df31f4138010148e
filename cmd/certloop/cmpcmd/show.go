package cmpcmd

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// showFiles shows the messages in the files of -reqin and -rspin.
func (r *run) showFiles() error {
	paths := append(r.list("reqin"), r.list("rspin")...)
	if len(paths) == 0 {
		return errors.New("-show: there is no -reqin, -rspin or -cmd to show anything of")
	}
	for _, path := range paths {
		m, der, err := message(path)
		if err != nil {
			return fmt.Errorf("-show: %w", err)
		}
		if _, err := fmt.Fprintf(r.out, "%s: %s", path, describe(m, len(der))); err != nil {
			return err
		}
	}
	return nil
}

// showMessage shows a message of the exchange, if -show wants that.
func (r *run) showMessage(direction string, der []byte) {
	if !r.has("show") {
		return
	}
	m, err := cmp.ParseMessage(der)
	if err != nil {
		_, _ = fmt.Fprintf(r.out, "%s: %d bytes, no PKIMessage: %v\n", direction, len(der), err)
		return
	}
	_, _ = fmt.Fprintf(r.out, "%s: %s", direction, describe(m, len(der)))
}

// describe is a message for people to read. Protection is not verified: it may
// come from anybody, and so texts are quoted.
func describe(m *cmp.Message, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "PKIMessage %s, %d bytes\n", m.Type, size)
	v := &view{w: &b, indent: "  "}
	v.header(&m.Header)
	v.body(m)
	switch {
	case m.Protection != nil:
		v.line("protection", "%d bytes, not verified here", len(m.Protection))
	default:
		v.line("protection", "none")
	}
	v.certificates("extraCerts", m.ExtraCerts)
	return b.String()
}

// view writes indented lines.
type view struct {
	w      io.Writer
	indent string
}

func (v *view) line(name, format string, args ...any) {
	_, _ = fmt.Fprintf(v.w, "%s%s: %s\n", v.indent, name, fmt.Sprintf(format, args...))
}

// under writes a headline and gives the view for what is below it.
func (v *view) under(headline string, args ...any) *view {
	_, _ = fmt.Fprintf(v.w, "%s%s\n", v.indent, fmt.Sprintf(headline, args...))
	return &view{w: v.w, indent: v.indent + "  "}
}

func (v *view) header(h *cmp.Header) {
	v.line("pvno", "%d", h.PVNO)
	v.line("sender", "%s", generalName(h.Sender))
	v.line("recipient", "%s", generalName(h.Recipient))
	if !h.MessageTime.IsZero() {
		v.line("messageTime", "%s", timeText(h.MessageTime))
	}
	if h.ProtectionAlg.Algorithm != nil {
		v.line("protectionAlg", "%s", algorithmText(h.ProtectionAlg))
	}
	v.octets("senderKID", h.SenderKID)
	v.octets("recipKID", h.RecipKID)
	v.octets("transactionID", h.TransactionID)
	v.octets("senderNonce", h.SenderNonce)
	v.octets("recipNonce", h.RecipNonce)
	for _, text := range h.FreeText {
		v.line("freeText", "%q", text)
	}
	v.infos("generalInfo", h.GeneralInfo)
}

// octets shows bytes in hexadecimal, and those that are plain text as text, too.
func (v *view) octets(name string, b []byte) {
	if b == nil {
		return
	}
	text := hex.EncodeToString(b)
	if len(b) > 0 && strings.IndexFunc(string(b), func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0 {
		text += fmt.Sprintf(" %q", b)
	}
	v.line(name, "%s", text)
}

func (v *view) infos(name string, infos []cmp.InfoTypeAndValue) {
	for _, info := range infos {
		if info.Value == nil {
			v.line(name, "%s", infoName(info.Type))
			continue
		}
		v.line(name, "%s = %s", infoName(info.Type), valueText(info.Value))
	}
}

// valueText shows a simple DER value, and of others how long they are.
func valueText(der []byte) string {
	var raw asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &raw); err != nil || len(rest) > 0 {
		return fmt.Sprintf("%d bytes", len(der))
	}
	var n int64
	var texts []string
	switch {
	case raw.Class != asn1.ClassUniversal:
	case raw.Tag == asn1.TagNull:
		return "NULL"
	case raw.Tag == asn1.TagUTF8String, raw.Tag == asn1.TagGeneralizedTime:
		return fmt.Sprintf("%q", raw.Bytes)
	case raw.Tag == asn1.TagInteger:
		if _, err := asn1.Unmarshal(der, &n); err == nil {
			return fmt.Sprint(n)
		}
	case raw.Tag == asn1.TagSequence:
		if _, err := asn1.Unmarshal(der, &texts); err == nil && len(texts) > 0 { // certProfile
			return fmt.Sprintf("%q", texts)
		}
	}
	return fmt.Sprintf("%d bytes of DER", len(der))
}

func generalName(g cmp.GeneralName) string {
	if name, ok := g.Name(); ok {
		return name.String()
	}
	return fmt.Sprintf("%x", []byte(g))
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func keyText(key any, err error) string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d bits", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	if err != nil {
		return "cannot be read"
	}
	return "of another kind"
}
