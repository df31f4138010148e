// Package chaos kills, freezes and repeats what certloop consists of, in processes of
// their own, and has one oracle judge what came of it.
//
//	killed at random moments                   TestKilledAtRandom
//	killed at every step that is taken         TestKilledAtEveryStep
//	frozen past its lease, then awake again    TestFrozenHolder
//	every event many times, in any order       TestDuplicates
//	dead, and replaced by another              TestReplacement, TestKilledEverySecond
//	a CA that is away                          TestOutage
//
// The functions, the NATS server and the CA are this test binary playing a part; the API
// server is bin/kubeapi, the other CA test/peers/openssl-ca. The CA is reached through a
// gate in the test itself, which is never killed and so knows what was asked and answered.
//
// `go test ./test/chaos` is a short programme. -kills and -each lengthen it, as `make
// chaos` does; -seed repeats one.
package chaos

import (
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/certloop/certloop/test/kubetest"
)

var (
	kills = flag.Int("kills", 30, "random kills, shared among the scenarios")
	each  = flag.Int("each", 1, "kills at every named step")
	storm = flag.Int("storm", 20, "times that every event is delivered")
	down  = flag.Duration("down", 20*time.Second, "how long the CA is away")
	seed  = flag.Uint64("seed", 0, "of the moments and the victims; 0 takes the clock")
)

// together is how many tests run at once, unless -parallel says otherwise. They wait
// for clocks more than they compute.
const together = 4

func TestMain(m *testing.M) {
	if part := os.Getenv(partVariable); part != "" {
		os.Exit(play(part, os.Args[1:]))
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(together))
	}
	os.Exit(kubetest.Main(m))
}

// dice are the chances of one test.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// upTo is a random time below d.
func upTo(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
