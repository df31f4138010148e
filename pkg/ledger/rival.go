package ledger

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

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
func (s *Store) Rivals(ctx context.Context, cert *model.CMPCertificate) (rivals []Rival, err error) {
	fields, err := s.outputFields(ctx, cert.Namespace, cert.Spec.Output.HasParts())
	if err != nil {
		return nil, err
	}
	for _, name := range cert.Spec.Output.SecretNames() {
		err := s.naming(ctx, cert.Namespace, fields, name, func(c *model.CMPCertificate) error {
			if c.UID != cert.UID {
				rivals = append(rivals, Rival{c, name})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return rivals, nil
}

// CertificatesOf visits the configurations that name a Secret as a part of their output.
func (s *Store) CertificatesOf(ctx context.Context, namespace, secret string, visit func(*model.CMPCertificate) error) error {
	fields, err := s.outputFields(ctx, namespace, false)
	if err != nil {
		return err
	}
	return s.naming(ctx, namespace, fields, secret, visit)
}

// naming visits, once, every configuration one of whose fields names a Secret that its
// output goes to.
func (s *Store) naming(ctx context.Context, namespace string, fields []string, secret string, visit func(*model.CMPCertificate) error) error {
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
	for _, field := range partFields() {
		err := s.certificates(ctx, namespace, field+"!=", func(*model.CMPCertificate) error { return errFound })
		if errors.Is(err, errFound) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
	s.partless.set(namespace, true)
	return all[:1], nil
}
