{{/* Head of a policy: (list $ "name"). */}}
{{- define "onepiece.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "onepiece.fullname" (index . 0) }}-{{ index . 1 }}
  labels:
    {{- include "onepiece.labels" (list (index . 0) "network") | nindent 4 }}
{{- end -}}

{{/*
Pods of the release with one more label: (list $ "key" "value"). Not by app.kubernetes.io/name: on pods of Ray that is
KubeRay's own.
*/}}
{{- define "onepiece.policyPods" -}}
matchLabels:
  app.kubernetes.io/part-of: onepiece
  app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
  {{ index . 1 }}: {{ index . 2 | quote }}
{{- end -}}

{{/* Ports of a list of host:port, separated by commas, as entries of a policy: (string). */}}
{{- define "onepiece.policyPorts" -}}
{{- $ports := dict -}}
{{- range splitList "," . -}}
{{- $_ := set $ports (regexFind "[0-9]+$" (trim .)) true -}}
{{- end -}}
{{- range $port, $_ := $ports }}
- {protocol: TCP, port: {{ $port }}}
{{- end -}}
{{- end -}}
