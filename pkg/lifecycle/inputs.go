package lifecycle

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/event"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// inputs are an issuer and the Secrets it names, as they were read together.
type inputs struct {
	issuer  *model.CMPIssuer
	home    string                    // the namespace of the Secrets
	secrets map[string]*corev1.Secret // by name; nil where there is none
}

// readInputs reads an issuer and every Secret it names. An *unmetError says that there is no
// such issuer, or nowhere to look for its Secrets.
func (o *Obtainer) readInputs(ctx context.Context, key types.NamespacedName) (*inputs, error) {
	issuer, err := o.Ledger.Issuer(ctx, key)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, &unmetError{model.ReasonIssuerNotFound, fmt.Sprintf("%s does not exist: create it, or correct spec.issuerRef", shown(key))}
	}
	if err != nil {
		return nil, err
	}
	in := &inputs{issuer: issuer, home: key.Namespace, secrets: map[string]*corev1.Secret{}}
	if in.home == "" {
		in.home = o.Namespace
	}
	if in.home == "" {
		return in, &unmetError{model.ReasonNamespaceNotServed, fmt.Sprintf("the Secrets of %s are in certloop's own namespace, which this installation does not know: set CERTLOOP_NAMESPACE", shown(key))}
	}
	for _, name := range issuer.Spec.Inputs() {
		secret, err := o.Ledger.Secret(ctx, types.NamespacedName{Namespace: in.home, Name: name})
		switch {
		case err == nil:
			in.secrets[name] = secret
		case errors.Is(err, ledger.ErrNotFound):
			in.secrets[name] = nil
		case apierrors.IsForbidden(err):
			return in, &unmetError{model.ReasonForbidden, fmt.Sprintf("%s names a Secret that may not be read: %v", in, err)}
		default:
			return nil, err
		}
	}
	return in, nil
}

// versions are the resourceVersions that were read, by name; empty where there is no Secret.
func (in *inputs) versions() map[string]string {
	if len(in.secrets) == 0 {
		return nil
	}
	versions := make(map[string]string, len(in.secrets))
	for name, secret := range in.secrets {
		versions[name] = ""
		if secret != nil {
			versions[name] = secret.ResourceVersion
		}
	}
	return versions
}

// state changes when the specification of the issuer does, or a Secret it names. A
// certificate that the CA refused waits for that.
func (in *inputs) state() string {
	js, err := json.Marshal(in.versions()) // sorted by name
	if err != nil {
		panic(fmt.Sprintf("lifecycle: resourceVersions cannot be encoded: %v", err)) // strings
	}
	sum := sha256.Sum256(js)
	return fmt.Sprintf("%s/%d/%s", in.issuer.UID, in.issuer.Generation, hex.EncodeToString(sum[:8]))
}

func (in *inputs) String() string { return shown(ledger.IssuerKey(in.issuer)) }

// secret gives a Secret that field names.
func (in *inputs) secret(name, field string) (*corev1.Secret, error) {
	secret := in.secrets[name]
	if secret == nil {
		return nil, &unmetError{model.ReasonSecretNotFound, fmt.Sprintf("Secret %s/%s, named by %s of %s, does not exist: create it, or correct the field", in.home, name, field, in)}
	}
	return secret, nil
}

// certificates reads certificates that field names.
func (in *inputs) certificates(name, key, field string) ([]*x509.Certificate, error) {
	secret, err := in.secret(name, field)
	if err != nil {
		return nil, err
	}
	return in.chain(secret, key, field)
}

// value is what a Secret that field names holds at a data key.
func (in *inputs) value(secret *corev1.Secret, key, field string) ([]byte, error) {
	v := secret.Data[key]
	if len(v) == 0 {
		return nil, in.invalid(secret, key, field, errors.New("is missing or empty"))
	}
	return v, nil
}

// chain are the certificates that a Secret which field names holds at a data key.
func (in *inputs) chain(secret *corev1.Secret, key, field string) ([]*x509.Certificate, error) {
	v, err := in.value(secret, key, field)
	if err != nil {
		return nil, err
	}
	certs, err := ledger.ParseCertificates(v)
	if err != nil {
		return nil, in.invalid(secret, key, field, err)
	}
	return certs, nil
}

func (in *inputs) invalid(secret *corev1.Secret, key, field string, err error) error {
	return &unmetError{model.ReasonSecretInvalid, fmt.Sprintf("Secret %s/%s, named by %s of %s, data key %s: %v: correct it, or the field", secret.Namespace, secret.Name, field, in, key, err)}
}

// InputChanged looks again at an issuer of which a Secret has changed, appeared or gone, and
// wakes the certificates that wait for it, those too that the CA has refused. It handles input.changed.
func (o *Obtainer) InputChanged(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	return o.issuerChanged(ctx, key, in)
}
