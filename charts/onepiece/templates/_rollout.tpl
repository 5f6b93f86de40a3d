{{/* Name of the routes that the rollout moves: ($). */}}
{{- define "onepiece.rolloutRoute" -}}
{{- printf "%s-%s" (include "onepiece.fullname" .) (.Values.rollout.plan.stage | default "recommend") -}}
{{- end -}}

{{- define "onepiece.validateRollout" -}}
{{- $rollout := .Values.rollout -}}
{{- if $rollout.enabled -}}
{{- $plan := $rollout.plan -}}
{{- if not .Values.routes.enabled -}}
{{- fail "rollout.enabled is true and routes.enabled is false: there are no weights to move; set routes.enabled=true" -}}
{{- end -}}
{{- if not $plan -}}
{{- fail "rollout.plan is empty; give name, release, baseline, canary and steps" -}}
{{- end -}}
{{- if ne $plan.release (include "onepiece.fullname" .) -}}
{{- fail (printf "rollout.plan.release is %s and the names of this release's objects begin with %s; set rollout.plan.release to that" $plan.release (include "onepiece.fullname" .)) -}}
{{- end -}}
{{- $stage := $plan.stage | default "recommend" -}}
{{- if not (hasKey (include "onepiece.stages" . | fromJson) $stage) -}}
{{- fail (printf "rollout.plan.stage is %s, which has no servers of its own; enable it in serving.stages, or name recommend" $stage) -}}
{{- end -}}
{{- range $arm := list $plan.baseline $plan.canary -}}
{{- if not (hasKey $.Values.serving.arms $arm) -}}
{{- fail (printf "rollout.plan names the arm %s, which is not in serving.arms; add it, or name another" $arm) -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $rollout.report) (empty $plan.report) -}}
{{- fail "rollout.report and rollout.plan.report belong together: the file, and what it must say; give both or none" -}}
{{- end -}}
{{- end -}}
{{- end -}}
