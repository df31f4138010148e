{{/*
What each component may do in a namespace that is served. Watching Secrets gives their contents away, so that only the
sources may, which are Knative's or, in profile plain, the one process there is. update of …/finalizers is asked for by
clusters that check who may block the deletion of an owner.
*/}}
{{- define "certloop.rights" -}}
enroll:
  - {apiGroups: [certloop.io], resources: [cmpcertificates, cmpissuers], verbs: [get, list, create, patch, delete]}
  - {apiGroups: [certloop.io], resources: [cmpcertificates/status, cmpissuers/status], verbs: [update]}
  - {apiGroups: [certloop.io], resources: [cmpcertificates/finalizers], verbs: [update]}
  - {apiGroups: [""], resources: [secrets], verbs: [get, create, update, delete]}
renew:
  - {apiGroups: [certloop.io], resources: [cmpcertificates, cmpissuers], verbs: [get, list]}
  - {apiGroups: [certloop.io], resources: [cmpcertificates/status, cmpissuers/status], verbs: [update]}
  - {apiGroups: [certloop.io], resources: [cmpcertificates/finalizers], verbs: [update]}
  - {apiGroups: [""], resources: [secrets], verbs: [get, create, update]}
watch-secrets:
  - {apiGroups: [certloop.io], resources: [cmpcertificates, cmpissuers], verbs: [get, list]}
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
expiry-scan:
  - {apiGroups: [certloop.io], resources: [cmpcertificates], verbs: [list]}
all:
  - {apiGroups: [certloop.io], resources: [cmpcertificates, cmpissuers], verbs: [get, list, watch, create, patch, delete]}
  - {apiGroups: [certloop.io], resources: [cmpcertificates/status, cmpissuers/status], verbs: [update]}
  - {apiGroups: [certloop.io], resources: [cmpcertificates/finalizers], verbs: [update]}
  - {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, create, update, delete]}
certificate-source:
  - {apiGroups: [certloop.io], resources: [cmpcertificates, cmpissuers], verbs: [get, list, watch]}
secret-source:
  - {apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}
{{- end }}

{{/* What each component may do with CMPClusterIssuers: nothing else is asked for cluster-wide. */}}
{{- define "certloop.clusterRights" -}}
enroll:
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers], verbs: [get, list, patch]}
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers/status], verbs: [update]}
renew:
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers], verbs: [get, list]}
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers/status], verbs: [update]}
watch-secrets:
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers], verbs: [get, list]}
all:
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers], verbs: [get, list, watch, patch]}
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers/status], verbs: [update]}
certificate-source:
  - {apiGroups: [certloop.io], resources: [cmpclusterissuers], verbs: [get, list, watch]}
{{- end }}

{{/* What each component may do with the Secrets of CMPClusterIssuers, in a release's namespace that is not served. */}}
{{- define "certloop.clusterSecretRights" -}}
enroll:
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
renew:
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
watch-secrets:
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
all:
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
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
