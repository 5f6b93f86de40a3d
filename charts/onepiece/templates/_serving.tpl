{{/* Stages that have servers, by their name in object names: JSON of name -> key in values. */}}
{{- define "onepiece.stages" -}}
{{- $stages := dict -}}
{{- range $name, $key := dict "recommend" "recommend" "retrieve" "retrieve" "pre-rank" "preRank" -}}
{{- if (get $.Values.serving.stages $key).enabled -}}
{{- $_ := set $stages $name $key -}}
{{- end -}}
{{- end -}}
{{- toJson $stages -}}
{{- end -}}

{{/* Name of the servers of a stage and an arm: (list $ "recommend" "a"). */}}
{{- define "onepiece.server" -}}
{{- printf "%s-%s-%s" (include "onepiece.fullname" (index . 0)) (index . 1) (index . 2) -}}
{{- end -}}

{{/* Service of those servers and its ports, as JSON: (list $ "recommend" "kserve" "a"). */}}
{{- define "onepiece.serverService" -}}
{{- $name := include "onepiece.server" (list (index . 0) (index . 1) (index . 3)) -}}
{{- if eq (index . 2) "kserve" -}}
{{- toJson (dict "name" (printf "%s-predictor" $name) "http" 80 "grpc" 9000) -}}
{{- else -}}
{{- toJson (dict "name" (printf "%s-serve-svc" $name) "http" 8000 "grpc" 9000) -}}
{{- end -}}
{{- end -}}

{{/* Labels of the pods of servers: (list $ "recommend" "a"). */}}
{{- define "onepiece.serverLabels" -}}
{{ include "onepiece.selectorOfAnyHost" (list (index . 0) "server") }}
onepiece-stage: {{ index . 1 }}
onepiece-arm: {{ index . 2 }}
{{- end -}}

{{/* Variables of a server: ($). */}}
{{- define "onepiece.serverEnv" -}}
{{ include "onepiece.redisEnv" . }}
{{- include "onepiece.settingsEnv" (list "ONEPIECE_SERVING_" .Values.serving.settings) }}
{{- if .Values.shop.itemCurrency }}
- name: ONEPIECE_SERVING_ITEM_CURRENCY
  value: {{ .Values.shop.itemCurrency }}
{{- end }}
{{ include "onepiece.serverKafkaEnv" . }}
{{- end -}}

{{/* Where item updates are, if servers follow them: ($). */}}
{{- define "onepiece.serverKafkaEnv" -}}
{{- if .Values.shop.itemCurrency -}}
{{ include "onepiece.kafkaEnv" (list . "batch") }}
{{- end -}}
{{- end -}}

{{/*
Where a server finds its release: ($arm). Below the whole claim, not by subPath: a kubelet makes an empty folder of a subPath
that is not there yet, and a release that is copied later would land in a folder below it.
*/}}
{{- define "onepiece.releaseFolder" -}}
{{- if .release.storageUri -}}
/mnt/models
{{- else -}}
/mnt/releases/{{ .release.path }}
{{- end -}}
{{- end -}}

{{/* Mounts of a server: (list $ $arm). */}}
{{- define "onepiece.serverMounts" -}}
{{- $root := index . 0 -}}
{{- $arm := index . 1 -}}
- name: tmp
  mountPath: /tmp
{{ include "onepiece.storeMounts" $root }}
{{- if not $arm.release.storageUri }}
- name: release
  mountPath: /mnt/releases
  readOnly: true
{{- end }}
{{- if $root.Values.serving.itemTables }}
- name: shop
  mountPath: /shop
  readOnly: true
{{- end }}
{{- if $root.Values.shop.itemCurrency }}
{{- include "onepiece.kafkaMounts" $root }}
{{- end }}
{{- end -}}

{{/* Volumes of a server: (list $ $arm). */}}
{{- define "onepiece.serverVolumes" -}}
{{- $root := index . 0 -}}
{{- $arm := index . 1 -}}
- name: tmp
  emptyDir: {}
{{ include "onepiece.storeVolumes" $root }}
{{- if not $arm.release.storageUri }}
- name: release
  persistentVolumeClaim:
    claimName: {{ $arm.release.claim | default (include "onepiece.shopClaim" $root) }}
{{- end }}
{{- if $root.Values.serving.itemTables }}
- name: shop
  persistentVolumeClaim:
    claimName: {{ include "onepiece.shopClaim" $root }}
{{- end }}
{{- if $root.Values.shop.itemCurrency }}
{{- include "onepiece.kafkaVolumes" (list $root "batch") }}
{{- end }}
{{- end -}}

{{/*
Weights of the arms of a stage's route, as JSON of arm -> weight: (list $ "recommend").
An upgrade keeps what is in the cluster: the rollout controller may have moved it, and a release that sets it back would
undo a rollback (docs/decisions/0029). A new arm has the weight of the values; if all are 0, the values hold.
*/}}
{{- define "onepiece.weights" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "onepiece.fullname" $root) (index . 1) -}}
{{- $given := dict -}}
{{- $kept := dict -}}
{{- $live := dict -}}
{{- if $root.Values.routes.keepWeights -}}
{{- $route := lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $root.Release.Namespace $name -}}
{{- range ($route.spec | default dict).rules -}}
{{- if gt (len .backendRefs) 1 -}}
{{- range .backendRefs -}}
{{- $_ := set $live .name (.weight | default 0 | int) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $total := 0 -}}
{{- range $arm, $spec := $root.Values.serving.arms -}}
{{- $stages := include "onepiece.stages" $root | fromJson -}}
{{- $host := (get $root.Values.serving.stages (get $stages (index $ 1))).host -}}
{{- $service := include "onepiece.serverService" (list $root (index $ 1) $host $arm) | fromJson -}}
{{- $weight := int $spec.weight -}}
{{- $_ := set $given $arm $weight -}}
{{- if hasKey $live $service.name -}}
{{- $weight = get $live $service.name | int -}}
{{- end -}}
{{- $_ := set $kept $arm $weight -}}
{{- $total = add $total $weight -}}
{{- end -}}
{{- toJson (ternary $given $kept (eq (int $total) 0)) -}}
{{- end -}}

{{/* The gateway that the routes belong to: ($). */}}
{{- define "onepiece.parentRefs" -}}
- group: gateway.networking.k8s.io
  kind: Gateway
  name: {{ .Values.routes.gateway.name | default (include "onepiece.fullname" .) }}
  {{- with .Values.routes.gateway.namespace }}
  namespace: {{ . }}
  {{- end }}
  {{- with .Values.routes.gateway.sectionName }}
  sectionName: {{ . }}
  {{- end }}
{{- end -}}

{{/* Resources of a server: (list $ $stage $arm). */}}
{{- define "onepiece.serverResources" -}}
{{- $root := index . 0 -}}
{{- $own := (index . 2).resources | default (index . 1).resources | default $root.Values.serving.resources -}}
{{- toYaml $own -}}
{{- end -}}

{{/* Pods of a server, as JSON: (list $ $arm). */}}
{{- define "onepiece.serverReplicas" -}}
{{- (index . 1).replicas | default (index . 0).Values.serving.replicas | toJson -}}
{{- end -}}

{{/* Placement of a server's pods, as `onepiece.podBasics` takes it: (list $ $stage). */}}
{{- define "onepiece.serverPlacement" -}}
{{- $serving := (index . 0).Values.serving -}}
{{- $stage := index . 1 -}}
{{- dict "nodeSelector" ($stage.nodeSelector | default $serving.nodeSelector) "tolerations" ($stage.tolerations | default $serving.tolerations) | toJson -}}
{{- end -}}

{{- define "onepiece.serverSpread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "onepiece.serverLabels" . | nindent 8 }}
{{- end -}}

{{- define "onepiece.serverAccount" -}}
{{- .Values.serving.serviceAccountName | default (include "onepiece.serviceAccount" .) -}}
{{- end -}}
