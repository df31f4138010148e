{{- define "certloop.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the Pods of a release. */}}
{{- define "certloop.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "certloop.labels" -}}
{{ include "certloop.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: certloop
{{- end }}

{{/* Labels of a Pod: (list . COMPONENT). */}}
{{- define "certloop.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "certloop.selector" $root }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: certloop
{{- with $root.Values.pod.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The image of a binary: (list . NAME). */}}
{{- define "certloop.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- with index $image.digests (index . 1) -}}
{{ $image.repository }}/{{ index $ 1 }}@{{ . }}
{{- else -}}
{{ $image.repository }}/{{ index . 1 }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "certloop.functions" -}}
enroll renew watch-secrets expiry-scan
{{- end }}

{{/* The components of a profile that have a Pod and a ServiceAccount. */}}
{{- define "certloop.components" -}}
{{- if eq .Values.profile "plain" -}} all
{{- else -}}
{{ include "certloop.functions" . }}
{{- if eq .Values.profile "knative" }} dispatch{{ end }}
{{- if .Values.setup.enabled }} setup{{ end }}
{{- end }}
{{- end }}

{{/* The namespaces that are served, as a list in JSON. */}}
{{- define "certloop.namespaces" -}}
{{- if eq .Values.model "shared" }}{{ .Values.accessedNamespaces | sortAlpha | toJson }}{{ else }}{{ list .Release.Namespace | toJson }}{{ end }}
{{- end }}

{{- define "certloop.brokerSink" -}}
{{- if .Values.broker.enabled -}}
ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: {{ .Values.broker.name }}}
{{- end }}
{{- end }}

{{/* A function as the destination of events: (list . NAME). */}}
{{- define "certloop.functionSink" -}}
ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: {{ include "certloop.fullname" (index . 0) }}-{{ index . 1 }}}
{{- end }}
