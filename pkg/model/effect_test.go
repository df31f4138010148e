package model

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Every field has a decision: a new one without it fails here.
func TestEveryFieldHasAnEffect(t *testing.T) {
	var fields, rows []string
	for field := range reflect.TypeFor[CMPCertificateSpec]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		fields = append(fields, name)
	}
	for _, row := range FieldEffects() {
		rows = append(rows, row.Path)
		if row.Doc == "" {
			t.Errorf("%s: what happens is not said", row.Path)
		}
	}
	slices.Sort(fields)
	slices.Sort(rows)
	if !slices.Equal(fields, rows) {
		t.Errorf("the fields are %v and those with an effect are %v", fields, rows)
	}
}

// A change of each field, wherever it is, has the effect of its row.
func TestEffectOfEachField(t *testing.T) {
	effects := map[string]string{}
	for _, row := range FieldEffects() {
		effects[row.Path] = row.Effect
	}
	leaves := 0
	eachLeaf(reflect.ValueOf(new(CMPCertificateSpec)).Elem(), "", func(path string, set func(*CMPCertificateSpec)) {
		leaves++
		top, _, _ := strings.Cut(path, ".")
		was, is := filled(top), filled(top)
		set(is)
		effect, fields := Effect(was, is)
		if effect != effects[top] {
			t.Errorf("%s: got %s, want %s", path, effect, effects[top])
		}
		if (effect == EffectNone) != (len(fields) == 0) || len(fields) > 0 && !slices.Equal(fields, []string{"spec." + path}) {
			t.Errorf("%s: got fields %v", path, fields)
		}
		if effect, fields := Effect(is, is.DeepCopy()); effect != EffectNone || fields != nil {
			t.Errorf("%s: got %s of %v for no change", path, effect, fields)
		}
	})
	if leaves < 45 {
		t.Errorf("got %d fields, want all of them", leaves)
	}
}

// filled has every field set but those that go before the one to be changed.
func filled(changed string) *CMPCertificateSpec {
	s := new(CMPCertificateSpec)
	eachLeaf(reflect.ValueOf(s).Elem(), "", func(string, func(*CMPCertificateSpec)) {})
	switch changed {
	case "validityDays":
		s.Validity = nil
	case "renewBeforeDays":
		s.RenewBefore, s.RenewBeforePercentage = nil, 0
	}
	return s
}

// eachLeaf fills in every field and tells of it, with a function that changes it.
func eachLeaf(v reflect.Value, path string, tell func(string, func(*CMPCertificateSpec))) {
	walk(v, path, nil, tell)
}

func walk(v reflect.Value, path string, index []int, tell func(string, func(*CMPCertificateSpec))) {
	for i := range v.NumField() {
		field := v.Field(i)
		at := append(slices.Clone(index), i)
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
		}
		if inner := reflect.Indirect(field); inner.Kind() == reflect.Struct && inner.Type() != reflect.TypeFor[metav1.Duration]() {
			walk(inner, path+name+".", at, tell)
			continue
		}
		value(reflect.Indirect(field), 1)
		tell(path+name, func(s *CMPCertificateSpec) {
			value(reflect.Indirect(reflect.ValueOf(s).Elem().FieldByIndex(at)), 2)
		})
	}
}

// value sets the n-th value of a kind.
func value(v reflect.Value, n int64) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(strings.Repeat("x", int(n)))
	case reflect.Bool:
		v.SetBool(n == 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), int(n), int(n)))
	case reflect.Struct:
		v.Set(reflect.ValueOf(metav1.Duration{Duration: time.Duration(n) * time.Hour}))
	default:
		v.SetInt(n)
	}
}

func TestStrongestEffectCounts(t *testing.T) {
	was := &validCertificate().Spec
	is := was.DeepCopy()
	is.RenewBeforeDays, is.Purpose = 3, "SBI"
	if effect, fields := Effect(was, is); effect != EffectOutput || !slices.Equal(fields, []string{"spec.purpose", "spec.renewBeforeDays"}) {
		t.Errorf("got %s of %v", effect, fields)
	}
	is.SubjectAltNames.DNSNames = []string{"b.example"}
	if effect, fields := Effect(was, is); effect != EffectReissue || !slices.Contains(fields, "spec.subjectAltNames.dnsNames") {
		t.Errorf("got %s of %v", effect, fields)
	}
}

// What is written differently and means the same changes nothing.
func TestEffectOfTheSameMeaning(t *testing.T) {
	hours := func(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Hour} }
	type change func(*CMPCertificateSpec)
	for name, tc := range map[string]struct {
		was, is change
		want    string
	}{
		"validity in days":          {func(s *CMPCertificateSpec) { s.Validity = hours(48) }, func(s *CMPCertificateSpec) { s.ValidityDays = 2 }, EffectNone},
		"validity in hours":         {func(s *CMPCertificateSpec) { s.ValidityDays = 2 }, func(s *CMPCertificateSpec) { s.Validity = hours(48) }, EffectNone},
		"another validity":          {func(s *CMPCertificateSpec) { s.Validity = hours(47) }, func(s *CMPCertificateSpec) { s.ValidityDays = 2 }, EffectReissue},
		"renewal in days":           {func(s *CMPCertificateSpec) { s.RenewBefore = hours(24) }, func(s *CMPCertificateSpec) { s.RenewBeforeDays = 1 }, EffectNone},
		"another renewal":           {func(s *CMPCertificateSpec) { s.RenewBefore = hours(25) }, func(s *CMPCertificateSpec) { s.RenewBeforeDays = 1 }, EffectNextRenewal},
		"days instead of a percent": {func(s *CMPCertificateSpec) { s.RenewBeforePercentage = 10 }, func(s *CMPCertificateSpec) { s.RenewBeforeDays = 1 }, EffectNextRenewal},
	} {
		was, is := validCertificate().Spec, validCertificate().Spec
		for _, s := range []*CMPCertificateSpec{&was, &is} {
			s.Validity, s.ValidityDays, s.RenewBefore, s.RenewBeforeDays, s.RenewBeforePercentage = nil, 0, nil, 0, 0
		}
		tc.was(&was)
		tc.is(&is)
		if effect, fields := Effect(&was, &is); effect != tc.want || (effect == EffectNone) != (len(fields) == 0) {
			t.Errorf("%s: got %s of %v, want %s", name, effect, fields, tc.want)
		}
	}
}
