#!/bin/sh
# Makes what is in secp256k1.pem: a public key on that curve, a PKCS #10 request
# for it and a certificate of it. Usage: ./secp256k1.sh, with openssl in PATH.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$(cd "$(dirname "$0")" && pwd)/secp256k1.pem
openssl ecparam -name secp256k1 -genkey -noout -out "$work/key"
{
	openssl pkey -in "$work/key" -pubout
	openssl req -new -key "$work/key" -subj /CN=web
	openssl req -x509 -key "$work/key" -subj /CN=web -days 36500
} >"$out"
