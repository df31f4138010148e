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
		was, is := filled(), filled()
		set(is)
		top, _, _ := strings.Cut(path, ".")
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

func filled() *CMPCertificateSpec {
	s := new(CMPCertificateSpec)
	eachLeaf(reflect.ValueOf(s).Elem(), "", func(string, func(*CMPCertificateSpec)) {})
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
