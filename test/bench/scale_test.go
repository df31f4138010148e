package bench

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

var certificates = flag.Int("certificates", 10_000, "how many certificates the benchmarks of scale enroll")

const (
	mebibyte = 1 << 20
	sample   = 100 // certificates that one measurement is about
	rounds   = 3   // measurements of each kind at a place, of which the middle one counts
	batch    = 500 // certificates asked for at once in between

	// pace is the time between the certificates of a sample: what one costs depends on how many
	// are at work together, and how fast the API server takes them on how many it has.
	pace = 50 * time.Millisecond
)

// Ten thousand certificates in one namespace, without a fault: none is issued twice. What
// one costs certloop and the API server, and certloop's memory, at the beginning, half-way
// and at the end; and how long it takes to start beside half of them, and beside all.
func BenchmarkScale(b *testing.B) {
	for b.Loop() {
		ca := rig.StartResponder(b, responder.Config{})
		i := install(b, ca)
		n := i.fill(b, 0, sample) // connections are made, code is warm
		for _, at := range []int{0, *certificates / 2, *certificates} {
			n = i.fill(b, n, at-2*rounds*sample)
			n = i.measure(b, n)
			if at > 0 {
				b.Log(i.restart(b, n))
				n++
			}
		}
		checkOnce(b, ca, n+1) // and the identity
		b.ReportMetric(0, "ns/op")
	}
}

// fill enrolls certificates until there are so many.
func (i *installation) fill(b *testing.B, have, want int) int {
	b.Helper()
	for have < want {
		n := min(batch, want-have)
		i.declare(b, fmt.Sprintf("fill%05d", have), n, 0)
		have += n
	}
	return have
}

// declare applies the configurations of n certificates, one every interval, as kubectl does,
// and waits for their Secrets.
func (i *installation) declare(b *testing.B, prefix string, n int, interval time.Duration) {
	b.Helper()
	var names []string
	next := time.Now()
	for k := range n {
		name := fmt.Sprintf("%s-%04d", prefix, k)
		time.Sleep(time.Until(next))
		next = next.Add(interval)
		i.world.Apply(b, rig.EndEntity(name))
		names = append(names, rig.SecretName(name))
	}
	rig.Eventually(b, 30*time.Minute, "all Secrets are there", func() error {
		seen := i.outputs.Seen()
		left := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !seen[name].IsZero() })
		if len(left) > 0 {
			return fmt.Errorf("%d of %d are not", len(left), n)
		}
		return nil
	})
}

// measure enrolls samples beside so many others, declared as objects and as events in turns,
// and returns how many there are then.
func (i *installation) measure(b *testing.B, have int) int {
	b.Helper()
	at := fmt.Sprintf("@%d", have)
	var objects, events []measured
	var said []string // in one piece: of ten lines on, the log of a benchmark is cut short
	for range rounds {
		declared := i.cost(b, func() { i.declare(b, fmt.Sprintf("sample%05d", have), sample, pace) })
		delete(declared.requests, "APPLY cmpcertificates 201") // our own
		objects = append(objects, declared)
		said = append(said, fmt.Sprintf("beside %d certificates, declared as objects: %s", have, declared))
		have += sample
		told := i.cost(b, func() { i.order(b, fmt.Sprintf("told%05d", have), sample, pace) })
		events = append(events, told)
		said = append(said, fmt.Sprintf("beside %d certificates, declared as events: %s", have, told))
		have += sample
	}
	b.ReportMetric(middle(objects), "CPU-ms/certificate"+at)
	b.ReportMetric(middle(events), "CPU-ms/event"+at)
	for what, counted := range map[string]func(string) bool{"writes": writes, "reads": reads, "conflicts": conflicts} {
		var n float64
		for _, m := range objects {
			n += m.requests.per(counted)
		}
		b.ReportMetric(n/sample/rounds, what+"/certificate"+at)
	}
	b.ReportMetric(float64(i.all.ResidentBytes(b))/mebibyte, "RSS-MiB"+at)
	b.Log(strings.Join(said, "\n"))
	return have
}

// middle is the median of the processor time of one certificate, in ms.
func middle(all []measured) float64 {
	var cpu []float64
	for _, m := range all {
		cpu = append(cpu, m.cpu)
	}
	slices.Sort(cpu)
	return cpu[len(cpu)/2]
}

// measured is what one of a sample of certificates costs.
type measured struct {
	cpu      float64 // ms
	perS     float64 // certificates in a second
	requests counts
}

func (m measured) String() string {
	return fmt.Sprintf("%.1f ms of CPU for one, %.1f in a second; %.2f writes, %.2f reads: %s",
		m.cpu, m.perS, m.requests.per(writes)/sample, m.requests.per(reads)/sample, m.requests)
}

// cost is what enrolling a sample costs.
func (i *installation) cost(b *testing.B, enroll func()) measured {
	b.Helper()
	i.idle(b)
	before, cpu, began := requests(b, i.world), i.all.CPU(b), time.Now()
	enroll()
	took := time.Since(began)
	i.idle(b)
	cpu = i.all.CPU(b) - cpu
	return measured{cpu.Seconds() * 1000 / sample, sample / took.Seconds(), requests(b, i.world).since(before)}
}

// idle waits until no work is left.
func (i *installation) idle(b *testing.B) {
	b.Helper()
	rig.Eventually(b, 10*rig.Patience, "nothing is left to do", func() error {
		if n := len(i.bus.Messages(b, model.WorkStream, "certloop.work.>")); n > 0 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
}

// restart kills certloop, asks for one more certificate and starts it again.
func (i *installation) restart(b *testing.B, have int) string {
	b.Helper()
	name := fmt.Sprintf("late%05d", have)
	i.all.Kill(b)
	i.world.Apply(b, rig.EndEntity(name))
	began := time.Now()
	i.all.Restart(b)
	rig.Eventually(b, rig.Patience, "the Secret asked for before the start", func() error {
		if i.outputs.Seen()[rig.SecretName(name)].IsZero() {
			return fmt.Errorf("it is not there")
		}
		return nil
	})
	cpu, took := i.all.CPU(b), i.outputs.Seen()[rig.SecretName(name)].Sub(began)
	i.bus = i.all.Bus(b)
	at := fmt.Sprintf("@%d", have)
	b.ReportMetric(took.Seconds(), "start-s"+at)
	b.ReportMetric(cpu.Seconds(), "start-CPU-s"+at)
	return fmt.Sprintf("started beside %d certificates: the next new one after %.2f s and %.2f s of CPU", have, took.Seconds(), cpu.Seconds())
}

// checkOnce compares the CA's ledger with what was asked for.
func checkOnce(b *testing.B, ca *rig.Responder, want int) {
	b.Helper()
	seen := map[string]int{}
	for _, issued := range ca.Issued() {
		seen[issued.Subject]++
	}
	for subject, n := range seen {
		if n > 1 {
			b.Errorf("%s was issued %d times", subject, n)
		}
	}
	if len(seen) != want {
		b.Errorf("the CA issued for %d subjects, want %d", len(seen), want)
	}
	b.Logf("the CA issued %d certificates for %d subjects", len(ca.Issued()), len(seen))
}

// counts are requests to the API server: by verb, resource and status code.
type counts map[string]float64

// requests are those so far about Secrets and our own resources.
func requests(b *testing.B, w *rig.World) counts {
	b.Helper()
	client, err := kubernetes.NewForConfig(w.Cluster.Config())
	if err != nil {
		b.Fatal(err)
	}
	text, err := client.RESTClient().Get().AbsPath("/metrics").DoRaw(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c := counts{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text))
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), "apiserver_request_total{")
		labels, value, _ := strings.Cut(labels, "} ")
		if !ok || !strings.Contains(labels, `resource="secrets"`) && !strings.Contains(labels, `group="`+model.GroupVersion.Group+`"`) {
			continue
		}
		var n float64
		if _, err := fmt.Sscan(value, &n); err != nil {
			b.Fatalf("apiserver_request_total: %v", err)
		}
		what := label(labels, "verb") + " " + label(labels, "resource")
		if sub := label(labels, "subresource"); sub != "" {
			what += "/" + sub
		}
		c[what+" "+label(labels, "code")] += n
	}
	return c
}

func label(labels, name string) string {
	_, value, _ := strings.Cut(labels, name+`="`)
	value, _, _ = strings.Cut(value, `"`)
	return value
}

func (c counts) since(before counts) counts {
	out := counts{}
	for what, n := range c {
		if n > before[what] {
			out[what] = n - before[what]
		}
	}
	return out
}

func writes(what string) bool {
	verb, _, _ := strings.Cut(what, " ")
	return slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, verb)
}
func reads(what string) bool {
	return strings.HasPrefix(what, "GET ") || strings.HasPrefix(what, "LIST ")
}
func conflicts(what string) bool { return strings.HasSuffix(what, " 409") }

func (c counts) per(counted func(string) bool) (n float64) {
	for what, k := range c {
		if counted(what) {
			n += k
		}
	}
	return n
}

// String tells how many there were for each certificate of a sample.
func (c counts) String() string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(c)) {
		all = append(all, fmt.Sprintf("%s: %.2f", what, c[what]/sample))
	}
	return strings.Join(all, ", ")
}

// A scan among a thousand certificates and among ten thousand, of which none, fifty and a hundred
// are due: time, CPU and memory of our side. All that are due are read, and told as such; how many
// of them are asked to be renewed at once is bounded, and not what is measured.
func BenchmarkScan(b *testing.B) {
	w := rig.NewWorld(b)
	store, err := ledger.Open(w.Cluster.Config())
	if err != nil {
		b.Fatal(err)
	}
	have := 0
	for _, n := range []int{*certificates / 10, *certificates} {
		pretend(b, store, w, have, n)
		have = n
		for _, due := range []int{0, sample / 2, sample} {
			for k := range sample {
				if err := issuedAlready(b.Context(), store, w.Key(fmt.Sprintf("c%05d", k)), k < due); err != nil {
					b.Fatal(err)
				}
			}
			b.Run(fmt.Sprintf("%d certificates, %d due", n, due), func(b *testing.B) {
				scan(b, &lifecycle.Watcher{Ledger: store, Namespaces: []string{w.Namespace}}, due)
			})
		}
	}
}

// scan measures scans of which each finds so many due.
func scan(b *testing.B, watcher *lifecycle.Watcher, due int) {
	b.Helper()
	tick := model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": "expiry"})
	b.ReportAllocs()
	runtime.GC()
	before := rusage(b, syscall.RUSAGE_SELF)
	var facts []event.Event
	for b.Loop() {
		var err error
		if facts, err = watcher.Scan(b.Context(), tick); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(microseconds(rusage(b, syscall.RUSAGE_SELF)-before, b.N)/1000, "CPU-ms")
	asked := 0
	for _, e := range facts {
		if e.Type() == model.CertificateExpiring {
			asked++
		}
	}
	if found := rig.Data[model.ScanFact](b, facts[len(facts)-1]).Looked; found != due || asked != min(due, atOnce) {
		b.Errorf("the scan looked at %d certificates and asked for %d; want %d and %d", found, asked, due, min(due, atOnce))
	}
	b.ReportMetric(float64(asked), "asked")
}

// atOnce is how many renewals one scan asks for, however many more are due.
const atOnce = 50

// pretend makes certificates that say of themselves that they were issued.
func pretend(b *testing.B, store *ledger.Store, w *rig.World, have, want int) {
	b.Helper()
	numbers := make(chan int)
	var making sync.WaitGroup
	for range 16 {
		making.Go(func() {
			for n := range numbers {
				if err := issuedAlready(b.Context(), store, w.Key(fmt.Sprintf("c%05d", n)), false); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for n := have; n < want; n++ {
		numbers <- n
	}
	close(numbers)
	making.Wait()
}

func issuedAlready(ctx context.Context, store *ledger.Store, key types.NamespacedName, due bool) error {
	c, err := store.ApplyCertificate(ctx, key, model.CMPCertificateSpec{
		IssuerRef: model.IssuerReference{Name: "ca"}, Subject: &model.Subject{CommonName: key.Name}, Output: model.Output{SecretName: key.Name},
	})
	if err != nil {
		return err
	}
	now := time.Now()
	at := func(days int) *metav1.Time { t := metav1.NewTime(now.AddDate(0, 0, days)); return &t }
	st := &c.Status
	st.ObservedGeneration, st.Revision, st.NotBefore, st.NotAfter, st.RenewalTime = c.Generation, 1, at(-60), at(30), at(20)
	if due {
		st.RenewalTime = at(0)
	}
	st.RenewalDay = model.RenewalDay(st.RenewalTime.Time)
	st.Conditions = []metav1.Condition{{Type: model.Ready, Status: metav1.ConditionTrue, Reason: "Issued", LastTransitionTime: metav1.Now()}}
	return store.UpdateCertificateStatus(ctx, c)
}
