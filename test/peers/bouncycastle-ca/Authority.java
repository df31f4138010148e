import java.math.BigInteger;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.Date;
import java.util.HashMap;
import java.util.Map;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.cmp.PKIFailureInfo;
import org.bouncycastle.asn1.crmf.OptionalValidity;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.Extensions;
import org.bouncycastle.asn1.x509.KeyUsage;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509CRLHolder;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.X509v2CRLBuilder;
import org.bouncycastle.cert.X509v3CertificateBuilder;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;

/** The CA itself: its key and certificate, the certificates it issued, and what it puts into them. */
final class Authority {
    static final BouncyCastleProvider BC = new BouncyCastleProvider();
    private static final long DAY = 86_400_000L;
    private static final ASN1ObjectIdentifier[] GRANTED = {
        Extension.subjectAlternativeName, Extension.keyUsage, Extension.extendedKeyUsage, Extension.certificatePolicies};

    /** A certificate of the ledger; revoked is a CRLReason, or -1. */
    record Entry(X509CertificateHolder certificate, int revoked) {}

    final X509CertificateHolder root;
    private final String algorithm;
    private final KeyPair key;
    private final ContentSigner signer;
    private X509CertificateHolder[] successor;
    private final JcaX509ExtensionUtils ids = new JcaX509ExtensionUtils();
    private final Map<BigInteger, Entry> ledger = new HashMap<>();

    Authority(String algorithm) throws Exception {
        this.algorithm = algorithm;
        key = generate(algorithm, 256);
        signer = signer(algorithm, key);
        root = certifyCA(key, signer);
    }

    private X509CertificateHolder certifyCA(KeyPair subject, ContentSigner issuer) throws Exception {
        var name = new X500Name("O=certloop tests,CN=bouncycastle-ca");
        return new X509v3CertificateBuilder(name, serial(), daysFromNow(-1), daysFromNow(3650), name, info(subject))
            .addExtension(Extension.basicConstraints, true, new BasicConstraints(true))
            .addExtension(Extension.keyUsage, true, new KeyUsage(KeyUsage.digitalSignature | KeyUsage.keyCertSign | KeyUsage.cRLSign))
            .addExtension(Extension.subjectKeyIdentifier, false, ids.createSubjectKeyIdentifier(info(subject))).build(issuer);
    }

    /** The root that is to follow: newWithNew, newWithOld and oldWithNew (RFC 9810 section 4.4). */
    X509CertificateHolder[] successor() throws Exception {
        if (successor == null) {
            var next = generate(algorithm, 256);
            var by = signer(algorithm, next);
            successor = new X509CertificateHolder[] {certifyCA(next, by), certifyCA(next, signer), certifyCA(key, by)};
        }
        return successor;
    }

    /** Makes a key for a signature algorithm; ecBits chooses the curve for ECDSA. */
    static KeyPair generate(String algorithm, int ecBits) throws Exception {
        boolean rsa = algorithm.contains("RSA"), ec = algorithm.contains("ECDSA");
        var generator = KeyPairGenerator.getInstance(rsa ? "RSA" : ec ? "EC" : algorithm, BC);
        if (rsa || ec)
            generator.initialize(rsa ? 2048 : ecBits);
        return generator.generateKeyPair();
    }

    static ContentSigner signer(String algorithm, KeyPair key) throws Exception {
        return new JcaContentSignerBuilder(algorithm).setProvider(BC).build(key.getPrivate());
    }

    static SubjectPublicKeyInfo info(KeyPair key) {
        return SubjectPublicKeyInfo.getInstance(key.getPublic().getEncoded());
    }

    private static BigInteger serial() {
        return new BigInteger(126, new SecureRandom()).setBit(126);
    }

    private static Date daysFromNow(long days) {
        return new Date(System.currentTimeMillis() + days * DAY);
    }

    /** Issues what is asked for; what a request may determine is its key, subject, validity and the GRANTED extensions. */
    X509CertificateHolder issue(X500Name subject, SubjectPublicKeyInfo key, OptionalValidity validity, Extensions wanted)
        throws Exception {
        boolean named = wanted != null && wanted.getExtension(Extension.subjectAlternativeName) != null;
        if (key == null || subject == null || subject.getRDNs().length == 0 && !named)
            throw new Refusal(PKIFailureInfo.badCertTemplate, "neither a subject nor a subjectAltName, or no public key");
        if (wanted != null && (BasicConstraints.fromExtensions(wanted) != null && BasicConstraints.fromExtensions(wanted).isCA()))
            throw new Refusal(PKIFailureInfo.badCertTemplate, "this CA certifies end entities only");
        var from = validity != null && validity.getNotBefore() != null ? validity.getNotBefore().getDate() : daysFromNow(0);
        var until = validity != null && validity.getNotAfter() != null ? validity.getNotAfter().getDate() : daysFromNow(90);
        var cert = new X509v3CertificateBuilder(root.getSubject(), serial(), from, until, subject, key)
            .addExtension(Extension.basicConstraints, true, new BasicConstraints(false))
            .addExtension(Extension.subjectKeyIdentifier, false, ids.createSubjectKeyIdentifier(key))
            .addExtension(Extension.authorityKeyIdentifier, false, ids.createAuthorityKeyIdentifier(root));
        for (var id : GRANTED)
            if (wanted != null && wanted.getExtension(id) != null)
                cert.addExtension(wanted.getExtension(id));
        var issued = cert.build(signer);
        ledger.put(issued.getSerialNumber(), new Entry(issued, -1));
        return issued;
    }

    /** Finds a certificate of ours that is neither revoked nor out of its time. */
    X509CertificateHolder valid(X500Name issuer, BigInteger serial, int failInfo) throws Refusal {
        var entry = ledger.get(serial);
        if (entry == null || !root.getSubject().equals(issuer))
            throw new Refusal(failInfo, "no certificate of this CA");
        if (entry.revoked >= 0 || !entry.certificate.isValidOn(new Date()))
            throw new Refusal(entry.revoked >= 0 ? PKIFailureInfo.certRevoked : failInfo, "revoked, or not valid now");
        return entry.certificate;
    }

    /** Finds the only certificate for a key and a subject, if any. */
    X509CertificateHolder requestedFor(SubjectPublicKeyInfo key, X500Name subject) throws Refusal {
        var found = ledger.values().stream().map(Entry::certificate)
            .filter(c -> c.getSubjectPublicKeyInfo().equals(key) && (subject == null || c.getSubject().equals(subject))).toList();
        if (found.size() != 1)
            throw new Refusal(PKIFailureInfo.badCertId, found.size() + " certificates for this key and subject");
        return found.get(0);
    }

    void revoke(X509CertificateHolder certificate, int reason) {
        ledger.put(certificate.getSerialNumber(), new Entry(certificate, reason));
    }

    X509CRLHolder crl() {
        var crl = new X509v2CRLBuilder(root.getSubject(), new Date()).setNextUpdate(daysFromNow(1));
        ledger.forEach((serial, entry) -> {
            if (entry.revoked >= 0)
                crl.addCRLEntry(serial, new Date(), entry.revoked);
        });
        return crl.build(signer);
    }

    String pem() throws Exception {
        var text = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(root.getEncoded());
        return "-----BEGIN CERTIFICATE-----\n" + text + "\n-----END CERTIFICATE-----\n";
    }
}
