{{/* Environment that every process reads: (list . COMPONENT CONCURRENCY). */}}
{{- define "certloop.env" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}{{ $v := $root.Values -}}
{{- if not (and (eq $component "all") $v.plain.embeddedNATS) }}
- name: NATS_URL
  {{- if $v.nats.urlSecret }}
  valueFrom: {secretKeyRef: {name: {{ $v.nats.urlSecret }}, key: {{ $component }}.url}}
  {{- else }}
  value: {{ include "certloop.natsURL" $root | quote }}
  {{- end }}
{{- end }}
{{- if include "certloop.natsUsers" $root }}
- {name: NATS_INBOX_PREFIX, value: _INBOX_{{ $component }}}
{{- end }}
{{- if $v.nats.credentialsSecret }}
- {name: NATS_CREDS, value: /etc/nats/credentials/{{ $component }}.creds}
{{- end }}
{{- if $v.nats.tls.caSecret }}
- {name: NATS_CA, value: /etc/nats/ca/ca.crt}
{{- end }}
{{- if $v.nats.tls.clientSecret }}
- {name: NATS_CERT, value: /etc/nats/client/tls.crt}
- {name: NATS_KEY, value: /etc/nats/client/tls.key}
{{- end }}
{{- if ne $component "setup" }}
- {name: CERTLOOP_CLUSTER, value: {{ $v.cluster | quote }}}
- {name: CERTLOOP_NAMESPACES, value: {{ include "certloop.namespaces" $root | fromJsonArray | join "," | quote }}}
- {name: CERTLOOP_CONCURRENCY, value: {{ index . 2 | quote }}}
- {name: CERTLOOP_HANDLER_TIMEOUT, value: {{ printf "%ds" (int $v.handlerTimeoutSeconds) }}}
- {name: CERTLOOP_LOG_FORMAT, value: {{ $v.logging.format }}}
- {name: CERTLOOP_LOG_LEVEL, value: {{ $v.logging.level }}}
{{- end }}
{{- end }}

{{/* Says something where the release holds the NATS users. */}}
{{- define "certloop.natsUsers" -}}
{{- if and .Values.nats.authorization.render (not (and (eq .Values.profile "plain") .Values.plain.embeddedNATS)) }}yes{{ end }}
{{- end }}

{{/* The NATS servers. */}}
{{- define "certloop.natsURL" -}}
{{- $n := .Values.networkPolicy.nats -}}
{{- .Values.nats.url | default (printf "nats://nats.%s.svc.%s:%d" $n.namespace .Values.clusterDomain (int $n.port)) -}}
{{- end }}

{{/* Nine tenths of the memory limit, for Go's garbage collector: (RESOURCES). */}}
{{- define "certloop.memoryLimit" -}}
{{- with (.limits | default dict).memory }}
- {name: GOMEMLIMIT, value: {{ div (mul (include "certloop.bytes" . | int64) 9) 10485760 }}MiB}
{{- end }}
{{- end }}

{{/* A quantity of memory in bytes. */}}
{{- define "certloop.bytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[kMGTi]*$" .)) | int64 -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end }}

{{- define "certloop.mounts" -}}
{{- $v := .Values -}}
{{- if $v.nats.credentialsSecret }}
- {name: nats-credentials, mountPath: /etc/nats/credentials, readOnly: true}
{{- end }}
{{- if $v.nats.tls.caSecret }}
- {name: nats-ca, mountPath: /etc/nats/ca, readOnly: true}
{{- end }}
{{- if $v.nats.tls.clientSecret }}
- {name: nats-client, mountPath: /etc/nats/client, readOnly: true}
{{- end }}
{{- end }}

{{/* Only the user's own key of each Secret: (list . COMPONENT). */}}
{{- define "certloop.volumes" -}}
{{- $v := (index . 0).Values }}{{ $component := index . 1 -}}
{{- with $v.nats.credentialsSecret }}
- name: nats-credentials
  secret: {secretName: {{ . }}, items: [{key: {{ $component }}.creds, path: {{ $component }}.creds}]}
{{- end }}
{{- with $v.nats.tls.caSecret }}
- name: nats-ca
  secret: {secretName: {{ . }}, items: [{key: {{ $v.nats.tls.caKey }}, path: ca.crt}]}
{{- end }}
{{- with $v.nats.tls.clientSecret }}
- name: nats-client
  secret: {secretName: {{ . }}, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}
{{- end }}
{{- end }}

{{/* Pod Security "restricted", on the container, because Knative leaves that of the Pod out. */}}
{{- define "certloop.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where a Pod runs: the context, or (list . COMPONENT). Whoever talks to CAs has a node pool of its own where caClients
names one: enroll and renew, and everything in the one Pod of plain. */}}
{{- define "certloop.placement" -}}
{{- $root := . }}{{ $component := "" }}
{{- if kindIs "slice" . }}{{ $root = index . 0 }}{{ $component = index . 1 }}{{ end }}
{{- $nodeSelector := $root.Values.pod.nodeSelector }}{{ $tolerations := $root.Values.pod.tolerations }}
{{- if or (has $component (list "enroll" "renew")) (eq $root.Values.profile "plain") }}
{{- $nodeSelector = $root.Values.caClients.nodeSelector | default $nodeSelector }}
{{- $tolerations = $root.Values.caClients.tolerations | default $tolerations }}
{{- end }}
{{- with $nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Replicas on several nodes where there are several: (list . COMPONENT). */}}
{{- define "certloop.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "certloop.selector" (index . 0) | nindent 8 }}
        app.kubernetes.io/component: {{ index . 1 }}
{{- end }}
