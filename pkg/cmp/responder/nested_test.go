package responder

import (
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

// TestNested: a registration authority wraps requests, and gets wrapped answers.
func TestNested(t *testing.T) {
	l := newLab(t, Config{})
	ra, raKey := l.identity()
	cfg := l.client()
	cfg.Wrapper, cfg.WrappedBy = &cmp.Signer{Key: raKey, Certificate: ra}, &cfg.Trust
	l.enrol(cfg, request(cmp.TypeIR, name(t, "behind an RA"), newKey(t)))
	if last := l.last(); !last.Confirmed || last.Authenticated != "mac:"+testReference {
		t.Errorf("confirmed %t by %s, want by who has asked", last.Confirmed, last.Authenticated)
	}
	l.ca.Wait(2, 0)
	l.enrol(cfg, request(cmp.TypeIR, name(t, "in the end"), newKey(t)))
	l.ca.Wait(0, 0)

	inner, err := cmp.ParseMessage(l.message(cmp.TypeGenM, cmp.GenMsg{{Type: cmp.InfoCACerts}}, nil))
	if err != nil {
		t.Fatal(err)
	}
	stranger, strangerKey := newLab(t, Config{Name: "Other"}).identity()
	for name, tt := range map[string]struct {
		by    cmp.Credential
		inner []*cmp.Message
		want  cmp.FailureInfo
	}{
		"by a stranger": {&cmp.Signer{Key: strangerKey, Certificate: stranger}, []*cmp.Message{inner}, cmp.FailSignerNotTrusted},
		"by a MAC":      {&cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret)}, []*cmp.Message{inner}, cmp.FailWrongIntegrity},
		"two":           {&cmp.Signer{Key: raKey, Certificate: ra}, []*cmp.Message{inner, inner}, cmp.FailBadRequest},
	} {
		outer, err := cmp.Nest(nil, tt.by, l.Now(), tt.inner...)
		if err != nil {
			t.Fatal(err)
		}
		der, err := outer.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			l.TB = t
			l.refusedWith(l.parsed(der), tt.want)
		})
	}
}
