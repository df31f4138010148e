package knative_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/kubetest"
)

const goodCertificate = `
issuerRef: {name: ca}
subject: {commonName: amf.example.com}
output: {secretName: amf-tls}
`

const goodIssuer = `
server: http://ca.example.com:8080/pkix/
trust: {secretName: ca-trust}
`

// A configuration is judged the same at both doors: by Validate when it comes as an event,
// by the API server when it comes from kubectl. Each case changes a good specification.
var certificateCases = []struct {
	change string // of the specification; null removes
	ok     bool
	says   string // in both refusals
}{
	{`{}`, true, ""},
	{`{type: cmpIdentity}`, true, ""},
	{`{type: OCCM}`, false, "type"},
	{`{networkFunction: AMF, purpose: SBI}`, true, ""},
	{`{networkFunction: "a b"}`, false, "networkFunction"},
	{`{purpose: "-"}`, false, "purpose"},
	{`{issuerRef: {name: null}}`, false, "issuerRef.name"},
	{`{issuerRef: {name: "Up"}}`, false, "issuerRef.name"},
	{`{issuerRef: {kind: CMPClusterIssuer}}`, true, ""},
	{`{issuerRef: {kind: Issuer}}`, false, "issuerRef.kind"},
	{`{issuerRef: {group: certloop.io}}`, false, "unknown field"},
	{`{origin: create}`, true, ""},
	{`{origin: adopt}`, true, ""},
	{`{origin: MANUAL}`, true, ""},
	{`{origin: AUTOMATIC}`, true, ""},
	{`{origin: manual}`, false, "origin"},
	{`{privateKey: {algorithm: RSA, size: 3072}}`, true, ""},
	{`{privateKey: {algorithm: RSA, size: 1024}}`, false, "2048, 3072 or 4096 for RSA"},
	{`{privateKey: {size: 384}}`, true, ""},
	{`{privateKey: {size: 224}}`, false, "256, 384 or 521 for ECDSA"},
	{`{privateKey: {algorithm: Ed25519}}`, true, ""},
	{`{privateKey: {algorithm: Ed25519, size: 256}}`, false, "absent for Ed25519"},
	{`{privateKey: {algorithm: DSA}}`, false, "algorithm"},
	{`{privateKey: {algorithm: SECP256K1}}`, false, "use ECDSA with size 256, which is P-256"},
	{`{privateKey: {algorithm: secp256k1, size: 256}}`, false, "use ECDSA with size 256, which is P-256"},
	{`{subject: null}`, false, "subjectAltNames"},
	{`{subject: null, subjectAltNames: {dnsNames: [a.example]}}`, true, ""},
	{`{subject: {commonName: null}}`, false, "subject"},
	{`{subject: {country: DE, stateOrProvince: Saxony, locality: Dresden, organization: "Exämple", organizationalUnit: Core, serialNumber: "0815-4711"}}`, true, ""},
	{`{subject: {country: Germany}}`, false, "subject.country"},
	{`{subject: {country: de}}`, false, "subject.country"},
	{`{subject: {commonName: 7777777777777777777777777777777777777777777777777777777777777777}}`, false, ""},
	{`{subject: {commonName: "` + strings.Repeat("ä", 64) + `"}}`, true, ""},
	{`{subject: {commonName: "` + strings.Repeat("ä", 65) + `"}}`, false, "subject.commonName"},
	{`{subject: {serialNumber: "a_b"}}`, false, "subject.serialNumber"},
	{`{subject: {commonName: null, distinguishedName: /O=Example/CN=amf}}`, true, ""},
	{`{subject: {commonName: null, distinguishedName: "CN=amf,O=Example"}}`, true, ""},
	{`{subject: {commonName: null, distinguishedName: /}}`, false, "leave subject out"},
	{`{subject: {commonName: null, distinguishedName: amf}}`, false, "subject.distinguishedName"},
	{`{subject: {distinguishedName: /O=Example/CN=amf}}`, false, "distinguishedName"},
	{`{subjectAltNames: {}}`, false, "subjectAltNames"},
	{`{subjectAltNames: {dnsNames: []}}`, false, "subjectAltNames"},
	{`{subjectAltNames: {dnsNames: [amf.example.com, "*.amf.example.com", AMF.example.com, localhost]}}`, true, ""},
	{`{subjectAltNames: {dnsNames: ["a b"]}}`, false, "subjectAltNames.dnsNames[0]"},
	{`{subjectAltNames: {dnsNames: ["amf.*.example.com"]}}`, false, "subjectAltNames.dnsNames[0]"},
	{`{subjectAltNames: {dnsNames: [a.example, "*"]}}`, false, "subjectAltNames.dnsNames[1]"},
	{`{subjectAltNames: {dnsNames: [a.example, a.example]}}`, false, "subjectAltNames.dnsNames[1]"},
	{`{subjectAltNames: {dnsNames: [` + strings.Repeat("a", 64) + `.example]}}`, false, "subjectAltNames.dnsNames[0]"},
	{`{subjectAltNames: {ipAddresses: [192.0.2.1, "2001:db8::1"]}}`, true, ""},
	{`{subjectAltNames: {ipAddresses: [300.0.2.1]}}`, false, "ipAddresses"},
	{`{subjectAltNames: {ipAddresses: [192.0.2.0/24]}}`, false, "ipAddresses"},
	{`{subjectAltNames: {ipAddresses: ["::ffff:192.0.2.1"]}}`, false, "ipAddresses"},
	{`{subjectAltNames: {ipAddresses: ["fe80::1%eth0"]}}`, false, "ipAddresses"},
	{`{subjectAltNames: {ipAddresses: [192.0.2.01]}}`, false, "ipAddresses"},
	{`{subjectAltNames: {uris: ["https://amf.example.com:8443/prefix", "https://[2001:db8::1]/", "http://192.0.2.1"]}}`, true, ""},
	{`{subjectAltNames: {uris: ["https://me@amf.example.com/"]}}`, false, "subjectAltNames.uris"},
	{`{subjectAltNames: {uris: ["https://amf.example.com/?x=1"]}}`, false, "API root"},
	{`{subjectAltNames: {uris: ["https://amf.example.com/#top"]}}`, false, "API root"},
	{`{subjectAltNames: {uris: ["https:amf.example.com"]}}`, false, "API root"},
	{`{subjectAltNames: {uris: ["https:///prefix"]}}`, false, "subjectAltNames.uris"},
	{`{subjectAltNames: {uris: ["amf.example.com"]}}`, false, "subjectAltNames.uris[0]"},
	{`{subjectAltNames: {uris: ["/amf"]}}`, false, "subjectAltNames.uris[0]"},
	{`{subjectAltNames: {uris: ["https://amf.example.com/ä"]}}`, false, "subjectAltNames.uris[0]"},
	{`{subjectAltNames: {uris: ["https://amf.example.com/%zz"]}}`, false, "subjectAltNames.uris[0]"},
	{`{subjectAltNames: {uris: ["spiffe://trust.example/ns/core/sa/amf", "urn:example:a", "sip:amf@example.com"]}}`, true, ""},
	{`{subjectAltNames: {uris: ["urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "URN:UUID:F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"]}}`, true, ""},
	{`{subjectAltNames: {uris: ["urn:uuid:42"]}}`, false, "urn:uuid: is followed by a UUID"},
	{`{networkFunction: AMF, subjectAltNames: {uris: ["urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6"]}}`, true, ""},
	{`{networkFunction: AMF, subjectAltNames: {uris: ["urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]}}`, false, "a UUID of version 4"},
	{`{subjectAltNames: {emailAddresses: [operator@example.com, "o'neil+x@example.com"]}}`, true, ""},
	{`{subjectAltNames: {emailAddresses: [operator]}}`, false, "subjectAltNames.emailAddresses[0]"},
	{`{subjectAltNames: {emailAddresses: ["Op <op@example.com>"]}}`, false, "subjectAltNames.emailAddresses[0]"},
	{`{subjectAltNames: {emailAddresses: ["a..b@example.com"]}}`, false, "subjectAltNames.emailAddresses[0]"},
	{`{keyUsages: [digitalSignature, keyEncipherment], extendedKeyUsages: [serverAuth, OCSPSigning]}`, true, ""},
	{`{keyUsages: [keyCertSign]}`, false, "keyUsages[0]"},
	{`{keyUsages: [digitalSignature, digitalSignature]}`, false, "keyUsages[1]"},
	{`{extendedKeyUsages: [any]}`, false, "extendedKeyUsages[0]"},
	{`{basicConstraints: endEntity}`, true, ""},
	{`{basicConstraints: ca}`, false, "basicConstraints"},
	{`{validity: 2160h, renewBefore: 720h}`, true, ""},
	{`{validity: 9s}`, false, "validity"},
	{`{validity: 876001h}`, false, "validity"},
	{`{validity: ninety days}`, false, ""},
	{`{validity: 1h, renewBefore: 1h}`, false, "shorter than the validity asked for"},
	{`{renewBefore: 0s}`, false, "renewBefore"},
	{`{renewBefore: -1h}`, false, "renewBefore"},
	{`{validityDays: 90, renewBeforeDays: 30}`, true, ""},
	{`{validityDays: 30, renewBeforeDays: 30}`, false, "shorter than the validity asked for"},
	{`{validityDays: 30, renewBefore: 720h}`, false, "shorter than the validity asked for"},
	{`{validity: 24h, renewBeforeDays: 1}`, false, "shorter than the validity asked for"},
	{`{validityDays: -1}`, false, "validityDays"},
	{`{validityDays: 40000}`, false, "validityDays"},
	{`{validity: 24h, validityDays: 1}`, false, "validityDays"},
	{`{renewBeforePercentage: 33}`, true, ""},
	{`{renewBeforePercentage: 67}`, false, "renewBeforePercentage"},
	{`{renewBeforePercentage: 33, renewBeforeDays: 3}`, false, "renewBeforeDays"},
	{`{renewBefore: 1h, renewBeforeDays: 3}`, false, "renewBeforeDays"},
	{`{output: null}`, false, "output"},
	{`{output: {secretName: null}}`, false, "output.secretName"},
	{`{output: {secretName: Amf_TLS}}`, false, "output.secretName"},
	{`{output: {secretName: other.certloop-record}}`, false, "must not be a record of certloop"},
	{`{output: {privateKey: {secretName: amf-key, key: amf.key, encoding: DER}, certificate: {key: amf.crt}, chain: {}, caBundle: {secretName: amf-ca}}}`, true, ""},
	{`{output: {privateKey: {key: "a/b"}}}`, false, "output.privateKey.key"},
	{`{output: {chain: {encoding: JKS}}}`, false, "output.chain.encoding"},
	{`{output: {chain: {secretName: "A"}}}`, false, "output.chain.secretName"},
	{`{output: {chain: {secretName: x.certloop-record}}}`, false, "must not be a record of certloop"},
	{`{output: {privateKey: {key: tls.crt}}}`, false, "same Secret"},
	{`{output: {chain: {key: ca.crt}}}`, false, "same Secret"},
	{`{output: {chain: {key: ca.crt, secretName: amf-chain}}}`, true, ""},
	{`{output: {privateKey: {secretName: shared, key: x}, caBundle: {secretName: shared, key: x}}}`, false, "same Secret"},
	{`{caBundle: {secretName: roots}}`, true, ""},
	{`{caBundle: {secretName: roots, key: "a b"}}`, false, "caBundle.key"},
	{`{caBundle: {secretName: amf-tls}}`, false, "must not be the place that it is copied to"},
	{`{caBundle: {secretName: amf-tls, key: roots.pem}}`, true, ""},
	{`{record: {keepKey: false}}`, true, ""},
	{`{deletionPolicy: revokeAndDelete, paused: true}`, true, ""},
	{`{deletionPolicy: forget}`, false, "deletionPolicy"},
	{`{isuerRef: {name: ca}}`, false, "unknown field"},
}

var issuerCases = []struct {
	change string
	ok     bool
	says   string
}{
	{`{}`, true, ""},
	{`{server: null}`, false, "server"},
	{`{server: ""}`, false, "server"},
	{`{server: "https://ca.example.com"}`, true, ""},
	{`{server: "http://[2001:db8::1]:829/a?b=c"}`, true, ""},
	{`{server: "ldap://ca.example.com/"}`, false, "server"},
	{`{server: ca.example.com}`, false, "server"},
	{`{server: "http://me:pw@ca.example.com/"}`, false, "without user name"},
	{`{server: "http://ca.example.com/#a"}`, false, "server"},
	{`{server: "http://ca.example.com:70000/"}`, false, "server"},
	{`{server: "http://:80/"}`, false, "server"},
	{`{recipient: /CN=ca, issuer: "CN=Issuing CA,O=Example"}`, true, ""},
	{`{recipient: /}`, true, ""},
	{`{recipient: ca}`, false, "recipient"},
	{`{issuer: "/CN"}`, false, "issuer"},
	{`{totalTimeout: 48h, messageTimeout: 1m}`, true, ""},
	{`{totalTimeout: 0s}`, false, "totalTimeout"},
	{`{messageTimeout: -1s}`, false, "messageTimeout"},
	{`{totalTimeout: 1m, messageTimeout: 2m}`, false, "must not be longer than totalTimeout"},
	{`{messageTimeout: 25h}`, false, "must not be longer than totalTimeout"},
	{`{initialAuthentication: {mac: {secretName: psk, referenceKey: ref, passwordKey: pw, passwordFormat: openssl-pass, digest: SHA512, mac: HMACSHA512}}}`, true, ""},
	{`{initialAuthentication: {}}`, false, "initialAuthentication"},
	{`{initialAuthentication: {mac: {secretName: psk}, signature: {secretName: vendor}}}`, false, "mac"},
	{`{initialAuthentication: {mac: {}}}`, false, "initialAuthentication.mac.secretName"},
	{`{initialAuthentication: {mac: {secretName: psk, digest: SHA1}}}`, false, "initialAuthentication.mac.digest"},
	{`{initialAuthentication: {mac: {secretName: psk, mac: HMACSHA1}}}`, false, "initialAuthentication.mac.mac"},
	{`{initialAuthentication: {mac: {secretName: psk, passwordFormat: plain}}}`, false, "initialAuthentication.mac.passwordFormat"},
	{`{initialAuthentication: {mac: {secretName: psk, passwordKey: "a b"}}}`, false, "initialAuthentication.mac.passwordKey"},
	{`{initialAuthentication: {signature: {secretName: vendor, extraCertificatesKey: extra.pem, digest: SHA384}}}`, true, ""},
	{`{initialAuthentication: {signature: {secretName: vendor, digest: MD5}}}`, false, "initialAuthentication.signature.digest"},
	{`{authentication: {secretName: identity-tls}}`, true, ""},
	{`{authentication: {mac: {secretName: psk}}}`, false, "unknown field"},
	{`{authentication: {secretName: a.certloop-record}}`, false, "must not be a record of certloop"},
	{`{authentication: {secretName: identity, certificateKey: "/"}}`, false, "authentication.certificateKey"},
	{`{trust: null}`, false, "trust"},
	{`{trust: {secretName: null}}`, false, "trust.secretName"},
	{`{trust: {rootsKey: roots.pem, intermediatesKey: sub.pem}}`, true, ""},
	{`{trust: {serverCertificateKey: server.pem}}`, true, ""},
	{`{trust: {rootsKey: roots.pem, serverCertificateKey: server.pem}}`, false, "serverCertificateKey"},
	{`{trust: {rootsKey: roots.pem, expectedSender: /O=Example/CN=ca}}`, true, ""},
	{`{trust: {expectedSender: "CN=ca,O=Example"}}`, true, ""},
	{`{trust: {expectedSender: ca}}`, false, "trust.expectedSender"},
	{`{trust: {expectedSender: /}}`, false, "trust.expectedSender"},
	{`{trust: {expectedSender: /CN=ca, serverCertificateKey: server.pem}}`, false, "serverCertificateKey"},
	{`{server: "https://ca.example.com/", tls: {trust: {secretName: web}, clientCertificate: {secretName: client}, serverName: ca.internal}}`, true, ""},
	{`{tls: {serverName: ca.internal}}`, false, "is for a server with an https URL"},
	{`{server: "https://ca.example.com/", tls: {serverName: "https://ca"}}`, false, "tls.serverName"},
	{`{server: "https://ca.example.com/", tls: {serverName: "192.0.2.1"}}`, true, ""},
	{`{server: "https://ca.example.com/", tls: {trust: {}}}`, false, "tls.trust.secretName"},
	{`{confirmation: implicit}`, true, ""},
	{`{confirmation: never}`, false, "confirmation"},
	{`{chain: {source: manual, manual: {secretName: chain}}}`, true, ""},
	{`{chain: {source: manual}}`, false, "manual"},
	{`{chain: {manual: {secretName: chain}}}`, false, "manual"},
	{`{chain: {source: aia}}`, false, "chain.source"},
	{`{renewal: {signedBy: cmpIdentity}}`, true, ""},
	{`{renewal: {signedBy: me}}`, false, "renewal.signedBy"},
	{`{policies: {unprotectedErrors: accept, macAnsweredWithSignature: strict, grantedModifications: reject, clockTolerance: 0s}}`, true, ""},
	{`{policies: {unprotectedErrors: believe}}`, false, "policies.unprotectedErrors"},
	{`{policies: {macAnsweredWithSignature: deny}}`, false, "policies.macAnsweredWithSignature"},
	{`{policies: {grantedModifications: ignore}}`, false, "policies.grantedModifications"},
	{`{policies: {clockTolerance: -1s}}`, false, "clockTolerance"},
	{`{retry: {policy: fixed30s, releasePerSecond: 100}}`, true, ""},
	{`{retry: {policy: never}}`, false, "retry.policy"},
	{`{retry: {releasePerSecond: 1001}}`, false, "retry.releasePerSecond"},
	{`{retry: {releasePerSecond: -1}}`, false, "retry.releasePerSecond"},
}

func TestBothDoorsAgree(t *testing.T) {
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "crds")
	doors := &doors{t: t, client: dynamic.NewForConfigOrDie(cluster.Config()), ns: cluster.Namespace(t)}
	for _, tc := range certificateCases {
		doors.judge(tc.change, tc.ok, tc.says, model.CertificateKind, model.CertificateResource, goodCertificate, model.ConfigCreated, model.CheckCertificateEvent)
	}
	for _, tc := range issuerCases {
		doors.judge(tc.change, tc.ok, tc.says, model.IssuerKind, model.IssuerResource, goodIssuer, model.IssuerCreated, model.CheckIssuerEvent)
	}
	if n := len(certificateCases) + len(issuerCases); n < 80 {
		t.Errorf("got %d cases, want at least 80", n)
	}
}

type doors struct {
	t      *testing.T
	client dynamic.Interface
	ns     string
}

func (d *doors) judge(change string, ok bool, says, kind, resource, good, eventType string, check func(event.Event) error) {
	d.t.Run(kind+" "+change, func(t *testing.T) {
		obj := &unstructured.Unstructured{Object: map[string]any{"spec": merge(read(t, good), read(t, change))}}
		obj.SetAPIVersion(model.GroupVersion.String())
		obj.SetKind(kind)
		obj.SetName("amf")
		e := model.NewEvent(eventType, types.NamespacedName{Namespace: d.ns, Name: "amf"}, obj.Object)
		byEvent := check(e)
		_, byKubectl := d.client.Resource(model.GroupVersion.WithResource(resource)).Namespace(d.ns).Create(t.Context(), obj,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
		if byKubectl != nil && !apierrors.IsInvalid(byKubectl) && !apierrors.IsBadRequest(byKubectl) {
			t.Fatal(byKubectl)
		}
		for door, err := range map[string]error{"event": byEvent, "API server": byKubectl} {
			switch {
			case (err == nil) != ok:
				t.Errorf("%s: got %v, want it accepted: %v", door, err, ok)
			case err != nil && !strings.Contains(err.Error(), says):
				t.Errorf("%s: got %v, want it to say %q", door, err, says)
			}
		}
	})
}

func read(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// merge is a JSON merge patch (RFC 7396).
func merge(into, change map[string]any) map[string]any {
	for k, v := range change {
		was, isMap := into[k].(map[string]any)
		now, nowMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case nowMap:
			if !isMap {
				was = map[string]any{}
			}
			into[k] = merge(was, now)
		default:
			into[k] = v
		}
	}
	return into
}
