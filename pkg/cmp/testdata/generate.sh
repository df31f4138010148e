#!/bin/sh
# Makes the messages in this folder with the openssl cmp tool and its mock
# server. Usage: ./generate.sh, with openssl 3.0 or later in PATH. Running it
# again gives new keys, nonces and signatures, hence new messages.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
port=${PORT:-18937}
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$work"' EXIT
cd "$work"
version=$(openssl version | cut -d' ' -f1,2)

key() { # file algorithm
	case $2 in
	p256) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" ;;
	p384) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$1" ;;
	rsa) openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1" ;;
	ed25519) openssl genpkey -algorithm ED25519 -out "$1" ;;
	esac 2>/dev/null
}
cert() { # name subject extensions
	openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
	printf '%s\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' "$3" >"$1.ext"
	openssl x509 -req -in "$1.csr" -CA root.pem -CAkey root.key -CAcreateserial -days 7300 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
}
record() { # file expectation... < DER
	name=$1
	shift
	{
		echo "source: $version"
		for line in "$@"; do echo "$line"; done
		echo
		echo "-----BEGIN CMP MESSAGE-----"
		openssl base64 -e
		echo "-----END CMP MESSAGE-----"
	} >"$out/$name.txt"
}
serve() { # mock server options
	test -z "$server" || { kill "$server" && wait "$server" 2>/dev/null; } || true
	openssl cmp -config "" -port "$port" -srv_ref ref -srv_secret pass:secret -srv_cert server.pem -srv_key server.key \
		-srv_trusted root.pem -rsp_cert device.pem -rsp_capubs root.pem "$@" >server.log 2>&1 &
	server=$!
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		sleep 0.2
		! grep -q "^ACCEPT\|listening" server.log || break
	done
}
ask() { openssl cmp -config "" -server "127.0.0.1:$port/pkix/" -trusted root.pem "$@" >/dev/null 2>client.log || true; }
mac="-ref ref -secret pass:secret -mac hmacWithSHA256"
sign="-cert device.pem -key device.key"

key root.key p256
openssl req -x509 -new -key root.key -subj "/C=DE/O=certloop/CN=Golden Root" -days 7300 -out root.pem
for k in server:p256 device:p256 rsa:rsa p384:p384 ed:ed25519; do key "${k%:*}.key" "${k#*:}"; done
cert server "/O=certloop/CN=CMP server" "keyUsage=digitalSignature"
cert device "/O=certloop/CN=device" "keyUsage=digitalSignature
subjectAltName=DNS:device.example"
for k in rsa p384 ed; do cert $k "/O=certloop/CN=$k" "keyUsage=digitalSignature"; done

serve
ask -cmd ir $mac -newkey device.key -subject "/C=DE/O=certloop/OU=a+OU=b/CN=device" -sans "device.example 192.0.2.1" -days 30 \
	-certout c.pem -reqout "1 2" -rspout "3 4"
record openssl-ir-mac "type: ir" "secret: secret" <1
record openssl-certconf-mac "type: certConf" "secret: secret" <2
record openssl-ip-mac "type: ip" "secret: secret" <3
record openssl-pkiconf-mac "type: pkiconf" "secret: secret" <4
ask -cmd kur $sign -newkey device.key -oldcert device.pem -certout c.pem -reqout "1 2" -rspout "3 4"
record openssl-kur "type: kur" "signed: yes" <1
record openssl-certconf "type: certConf" "signed: yes" <2
record openssl-kup "type: kup" "signed: yes" <3
record openssl-pkiconf "type: pkiconf" "signed: yes" <4
ask -cmd p10cr $sign -csr device.csr -certout c.pem -reqout "1 2" -rspout "3 4"
record openssl-p10cr "type: p10cr" "signed: yes" <1
record openssl-cp "type: cp" "signed: yes" <3
ask -cmd rr $sign -oldcert device.pem -revreason 4 -reqout 1 -rspout 2
record openssl-rr "type: rr" "signed: yes" <1
record openssl-rp "type: rp" "signed: yes" <2
ask -cmd genm $sign -infotype signKeyPairTypes -reqout 1 -rspout 2
record openssl-genm "type: genm" "signed: yes" <1
record openssl-genp "type: genp" "signed: yes" <2
for k in rsa p384 ed; do
	ask -cmd cr -cert $k.pem -key $k.key -newkey $k.key -subject "/CN=$k" -certout c.pem -reqout 1 -implicit_confirm
	record openssl-cr-$k "type: cr" "signed: yes" <1
done
ask -cmd ir $mac -newkey device.key -subject "/CN=device" -popo -1 -certout c.pem -reqout 1
record openssl-ir-nopop "type: ir" "secret: secret" "popo: absent" <1
ask -cmd ir $mac -newkey device.key -subject "/CN=device" -popo 0 -certout c.pem -reqout 1
record openssl-ir-raverified "type: ir" "secret: secret" "popo: raVerified" <1
serve -poll_count 2 -check_after 1
ask -cmd cr $sign -newkey device.key -subject "/CN=device" -certout c.pem -reqout "1 2 3 4 5" -rspout "11 12 13 14 15"
record openssl-pollreq "type: pollReq" "signed: yes" <2
record openssl-cp-waiting "type: cp" "signed: yes" <11
record openssl-pollrep "type: pollRep" "signed: yes" <12
serve -send_error
ask -cmd cr $sign -newkey device.key -subject "/CN=device" -certout c.pem -rspout 1
record openssl-error "type: error" "signed: yes" <1
serve -pkistatus 2 -failurebits 71303168 -statusstring "no such profile"
ask -cmd cr $sign -newkey device.key -subject "/CN=device" -certout c.pem -rspout 1
record openssl-cp-rejection "type: cp" "signed: yes" <1
serve -send_unprotected -pkistatus 2 -failure 2 -statusstring "not today"
ask -cmd cr $sign -newkey device.key -subject "/CN=device" -certout c.pem -rspout 1 -unprotected_errors
record openssl-cp-unprotected "type: cp" <1
