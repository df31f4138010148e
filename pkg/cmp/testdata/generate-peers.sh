#!/bin/sh
# Makes the messages of the CAs in test/peers in this folder: what they answer to
# the client of certloop. Usage: ./generate-peers.sh, after `make build peers`, with
# java in PATH. Running it again gives new keys, nonces and signatures, hence new
# messages.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$out/../../.." && pwd)
work=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$work"' EXIT
cd "$work"
printf secret >secret

record() { # file source expectation... < DER
	name=$1
	{
		echo "source: $2"
		shift 2
		for line in "$@"; do echo "$line"; done
		echo
		echo "-----BEGIN CMP MESSAGE-----"
		openssl base64 -e
		echo "-----END CMP MESSAGE-----"
		case "$name" in opensslca-*) cat state/ca.crt ;; esac # which it signs with, and does not send
	} >"$out/$name.txt"
}
serve() { # command of a CA
	test -z "$server" || { kill "$server" && wait "$server" 2>/dev/null; } || true
	rm -rf state log
	"$@" -dir state -ref ref -secret file:secret <"$work/open" >log 2>&1 &
	server=$!
	until grep -qs "^READY" log; do sleep 0.2; done
	url=$(sed -n 's/^READY \([^ ]*\) .*/\1/p' log)
}
ask() { "$root/bin/certloop" cmp -config "" -server "$url" -trusted state/ca.crt "$@" >client.log 2>&1 || cat client.log; }
# What a CA is asked, and what it answers. $1 begins the names of files, $2 is the source.
messages() {
	mac="-ref ref -secret file:secret"
	sign="-cert device.pem -key device.key"
	ask -cmd ir $mac -newkey device.key -subject /O=certloop/CN=device -certout device.pem -reqout "1 2" -rspout "3 4"
	record "$1-ip-mac" "$2" "type: ip" "secret: secret" <3
	record "$1-pkiconf-mac" "$2" "type: pkiconf" "secret: secret" <4
	ask -cmd kur $sign -newkey new.key -oldcert device.pem -certout new.pem -reqout "1 2" -rspout "3 4"
	record "$1-kup" "$2" "type: kup" "signed: yes" <3
	record "$1-pkiconf" "$2" "type: pkiconf" "signed: yes" <4
	sign="-cert new.pem -key new.key"
	for info in caCerts rootCaCert certReqTemplate; do
		ask -cmd genm $sign -infotype $info -oldwithold state/ca.crt -cacertsout c.pem -newwithnew c.pem -template c.der -rspout 1
		record "$1-genp-$info" "$2" "type: genp" "signed: yes" <1
	done
	ask -cmd rr $sign -oldcert new.pem -revreason 4 -rspout 1
	record "$1-rp" "$2" "type: rp" "signed: yes" <1
	ask -cmd cr $sign -newkey device.key -subject /CN=revoked -certout c.pem -rspout 1 # by a certificate that is revoked by now
	record "$1-error" "$2" "type: error" "signed: yes" <1
}
mkfifo open
sleep 3600 >open & # the CAs end with their standard input
holder=$!
trap 'kill "$holder" $server 2>/dev/null; rm -rf "$work"' EXIT
for k in device new; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $k.key 2>/dev/null; done

serve "$root/test/peers/openssl-ca/openssl-ca"
messages opensslca "openssl-ca, $(openssl version | cut -d' ' -f1,2)"
serve java -XX:+UseSerialGC -jar "$root/test/peers/bouncycastle-ca/bouncycastle-ca.jar"
messages bouncycastle "bouncycastle-ca, Bouncy Castle 1.72"
