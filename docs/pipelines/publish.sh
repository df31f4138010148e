#!/bin/sh
# publish.sh NAMESPACE/NAME FILE URL: declares a certificate with nothing but curl.
#
# FILE holds a CMPCertificate in JSON; URL is a Knative Broker, or the function enroll.
# EVENT_ID, the id of a commit for example, makes a job that runs twice send one event.
# TOKEN_FILE and CA_FILE are for a Broker that asks senders for a token and speaks HTTPS.
# Exit code 0: accepted. 22: refused; what is wrong with it is printed.
set -eu

subject=$1 file=$2 url=$3
id=${EVENT_ID:-$(cat /proc/sys/kernel/random/uuid)}

# The token is no argument of curl, which everybody on the machine could read.
authorization() { [ -z "${TOKEN_FILE:-}" ] || printf 'Authorization: Bearer %s\n' "$(cat "$TOKEN_FILE")"; }

# What is not accepted now (503, or nobody there yet) is sent again.
authorization | curl --silent --show-error --fail-with-body --max-time 180 --retry 8 --retry-connrefused \
	${CA_FILE:+--cacert "$CA_FILE"} --header @- \
	--header 'ce-specversion: 1.0' \
	--header 'ce-type: io.certloop.config.created.v1' \
	--header "ce-source: ${EVENT_SOURCE:-/pipelines/curl}" \
	--header "ce-id: $id" \
	--header "ce-subject: $subject" \
	--header 'Content-Type: application/json' \
	--data-binary "@$file" "$url"
