package lifecycle_test

import (
	"bytes"
	"crypto/x509"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

// Outcomes of a change that somebody makes to an output, as docs/secrets.md names them.
const (
	restored = "restored"
	taken    = "adopted"
	leftIt   = "left alone"
	refused  = "refused"
	reissued = "issued anew"
)

// mutation is something that people and programs do to an output Secret.
type mutation struct {
	outcome string
	// do changes the Secret; pair is a valid pair of the issuer's trust, other one for another subject.
	do func(r *rig, s *corev1.Secret, m material)
}

// material is what mutations are made of.
type material struct{ pair, foreign, expired, untrusted, weak, former map[string][]byte }

func update(change func(*corev1.Secret, material)) func(*rig, *corev1.Secret, material) {
	return func(r *rig, s *corev1.Secret, m material) {
		r.t.Helper()
		change(s, m)
		if _, err := r.secrets.Update(r.t.Context(), s, metav1.UpdateOptions{}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// replaced deletes a Secret and makes another one of its name.
func replaced(change func(*corev1.Secret)) func(*rig, *corev1.Secret, material) {
	return func(r *rig, s *corev1.Secret, _ material) {
		r.t.Helper()
		r.delete(s.Name)
		next := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: s.Labels, Annotations: s.Annotations}, Type: s.Type, Data: s.Data}
		change(next)
		if _, err := r.secrets.Create(r.t.Context(), next, metav1.CreateOptions{}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) deleteRecordOf(output *corev1.Secret) {
	r.t.Helper()
	r.delete(model.RecordName(output.Annotations[model.CertificateAnnotation]))
}

func mutations() map[string]mutation {
	put := func(s *corev1.Secret, data map[string][]byte) { maps.Copy(s.Data, data) }
	return map[string]mutation{
		"the Secret deleted":                {restored, func(r *rig, s *corev1.Secret, _ material) { r.t.Helper(); r.delete(s.Name) }},
		"its record deleted":                {taken, func(r *rig, s *corev1.Secret, _ material) { r.t.Helper(); r.deleteRecordOf(s) }},
		"the Secret and its record deleted": {reissued, func(r *rig, s *corev1.Secret, _ material) { r.t.Helper(); r.delete(s.Name); r.deleteRecordOf(s) }},
		"only the key changed":              {restored, update(func(s *corev1.Secret, m material) { s.Data["tls.key"] = m.pair["tls.key"] })},
		"only the certificate changed":      {restored, update(func(s *corev1.Secret, m material) { s.Data["tls.crt"] = m.pair["tls.crt"] })},
		"a pair that satisfies":             {taken, update(func(s *corev1.Secret, m material) { put(s, m.pair) })},
		"a pair for another subject":        {restored, update(func(s *corev1.Secret, m material) { put(s, m.foreign) })},
		"an expired pair":                   {restored, update(func(s *corev1.Secret, m material) { put(s, m.expired) })},
		"a pair from an untrusted CA":       {restored, update(func(s *corev1.Secret, m material) { put(s, m.untrusted) })},
		"a pair without the usages":         {restored, update(func(s *corev1.Secret, m material) { put(s, m.weak) })},
		"a former revision put back":        {restored, update(func(s *corev1.Secret, m material) { put(s, m.former) })},
		"truncated PEM":                     {restored, update(func(s *corev1.Secret, _ material) { s.Data["tls.crt"] = s.Data["tls.crt"][:100] })},
		"a data key removed":                {restored, update(func(s *corev1.Secret, _ material) { delete(s.Data, "ca.crt") })},
		"emptied":                           {restored, update(func(s *corev1.Secret, _ material) { s.Data = map[string][]byte{"tls.key": {}, "tls.crt": {}} })},
		"the labels removed":                {restored, update(func(s *corev1.Secret, _ material) { s.Labels = nil })},
		"the annotations removed":           {restored, update(func(s *corev1.Secret, _ material) { s.Annotations = nil })},
		"the type changed, the marks kept":  {restored, replaced(func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })},
		"another Secret of the same name":   {refused, replaced(func(s *corev1.Secret) { s.Type, s.Labels, s.Annotations = corev1.SecretTypeOpaque, nil, nil })},
		"made immutable with other data":    {refused, update(func(s *corev1.Secret, _ material) { s.Immutable = new(true); s.Data["tls.crt"] = []byte("rubbish") })},
		"a foreign data key added":          {leftIt, update(func(s *corev1.Secret, _ material) { s.Data["theirs"] = []byte("1") })},
		"foreign labels and annotations added": {leftIt, update(func(s *corev1.Secret, _ material) {
			s.Labels["team"], s.Annotations["note"] = "shop", "kept"
		})},
	}
}

// Whatever is done to an output has the outcome that docs/secrets.md names, within five
// seconds and with the CA down; and our own writes are taken for nobody else's.
func TestMutations(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	vendor, stranger := newRoot(t, "vendor"), newRoot(t, "stranger")
	r.trust(vendor)
	all := mutations()
	names := map[string]string{}
	formers := map[string]map[string][]byte{}
	for kind := range all {
		name := strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(kind))
		names[kind] = name
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
		if strings.Contains(kind, "former") {
			formers[name] = maps.Clone(r.output(name).Data)
			r.send(model.NewEvent(model.RenewalRequested, r.key(name), model.Work{Reason: model.WorkManual}))
		}
	}
	t.Run("with the CA", func(t *testing.T) {
		for kind, m := range all {
			if m.outcome != reissued {
				continue
			}
			name := names[kind]
			before := r.output(name)
			m.do(r, before.DeepCopy(), material{})
			r.send(r.ref(model.RefDelete, model.RecordName(name)))
			r.send(r.ref(model.RefDelete, name+"-tls"))
			if after := r.output(name); bytes.Equal(after.Data["tls.crt"], before.Data["tls.crt"]) || after.Annotations["certloop.io/revision"] != "2" {
				t.Errorf("%s: it was not issued anew: annotations %v", kind, after.Annotations)
			}
			r.wantReady(name, true)
			r.wantIssuances(name, 2)
		}
	})
	r.stopCA()
	for kind, m := range all {
		if m.outcome == reissued {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			name := names[kind]
			before := r.output(name)
			m.do(r, before.DeepCopy(), material{
				pair:      vendor.pair(t, name, nil),
				foreign:   vendor.pair(t, "somebody-else", nil),
				expired:   vendor.pair(t, name, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
				untrusted: stranger.pair(t, name, nil),
				weak:      vendor.pair(t, name, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }),
				former:    formers[name],
			})
			harmed, _ := r.secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
			began := time.Now()
			event, secret := model.RefUpdate, name+"-tls"
			switch kind {
			case "the Secret deleted":
				event = model.RefDelete
			case "its record deleted":
				event, secret = model.RefDelete, model.RecordName(name)
			}
			r.send(r.ref(event, secret))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s, want at most 5 s", took)
			}
			after := r.output(name)
			switch m.outcome {
			case restored:
				for k, v := range before.Data {
					if !bytes.Equal(after.Data[k], v) {
						t.Errorf("%s was not restored", k)
					}
				}
				if after.Type != before.Type || !maps.Equal(after.Labels, before.Labels) || !maps.Equal(after.Annotations, before.Annotations) {
					t.Errorf("got type %s, labels %v, annotations %v", after.Type, after.Labels, after.Annotations)
				}
				r.wantReady(name, true)
			case taken:
				if !bytes.Equal(after.Data["tls.crt"], harmed.Data["tls.crt"]) || after.Annotations["certloop.io/revision"] != "2" {
					t.Errorf("it was not adopted: annotations %v", after.Annotations)
				}
				r.wantReason(name, model.ReasonAdopted)
				if !mention(r.facts, model.CertificateAdopted, r.key(name).String()) {
					t.Error("it was not told")
				}
			case leftIt:
				if after.ResourceVersion != harmed.ResourceVersion {
					t.Error("it was written")
				}
				r.wantReady(name, true)
			case refused:
				if after.ResourceVersion != harmed.ResourceVersion {
					t.Error("it was written")
				}
				r.wantReason(name, model.ReasonOutputConflict)
			}
			facts := len(r.facts)
			r.send(r.ref(model.RefUpdate, name+"-tls"))
			if m.outcome != refused && len(r.facts) != facts {
				t.Errorf("our own write told %v", r.facts[facts:])
			}
		})
	}
}

// The table in the documentation says what the code does.
func TestMutationsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/secrets.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| \*\*([^|*]+)\*\*[^|]*\|$`).FindAllStringSubmatch(string(text), -1) {
		documented[strings.TrimSpace(row[1])] = row[2]
	}
	want := map[string]string{}
	for kind, m := range mutations() {
		want[kind] = m.outcome
	}
	if !maps.Equal(documented, want) {
		t.Errorf("docs/secrets.md says\n%v\nthe code does\n%v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(want)))
	}
	if len(want) < 12 {
		t.Errorf("only %d kinds of changes are tried", len(want))
	}
}
