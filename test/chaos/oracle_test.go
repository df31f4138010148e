package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// oracle sees every version of every Secret while a plant is tortured, and judges
// afterwards:
//
//	I1  every certificate that was asked for is in its Secret, valid, and issued as
//	    often as asked for
//	I2  the key matches the certificate in every version that was ever visible
//	I3  what the CA issued beyond that is explained by kills, and told
//	I4  no key is outside Secrets
//	I5  no lease, transaction or message is left over
//	I6  no revision goes back
type oracle struct {
	store   *ledger.Store
	secrets typed.SecretInterface
	keys    rig.Keys

	mu       sync.Mutex
	wanted   map[string]int64  // certificates, and how often each was asked for
	known    map[string]string // serials that were in a Secret, and whose
	newest   map[string]int64  // revision of each output
	reported map[string]int64  // revision in each status
	versions int               // of outputs, seen by the watch
	reads    int               // of outputs, besides
	gaps     int               // in the watch, in which versions may have been missed
	wrong    []string
}

// observe begins to watch the Secrets of a plant, until the test ends.
func observe(t *testing.T, p *plant) *oracle {
	t.Helper()
	store, err := ledger.Open(p.Cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(p.Cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{store: store, secrets: client.CoreV1().Secrets(p.Namespace), wanted: map[string]int64{}, known: map[string]string{}, newest: map[string]int64{}, reported: map[string]int64{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var watching sync.WaitGroup
	watching.Go(func() { o.follow(ctx) })
	watching.Go(func() { o.read(ctx) })
	t.Cleanup(func() { cancel(); watching.Wait() })
	return o
}

// wants says that a certificate is asked for once more.
func (o *oracle) wants(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted[name]++
}

// names are the certificates that were asked for.
func (o *oracle) names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for name := range o.wanted {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// follow watches through every end of the API server.
func (o *oracle) follow(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		all, err := o.secrets.List(ctx, metav1.ListOptions{})
		if err != nil {
			pause(ctx, 100*time.Millisecond)
			continue
		}
		if !first {
			o.gap()
		}
		for i := range all.Items {
			o.note(watch.Modified, &all.Items[i])
		}
		o.resume(ctx, all.ResourceVersion)
	}
}

func (o *oracle) gap() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gaps++
}

// resume watches from a version on until the API server does not remember any more.
func (o *oracle) resume(ctx context.Context, version string) {
	changes, err := watchtools.NewRetryWatcherWithContext(ctx, version, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return o.secrets.Watch(ctx, opts)
		},
	})
	if err != nil {
		return
	}
	defer changes.Stop()
	for e := range changes.ResultChan() {
		if s, ok := e.Object.(*corev1.Secret); ok {
			o.note(e.Type, s)
		}
	}
}

// readEvery is the pace of a workload that reads its Secret again and again.
const readEvery = time.Millisecond

// read reads one output and its status after the other, at most a thousand times a
// second, and rests twice as long as that took, so that it does not starve those whose
// work it looks at.
func (o *oracle) read(ctx context.Context) {
	for began := time.Now(); ctx.Err() == nil; began = time.Now() {
		o.readOne(ctx)
		pause(ctx, max(readEvery, 2*time.Since(began)))
	}
}

func (o *oracle) readOne(ctx context.Context) {
	names := o.names()
	if len(names) == 0 {
		return
	}
	name := names[rand.IntN(len(names))]
	s, err := o.secrets.Get(ctx, rig.SecretName(name), metav1.GetOptions{})
	if err != nil {
		return // it is not there yet, or the API server is not
	}
	c, err := o.store.Certificate(ctx, types.NamespacedName{Namespace: s.Namespace, Name: name})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads++
	o.check(s)
	if err != nil {
		return
	}
	if c.Status.Revision < o.reported[name] {
		o.accuse("I6: the status of %s, version %s, tells of revision %d after %d", name, c.ResourceVersion, c.Status.Revision, o.reported[name])
	}
	o.reported[name] = c.Status.Revision
}

// note looks at a version of a Secret, in the order of versions.
func (o *oracle) note(what watch.EventType, s *corev1.Secret) {
	o.keys.Note(s)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch role := s.Labels[model.RoleLabel]; {
	case role == "":
		return
	case role == model.RoleOutput && what != watch.Deleted:
		o.versions++
		o.check(s)
		o.order(s)
	}
	for block, rest := pem.Decode(s.Data[corev1.TLSCertKey]); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && !c.IsCA {
			o.known[serialOf(c)] = s.Name
		}
	}
}

// check compares key and certificate.
func (o *oracle) check(s *corev1.Secret) {
	pair, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		o.accuse("I2: Secret %s, version %s: %v", s.Name, s.ResourceVersion, err)
		return
	}
	if got := rig.SecretName(pair.Leaf.Subject.CommonName); got != s.Name {
		o.accuse("I2: Secret %s, version %s, holds a certificate for %s", s.Name, s.ResourceVersion, pair.Leaf.Subject)
	}
}

// order compares the revision with that before.
func (o *oracle) order(s *corev1.Secret) {
	revision, err := strconv.ParseInt(s.Annotations[model.RevisionAnnotation], 10, 64)
	if err != nil || revision < o.newest[s.Name] {
		o.accuse("I6: Secret %s, version %s, has revision %q after %d", s.Name, s.ResourceVersion, s.Annotations[model.RevisionAnnotation], o.newest[s.Name])
	}
	o.newest[s.Name] = max(revision, o.newest[s.Name])
}

func (o *oracle) accuse(format string, args ...any) {
	o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
}

// verdict is what the oracle found, as numbers.
type verdict struct {
	certificates, issuances   int
	kills, interrupted        int
	extras, explained, told   int
	versions, reads, gaps     int
	wrong                     int
	last                      time.Duration // until the last certificate was there
	searched                  string
	victims                   map[string]int
	transactions, repetitions int
}

func (v verdict) String() string {
	var victims []string
	for _, name := range []string{workerVictim, brokerVictim, apiVictim, caVictim} {
		if n := v.victims[name]; n > 0 {
			victims = append(victims, fmt.Sprintf("%s %d", name, n))
		}
	}
	return strings.Join([]string{
		"",
		fmt.Sprintf("kills                         %6d  (%s), %d of them while the CA was asked", v.kills, strings.Join(victims, ", "), v.interrupted),
		fmt.Sprintf("certificates wanted           %6d  issuances wanted %d, all there %.1f s after the last kill", v.certificates, v.issuances, v.last.Seconds()),
		fmt.Sprintf("transactions                  %6d  and %d requests repeated", v.transactions, v.repetitions),
		fmt.Sprintf("extra certificates at the CA  %6d  explained by a kill %d, told %d", v.extras, v.explained, v.told),
		fmt.Sprintf("versions of outputs seen      %6d  by watch (%d gaps), %d more reads", v.versions, v.gaps, v.reads),
		fmt.Sprintf("violations                    %6d", v.wrong),
		"searched                      " + v.searched,
	}, "\n")
}

// judge waits until nothing is left to do, and fails the test for every violation.
func (o *oracle) judge(t *testing.T, p *plant) verdict {
	t.Helper()
	began := time.Now()
	v := verdict{victims: map[string]int{}}
	names := o.names()
	o.complete(t, p, names)
	v.last = time.Since(began)
	p.quiet()
	o.idle(t, p, names)
	v.told = o.told(t, p, names)
	o.search(t, p, names, &v)
	o.mu.Lock()
	defer o.mu.Unlock()
	v.certificates, v.versions, v.reads, v.gaps = len(names), o.versions, o.reads, o.gaps
	for _, n := range o.wanted {
		v.issuances += int(n)
	}
	kills := p.noted()
	for _, k := range kills {
		v.kills++
		v.victims[k.victim]++
		v.interrupted += min(k.asking, 1)
	}
	o.account(p.ca.issued(t), p.seen(), kills, &v)
	if v.told < v.extras {
		o.accuse("I3: %d extra certificates, but %d are told", v.extras, v.told)
	}
	v.wrong = len(o.wrong)
	for _, w := range o.wrong {
		t.Error(w)
	}
	return v
}

// settleTime bounds the time until everything is there: an attempt that met a CA
// which was away is repeated after half a minute, the one after it a little later.
const settleTime = 4 * rig.Patience

// progress waits as long as outputs get the certificates that they lack: how many that
// are at once depends on how busy the machine is.
func (o *oracle) progress(t *testing.T) {
	t.Helper()
	for least := o.missing(); least > 0; {
		now := least
		rig.Eventually(t, settleTime, "one more certificate", func() error {
			if now = o.missing(); now >= least {
				return fmt.Errorf("%d are missing", now)
			}
			return nil
		})
		least = now
	}
}

// missing is how many outputs do not hold what was asked for last.
func (o *oracle) missing() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, want := range o.wanted {
		if o.newest[rig.SecretName(name)] < want {
			n++
		}
	}
	return n
}

// complete is I1.
func (o *oracle) complete(t *testing.T, p *plant, names []string) {
	t.Helper()
	o.progress(t)
	p.WaitReady(t, settleTime, names...)
	for _, name := range names {
		o.mu.Lock()
		want := o.wanted[name]
		o.mu.Unlock()
		p.WaitFor(t, settleTime, name, func(c *model.CMPCertificate) error {
			if c.Status.Revision < want {
				return fmt.Errorf("revision %d, want %d", c.Status.Revision, want)
			}
			return nil
		})
		if got := p.Certificate(t, name).Status.Revision; got != want {
			t.Errorf("I1: %s was issued %d times, want %d", name, got, want)
		}
		rig.Eventually(t, settleTime, "the output of "+name, func() error {
			if s := p.Secret(t, rig.SecretName(name)); s == nil || !bytes.Contains(s.Data["ca.crt"], []byte("BEGIN")) {
				return errors.New("it has not been put back")
			}
			return nil
		})
		rig.Pair(t, p.Secret(t, rig.SecretName(name)))
	}
}

// idle is I5.
func (o *oracle) idle(t *testing.T, p *plant, names []string) {
	t.Helper()
	rig.Eventually(t, settleTime, "nothing is left to do", func() error {
		for _, m := range p.bus.Messages(t, model.WorkStream, "certloop.>") {
			return fmt.Errorf("message %d, %s on %s", m.Sequence, m.Header.Get("ce-type"), m.Subject)
		}
		return nil
	})
	for _, m := range p.bus.Messages(t, model.DeadStream, "certloop.>") {
		t.Errorf("I5: dead-lettered: %s on %s: %s", m.Header.Get("ce-type"), m.Subject, m.Header)
	}
	for _, name := range names {
		record, err := o.store.Record(t.Context(), p.Certificate(t, name))
		switch {
		case err != nil:
			t.Errorf("I5: %s: %v", name, err)
		case record.Lease != nil, record.Flight != nil:
			t.Errorf("I5: the record of %s still has lease %+v, transaction in flight: %t", name, record.Lease, record.Flight != nil)
		}
	}
}

// told is how many extra certificates status and history tell of, whichever is more.
func (o *oracle) told(t *testing.T, p *plant, names []string) int {
	t.Helper()
	counted := 0
	for _, name := range names {
		counted += int(p.Certificate(t, name).Status.ExtraIssuances)
	}
	return max(counted, len(p.bus.Facts(t, model.IssuanceMaybeOrphan, types.NamespacedName{})))
}

// search is I4.
func (o *oracle) search(t *testing.T, p *plant, names []string, v *verdict) {
	t.Helper()
	hays := p.bus.Stored(t)
	for _, dir := range p.hays {
		hays = append(hays, rig.Files(t, dir)...)
	}
	for _, name := range names {
		hays = append(hays, rig.Resource(t, "CMPCertificate "+name, p.Certificate(t, name)))
	}
	hays = append(hays, rig.Resource(t, "CMPIssuer", p.Issuer(t)))
	v.searched = o.keys.CheckAbsent(t, hays)
}

// comingBack is how long what was killed may still be missing: an answer that comes while the
// API server is away cannot be kept, and is asked for again.
const comingBack = 30 * time.Second

// account is I3: it compares the CA's ledger with what was ever in a Secret, and what
// was asked at the gate with the kills.
func (o *oracle) account(issued []*x509.Certificate, seen []exchange, kills []kill, v *verdict) {
	inLedger := map[string]bool{}
	for _, c := range issued {
		inLedger[serialOf(c)] = true
	}
	for serial, secret := range o.known {
		if !inLedger[serial] {
			o.accuse("I3: Secret %s held certificate %s, which the CA did not issue", secret, serial)
		}
	}
	latest := map[string]exchange{} // of each transaction
	for _, e := range seen {
		if !e.asks() {
			continue
		}
		before, repeated := latest[e.TransactionID]
		latest[e.TransactionID] = e
		if !repeated {
			v.transactions++
			continue
		}
		v.repetitions++
		if before.Answered && !struck(kills, before.At.Add(-comingBack), e.At) {
			o.accuse("I3: transaction %s was answered and asked for again, and nothing was killed meanwhile", e.TransactionID)
		}
	}
	for _, c := range issued {
		if _, wanted := o.known[serialOf(c)]; wanted {
			continue
		}
		v.extras++
		from, to := asked(seen, c)
		if struck(kills, from, to) {
			v.explained++
		} else {
			o.accuse("I3: extra certificate %s for %s, asked for at %s, and nothing was killed until %s", serialOf(c), c.Subject, from, to)
		}
	}
}

// asked is the time of the exchange in which a certificate was issued, and of the next
// issuance for the same subject, so that two extras need two kills.
func asked(seen []exchange, c *x509.Certificate) (from, to time.Time) {
	to = time.Now()
	for _, e := range seen {
		switch {
		case e.Issued == nil || e.Issued.Subject.String() != c.Subject.String():
		case e.Issued.Equal(c):
			if from.IsZero() {
				from = e.At
			}
		case !from.IsZero():
			return from, e.At
		}
	}
	return from, to
}

func struck(kills []kill, from, to time.Time) bool {
	return slices.ContainsFunc(kills, func(k kill) bool { return k.at.After(from) && k.at.Before(to) })
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
