import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;

/** Options, HTTP, start and end; the README says what each option does. */
final class Main {
    private static final int MAX_REQUEST = 1 << 20, BACKLOG = 64, THREADS = 4;
    private static final Set<String> VALUES = Set.of("-dir", "-port", "-ref", "-secret", "-alg", "-poll", "-poll_confirm", "-check_after", "-log");

    public static void main(String[] args) throws Exception {
        var opt = options(args);
        var dir = Path.of(opt.get("-dir"));
        Files.createDirectories(dir);
        var authority = new Authority(opt.getOrDefault("-alg", "SHA256withECDSA"));
        Files.writeString(dir.resolve("ca.crt"), authority.pem());
        var secret = opt.containsKey("-ref") ? secret(opt.getOrDefault("-secret", "")) : null;
        var responder = new Responder(authority, new Protection(authority, opt.getOrDefault("-ref", ""), secret),
            opt.containsKey("-implicit"), number(opt, "-poll", 0), number(opt, "-poll_confirm", 0), number(opt, "-check_after", 1), opt.get("-log"));
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), number(opt, "-port", 0));
        System.setProperty("sun.net.httpserver.nodelay", "true"); // head and body are written apart
        var server = HttpServer.create(address, BACKLOG);
        server.createContext("/", exchange -> serve(exchange, responder));
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.start();
        System.out.printf("READY http://127.0.0.1:%d/pkix/ ca=%s%n", server.getAddress().getPort(), dir.resolve("ca.crt"));
        while (System.in.read() >= 0) {
            // whoever started this process holds the other end; without them there is nothing to do
        }
        System.exit(0);
    }

    private static Map<String, String> options(String[] args) {
        var opt = new HashMap<String, String>();
        for (int i = 0; i < args.length; i++) {
            boolean value = VALUES.contains(args[i]);
            if (!value && !args[i].equals("-implicit") || value && i + 1 == args.length)
                usage(args[i]);
            opt.put(args[i], value ? args[++i] : "");
        }
        if (!opt.containsKey("-dir"))
            usage("-dir is missing");
        return opt;
    }

    private static void usage(String wrong) {
        System.err.println("bouncycastle-ca: bad option or value: " + wrong + "\nusage: bouncycastle-ca -dir DIR [-port N] "
            + "[-ref REF -secret SECRET] [-alg NAME] [-implicit] [-poll N] [-poll_confirm N] [-check_after S] [-log FILE]");
        System.exit(2);
    }

    private static int number(Map<String, String> opt, String name, int otherwise) {
        return opt.containsKey(name) ? Integer.parseUnsignedInt(opt.get(name)) : otherwise;
    }

    private static char[] secret(String arg) throws IOException {
        String secret = arg.startsWith("file:") ? Files.readAllLines(Path.of(arg.substring(5))).get(0)
            : arg.startsWith("pass:") ? arg.substring(5) : arg;
        if (secret.isEmpty())
            usage("-secret is missing or empty");
        return secret.toCharArray();
    }

    /** One PKIMessage in, one out (RFC 9811 section 3). */
    private static void serve(HttpExchange exchange, Responder responder) throws IOException {
        try (exchange) {
            byte[] request = exchange.getRequestBody().readNBytes(MAX_REQUEST);
            var type = exchange.getRequestHeaders().getOrDefault("Content-Type", List.of("")).get(0);
            if (!exchange.getRequestMethod().equals("POST") || !type.equals("application/pkixcmp")) {
                exchange.sendResponseHeaders(exchange.getRequestMethod().equals("POST") ? 415 : 405, -1);
                return;
            }
            byte[] answer = responder.answer(request);
            if (answer == null) {
                exchange.sendResponseHeaders(400, -1);
                return;
            }
            exchange.getResponseHeaders().set("Content-Type", "application/pkixcmp");
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
        }
    }
}
