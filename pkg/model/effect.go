package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// FieldEffect is what a change of one field of a CMPCertificate leads to.
//
// +kubebuilder:object:generate=false
type FieldEffect struct {
	Path   string // below spec; it stands for everything below it
	Effect string
	Doc    string // what happens, for people
}

// FieldEffects is the table of what changes lead to. Its order is that of
// docs/certificates.md.
func FieldEffects() []FieldEffect {
	const anew = "A new key and certificate are obtained now; the former ones stay delivered until then."
	return []FieldEffect{
		{"type", EffectNone, "Cannot be changed: make a new CMPCertificate."},
		{"issuerRef", EffectReissue, anew},
		{"privateKey", EffectReissue, anew},
		{"subject", EffectReissue, anew},
		{"subjectAltNames", EffectReissue, anew},
		{"keyUsages", EffectReissue, anew},
		{"extendedKeyUsages", EffectReissue, anew},
		{"validity", EffectReissue, anew},
		{"validityDays", EffectReissue, anew},
		{"renewBefore", EffectNextRenewal, "The time of the next renewal is computed anew, from the certificate in use."},
		{"renewBeforeDays", EffectNextRenewal, "Likewise."},
		{"renewBeforePercentage", EffectNextRenewal, "Likewise."},
		{"output", EffectOutput, "Key and certificate in use are written to the new places. What is at the former ones stays there."},
		{"caBundle", EffectOutput, "The bundle is copied anew."},
		{"networkFunction", EffectOutput, "The label of the output Secrets is set anew."},
		{"purpose", EffectOutput, "Likewise."},
		{"record", EffectOutput, "The copy of the key in the record is added or removed."},
		{"origin", EffectNone, "Matters only while there is no certificate."},
		{"basicConstraints", EffectNone, "There is one value."},
		{"deletionPolicy", EffectNone, "Matters when the configuration is withdrawn."},
		{"paused", EffectNone, "What was missed meanwhile is made up for when it ends."},
	}
}

// Effect says what a changed specification leads to, and which fields do: paths below
// spec, sorted, those without effect left out. The strongest effect counts: reissue, then
// output, then nextRenewal. What is written differently and means the same, such as a
// validity of 48h and one of two days, is no change.
func Effect(was, is *CMPCertificateSpec) (effect string, fields []string) {
	effects := map[string]string{}
	for _, row := range FieldEffects() {
		effects[row.Path] = row.Effect
	}
	same := sameMeaning(was, is)
	effect = EffectNone
	rank := []string{EffectNone, EffectNextRenewal, EffectOutput, EffectReissue}
	for _, path := range changes("", tree(was), tree(is)) {
		top, _, _ := strings.Cut(path, ".")
		of := effects[top]
		if of == EffectNone || same[top] {
			continue
		}
		fields = append(fields, "spec."+path)
		if slices.Index(rank, of) > slices.Index(rank, effect) {
			effect = of
		}
	}
	return effect, fields
}

// sameMeaning are the fields that say the same in two specifications, however they say it.
func sameMeaning(was, is *CMPCertificateSpec) map[string]bool {
	same := map[string]bool{}
	if was.RequestedValidity() == is.RequestedValidity() {
		same["validity"], same["validityDays"] = true, true
	}
	if was.RenewBeforePercentage == is.RenewBeforePercentage && was.RenewLead(0) == is.RenewLead(0) {
		same["renewBefore"], same["renewBeforeDays"] = true, true
	}
	return same
}

// changes are the paths at which two trees differ, sorted. A list is one value.
func changes(path string, was, is map[string]any) (paths []string) {
	both := maps.Clone(was)
	maps.Copy(both, is)
	for _, key := range slices.Sorted(maps.Keys(both)) {
		below, belowIs := was[key].(map[string]any)
		after, afterIs := is[key].(map[string]any)
		switch {
		case belowIs && afterIs:
			paths = append(paths, changes(path+key+".", below, after)...)
		case !bytes.Equal(text(was[key]), text(is[key])):
			paths = append(paths, path+key)
		}
	}
	return paths
}

func tree(spec *CMPCertificateSpec) (out map[string]any) {
	if err := json.Unmarshal(text(spec), &out); err != nil {
		panic(fmt.Sprintf("model: a specification cannot be read: %v", err)) // it was just written
	}
	return out
}

func text(v any) []byte {
	js, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("model: a specification cannot be encoded: %v", err)) // it came from JSON
	}
	return js
}
