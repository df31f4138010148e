package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

// AsWritten tells from the metadata of an output that it still is as certloop wrote it: its
// marks are complete, and nobody else has given a value to any data key that they list, as the API
// server notes in metadata.managedFields. So our own writes are recognised without reading what
// they wrote.
//
// It is a hint that saves work. Who imitates certloop's field manager is found out by a sweep.
func AsWritten(secret metav1.Object) bool {
	annotations := secret.GetAnnotations()
	keys, ok := annotations[model.DataKeysAnnotation]
	if !ok || keys == "" || secret.GetLabels()[model.RoleLabel] != model.RoleOutput || annotations[model.MarksAnnotation] != marksDigest(secret) {
		return false
	}
	ours := ownData(secret)
	for key := range strings.SplitSeq(keys, ",") {
		if _, ok := ours["f:"+key]; !ok {
			return false
		}
	}
	return true
}

// ownData are the data keys whose values certloop set last, as fields: "f:" and the name.
func ownData(secret metav1.Object) map[string]json.RawMessage {
	for _, m := range secret.GetManagedFields() {
		if m.Manager != model.StatusFieldManager || m.Operation != metav1.ManagedFieldsOperationUpdate || m.Subresource != "" || m.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Data map[string]json.RawMessage `json:"f:data"`
		}
		if json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields) == nil {
			return fields.Data
		}
	}
	return nil
}

// marksPrefix is how the names of our labels and annotations begin.
const marksPrefix = "certloop.io/"

// marksDigest identifies the labels and annotations of certloop on a Secret.
func marksDigest(secret metav1.Object) string {
	h := sha256.New()
	for _, all := range []map[string]string{secret.GetLabels(), secret.GetAnnotations()} {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(name, marksPrefix) && name != model.MarksAnnotation {
				_, _ = fmt.Fprintf(h, "%s=%q\n", name, all[name])
			}
		}
		_, _ = fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil))
}
