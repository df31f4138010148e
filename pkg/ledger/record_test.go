package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// readable compares what a record holds; keys by their octets.
func readable(t testing.TB) diff.Option {
	t.Helper()
	return diff.Options{
		diff.Comparer(func(a, b ledger.PrivateKey) bool { return bytes.Equal(encode(t, a), encode(t, b)) }),
		diff.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) }),
		diff.FilterPath(func(p diff.Path) bool { return p.Last().String() == ".owner" || p.Last().String() == ".secret" }, diff.Ignore()),
	}
}

// What is saved is what is read, and saving that again writes the same octets.
func TestRecordRoundTrip(t *testing.T) {
	r := newRig(t)
	now := time.Date(2026, 11, 22, 1, 2, 3, 456789, time.UTC)
	issuance := func(key model.PrivateKey, anchors ...*x509.Certificate) *ledger.Issuance {
		k := generate(t, key)
		leaf := r.issuing.sign(t, "leaf", k.Signer().Public(), &x509.Certificate{})
		i := &ledger.Issuance{Key: k, Chain: []*x509.Certificate{leaf, r.issuing.cert}, Anchors: anchors, Stored: now}
		fill(i)
		return i
	}
	flight := func(chain ...*x509.Certificate) *ledger.Flight {
		f := r.flight("next")
		f.Purpose, f.Chain, f.NextPoll = ledger.ForRenewal, chain, now.Add(time.Hour)
		fill(f)
		return f
	}
	attempts := ledger.Attempts{Next: now, Message: "no such <host> & \u2028"}
	fill(&attempts)
	tests := map[string]ledger.Record{
		"begun":     {Flight: flight(), Lease: &ledger.Lease{Holder: "host/1/uuid", Beat: 3}, Fence: 12},
		"waiting":   {Flight: flight(), Fence: 2},
		"staged":    {Flight: flight(r.issuing.cert, r.root.cert), Fence: 1},
		"issued":    {Current: issuance(model.PrivateKey{}, r.root.cert), Fence: 1},
		"no anchor": {Current: issuance(model.PrivateKey{Size: 384})},
		"RSA":       {Current: issuance(model.PrivateKey{Algorithm: model.RSA}, r.root.cert)},
		"renewing":  {Current: issuance(model.PrivateKey{}, r.root.cert), Flight: flight(), Lease: &ledger.Lease{Holder: "h"}, Fence: 3},
		"failed":    {Fence: 4, Attempt: attempts},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			cert := r.declare(objectName(name), spec("web"))
			rec := r.record(cert)
			if rec.Version() != "" {
				t.Errorf("a record that does not exist has version %q", rec.Version())
			}
			rec.Current, rec.Flight, rec.Lease, rec.Fence, rec.Attempt = want.Current, want.Flight, want.Lease, want.Fence, want.Attempt
			r.save(rec)
			first := r.secret(model.RecordName(cert.Name))

			again := r.record(cert)
			if d := diff.Diff(&want, again, readable(t), diff.AllowUnexported(ledger.Record{})); d != "" {
				t.Errorf("what is read is not what was saved (-saved +read):\n%s", d)
			}
			if again.Version() != rec.Version() || again.Version() != first.ResourceVersion {
				t.Errorf("version %s read and %s saved, want %s", again.Version(), rec.Version(), first.ResourceVersion)
			}
			again.Fence++ // a write that changes nothing would be none
			r.save(again)
			again.Fence--
			r.save(again)
			if d := diff.Diff(first.Data, r.secret(first.Name).Data); d != "" {
				t.Errorf("the same record is written otherwise (-first +again):\n%s", d)
			}
		})
	}
}

// fill gives every number and text of a struct a value, if it has none: so that a
// field that is not stored is noticed.
func fill(into any) {
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case !f.IsZero():
		case f.Kind() == reflect.String:
			f.SetString("some " + v.Type().Field(i).Name)
		case f.CanInt():
			f.SetInt(int64(i + 2))
		}
	}
}

// The Secret says what it is, and goes with its configuration.
func TestRecordSecret(t *testing.T) {
	r := newRig(t)
	name := strings.Repeat("long.", 20) + "name"
	cert := r.declare(name, spec("web"))
	rec := r.record(cert)
	r.issue(rec, "web")
	r.save(rec)
	s := r.secret(name + ".certloop-record")
	if s.Type != ledger.RecordType {
		t.Errorf("got type %s, want %s", s.Type, ledger.RecordType)
	}
	want := map[string]string{
		"certloop.io/managed-by": "certloop", "certloop.io/role": "record", "certloop.io/certificate": model.LabelValue(name),
	}
	if !maps.Equal(s.Labels, want) {
		t.Errorf("got labels %v, want %v", s.Labels, want)
	}
	if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != cert.UID || !metav1.IsControlledBy(s, cert) {
		t.Errorf("got owners %+v, want the CMPCertificate as controller", s.OwnerReferences)
	}
	if got := slices.Sorted(maps.Keys(s.Data)); !slices.Equal(got, []string{"ca.crt", "state.json", "tls.crt", "tls.key"}) {
		t.Errorf("got data keys %v", got)
	}
	if bytes.Contains(s.Data["state.json"], []byte("PRIVATE")) {
		t.Error("state.json holds a private key")
	}
}

// Of two writers one is told that the other was first, and nothing it wrote remains.
func TestSaveConflict(t *testing.T) {
	r := newRig(t)
	cert := r.declare("web", spec("web"))
	for _, stage := range []string{"the first save", "a later save"} {
		mine, theirs := r.record(cert), r.record(cert)
		theirs.Claim("them")
		r.save(theirs)
		mine.Claim("me")
		before := mine.Version()
		err := r.store.Save(t.Context(), mine)
		if !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("%s: got error %v, want ErrConflict", stage, err)
		}
		if err != nil && !strings.Contains(err.Error(), r.ns+"/web.certloop-record") {
			t.Errorf("%s: the error does not name the Secret: %v", stage, err)
		}
		if mine.Version() != before {
			t.Errorf("%s: a failed save changed the version from %q to %q", stage, before, mine.Version())
		}
		if got := r.record(cert).Lease; got == nil || got.Holder != "them" {
			t.Errorf("%s: got lease %+v, want that of the first writer", stage, got)
		}
	}
}

// Twenty writers at once, ten times each: every claim that succeeds has its own fence.
func TestSaveRace(t *testing.T) {
	r := newRig(t)
	cert := r.declare("web", spec("web"))
	const writers, claims = 20, 10
	fences := make(chan int64, writers*claims)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range claims {
				rec, err := r.store.Record(t.Context(), cert)
				if err != nil {
					t.Error(err)
					return
				}
				rec.Claim("somebody")
				switch err := r.store.Save(t.Context(), rec); {
				case err == nil:
					fences <- rec.Fence
				case !errors.Is(err, ledger.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	close(fences)
	seen, highest := map[int64]bool{}, int64(0)
	for f := range fences {
		if seen[f] {
			t.Errorf("fence %d was given twice", f)
		}
		seen[f] = true
		highest = max(highest, f)
	}
	if highest != int64(len(seen)) || highest < claims {
		t.Errorf("%d claims succeeded, the highest fence is %d", len(seen), highest)
	}
	t.Logf("%d of %d claims succeeded", len(seen), writers*claims)
}

// A record that is deleted while somebody works on it is not brought back.
func TestSaveAfterDeletion(t *testing.T) {
	r := newRig(t)
	cert, rec := r.issued("web")
	if err := r.secrets.Delete(t.Context(), model.RecordName("web"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	rec.Claim("me")
	if err := r.store.Save(t.Context(), rec); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
	fresh := r.record(cert)
	if fresh.Current != nil || fresh.Version() != "" {
		t.Errorf("got %+v, want an empty record", fresh)
	}
	fresh.Claim("them")
	r.save(fresh)
	if err := r.store.Save(t.Context(), rec); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got error %v, want ErrConflict: it is another Secret by now", err)
	}
}

func TestClaim(t *testing.T) {
	r := newRig(t)
	cert := r.declare("web", spec("web"))
	for i, holder := range []string{"a", "b", "b", "c"} {
		rec := r.record(cert)
		if i > 0 {
			rec.Lease.Beat = 41
		}
		rec.Claim(holder)
		r.save(rec)
		got := r.record(cert)
		if got.Fence != int64(i+1) || *got.Lease != (ledger.Lease{Holder: holder}) {
			t.Errorf("claim %d: got fence %d and lease %+v, want %d and %s's, without a beat", i, got.Fence, got.Lease, i+1, holder)
		}
	}
}

func TestPromote(t *testing.T) {
	r := newRig(t)
	cert := r.declare("web", spec("web"))
	var superseded []string
	for revision := int64(1); revision <= 3; revision++ {
		rec := r.record(cert)
		rec.Flight = r.flight("web")
		flight := *rec.Flight
		rec.Claim("me")
		rec.Attempt = ledger.Attempts{Failed: 3, Next: time.Now(), Reason: "CAUnreachable", Message: "m", Parked: "p", Orphans: revision}
		r.save(rec)
		now := time.Date(2026, 1, 1, 0, 0, int(revision), 0, time.UTC)
		rec.Promote([]*x509.Certificate{r.root.cert}, now)
		r.save(rec)

		got := r.record(cert)
		want := &ledger.Record{
			Current: &ledger.Issuance{Key: flight.Key, Chain: flight.Chain, Anchors: []*x509.Certificate{r.root.cert}, Revision: revision, Config: flight.Config, Stored: now, Cause: flight.Cause},
			Fence:   revision, Attempt: ledger.Attempts{Orphans: revision}, Superseded: superseded,
		}
		if d := diff.Diff(want, got, readable(t), diff.AllowUnexported(ledger.Record{})); d != "" {
			t.Errorf("revision %d (-want +got):\n%s", revision, d)
		}
		if !got.Current.Certificate().Equal(flight.Chain[0]) {
			t.Error("Certificate is not the first of the chain")
		}
		sum := sha256.Sum256(flight.Chain[0].Raw)
		superseded = append([]string{hex.EncodeToString(sum[:])}, superseded...)
		for _, key := range []string{"next.key", "next.crt", "transaction"} {
			if _, ok := r.secret(model.RecordName("web")).Data[key]; ok {
				t.Errorf("revision %d: %s is still there", revision, key)
			}
		}
	}
}

// A Secret that has the record's name and is not this configuration's is left alone.
func TestRecordOfAnother(t *testing.T) {
	owner := func(c *model.CMPCertificate, controller bool) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: model.GroupVersion.String(), Kind: model.CertificateKind, Name: c.Name, UID: c.UID, Controller: &controller}}
	}
	// Owners that do not exist are no case: the garbage collector takes such a Secret away.
	tests := map[string]func(cert, other *model.CMPCertificate) []metav1.OwnerReference{
		"nobody's":      func(_, _ *model.CMPCertificate) []metav1.OwnerReference { return nil },
		"another's":     func(_, other *model.CMPCertificate) []metav1.OwnerReference { return owner(other, true) },
		"no controller": func(cert, _ *model.CMPCertificate) []metav1.OwnerReference { return owner(cert, false) },
	}
	for name, owners := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			cert := r.declare("web", spec("web"))
			mine := r.record(cert)
			r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: model.RecordName("web"), OwnerReferences: owners(cert, r.declare("other", spec("other")))}})
			if _, err := r.store.Record(t.Context(), cert); !errors.Is(err, ledger.ErrNotManaged) {
				t.Errorf("reading: got error %v, want ErrNotManaged", err)
			}
			mine.Claim("me")
			if err := r.store.Save(t.Context(), mine); !errors.Is(err, ledger.ErrConflict) {
				t.Errorf("saving: got error %v, want ErrConflict", err)
			}
		})
	}
}

// A record that somebody has spoilt says which part, and repeats none of it.
func TestSpoiltRecord(t *testing.T) {
	const rubbish = "hunter2 hunter2 hunter2"
	tests := map[string]struct {
		key   string
		value []byte
	}{
		"no state":          {"state.json", nil},
		"state, no JSON":    {"state.json", []byte(rubbish)},
		"state, wrong type": {"state.json", []byte(`{"revision":"` + rubbish + `"}`)},
		"key":               {"tls.key", []byte(rubbish)},
		"certificate":       {"tls.crt", []byte(rubbish)},
		"anchors":           {"ca.crt", []byte(rubbish)},
		"next key":          {"next.key", []byte(rubbish)},
		"staged":            {"next.crt", []byte(rubbish)},
	}
	r := newRig(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			cert, rec := r.issued(objectName(name))
			rec.Flight = r.flight("next")
			r.save(rec)
			r.edit(model.RecordName(cert.Name), func(s *corev1.Secret) {
				s.Data[tt.key] = tt.value
			})
			_, err := r.store.Record(t.Context(), cert)
			if err == nil || !strings.Contains(err.Error(), tt.key) || !strings.Contains(err.Error(), r.ns+"/"+cert.Name) {
				t.Errorf("got error %v, want one that names %s and the record", err, tt.key)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats what the Secret holds: %v", err)
			}
		})
	}
}
