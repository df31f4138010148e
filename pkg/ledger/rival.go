package ledger

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/certloop/certloop/pkg/model"
)

// Rival is another configuration that names a Secret of an output.
type Rival struct {
	Certificate *model.CMPCertificate
	SecretName  string
}

// outputField is the selectable field of the Secret that all parts of an output go to unless
// they say otherwise.
const outputField = "spec.output.secretName"

// partFields are the selectable fields of the Secrets of single parts.
func partFields() []string {
	return []string{
		"spec.output.privateKey.secretName", "spec.output.certificate.secretName", "spec.output.chain.secretName", "spec.output.caBundle.secretName",
	}
}

// Rivals finds the other configurations of the namespace that name a Secret of the output
// of cert. It costs one list for each of these Secrets, and four more where outputs in the
// namespace have parts in Secrets of their own.
func (s *Store) Rivals(ctx context.Context, cert *model.CMPCertificate) ([]Rival, error) {
	_, rivals, err := s.naming(ctx, cert)
	return rivals, err
}

// Among reads a configuration that somebody has shown together with its rivals, because the
// lists that find these hold it as well. It is nil where it is gone, or its output has changed
// since: then it must be read by its name.
func (s *Store) Among(ctx context.Context, shown *model.CMPCertificate) (*model.CMPCertificate, []Rival, error) {
	for _, name := range shown.Spec.Output.SecretNames() {
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			return nil, nil, nil // nobody has such an output
		}
	}
	cert, rivals, err := s.naming(ctx, shown)
	if cert == nil || !equality.Semantic.DeepEqual(cert.Spec.Output, shown.Spec.Output) {
		return nil, nil, err
	}
	return cert, rivals, err
}

// naming finds the configurations that name a Secret of the output of cert: cert itself, as it is
// now, nil when it is not one of them, and the others.
func (s *Store) naming(ctx context.Context, cert *model.CMPCertificate) (own *model.CMPCertificate, rivals []Rival, err error) {
	fields, err := s.outputFields(ctx, cert.Namespace, cert.Spec.Output.HasParts())
	if err != nil {
		return nil, nil, err
	}
	for _, name := range cert.Spec.Output.SecretNames() {
		err := s.outputsTo(ctx, cert.Namespace, fields, name, func(c *model.CMPCertificate) error {
			if c.UID == cert.UID {
				own = c
			} else {
				rivals = append(rivals, Rival{c, name})
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return own, rivals, nil
}

// CertificatesOf visits the configurations that name a Secret as a part of their output.
func (s *Store) CertificatesOf(ctx context.Context, namespace, secret string, visit func(*model.CMPCertificate) error) error {
	fields, err := s.outputFields(ctx, namespace, false)
	if err != nil {
		return err
	}
	return s.outputsTo(ctx, namespace, fields, secret, visit)
}

// outputsTo visits, once, every configuration one of whose fields names a Secret that its
// output goes to.
func (s *Store) outputsTo(ctx context.Context, namespace string, fields []string, secret string, visit func(*model.CMPCertificate) error) error {
	seen := map[string]bool{}
	for _, field := range fields {
		err := s.certificates(ctx, namespace, field+"="+secret, func(c *model.CMPCertificate) error {
			if seen[c.Name] || !slices.Contains(c.Spec.Output.SecretNames(), secret) {
				return nil
			}
			seen[c.Name] = true
			return visit(c)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// partsMemory is how long it is remembered that no output of a namespace has parts in
// Secrets of their own. Should one appear meanwhile, two configurations may both ask the CA for a
// certificate, and the second is refused when it is to be delivered.
const partsMemory = 10 * time.Second

// namespacesWithoutParts remembers where no output has parts in Secrets of their own.
type namespacesWithoutParts struct {
	asking singleflight.Group // by namespace

	mu    sync.Mutex
	until map[string]time.Time
}

func (n *namespacesWithoutParts) has(namespace string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Before(n.until[namespace])
}

func (n *namespacesWithoutParts) set(namespace string, without bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.until == nil || len(n.until) > maxNamespaces {
		n.until = map[string]time.Time{}
	}
	delete(n.until, namespace)
	if without {
		n.until[namespace] = time.Now().Add(partsMemory)
	}
}

// maxNamespaces bounds what is remembered.
const maxNamespaces = 10_000

var errFound = errors.New("found")

// outputFields are the fields by which configurations of a namespace name Secrets. parts says
// that there is one whose parts go to Secrets of their own.
func (s *Store) outputFields(ctx context.Context, namespace string, parts bool) ([]string, error) {
	all := append([]string{outputField}, partFields()...)
	if parts {
		s.partless.set(namespace, false)
		return all, nil
	}
	if s.partless.has(namespace) {
		return all[:1], nil
	}
	// Who waits for somebody else's question gets its answer, or its error.
	found, err, _ := s.partless.asking.Do(namespace, func() (any, error) { return s.hasParts(ctx, namespace) })
	if err != nil || found == true {
		return all, err
	}
	return all[:1], nil
}

// hasParts asks whether an output of a namespace has parts in Secrets of their own, and remembers
// it where none has.
func (s *Store) hasParts(ctx context.Context, namespace string) (bool, error) {
	for _, field := range partFields() {
		err := s.certificates(ctx, namespace, field+"!=", func(*model.CMPCertificate) error { return errFound })
		if errors.Is(err, errFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	s.partless.set(namespace, true)
	return false, nil
}
