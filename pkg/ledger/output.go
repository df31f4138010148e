package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

const (
	caKey = "ca.crt"
	// uidAnnotation ties an output to one life of its configuration, so that revisions
	// are compared only within it.
	uidAnnotation = "certloop.io/certificate-uid"
)

// project is the issuance as the data of a Secret.
func (i *Issuance) project() (map[string][]byte, error) {
	key, err := i.Key.PEM()
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{
		corev1.TLSPrivateKeyKey: key,
		corev1.TLSCertKey:       EncodeCertificates(i.Chain...),
	}
	if len(i.Anchors) > 0 {
		data[caKey] = EncodeCertificates(i.Anchors...)
	}
	return data, nil
}

// Output reads the Secret that workloads mount; nil when there is none.
func (s *Store) Output(ctx context.Context, cert *model.CMPCertificate) (*corev1.Secret, error) {
	secret, err := s.Secret(ctx, outputKey(cert))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return secret, err
}

func outputKey(cert *model.CMPCertificate) types.NamespacedName {
	return types.NamespacedName{Namespace: cert.Namespace, Name: cert.Spec.Output.SecretName}
}

// Absent is what Drift says of an output that does not exist.
const Absent = "the Secret does not exist"

// Drift says in words how an output differs from what the record holds, "" when it
// does not. Foreign labels, annotations and data keys are nobody's concern.
func Drift(secret *corev1.Secret, rec *Record) (string, error) {
	if secret == nil {
		return Absent, nil
	}
	want, err := rec.Current.project()
	if err != nil {
		return "", err
	}
	var wrong []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		switch got, ok := secret.Data[k]; {
		case !ok:
			wrong = append(wrong, k+" is missing")
		case !bytes.Equal(got, want[k]):
			wrong = append(wrong, k+" was changed")
		}
	}
	if secret.Labels[model.ManagedByLabel] != model.ManagedBy {
		wrong = append(wrong, "label "+model.ManagedByLabel+" is missing")
	}
	return strings.Join(wrong, ", "), nil
}

// Outdated tells whether an output is an earlier projection of the record that nobody has
// touched: it is behind, not changed.
func Outdated(secret *corev1.Secret, rec *Record) bool {
	if secret == nil {
		return false
	}
	revision, err := strconv.ParseInt(secret.Annotations[model.RevisionAnnotation], 10, 64)
	if err != nil || revision >= rec.Current.Revision {
		return false
	}
	ours := map[string][]byte{}
	for _, k := range []string{corev1.TLSPrivateKeyKey, corev1.TLSCertKey, caKey} {
		if v, ok := secret.Data[k]; ok {
			ours[k] = v
		}
	}
	return secret.Annotations[model.FingerprintAnnotation] == contentDigest(ours)
}

// Project makes the output hold what the record holds: key, certificate and chain in
// one replace, guarded by the resourceVersion that was read, so that no reader ever sees a key
// without its certificate. It tells what it found wrong and put right, as Drift does, ""
// when nothing was. Foreign labels and data keys are left alone.
//
// ErrNotManaged when the Secret belongs to something else or is immutable; ErrConflict
// when somebody wrote it meanwhile or it already holds a later revision.
func (s *Store) Project(ctx context.Context, cert *model.CMPCertificate, rec *Record) (found string, err error) {
	if !rec.Current.Key.Fits(rec.Current.Certificate()) {
		return "", fmt.Errorf("record %s: key and certificate do not match: refusing to deliver them", recordKey(cert))
	}
	present, err := s.Output(ctx, cert)
	if err != nil {
		return "", err
	}
	drift, err := Drift(present, rec)
	if err != nil || drift == "" {
		return "", err
	}
	if err := mayReplace(present, cert, rec); err != nil {
		return "", fmt.Errorf("secret %s: %w", outputKey(cert), err)
	}
	next, err := output(present, cert, rec)
	if err != nil {
		return "", err
	}
	if err := s.replace(ctx, present != nil, next); err != nil {
		return "", err
	}
	return drift, nil
}

func (s *Store) replace(ctx context.Context, exists bool, next *corev1.Secret) error {
	key := types.NamespacedName{Namespace: next.Namespace, Name: next.Name}
	req := s.core.Post().Namespace(key.Namespace).Resource("secrets")
	if exists {
		req = s.core.Put().Namespace(key.Namespace).Resource("secrets").Name(key.Name)
	}
	err := req.Param("fieldManager", model.StatusFieldManager).Body(next).Do(ctx).Error()
	return explain(err, "writing", "secrets", key)
}

func mayReplace(present *corev1.Secret, cert *model.CMPCertificate, rec *Record) error {
	if present == nil {
		return nil
	}
	if present.Type != corev1.SecretTypeTLS {
		return fmt.Errorf("%w: its type is %s, not %s", ErrNotManaged, present.Type, corev1.SecretTypeTLS)
	}
	if present.Immutable != nil && *present.Immutable {
		return fmt.Errorf("%w: it is immutable", ErrNotManaged)
	}
	owner, marked := present.Labels[model.CertificateLabel]
	if marked && owner != model.LabelValue(cert.Name) {
		return fmt.Errorf("%w: it belongs to CMPCertificate %s", ErrNotManaged, owner)
	}
	if present.Annotations[uidAnnotation] != string(cert.UID) {
		return nil
	}
	revision, err := strconv.ParseInt(present.Annotations[model.RevisionAnnotation], 10, 64)
	if err == nil && revision > rec.Current.Revision {
		return fmt.Errorf("%w: it holds revision %d, ours is %d", ErrConflict, revision, rec.Current.Revision)
	}
	return nil
}

// output is the Secret to write: what is present, with our data in place.
func output(present *corev1.Secret, cert *model.CMPCertificate, rec *Record) (*corev1.Secret, error) {
	data, err := rec.Current.project()
	if err != nil {
		return nil, err
	}
	next := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: cert.Spec.Output.SecretName, Namespace: cert.Namespace}, Type: corev1.SecretTypeTLS}
	if present != nil {
		next = present.DeepCopy()
	}
	next.Data = merge(next.Data, data)
	next.Labels = merge(next.Labels, labels(cert, model.RoleOutput))
	next.Annotations = merge(next.Annotations, annotations(cert, rec.Current, data))
	return next, nil
}

func annotations(cert *model.CMPCertificate, i *Issuance, data map[string][]byte) map[string]string {
	return map[string]string{
		model.FingerprintAnnotation: contentDigest(data),
		model.NotAfterAnnotation:    i.Certificate().NotAfter.UTC().Format(time.RFC3339),
		model.SerialAnnotation:      SerialHex(i.Certificate().SerialNumber.Bytes()),
		model.RevisionAnnotation:    strconv.FormatInt(i.Revision, 10),
		uidAnnotation:               string(cert.UID),
	}
}

// SerialHex writes a serial number as it is written everywhere: hex, lower case.
func SerialHex(serial []byte) string { return hex.EncodeToString(serial) }

func merge[V any](into, from map[string]V) map[string]V {
	if into == nil {
		into = map[string]V{}
	}
	maps.Copy(into, from)
	return into
}

func contentDigest(data map[string][]byte) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(data)) {
		_, _ = fmt.Fprintf(h, "%s:%d:", k, len(data[k]))
		h.Write(data[k])
	}
	return hex.EncodeToString(h.Sum(nil))
}
