{{/* One alert: (list $ "Name" "5m" "warning" "expression" "summary"). */}}
{{- define "onepiece.alert" -}}
{{- $root := index . 0 -}}
- alert: {{ index . 1 }}
  expr: {{ index . 4 | quote }}
  for: {{ index . 2 }}
  labels:
    severity: {{ index . 3 }}
  annotations:
    summary: {{ index . 5 | quote }}
    runbook_url: {{ printf "%s#%s" $root.Values.monitoring.rules.runbook (lower (index . 1)) }}
{{- end -}}
