import java.security.KeyPair;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.function.Function;
import org.bouncycastle.asn1.cmp.PBMParameter;
import org.bouncycastle.asn1.cmp.PKIFailureInfo;
import org.bouncycastle.asn1.pkcs.PBKDF2Params;
import org.bouncycastle.asn1.pkcs.PBMAC1Params;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.Extensions;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.KeyUsage;
import org.bouncycastle.asn1.x509.SubjectKeyIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.cmp.GeneralPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessageBuilder;
import org.bouncycastle.cert.crmf.PKMACBuilder;
import org.bouncycastle.cert.crmf.jcajce.JcePKMACValuesCalculator;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.DefaultSignatureNameFinder;
import org.bouncycastle.operator.MacCalculator;
import org.bouncycastle.operator.OperatorCreationException;
import org.bouncycastle.operator.PBEMacCalculatorProvider;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.pkcs.jcajce.JcePBMac1CalculatorBuilder;

/** Who protected a request, and the same kind of protection for its answer (RFC 9810 section 5.1.3). */
final class Protection {
    /** Who asks: a certificate of this CA, or null for the holder of the shared secret. */
    record Peer(X509CertificateHolder certificate) {}

    private record Signer(X509CertificateHolder certificate, ContentSigner signer) {}

    private final Authority authority;
    private final byte[] reference;
    private final char[] secret;
    private final Map<String, Signer> signers = new HashMap<>();
    private final Map<String, KeyPair> keys = new HashMap<>();

    Protection(Authority authority, String reference, char[] secret) {
        this.authority = authority;
        this.reference = reference.getBytes(java.nio.charset.StandardCharsets.UTF_8);
        this.secret = secret;
    }

    private static PKMACBuilder passwordBasedMac() {
        return new PKMACBuilder(new JcePKMACValuesCalculator().setProvider(Authority.BC));
    }

    private static boolean isPBMAC1(AlgorithmIdentifier algorithm) {
        return algorithm.getAlgorithm().equals(PKCSObjectIdentifiers.id_PBMAC1);
    }

    /** Says who protected a message, or refuses it. */
    Peer verify(GeneralPKIMessage message, X509CertificateHolder known) throws Exception {
        if (!message.hasProtection() || message.getHeader().getProtectionAlg() == null)
            throw new Refusal(PKIFailureInfo.badMessageCheck, "the message is not protected");
        var guarded = new ProtectedPKIMessage(message);
        var algorithm = guarded.getHeader().getProtectionAlg();
        if (isPBMAC1(algorithm) || guarded.hasPasswordBasedMacProtection())
            return verifyMAC(guarded, algorithm);
        var certificate = guarded.getCertificates().length > 0 ? guarded.getCertificates()[0] : known;
        if (certificate == null || !certificate.getSubject().equals(X500Name.getInstance(guarded.getHeader().getSender().getName())))
            throw new Refusal(PKIFailureInfo.badMessageCheck, "the first of extraCerts is not the sender's");
        if (!guarded.verify(new JcaContentVerifierProviderBuilder().setProvider(Authority.BC).build(certificate)))
            throw new Refusal(PKIFailureInfo.badMessageCheck, "wrong signature");
        var own = authority.valid(certificate.getIssuer(), certificate.getSerialNumber(), PKIFailureInfo.signerNotTrusted);
        if (!own.equals(certificate))
            throw new Refusal(PKIFailureInfo.signerNotTrusted, "not issued by this CA");
        return new Peer(own);
    }

    private Peer verifyMAC(ProtectedPKIMessage guarded, AlgorithmIdentifier algorithm) throws Exception {
        var kid = guarded.getHeader().getSenderKID();
        PBEMacCalculatorProvider calculators = isPBMAC1(algorithm) ? (parameters, password) -> pbmac1(parameters) : passwordBasedMac();
        if (secret == null || kid == null || !Arrays.equals(kid.getOctets(), reference) || !guarded.verify(calculators, secret))
            throw new Refusal(PKIFailureInfo.badMessageCheck, "unknown reference or wrong secret");
        return new Peer(null);
    }

    /** Protects an answer with the algorithm of the request; to those it does not know it signs with ECDSA. */
    ProtectedPKIMessage protect(Peer peer, AlgorithmIdentifier algorithm, Function<GeneralName, ProtectedPKIMessageBuilder> answer) throws Exception {
        if (peer != null && peer.certificate == null)
            return answer.apply(new GeneralName(authority.root.getSubject())).setSenderKID(reference).build(mac(algorithm));
        var name = peer == null ? "SHA256withECDSA" : new DefaultSignatureNameFinder().getAlgorithmName(algorithm);
        var signer = signer(name, peer == null ? 256 : ecBits(peer.certificate));
        var kid = SubjectKeyIdentifier.fromExtensions(signer.certificate.getExtensions()).getKeyIdentifier();
        return answer.apply(new GeneralName(signer.certificate.getSubject())).setSenderKID(kid)
            .addCMPCertificate(signer.certificate).build(signer.signer);
    }

    /** The parameters stay those of the request (RFC 9810 section 5.1.3.1). */
    private MacCalculator mac(AlgorithmIdentifier algorithm) throws Exception {
        return isPBMAC1(algorithm) ? pbmac1(algorithm)
            : passwordBasedMac().setParameters(PBMParameter.getInstance(algorithm.getParameters())).build(secret);
    }

    /** The builder's own reading of the parameters passes over prf (Bouncy Castle 1.72). */
    private MacCalculator pbmac1(AlgorithmIdentifier algorithm) throws OperatorCreationException {
        var parameters = PBMAC1Params.getInstance(algorithm.getParameters());
        var prf = PBKDF2Params.getInstance(parameters.getKeyDerivationFunc().getParameters()).getPrf();
        return new JcePBMac1CalculatorBuilder(parameters).setPrf(prf).setProvider(Authority.BC).build(secret);
    }

    private static int ecBits(X509CertificateHolder certificate) throws Exception {
        var key = new org.bouncycastle.cert.jcajce.JcaX509CertificateConverter().getCertificate(certificate).getPublicKey();
        return key instanceof java.security.interfaces.ECPublicKey ec ? ec.getParams().getOrder().bitLength() : 0;
    }

    /** A signer of answers for each algorithm and curve, certified by the CA when it is first needed. */
    private Signer signer(String algorithm, int ecBits) throws Exception {
        var name = algorithm + (algorithm.contains("ECDSA") ? " P-" + ecBits : "");
        if (!signers.containsKey(name)) {
            var type = algorithm.contains("RSA") ? "RSA" : name;
            if (!keys.containsKey(type))
                keys.put(type, Authority.generate(algorithm, ecBits));
            var key = keys.get(type);
            var usage = new Extension(Extension.keyUsage, true, new KeyUsage(KeyUsage.digitalSignature).getEncoded());
            var certificate = authority.issue(new X500Name("O=certloop tests,CN=CMP signer " + name), Authority.info(key), null, new Extensions(usage));
            signers.put(name, new Signer(certificate, Authority.signer(algorithm, key)));
        }
        return signers.get(name);
    }
}
