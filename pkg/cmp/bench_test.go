package cmp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"syscall"
	"testing"
	"time"
)

// cpuPerOp reports the CPU time of a loop besides the time on the wall, which
// says little on a busy machine. Call it when setting up is over.
func cpuPerOp(b *testing.B) {
	b.Helper()
	start := cpuTime(b)
	b.Cleanup(func() { b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op") })
}

func cpuTime(tb testing.TB) int64 {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// benchmarkRequest is an ir as clients send it, about 1 kB.
func benchmarkRequest(b *testing.B) []byte {
	b.Helper()
	s := signed(b)
	s.req.Template.Extensions = mustParse(b, readGolden(b, "testdata/openssl-ir-mac.txt").der).Body.(CertReqMessages)[0].CertReq.CertTemplate.Extensions
	return s.begin(b).Step().Send
}

// The same message for encoding/asn1, as deep as this package looks into it.
type (
	asn1Message struct {
		Header     asn1Header
		IR         []asn1CertReqMsg `asn1:"explicit,tag:0"`
		Protection asn1.BitString   `asn1:"explicit,tag:0"`
		ExtraCerts []asn1.RawValue  `asn1:"explicit,tag:1"`
	}
	asn1Header struct {
		PVNO          int
		Sender        asn1Name      `asn1:"explicit,tag:4"`
		Recipient     asn1Name      `asn1:"explicit,tag:4"`
		MessageTime   time.Time     `asn1:"explicit,tag:0,generalized"`
		ProtectionAlg asn1Algorithm `asn1:"explicit,tag:1"`
		SenderKID     []byte        `asn1:"explicit,optional,tag:2"`
		TransactionID []byte        `asn1:"explicit,tag:4"`
		SenderNonce   []byte        `asn1:"explicit,tag:5"`
	}
	asn1Name   []asn1RDNSET
	asn1RDNSET []struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	asn1Algorithm struct {
		Algorithm  asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	asn1CertReqMsg struct {
		CertReq struct {
			CertReqID int
			Template  struct {
				Subject    asn1Name        `asn1:"explicit,tag:5"`
				PublicKey  asn1PublicKey   `asn1:"tag:6"`
				Extensions []asn1Extension `asn1:"tag:9"`
			}
		}
		POPO struct {
			Algorithm asn1Algorithm
			Signature asn1.BitString
		} `asn1:"tag:1"`
	}
	asn1PublicKey struct {
		Algorithm asn1Algorithm
		Key       asn1.BitString
	}
	asn1Extension struct {
		ID       asn1.ObjectIdentifier
		Critical bool `asn1:"optional"`
		Value    []byte
	}
)

func BenchmarkDecode(b *testing.B) {
	der := benchmarkRequest(b)
	b.Run("cmp", func(b *testing.B) {
		b.ReportAllocs()
		cpuPerOp(b)
		b.SetBytes(int64(len(der)))
		for b.Loop() {
			if _, err := ParseMessage(der); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-asn1", func(b *testing.B) {
		b.ReportAllocs()
		cpuPerOp(b)
		b.SetBytes(int64(len(der)))
		for b.Loop() {
			var m asn1Message
			if rest, err := asn1.Unmarshal(der, &m); err != nil || len(rest) != 0 {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	der := benchmarkRequest(b)
	b.Run("cmp", func(b *testing.B) {
		m := mustParse(b, der)
		forget(m)
		buf := make([]byte, 0, 4096)
		b.ReportAllocs()
		cpuPerOp(b)
		b.SetBytes(int64(len(der)))
		for b.Loop() {
			if out, err := m.AppendDER(buf); err != nil || len(out) != len(der) {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-asn1", func(b *testing.B) {
		var m asn1Message
		if _, err := asn1.Unmarshal(der, &m); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		cpuPerOp(b)
		b.SetBytes(int64(len(der)))
		for b.Loop() {
			if out, err := asn1.Marshal(m); err != nil || !bytes.Equal(out, der) {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCodecRatio compares decoding and encoding with encoding/asn1, the two
// taking turns, in CPU time. It needs -benchtime 1x: its rounds are its own.
func BenchmarkCodecRatio(b *testing.B) {
	der := benchmarkRequest(b)
	own := mustParse(b, der)
	forget(own)
	var other asn1Message
	if _, err := asn1.Unmarshal(der, &other); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportMetric(turns(b, 20_000, 2_000, func() {
		if _, err := ParseMessage(der); err != nil {
			b.Fatal(err)
		}
	}, func() {
		var m asn1Message
		if _, err := asn1.Unmarshal(der, &m); err != nil {
			b.Fatal(err)
		}
	}), "asn1÷decode")
	b.ReportMetric(turns(b, 50_000, 1_500, func() {
		if _, err := own.AppendDER(buf); err != nil {
			b.Fatal(err)
		}
	}, func() {
		if _, err := asn1.Marshal(other); err != nil {
			b.Fatal(err)
		}
	}), "asn1÷encode")
}

// turns runs own, often, and other, less often, in turns, and gives the median
// of how many times more CPU other needs.
func turns(b *testing.B, often, less int, own, other func()) float64 {
	b.Helper()
	spent := func(n int, run func()) float64 {
		start := cpuTime(b)
		for range n {
			run()
		}
		return float64(cpuTime(b)-start) / float64(n)
	}
	var ratios []float64
	for range 15 {
		first := spent(less, other)
		mine := spent(often, own)
		second := spent(less, other)
		ratios = append(ratios, (first+second)/2/mine)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// counter is a source of bytes that are always the same, so that answers made
// once fit again.
type counter struct{ n byte }

func (c *counter) Read(b []byte) (int, error) {
	for i := range b {
		c.n++
		b[i] = c.n
	}
	return len(b), nil
}

// BenchmarkEnrolment is the client's part of an enrolment with P-256: new key,
// ir, ip, certConf, pkiconf, everything signed and verified. floor is the
// cryptography alone.
func BenchmarkEnrolment(b *testing.B) {
	b.Run("client", func(b *testing.B) {
		s := signed(b)
		s.cfg.Rand = new(counter)
		tr := s.begin(b)
		ip := seal(b, s.ca.granted(b, tr.Step().Send), s.reply)
		step, err := tr.Next(ip)
		if err != nil {
			b.Fatal(err)
		}
		conf := seal(b, s.ca.confirmed(b, step.Send), s.reply)
		b.ReportAllocs()
		cpuPerOp(b)
		for b.Loop() {
			newKey(b) // what an enrolment costs; the answers are for the key of the scene
			s.cfg.Rand = new(counter)
			tr := s.begin(b)
			if _, err := tr.Next(ip); err != nil {
				b.Fatal(err)
			}
			if step, err := tr.Next(conf); err != nil || !step.Done {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		s := signed(b)
		key := s.req.Key.(*ecdsa.PrivateKey)
		leaf := s.ca.issue(b, &x509.Certificate{}, key.Public(), s.ca.root)
		digest := sha256.Sum256([]byte("x"))
		b.ReportAllocs()
		cpuPerOp(b)
		for b.Loop() {
			newKey(b)
			var signature []byte
			for range 3 { // proof of possession, ir, certConf
				var err error
				if signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
					b.Fatal(err)
				}
			}
			for range 2 { // ip, pkiconf
				if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
					b.Fatal("does not verify")
				}
			}
			for _, c := range []*x509.Certificate{s.ca.signer, leaf} {
				if err := c.CheckSignatureFrom(s.ca.root); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkEnrolmentHTTP is a whole enrolment over loopback, the CA's part included.
func BenchmarkEnrolmentHTTP(b *testing.B) {
	s := &served{scene: signed(b)}
	client := s.start(b)
	b.ReportAllocs()
	cpuPerOp(b)
	for b.Loop() {
		if _, err := client.Do(b.Context(), s.cfg, s.req); err != nil {
			b.Fatal(err)
		}
	}
}
