{{/*
What each component may do in a namespace that is served, as JSON. The functions' rights are those that their tests show to
be enough. Watching Secrets gives their contents away: only the source may, which is Knative's, or with profile plain the
one process there is.
*/}}
{{- define "certloop.rights" -}}
{{- $rights := (.Files.Get "files/rights.yaml" | fromYaml).namespaced }}
{{- $sources := include "certloop.sourceRights" . | fromYaml }}
{{- merge $rights $sources | toJson }}
{{- end }}

{{- define "certloop.sourceRights" -}}
certificate-source:
  - {apiGroups: [certloop.io], resources: [cmpcertificates, cmpissuers], verbs: [get, list, watch]}
secret-source:
  - {apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}
{{- end }}

{{/* What each component may do with CMPClusterIssuers, as JSON: nothing else is asked for cluster-wide. */}}
{{- define "certloop.clusterRights" -}}
{{- $rights := (.Files.Get "files/rights.yaml" | fromYaml).cluster }}
{{- $source := list (dict "apiGroups" (list "certloop.io") "resources" (list "cmpclusterissuers") "verbs" (list "get" "list" "watch")) }}
{{- set $rights "certificate-source" $source | toJson }}
{{- end }}

{{/* Who of them is part of a profile. */}}
{{- define "certloop.subjects" -}}
{{- if eq .Values.profile "plain" -}} all
{{- else -}}
{{ include "certloop.functions" . }}
{{- if .Values.sources.certificates.enabled }} certificate-source{{ end }}
{{- if .Values.sources.secrets.enabled }} secret-source{{ end }}
{{- end }}
{{- end }}
