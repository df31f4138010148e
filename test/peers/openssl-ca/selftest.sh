#!/bin/bash
# Tries openssl-ca with the openssl client: every kind of request, protection and confirmation it claims, and what it
# must refuse. Says what failed and exits 1; with VALGRIND=1 the CA runs under valgrind, and memory errors are failures.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
here=$PWD
[ -x ./openssl-ca ] || { echo "selftest: openssl-ca is not built; run make" >&2; exit 1; }
dir=$(mktemp -d)
pid=
finish() {
  [ -z "$pid" ] || { kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; }
  rm -rf "$dir"
}
trap finish EXIT
cd "$dir" || exit 1

fail() {
  echo "selftest: FAIL: $*" >&2
  for f in client.out ca.out ca.err; do [ ! -s "$f" ] || { echo "--- $f"; tail -n 20 "$f"; } >&2; done
  exit 1
}

pass() { echo "ok   $*"; }

# start OPTION...: runs the CA on its directory and learns its address.
start() {
  local run=()
  [ -z "${VALGRIND:-}" ] || run=(valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite)
  echo "s3cret" > secret.txt
  : > ca.out
  "${run[@]}" "$here/openssl-ca" -dir state -log log -ref 1234 -secret file:secret.txt "$@" > ca.out 2> ca.err &
  pid=$!
  for _ in $(seq 300); do
    grep -q '^READY' ca.out && break
    kill -0 "$pid" 2>/dev/null || fail "the CA did not start"
    sleep 0.1
  done
  url=$(sed -n 's/^READY \([^ ]*\) .*/\1/p' ca.out)
  [ -n "$url" ] || fail "the CA said no READY"
  server=${url#http://}
}

stop() {
  kill -TERM "$pid"
  wait "$pid"
  local status=$?
  pid=
  [ "$status" = 0 ] || fail "SIGTERM: the CA exited $status"
}

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null || fail "genpkey"; }

# request ARGUMENT...: one run of the client.
request() { openssl cmp -server "$server" -trusted state/ca.crt -config '' -verbosity 6 "$@" > client.out 2>&1; }

mac=(-ref 1234 -secret file:secret.txt)

# check CERT KEY: the chain verifies and the certificate is for that key.
check() {
  openssl verify -CAfile state/ca.crt "$1" > client.out 2>&1 || fail "$1 does not verify"
  [ "$(openssl x509 -in "$1" -noout -pubkey)" = "$(openssl pkey -in "$2" -pubout)" ] || fail "$1 is not for $2"
}

logged() { grep -q -- "$1" log || { cp log client.out; fail "the log lacks: $1"; }; }

# refused REASON ARGUMENT...: the client fails, and the CA's last line says why.
refused() {
  local reason=$1
  shift
  ! request "$@" -certout refused.crt || fail "granted, but expected: $reason"
  tail -n 1 log | grep -q -- "error=\"$reason" || { tail -n 1 log > client.out; fail "not refused with: $reason"; }
}

serial() { openssl x509 -in "$1" -noout -serial | cut -d= -f2; }

start
key id.key
request -cmd ir "${mac[@]}" -newkey id.key -subject "/O=shop/CN=identity" -certout id.crt -cacertsout caps.pem -days 7 || fail "ir by MAC"
check id.crt id.key
openssl x509 -in id.crt -noout -subject -nameopt RFC2253 | grep -q 'CN=identity,O=shop' || fail "subject of id.crt"
openssl x509 -in id.crt -noout -checkend $((6 * 86400)) > /dev/null || fail "validity of id.crt is too short"
! openssl x509 -in id.crt -noout -checkend $((8 * 86400)) > /dev/null || fail "validity of id.crt is too long"
cmp -s caps.pem state/ca.crt || openssl x509 -in caps.pem -outform DER | cmp -s - <(openssl x509 -in state/ca.crt -outform DER) || fail "caPubs"
logged "body=ir .*protection=mac answer=ip status=accepted subject=\"CN=identity,O=shop\" serial=$(serial id.crt)"
logged "body=certConf .*protection=mac answer=pkiconf confirmed=$(serial id.crt)"
pass "ir by MAC: requested key, subject and validity; caPubs; certConf"

sig=(-cert id.crt -key id.key)
cat > ext.cnf <<'END'
[ext]
subjectAltName = DNS:web.shop.svc, IP:10.0.0.1, URI:spiffe://shop/web
keyUsage = critical, digitalSignature, keyAgreement
extendedKeyUsage = serverAuth, clientAuth
[ca]
basicConstraints = critical, CA:TRUE
END
key web.key
request -cmd cr "${sig[@]}" -newkey web.key -subject "/CN=web" -certout web.crt -config ext.cnf -reqexts ext || fail "cr by signature"
check web.crt web.key
text=$(openssl x509 -in web.crt -noout -text)
for want in 'DNS:web.shop.svc' 'IP Address:10.0.0.1' 'URI:spiffe://shop/web' 'Digital Signature, Key Agreement' \
  'TLS Web Server Authentication, TLS Web Client Authentication' 'CA:FALSE'; do
  [[ $text == *"$want"* ]] || fail "web.crt lacks $want"
done
logged 'body=cr .*sender="CN=identity,O=shop" protection=signature answer=cp status=accepted'
pass "cr by signature: SANs, key usage, extended key usage"

key ir2.key
request -cmd ir "${sig[@]}" -newkey ir2.key -subject "/CN=ir2" -certout ir2.crt || fail "ir by signature"
check ir2.crt ir2.key
pass "ir by signature"

openssl req -new -key ir2.key -subj "/CN=csr" -addext "subjectAltName=DNS:csr.example" -out p10.csr 2>/dev/null || fail "req"
request -cmd p10cr "${sig[@]}" -csr p10.csr -certout p10.crt || fail "p10cr"
check p10.crt ir2.key
openssl x509 -in p10.crt -noout -ext subjectAltName | grep -q DNS:csr.example || fail "SAN of p10.crt"
pass "p10cr"

openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key 2>/dev/null
request -cmd cr "${sig[@]}" -newkey rsa.key -subject "/CN=rsa" -certout rsa.crt || fail "cr for an RSA key"
check rsa.crt rsa.key
pass "RSA key"

key new.key
request -cmd kur -cert web.crt -key web.key -newkey new.key -certout new.crt || fail "kur"
check new.crt new.key
logged "body=kur .*status=accepted subject=\"CN=web\" serial=$(serial new.crt) oldcert=$(serial web.crt)"
request -cmd kur "${sig[@]}" -oldcert new.crt -newkey ir2.key -subject "/CN=web" -certout new2.crt || fail "kur signed by another certificate"
logged "body=kur .*sender=\"CN=identity,O=shop\".*oldcert=$(serial new.crt)"
pass "kur with a new key, by the old certificate and by another one"

count() { ls state/issued | wc -l; }
before=$(count)
openssl req -x509 -new -key id.key -subj "/CN=stranger" -days 1 -out stranger.crt 2>/dev/null || fail "req -x509"
refused "the public key is that of the old" -cmd kur -cert web.crt -key web.key -newkey web.key
refused "oldCertID names no certificate" -cmd kur "${sig[@]}" -oldcert stranger.crt -newkey new.key
refused "the subject is not that of the old" -cmd kur "${sig[@]}" -oldcert new.crt -subject "/CN=other" -newkey ir2.key
refused "no suitable sender cert" -cmd cr -cert stranger.crt -key id.key -newkey new.key -subject "/CN=x"
refused "wrong pbm value" -cmd ir -ref 1234 -secret pass:wrong -newkey new.key -subject "/CN=x"
refused "missing secret" -cmd ir -ref 9999 -secret file:secret.txt -newkey new.key -subject "/CN=x"
refused "missing protection" -cmd ir "${mac[@]}" -unprotected_requests -newkey new.key -subject "/CN=x"
refused "this CA certifies end entities only" -cmd cr "${sig[@]}" -newkey new.key -subject "/CN=ca" -config ext.cnf -reqexts ca
refused "popo raverified not accepted" -cmd cr "${sig[@]}" -newkey new.key -popo 0 -subject "/CN=x"
refused "popo missing subject" -cmd cr "${sig[@]}" -newkey new.key -subject "/"
openssl req -new -key new.key -subj / -out nameless.csr 2>/dev/null || fail "req"
refused "neither a subject nor a subjectAltName" -cmd p10cr "${sig[@]}" -csr nameless.csr
[ "$(count)" = "$before" ] || fail "a refused request left a certificate"
pass "refusals: old key, unknown old certificate, other subject, stranger, wrong secret, unknown reference, unprotected, CA, raVerified, no name"

request -cmd rr -cert new2.crt -key ir2.key -oldcert new2.crt -revreason 1 || fail "rr"
refused "potentially invalid certificate" -cmd cr -cert new2.crt -key ir2.key -newkey new.key -subject "/CN=x"
refused "the old certificate is revoked" -cmd kur "${sig[@]}" -oldcert new2.crt -newkey new.key -subject "/CN=web"
pass "rr; the revoked certificate neither authenticates nor is updated"

request -cmd cr "${sig[@]}" -newkey new.key -implicit_confirm -subject "/CN=i" -certout i.crt || fail "implicit confirmation not granted"
logged "confirmed=$(serial i.crt)"
pass "implicit confirmation asked for, not granted: certConf"

# A request sent again: the reply of the first run is thrown away.
request -cmd cr "${sig[@]}" -newkey new.key -subject "/CN=again" -certout again.crt -reqout r.der,c.der || fail "cr"
before=$(count)
for _ in 1 2; do
  curl -sS --max-time 60 -H 'Content-Type: application/pkixcmp' --data-binary @r.der "$url" -o a.der || fail "sending a request again"
done
[ "$(count)" = $((before + 2)) ] || fail "sent again twice: $(($(count) - before)) more certificates, not 2"
pass "the same request again: another certificate each time, as OpenSSL's server does"

# HTTP: other clients are served while one connection is idle; what is no CMP gets a status.
exec 9<> "/dev/tcp/127.0.0.1/$(echo "$server" | sed 's/.*:\([0-9]*\).*/\1/')"
request -cmd cr "${sig[@]}" -newkey new.key -subject "/CN=busy" -certout busy.crt -msg_timeout 20 || fail "an idle connection blocks"
exec 9>&-
status() { curl -sS --max-time 20 -o /dev/null -w '%{http_code}' "$@"; }
type=(-H 'Content-Type: application/pkixcmp')
[ "$(status "$url")" = 405 ] || fail "GET"
[ "$(status "${type[@]}" --data-binary garbage "$url")" = 400 ] || fail "garbage"
[ "$(status "${type[@]}" --data-binary @<(cat r.der; echo x) "$url")" = 400 ] || fail "trailing octet"
[ "$(status -H 'Content-Type: text/plain' --data-binary @r.der "$url")" = 415 ] || fail "content type"
[ "$(status "${type[@]}" -H 'Transfer-Encoding: chunked' --data-binary @r.der "$url")" = 411 ] || fail "chunked"
[ "$(status "${type[@]}" --data-binary @r.der "${url}../other")" = 404 ] || fail "path"
pass "HTTP: idle connection, methods, garbage, content type, length, path"
stop

start
cat > burst.sh <<'END'
for i in $(seq 5); do
  openssl cmp -server "$1" -trusted state/ca.crt -config '' -verbosity 3 -cert id.crt -key id.key -cmd cr -newkey new.key \
    -subject "/CN=burst-$2-$i" -certout "burst-$2-$i.crt" || exit 1
done
END
before=$(count)
workers=()
for w in 1 2 3 4; do
  bash burst.sh "$server" "$w" > "burst-$w.out" 2>&1 &
  workers+=($!)
done
for w in "${workers[@]}"; do wait "$w" || { cat burst-*.out > client.out; fail "a client of four failed"; }; done
[ "$(count)" = $((before + 20)) ] || fail "four clients: $(($(count) - before)) certificates, not 20"
pass "four clients at once, five enrolments each; the CA kept its key over a restart"
stop

start -implicit -seconds 3600 -poll 3 -check_after 1
request -cmd cr "${sig[@]}" -newkey new.key -implicit_confirm -subject "/CN=polled" -certout polled.crt || fail "polling"
check polled.crt new.key
[ "$(grep -c 'status=waiting' log)" = 3 ] || fail "waiting was answered $(grep -c 'status=waiting' log) times, not 3"
logged "implicit=$(serial polled.crt)"
! openssl x509 -in polled.crt -noout -checkend 3700 > /dev/null || fail "-seconds is ignored"
pass "polling three times, implicit confirmation, -seconds"
request -cmd kur -cert i.crt -key new.key -newkey web.key -certout i2.crt || fail "kur after a restart"
pass "kur of a certificate issued before the restart"
! request -cmd cr "${sig[@]}" -newkey new.key -subject "/CN=late" -certout late.crt -total_timeout 1 || fail "total timeout"
request -cmd cr "${sig[@]}" -newkey new.key -subject "/CN=next" -certout next.crt || fail "after an abandoned transaction"
pass "an abandoned transaction hinders nobody"
stop
echo "selftest: all passed"
