{{/* Where the router's requests go (experiment/upstreams.py): ($). */}}
{{- define "onepiece.upstreams" -}}
{{- $host := .Values.serving.stages.recommend.host -}}
{{- if .Values.router.layer -}}
layer: {{ .Values.router.layer }}
{{- if .Values.router.gateway }}
address: {{ .Values.router.gateway }}
is_arm_sent: true
{{- else }}
arms:
  {{- range $arm, $_ := .Values.serving.arms }}
  {{- $service := include "onepiece.serverService" (list $ "recommend" $host $arm) | fromJson }}
  {{ $arm }}: grpc://{{ $service.name }}:{{ $service.grpc }}
  {{- end }}
{{- end }}
{{- else if .Values.router.gateway -}}
address: {{ .Values.router.gateway }}
{{- else -}}
{{- $service := include "onepiece.serverService" (list . "recommend" $host (keys .Values.serving.arms | sortAlpha | first)) | fromJson -}}
address: grpc://{{ $service.name }}:{{ $service.grpc }}
{{- end -}}
{{- end -}}
