package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
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

// ErrKeyLost says that the private key is nowhere: the record keeps none, and the
// output no longer holds it. Only a new certificate helps.
var ErrKeyLost = errors.New("the record keeps no private key, and the output no longer holds it")

// Outputs are the Secrets of an output that exist, by name.
type Outputs map[string]*corev1.Secret

// Outputs reads the Secrets that a configuration names as its output.
func (s *Store) Outputs(ctx context.Context, cert *model.CMPCertificate) (Outputs, error) {
	found := Outputs{}
	for _, name := range cert.Spec.Output.SecretNames() {
		secret, err := s.Secret(ctx, types.NamespacedName{Namespace: cert.Namespace, Name: name})
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[name] = secret
	}
	return found, nil
}

// Deviation is how one Secret of an output differs from what the record holds.
type Deviation struct {
	SecretName string
	Cause      string // in words; Absent when the Secret does not exist
}

// Absent is the cause of a deviation when there is no Secret.
const Absent = "the Secret does not exist"

// Deviations tells how the outputs that were found differ from what the record holds, none
// when they do not. Foreign labels, annotations and data keys are nobody's concern.
// ErrKeyLost when the difference cannot be put right.
func (r *Record) Deviations(found Outputs) ([]Deviation, error) {
	want, err := r.projections(found)
	if err != nil {
		return nil, err
	}
	var all []Deviation
	for _, p := range want {
		if cause := p.deviation(found[p.name]); cause != "" {
			all = append(all, Deviation{p.name, cause})
		}
	}
	return all, nil
}

// projection is what one Secret of an output should be.
type projection struct {
	name  string
	kind  corev1.SecretType
	keeps bool // whatever type the Secret already has is right
	data  map[string][]byte
	owner *model.CMPCertificate
	// revision of the certificate.
	revision int64
}

// projections are what the Secrets of an output should be, in the order in which they
// are to be written.
func (r *Record) projections(found Outputs) ([]projection, error) {
	issued := *r.Current
	if issued.Key.Signer() == nil {
		var ok bool
		if issued.Key, ok = r.OutputKey(found); !ok {
			return nil, fmt.Errorf("output of %s/%s: %w", r.owner.Namespace, r.owner.Name, ErrKeyLost)
		}
	}
	spec := &r.owner.Spec
	byName := map[string]projection{}
	for _, place := range spec.Output.Places() {
		p, ok := byName[place.SecretName]
		if !ok {
			p = projection{name: place.SecretName, kind: secretType(&spec.Output, place.SecretName), keeps: spec.Adopts(), data: map[string][]byte{}, owner: r.owner, revision: r.Current.Revision}
			byName[place.SecretName] = p
		}
		value, err := issued.part(place, spec.Output.Chain != nil)
		if err != nil {
			return nil, err
		}
		if value != nil {
			p.data[place.Key] = issued.asFound(place, value, found[place.SecretName])
		}
	}
	var all []projection
	for _, name := range spec.Output.SecretNames() {
		all = append(all, byName[name])
	}
	return all, nil
}

// OutputKey finds the private key of the certificate in use in the outputs.
func (r *Record) OutputKey(found Outputs) (PrivateKey, bool) {
	for _, place := range r.owner.Spec.Output.Places() {
		secret := found[place.SecretName]
		if place.Part != model.PrivateKeyPart || secret == nil || r.Current == nil {
			continue
		}
		key, err := ParseKey(secret.Data[place.Key])
		return key, err == nil && key.Fits(r.Current.Certificate())
	}
	return PrivateKey{}, false
}

// Held reads key and certificate as the outputs hold them now, whoever wrote them. The
// error says which data key of which Secret is missing or wrong.
func Held(cert *model.CMPCertificate, found Outputs) (*Issuance, error) {
	held := new(Issuance)
	for _, place := range cert.Spec.Output.Places() {
		secret := found[place.SecretName]
		required := place.Part == model.PrivateKeyPart || place.Part == model.CertificatePart
		switch {
		case secret == nil && required:
			return nil, fmt.Errorf("secret %s/%s does not exist", cert.Namespace, place.SecretName)
		case secret == nil, len(secret.Data[place.Key]) == 0 && !required:
			continue
		}
		if err := held.read(place.Part, secret.Data[place.Key]); err != nil {
			return nil, fmt.Errorf("secret %s/%s, data key %s: %w", cert.Namespace, place.SecretName, place.Key, err)
		}
	}
	if !held.Key.Fits(held.Certificate()) {
		return nil, fmt.Errorf("secret %s/%s: the private key is not that of the certificate", cert.Namespace, cert.Spec.Output.KeySecretName())
	}
	return held, nil
}

// read takes one part of an output; the chain comes before the certificate.
func (i *Issuance) read(part model.Part, data []byte) (err error) {
	if part == model.PrivateKeyPart {
		i.Key, err = ParseKey(data)
		return err
	}
	certs, err := ParseCertificates(data)
	switch part {
	case model.CABundlePart:
		i.Anchors = certs
	case model.CertificatePart:
		i.Chain = append(certs, i.Chain...)
	default:
		i.Chain = certs
	}
	return err
}

// secretType is kubernetes.io/tls for a Secret that is what this type asks for.
func secretType(o *model.Output, name string) corev1.SecretType {
	parts := 0
	for _, p := range o.Places() {
		key := p.Part == model.PrivateKeyPart && p.Key == corev1.TLSPrivateKeyKey
		crt := p.Part == model.CertificatePart && p.Key == corev1.TLSCertKey
		if (key || crt) && p.SecretName == name && p.Encoding == model.PEM {
			parts++
		}
	}
	if parts == 2 {
		return corev1.SecretTypeTLS
	}
	return corev1.SecretTypeOpaque
}

// part is a part of the issuance in the encoding of its place; nil when there is nothing
// to say. apart tells that the chain has a place of its own.
func (i *Issuance) part(place model.Place, apart bool) ([]byte, error) {
	der := place.Encoding == model.DER
	encode := EncodeCertificates
	if der {
		encode = concatenate
	}
	switch place.Part {
	case model.PrivateKeyPart:
		if der {
			return i.Key.DER()
		}
		return i.Key.PEM()
	case model.CertificatePart:
		if apart {
			return encode(i.Chain[0]), nil
		}
		return encode(i.Chain...), nil
	case model.ChainPart:
		return append([]byte{}, encode(i.Chain[1:]...)...), nil // there, even when it is empty
	default:
		return encode(i.trusted()...), nil
	}
}

// asFound is the value that was found at a place, where it means the same and is not ours
// to write in another way: what is adopted stays as it is, byte for byte.
func (i *Issuance) asFound(place model.Place, value []byte, secret *corev1.Secret) []byte {
	if !i.Adopted || secret == nil || isDER(secret.Data[place.Key]) != isDER(value) {
		return value
	}
	found := secret.Data[place.Key]
	if place.Part == model.PrivateKeyPart {
		if key, err := ParseKey(found); err != nil || !key.Fits(i.Certificate()) {
			return value
		}
		return found
	}
	want, wantErr := ParseCertificates(value)
	got, err := ParseCertificates(found)
	if err != nil || wantErr != nil || !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
		return value
	}
	return found
}

// trusted is what workloads are to trust.
func (i *Issuance) trusted() []*x509.Certificate {
	if len(i.Bundle) > 0 {
		return i.Bundle
	}
	return i.Anchors
}

// deviation says in words how a Secret differs from what it should be.
func (p projection) deviation(secret *corev1.Secret) string {
	if secret == nil {
		return Absent
	}
	var wrong []string
	for _, k := range slices.Sorted(maps.Keys(p.data)) {
		switch got, ok := secret.Data[k]; {
		case !ok:
			wrong = append(wrong, k+" is missing")
		case !bytes.Equal(got, p.data[k]):
			wrong = append(wrong, k+" was changed")
		}
	}
	for _, k := range dataKeys(secret) {
		if _, still := secret.Data[k]; still && p.data[k] == nil {
			wrong = append(wrong, k+" is no longer ours")
		}
	}
	if !p.keeps && secret.Type != p.kind {
		wrong = append(wrong, fmt.Sprintf("its type is %s, not %s", secret.Type, p.kind))
	}
	wanted := outputLabels(p.owner)
	for _, label := range slices.Sorted(maps.Keys(wanted)) {
		switch got, there := secret.Labels[label]; {
		case wanted[label] == "" && there:
			wrong = append(wrong, "label "+label+" is no longer ours")
		case got != wanted[label]:
			wrong = append(wrong, "label "+label+" is missing")
		}
	}
	for _, mark := range [][2]string{{model.UIDAnnotation, string(p.owner.UID)}, {model.RevisionAnnotation, strconv.FormatInt(p.revision, 10)}} {
		if secret.Annotations[mark[0]] != mark[1] {
			wrong = append(wrong, "annotation "+mark[0]+" was changed")
		}
	}
	return strings.Join(wrong, ", ")
}

// Untouched tells whether nobody has changed what certloop once wrote into a Secret.
func Untouched(secret *corev1.Secret) bool {
	ours := map[string][]byte{}
	for _, k := range dataKeys(secret) {
		if v, ok := secret.Data[k]; ok {
			ours[k] = v
		}
	}
	return len(ours) > 0 && secret.Annotations[model.FingerprintAnnotation] == contentDigest(ours)
}

// Revision of the certificate that a Secret says it holds; 0 when it does not say.
func Revision(secret *corev1.Secret) int64 {
	n, err := strconv.ParseInt(secret.Annotations[model.RevisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// dataKeys are the data keys that certloop has written into a Secret.
func dataKeys(secret *corev1.Secret) []string {
	switch list, ok := secret.Annotations[model.DataKeysAnnotation]; {
	case ok && list != "":
		return strings.Split(list, ",")
	case ok || secret.Annotations[model.FingerprintAnnotation] == "":
		return nil
	default:
		return []string{corev1.TLSPrivateKeyKey, corev1.TLSCertKey, caKey}
	}
}

// Outdated tells whether an output is an earlier projection of the record that nobody has
// touched: it is behind, not changed.
func (r *Record) Outdated(secret *corev1.Secret) bool {
	return secret != nil && ownerOf(secret, r.owner) == ours && Revision(secret) > 0 && Revision(secret) < r.Current.Revision && Untouched(secret)
}

// Project makes the outputs hold what the record holds: everything that goes to one
// Secret in one replace, guarded by the resourceVersion that was found, so that no reader ever sees
// a key without its certificate; the Secret with the certificate last. Foreign labels
// and data keys are left alone. What was written is in found afterwards.
//
// ErrNotManaged when a Secret belongs to something else or is immutable, or a value of others would be lost; ErrConflict
// when somebody wrote it meanwhile or it already holds a later revision; ErrKeyLost as for Deviations.
func (s *Store) Project(ctx context.Context, rec *Record, found Outputs) error {
	want, err := rec.projections(found)
	if err != nil {
		return err
	}
	if key := rec.Current.Key; key.Signer() != nil && !key.Fits(rec.Current.Certificate()) {
		return fmt.Errorf("record %s: key and certificate do not match: refusing to deliver them", recordKey(rec.owner))
	}
	for _, p := range want {
		if p.deviation(found[p.name]) == "" {
			continue
		}
		if err := p.mayReplace(found[p.name], rec); err != nil {
			return fmt.Errorf("secret %s/%s: %w", rec.owner.Namespace, p.name, err)
		}
		written, err := s.write(ctx, p, rec, found[p.name])
		if err != nil {
			return err
		}
		found[p.name] = written
	}
	return nil
}

// write creates a Secret, or replaces the one that is present. Its type is immutable, so
// for another type it is deleted first.
func (s *Store) write(ctx context.Context, p projection, rec *Record, present *corev1.Secret) (*corev1.Secret, error) {
	next := p.secret(present, rec)
	key := types.NamespacedName{Namespace: next.Namespace, Name: next.Name}
	if present != nil && !p.keeps && present.Type != p.kind {
		if err := s.DeleteSecret(ctx, present); err != nil {
			return nil, err
		}
		next.ObjectMeta = metav1.ObjectMeta{Name: next.Name, Namespace: next.Namespace, Labels: next.Labels, Annotations: next.Annotations}
		next.Type, present = p.kind, nil
	}
	req := s.core.Post().Namespace(key.Namespace).Resource("secrets")
	if present != nil {
		req = s.core.Put().Namespace(key.Namespace).Resource("secrets").Name(key.Name)
	}
	written := new(corev1.Secret)
	err := req.Param("fieldManager", model.StatusFieldManager).Body(next).Do(ctx).Into(written)
	return written, explain(err, "writing", "secrets", key)
}

// DeleteSecret deletes a Secret as it was read; ErrConflict when it has changed since.
// It is not an error when it is gone.
func (s *Store) DeleteSecret(ctx context.Context, secret *corev1.Secret) error {
	key := types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}
	opts := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion}}
	err := s.core.Delete().Namespace(key.Namespace).Resource("secrets").Name(key.Name).Body(opts).Do(ctx).Error()
	if err = explain(err, "deleting", "secrets", key); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// owner is whose a Secret is.
type owner int

const (
	nobody owner = iota // it bears no mark
	former              // of a configuration of the same name that was deleted
	ours
	another
)

// ownerOf reads the marks of a Secret. The label is shortened, so it tells only where
// the annotations, which name the configuration in full, are missing.
func ownerOf(secret *corev1.Secret, cert *model.CMPCertificate) owner {
	label, labelled := secret.Labels[model.CertificateLabel]
	name, named := secret.Annotations[model.CertificateAnnotation]
	switch uid := secret.Annotations[model.UIDAnnotation]; {
	case uid == string(cert.UID):
		return ours
	case named && name != cert.Name:
		return another
	case named:
		return former
	case labelled && label == cert.Name:
		return former
	case labelled:
		return another
	default:
		return nobody
	}
}

func (p projection) mayReplace(present *corev1.Secret, rec *Record) error {
	if present == nil {
		return nil
	}
	whose := ownerOf(present, rec.owner)
	switch {
	case present.Immutable != nil && *present.Immutable:
		return fmt.Errorf("%w: it is immutable", ErrNotManaged)
	case whose == another:
		return fmt.Errorf("%w: it belongs to CMPCertificate %s", ErrNotManaged, OwnerName(present))
	case present.Type == RecordType, whose != ours && !p.keeps && present.Type != p.kind:
		return fmt.Errorf("%w: its type is %s, not %s", ErrNotManaged, present.Type, p.kind)
	case whose == nobody && !p.keeps && rec.owner.Spec.Origin != model.OriginAutomatic && !onceWritten(present) && p.loses(present) != "":
		return fmt.Errorf("%w: certloop did not write what its data key %s holds: delete it, name another Secret, or take it over with spec.origin: adopt", ErrNotManaged, p.loses(present))
	case whose == ours && Revision(present) > rec.Current.Revision && Untouched(present) && present.Annotations[model.SerialAnnotation] != rec.serial():
		return fmt.Errorf("%w: it holds revision %d, ours is %d", ErrConflict, Revision(present), rec.Current.Revision)
	}
	return nil
}

// loses is the first data key whose value would be gone after a write; empty when there is none.
func (p projection) loses(present *corev1.Secret) string {
	for _, k := range slices.Sorted(maps.Keys(p.data)) {
		if got := present.Data[k]; len(got) > 0 && !bytes.Equal(got, p.data[k]) {
			return k
		}
	}
	return ""
}

// onceWritten: certloop has written a Secret before, though nothing is left on it that says for
// which configuration.
func onceWritten(secret *corev1.Secret) bool {
	return secret.Labels[model.RoleLabel] == model.RoleOutput || secret.Annotations[model.FingerprintAnnotation] != "" || slices.ContainsFunc(secret.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == model.StatusFieldManager && m.Subresource == ""
	})
}

// serial number of the certificate in use, hex.
func (r *Record) serial() string { return SerialHex(r.Current.Certificate().SerialNumber.Bytes()) }

// OwnerName is the name of the CMPCertificate that a Secret says it belongs to; "" when
// it does not say. Where only the label is left, the name may be shortened.
func OwnerName(secret metav1.Object) string {
	if name := secret.GetAnnotations()[model.CertificateAnnotation]; name != "" {
		return name
	}
	return secret.GetLabels()[model.CertificateLabel]
}

// Disown takes our marks off a Secret as it was read, so that another configuration may
// have it.
func Disown(secret *corev1.Secret) {
	delete(secret.Labels, model.CertificateLabel)
	delete(secret.Annotations, model.CertificateAnnotation)
	delete(secret.Annotations, model.UIDAnnotation)
}

// secret is what to write: what is present, with our data in place.
func (p projection) secret(present *corev1.Secret, rec *Record) *corev1.Secret {
	next := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: rec.owner.Namespace}, Type: p.kind}
	if present != nil {
		next = present.DeepCopy()
		for _, k := range dataKeys(present) {
			delete(next.Data, k)
		}
	}
	next.Data = merge(next.Data, p.data)
	next.Labels = merge(next.Labels, outputLabels(rec.owner))
	for label, value := range outputLabels(rec.owner) {
		if value == "" {
			delete(next.Labels, label)
		}
	}
	next.Annotations = merge(next.Annotations, p.annotations(rec))
	next.Annotations[model.MarksAnnotation] = marksDigest(next)
	return next
}

// outputLabels are what people select outputs by. Those without a value are not to be there.
func outputLabels(cert *model.CMPCertificate) map[string]string {
	all := labels(cert, model.RoleOutput)
	all[model.NetworkFunctionLabel], all[model.PurposeLabel] = cert.Spec.NetworkFunction, cert.Spec.Purpose
	return all
}

func (p projection) annotations(rec *Record) map[string]string {
	cert, leaf := rec.owner, rec.Current.Certificate()
	return map[string]string{
		model.FingerprintAnnotation: contentDigest(p.data),
		model.DataKeysAnnotation:    strings.Join(slices.Sorted(maps.Keys(p.data)), ","),
		model.NotAfterAnnotation:    leaf.NotAfter.UTC().Format(time.RFC3339),
		model.SerialAnnotation:      rec.serial(),
		model.RevisionAnnotation:    strconv.FormatInt(rec.Current.Revision, 10),
		model.CertificateAnnotation: cert.Name,
		model.UIDAnnotation:         string(cert.UID),
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
