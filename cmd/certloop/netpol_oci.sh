#!/usr/bin/env bash
# Audits the NetworkPolicies of every OKE cluster of a tenancy: compartments (the root
# included) → clusters → kubeconfig → certloop netpol audit. Needs oci and jq, and a
# configured oci command whose user may inspect compartments and use clusters.
#
# Exit code: 3 when any cluster could not be judged, otherwise 1 when any has findings.
set -euo pipefail

tenancy=${OCI_TENANCY:?set OCI_TENANCY to the OCID of the tenancy}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

compartments=$(oci iam compartment list --compartment-id "$tenancy" --compartment-id-in-subtree true \
	--access-level ACCESSIBLE --lifecycle-state ACTIVE --all | jq -r '.data[]?.id')
for compartment in "$tenancy" $compartments; do
	clusters=$(oci ce cluster list --compartment-id "$compartment" --lifecycle-state ACTIVE --all | jq -r '.data[]? | "\(.id) \(.name)"')
	while read -r id name; do
		[ -n "$id" ] || continue
		echo "== $name ($id)"
		if ! oci ce cluster create-kubeconfig --cluster-id "$id" --file "$dir/$id" --token-version 2.0.0 >/dev/null; then
			echo "no kubeconfig for $name" >&2
			failed=3
			continue
		fi
		code=0
		certloop netpol audit --kubeconfig "$dir/$id" "$@" || code=$?
		[ "$code" -le "$failed" ] || failed=$code
	done <<<"$clusters"
done
exit "$failed"
