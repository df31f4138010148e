import java.io.FileWriter;
import java.io.IOException;
import java.math.BigInteger;
import java.security.SecureRandom;
import java.time.Instant;
import java.util.Arrays;
import java.util.Date;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bouncycastle.asn1.ASN1Encodable;
import org.bouncycastle.asn1.ASN1Enumerated;
import org.bouncycastle.asn1.ASN1Integer;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.ASN1OctetString;
import org.bouncycastle.asn1.ASN1Sequence;
import org.bouncycastle.asn1.DERNull;
import org.bouncycastle.asn1.DERSequence;
import org.bouncycastle.asn1.cmp.*;
import org.bouncycastle.asn1.crmf.AttributeTypeAndValue;
import org.bouncycastle.asn1.crmf.CRMFObjectIdentifiers;
import org.bouncycastle.asn1.crmf.CertId;
import org.bouncycastle.asn1.crmf.CertReqMessages;
import org.bouncycastle.asn1.crmf.CertTemplateBuilder;
import org.bouncycastle.asn1.pkcs.CertificationRequest;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x9.X9ObjectIdentifiers;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.cmp.CertificateConfirmationContent;
import org.bouncycastle.cert.cmp.GeneralPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessageBuilder;
import org.bouncycastle.cert.crmf.CertificateRequestMessage;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;

/** Transactions: what each message is answered with. */
final class Responder {
    private static final int NONCE = 16, MAX_OPEN = 1024;
    private static final String[] BODIES = {"ir", "ip", "cr", "cp", "p10cr", "popdecc", "popdecr", "kur", "kup", "krr", "krp", "rr", "rp", "ccr",
        "ccp", "ckuann", "cann", "rann", "crlann", "pkiconf", "nested", "genm", "genp", "error", "certConf", "pollReq", "pollRep"};
    private static final BigInteger P10_ID = BigInteger.valueOf(-1);
    private static final ASN1ObjectIdentifier OLD_CERT_ID = CRMFObjectIdentifiers.id_regCtrl.branch("5"); // RFC 4211 section 6.5

    private static final class Transaction {
        GeneralPKIMessage request;
        Protection.Peer peer;
        BigInteger id;
        X509CertificateHolder issued;
        byte[] nonce;
        int polls, confirmPolls;
        boolean implicit, confirming;
    }

    private final Authority authority;
    private final Protection protection;
    private final boolean implicit;
    private final int polls, confirmPolls, checkAfter;
    private final FileWriter log;
    private final Map<String, Transaction> open = new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Transaction> eldest) {
            return size() > MAX_OPEN;
        }
    };

    Responder(Authority authority, Protection protection, boolean implicit, int polls, int confirmPolls, int checkAfter, String log) throws IOException {
        this.authority = authority;
        this.protection = protection;
        this.implicit = implicit;
        this.polls = polls;
        this.confirmPolls = confirmPolls;
        this.checkAfter = checkAfter;
        this.log = log == null ? null : new FileWriter(log, true);
    }

    /** Answers one message; null where it is none, or has no transactionID. */
    synchronized byte[] answer(byte[] der) {
        try {
            var message = new GeneralPKIMessage(der);
            if (message.getHeader().getTransactionID() == null || message.getHeader().getSenderNonce() == null)
                return null;
            return message.getBody().getType() == PKIBody.TYPE_NESTED ? unwrapped(message) : exchange(message);
        } catch (Exception e) {
            log("error=\"" + e + "\"");
            return null;
        }
    }

    /** Answers the message inside one of a registration authority, wrapped the same way (RFC 9810 section 5.1.3.5). */
    private byte[] unwrapped(GeneralPKIMessage outer) throws Exception {
        var header = outer.getHeader();
        Protection.Peer peer = null;
        PKIBody body;
        try {
            peer = protection.verify(outer, null);
            var inner = PKIMessages.getInstance(outer.getBody().getContent()).toPKIMessageArray();
            if (peer.certificate() == null || inner.length != 1)
                throw new Refusal(PKIFailureInfo.badRequest, "a nested message must be signed and have one message inside");
            body = new PKIBody(PKIBody.TYPE_NESTED, new PKIMessages(PKIMessage.getInstance(exchange(new GeneralPKIMessage(inner[0])))));
        } catch (Refusal r) {
            body = new PKIBody(PKIBody.TYPE_ERROR, new ErrorMsgContent(
                new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText(r.getMessage()), new PKIFailureInfo(r.failInfo))));
        }
        final var content = body;
        var nonce = new byte[NONCE];
        new SecureRandom().nextBytes(nonce);
        log("body=nested answer=" + BODIES[body.getType()]);
        return protection.protect(peer, header.getProtectionAlg(), sender -> new ProtectedPKIMessageBuilder(sender, header.getSender())
            .setTransactionID(header.getTransactionID().getOctets()).setMessageTime(new Date()).setSenderNonce(nonce)
            .setRecipNonce(header.getSenderNonce().getOctets()).setBody(content)).toASN1Structure().getEncoded("DER");
    }

    private byte[] exchange(GeneralPKIMessage message) throws Exception {
        var header = message.getHeader();
        var id = HexFormat.of().formatHex(header.getTransactionID().getOctets());
        var t = open.computeIfAbsent(id, key -> new Transaction());
        Protection.Peer peer = null;
        PKIBody decided;
        try {
            peer = protection.verify(message, t.peer == null ? null : t.peer.certificate());
            decided = decide(message, t, peer);
        } catch (Refusal r) {
            decided = refused(message, t, r);
        }
        final var body = decided;
        t.nonce = new byte[NONCE];
        new SecureRandom().nextBytes(t.nonce);
        boolean granted = t.issued != null && body.getContent() instanceof CertRepMessage;
        byte[] der = protection.protect(peer, header.getProtectionAlg(), sender -> {
            var answer = new ProtectedPKIMessageBuilder(sender, header.getSender())
                .setTransactionID(header.getTransactionID().getOctets()).setMessageTime(new Date())
                .setSenderNonce(t.nonce).setRecipNonce(header.getSenderNonce().getOctets()).setBody(body);
            return granted && t.implicit ? answer.addGeneralInfo(new InfoTypeAndValue(CMPObjectIdentifiers.it_implicitConfirm, DERNull.INSTANCE)) : answer;
        }).toASN1Structure().getEncoded("DER");
        log("body=%s transactionID=%s sender=\"%s\" protection=%s answer=%s".formatted(BODIES[message.getBody().getType()], id,
            header.getSender().getName(), header.getProtectionAlg() == null ? "none" : header.getProtectionAlg().getAlgorithm(), BODIES[body.getType()]));
        boolean waiting = t.request != null && t.issued == null && body.getType() != PKIBody.TYPE_ERROR;
        if (!waiting && !(granted && !t.implicit) && !t.confirming)
            open.remove(id);
        return der;
    }

    private PKIBody decide(GeneralPKIMessage message, Transaction t, Protection.Peer peer) throws Exception {
        int type = message.getBody().getType();
        ASN1Encodable content = message.getBody().getContent();
        boolean first = t.nonce == null;
        if (!first && !Arrays.equals(t.nonce, octets(message.getHeader().getRecipNonce())))
            throw new Refusal(PKIFailureInfo.badRecipientNonce, "recipNonce is not the senderNonce of the last answer");
        boolean continues = type == PKIBody.TYPE_CERT_CONFIRM || type == PKIBody.TYPE_POLL_REQ;
        if (first == continues && type != PKIBody.TYPE_ERROR)
            throw new Refusal(PKIFailureInfo.badRequest, first ? "no such transaction" : "the transactionID is in use");
        return switch (type) {
            case PKIBody.TYPE_INIT_REQ, PKIBody.TYPE_CERT_REQ, PKIBody.TYPE_KEY_UPDATE_REQ, PKIBody.TYPE_P10_CERT_REQ -> begin(message, t, peer);
            case PKIBody.TYPE_POLL_REQ -> t.confirming ? confirmed(t) : --t.polls > 0
                ? new PKIBody(PKIBody.TYPE_POLL_REP, new PollRepContent(new ASN1Integer(t.id), new ASN1Integer(checkAfter))) : issue(t);
            case PKIBody.TYPE_CERT_CONFIRM -> confirm(CertConfirmContent.getInstance(content), t);
            case PKIBody.TYPE_REVOCATION_REQ -> revoke(RevReqContent.getInstance(content).toRevDetailsArray()[0], peer);
            case PKIBody.TYPE_GEN_MSG -> tell(GenMsgContent.getInstance(content).toInfoTypeAndValueArray()[0]);
            case PKIBody.TYPE_ERROR -> new PKIBody(PKIBody.TYPE_CONFIRM, new PKIConfirmContent());
            default -> throw new Refusal(PKIFailureInfo.badRequest, "this CA does not answer bodies of this type");
        };
    }

    private static byte[] octets(ASN1OctetString string) {
        return string == null ? null : string.getOctets();
    }

    private PKIBody begin(GeneralPKIMessage message, Transaction t, Protection.Peer peer) throws Exception {
        t.request = message;
        t.peer = peer;
        t.polls = polls;
        boolean p10 = message.getBody().getType() == PKIBody.TYPE_P10_CERT_REQ;
        t.id = p10 ? P10_ID : requests(message)[0].getCertReq().getCertReqId().getValue();
        var infos = message.getHeader().getGeneralInfo();
        t.implicit = implicit && infos != null
            && Arrays.stream(infos).anyMatch(info -> info.getInfoType().equals(CMPObjectIdentifiers.it_implicitConfirm));
        return polls > 0 ? response(t, new PKIStatusInfo(PKIStatus.waiting)) : issue(t);
    }

    private static org.bouncycastle.asn1.crmf.CertReqMsg[] requests(GeneralPKIMessage message) {
        return CertReqMessages.getInstance(message.getBody().getContent()).toCertReqMsgArray();
    }

    private PKIBody issue(Transaction t) throws Exception {
        if (t.request == null || t.issued != null)
            throw new Refusal(PKIFailureInfo.badRequest, "there is nothing to poll for");
        var verifier = new JcaContentVerifierProviderBuilder().setProvider(Authority.BC);
        if (t.id.equals(P10_ID)) {
            var csr = new PKCS10CertificationRequest(CertificationRequest.getInstance(t.request.getBody().getContent()));
            if (!csr.isSignatureValid(verifier.build(csr.getSubjectPublicKeyInfo())))
                throw new Refusal(PKIFailureInfo.badPOP, "the signature of the PKCS #10 request is wrong");
            t.issued = authority.issue(csr.getSubject(), csr.getSubjectPublicKeyInfo(), null, csr.getRequestedExtensions());
        } else {
            var request = new CertificateRequestMessage(requests(t.request)[0]);
            var template = request.getCertTemplate();
            if (request.getProofOfPossessionType() != CertificateRequestMessage.popSigningKey
                || !request.isValidSigningKeyPOP(verifier.build(template.getPublicKey())))
                throw new Refusal(PKIFailureInfo.badPOP, "no valid proof of possession by signature");
            if (t.request.getBody().getType() == PKIBody.TYPE_KEY_UPDATE_REQ)
                checkUpdate(request);
            t.issued = authority.issue(template.getSubject(), template.getPublicKey(), template.getValidity(), template.getExtensions());
        }
        return response(t, new PKIStatusInfo(PKIStatus.granted));
    }

    /** A key update names a certificate of ours, keeps its subject and brings another key (RFC 9483 section 4.1.3). */
    private void checkUpdate(CertificateRequestMessage request) throws Exception {
        var controls = request.toASN1Structure().getCertReq().getControls();
        for (var control : controls == null ? new AttributeTypeAndValue[0] : controls.toAttributeTypeAndValueArray()) {
            if (!control.getType().equals(OLD_CERT_ID))
                continue;
            var id = CertId.getInstance(control.getValue());
            var old = authority.valid(X500Name.getInstance(id.getIssuer().getName()), id.getSerialNumber().getValue(), PKIFailureInfo.badCertId);
            var template = request.getCertTemplate();
            if (!old.getSubject().equals(template.getSubject()) || old.getSubjectPublicKeyInfo().equals(template.getPublicKey()))
                throw new Refusal(PKIFailureInfo.badCertTemplate, "another subject, or the same key");
            return;
        }
        throw new Refusal(PKIFailureInfo.addInfoNotAvailable, "kur without oldCertID");
    }

    private static PKIBody response(Transaction t, PKIStatusInfo status) {
        int type = t.request.getBody().getType();
        int answer = type == PKIBody.TYPE_P10_CERT_REQ ? PKIBody.TYPE_CERT_REP : type + 1;
        var id = new ASN1Integer(t.id);
        if (t.issued == null)
            return new PKIBody(answer, new CertRepMessage(null, new CertResponse[] {new CertResponse(id, status)}));
        var pair = new CertifiedKeyPair(new CertOrEncCert(new CMPCertificate(t.issued.toASN1Structure())));
        return new PKIBody(answer, new CertRepMessage(null, new CertResponse[] {new CertResponse(id, status, pair, null)}));
    }

    /** A refused request is answered in its own body, anything else by an error message. */
    private PKIBody refused(GeneralPKIMessage message, Transaction t, Refusal r) {
        log("refused=\"" + r.getMessage() + "\"");
        var status = new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText(r.getMessage()), new PKIFailureInfo(r.failInfo));
        if (t.request != null && t.issued == null && r.failInfo != PKIFailureInfo.badRecipientNonce) {
            var body = response(t, status);
            t.request = null;
            return body;
        }
        return new PKIBody(PKIBody.TYPE_ERROR, new ErrorMsgContent(status));
    }

    private PKIBody confirm(CertConfirmContent content, Transaction t) throws Exception {
        if (t.issued == null)
            throw new Refusal(PKIFailureInfo.badRequest, "there is nothing to confirm");
        var digests = new JcaDigestCalculatorProviderBuilder().setProvider(Authority.BC).build();
        boolean accepted = false;
        for (var status : new CertificateConfirmationContent(content).getStatusMessages()) {
            if (!status.getCertRequestID().equals(t.id) || !status.isVerified(t.issued, digests))
                throw new Refusal(PKIFailureInfo.badCertId, "certReqId or certHash is not that of the certificate");
            accepted = status.getStatusInfo() == null || status.getStatusInfo().getStatus().intValue() == PKIStatus.GRANTED;
        }
        log((accepted ? "confirmed=" : "rejected=") + t.issued.getSerialNumber().toString(16));
        if (!accepted)
            authority.revoke(t.issued, 0);
        t.confirming = (t.confirmPolls = confirmPolls) > 0;
        return t.confirming ? new PKIBody(PKIBody.TYPE_ERROR, new ErrorMsgContent(new PKIStatusInfo(PKIStatus.waiting)))
            : new PKIBody(PKIBody.TYPE_CONFIRM, new PKIConfirmContent());
    }

    /** A certConf that had to wait is polled for with certReqId -1 (RFC 9483 section 4.4). */
    private PKIBody confirmed(Transaction t) {
        t.confirming = --t.confirmPolls > 0;
        return t.confirming ? new PKIBody(PKIBody.TYPE_POLL_REP, new PollRepContent(new ASN1Integer(P10_ID), new ASN1Integer(checkAfter)))
            : new PKIBody(PKIBody.TYPE_CONFIRM, new PKIConfirmContent());
    }

    private PKIBody revoke(RevDetails details, Protection.Peer peer) throws Exception {
        var template = details.getCertDetails();
        var serial = template.getSerialNumber();
        var answer = new RevRepContentBuilder();
        try {
            if (serial == null)
                serial = new ASN1Integer(authority.requestedFor(template.getPublicKey(), template.getSubject()).getSerialNumber());
            var issuer = template.getIssuer() == null ? authority.root.getSubject() : template.getIssuer();
            var certificate = authority.valid(issuer, serial.getValue(), PKIFailureInfo.badCertId);
            var reason = details.getCrlEntryDetails() == null ? null : details.getCrlEntryDetails().getExtension(Extension.reasonCode);
            authority.revoke(certificate, reason == null ? 0 : ASN1Enumerated.getInstance(reason.getParsedValue()).intValueExact());
            answer.add(new PKIStatusInfo(PKIStatus.granted), new CertId(new GeneralName(issuer), serial));
        } catch (Refusal r) {
            var status = new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText(r.getMessage()), new PKIFailureInfo(r.failInfo));
            if (serial == null)
                return new PKIBody(PKIBody.TYPE_ERROR, new ErrorMsgContent(status));
            answer.add(status, new CertId(new GeneralName(authority.root.getSubject()), serial));
        }
        return new PKIBody(PKIBody.TYPE_REVOCATION_REP, answer.build());
    }

    /** Answers a general message; without a value where there is nothing to tell (RFC 9810 section 5.3.19). */
    private PKIBody tell(InfoTypeAndValue asked) throws Exception {
        var type = asked.getInfoType();
        ASN1Encodable value = null;
        if (type.equals(CMPObjectIdentifiers.id_it_caCerts)) {
            value = new DERSequence(cmp(authority.root));
        } else if (type.equals(CMPObjectIdentifiers.it_currentCRL)) {
            value = authority.crl().toASN1Structure();
        } else if (type.equals(CMPObjectIdentifiers.id_it_rootCaCert)) {
            type = CMPObjectIdentifiers.id_it_rootCaKeyUpdate;
            if (cmp(authority.root).equals(CMPCertificate.getInstance(asked.getInfoValue())))
                value = new RootCaKeyUpdateContent(cmp(authority.successor()[0]), cmp(authority.successor()[1]), cmp(authority.successor()[2]));
        } else if (type.equals(CMPObjectIdentifiers.id_it_certReqTemplate)) {
            value = requestTemplate();
        } else if (type.equals(CMPObjectIdentifiers.id_it_crlStatusList)) {
            type = CMPObjectIdentifiers.id_it_crls;
            if (isOurs(CRLStatus.getInstance(ASN1Sequence.getInstance(asked.getInfoValue()).getObjectAt(0))))
                value = new DERSequence(authority.crl().toASN1Structure());
        } else if (type.equals(CMPObjectIdentifiers.it_suppLangTags)) {
            value = new DERSequence(ASN1Sequence.getInstance(asked.getInfoValue()).getObjectAt(0)); // the first will do
        }
        return new PKIBody(PKIBody.TYPE_GEN_REP, new GenRepContent(value == null ? new InfoTypeAndValue(type) : new InfoTypeAndValue(type, value)));
    }

    private static CMPCertificate cmp(X509CertificateHolder certificate) {
        return new CMPCertificate(certificate.toASN1Structure());
    }

    /** What requests to this CA should look like: an organization, and keys of RSA-3072 or P-256. */
    private static CertReqTemplateContent requestTemplate() {
        var template = new CertTemplateBuilder().setSubject(new X500Name("O=certloop tests")).build();
        var p256 = new AlgorithmIdentifier(X9ObjectIdentifiers.id_ecPublicKey, X9ObjectIdentifiers.prime256v1);
        return new CertReqTemplateContent(template, new DERSequence(new ASN1Encodable[] {
            new AttributeTypeAndValue(CMPObjectIdentifiers.id_regCtrl_rsaKeyLen, new ASN1Integer(3072)),
            new AttributeTypeAndValue(CMPObjectIdentifiers.id_regCtrl_algId, p256)}));
    }

    /** Tells whether somebody wants our CRL, and has none that is newer than now. */
    private boolean isOurs(CRLStatus status) {
        var issuer = status.getSource().getIssuer();
        boolean old = status.getThisUpdate() == null || status.getThisUpdate().getDate().before(new Date());
        return old && issuer != null && Arrays.stream(issuer.getNames()).anyMatch(name -> name.equals(new GeneralName(authority.root.getSubject())));
    }

    private void log(String event) {
        var line = "time=" + Instant.now() + " " + event + "\n";
        System.out.print(line);
        try {
            if (log != null) {
                log.write(line);
                log.flush();
            }
        } catch (IOException e) {
            System.err.println("bouncycastle-ca: writing the log: " + e.getMessage());
        }
    }
}
