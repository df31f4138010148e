package cmpcmd

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certloop/certloop/pkg/cmp"
)

func extensionName(id asn1.ObjectIdentifier) string {
	for _, k := range extensionKinds() {
		if k.id.Equal(id) {
			return k.name
		}
	}
	return "extension " + id.String()
}

// extensionText shows the extensions that requests usually have, others in hexadecimal.
func extensionText(x pkix.Extension) string {
	switch {
	case x.Id.Equal(oidSubjectAltName):
		return altNamesText(x.Value)
	case x.Id.Equal(oidKeyUsage):
		var bits asn1.BitString
		if _, err := asn1.Unmarshal(x.Value, &bits); err == nil {
			return usagesText(bits)
		}
	case x.Id.Equal(oidExtKeyUsage):
		var ids []asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(x.Value, &ids); err == nil {
			return purposesText(ids)
		}
	}
	return hex.EncodeToString(x.Value[:min(len(x.Value), cmp.MaxTextBytes)])
}

func usagesText(bits asn1.BitString) string {
	var names []string
	for n, usage := range keyUsages {
		if bits.At(n) == 1 {
			names = append(names, usage[0])
		}
	}
	return strings.Join(names, ", ")
}

func purposesText(ids []asn1.ObjectIdentifier) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
		for name, known := range extKeyUsages {
			if known.Equal(id) {
				names[i] = name
			}
		}
	}
	return strings.Join(names, ", ")
}

func altNamesText(der []byte) string {
	in := cryptobyte.String(der)
	var list, content cryptobyte.String
	in.ReadASN1(&list, tag.SEQUENCE)
	var names []string
	for !list.Empty() {
		var t tag.Tag
		if !list.ReadAnyASN1(&content, &t) {
			break
		}
		names = append(names, altNameText(t, content))
	}
	return strings.Join(names, ", ")
}

func altNameText(t tag.Tag, content []byte) string {
	kind := map[tag.Tag]string{tagDNS: "DNS", tagURI: "URI", tagEmail: "email"}[t]
	switch {
	case kind != "":
		return fmt.Sprintf("%s:%q", kind, content)
	case t == tagIP && (len(content) == 4 || len(content) == 16):
		return "IP:" + ipText(content)
	}
	return fmt.Sprintf("[%d]:%x", t&0x1f, content)
}
