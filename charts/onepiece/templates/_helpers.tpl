{{/* How the names of objects begin. */}}
{{- define "onepiece.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 20 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of a selector: (list $ "component"). */}}
{{- define "onepiece.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: onepiece
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels that find pods on KServe and on Ray, too: on Ray, app.kubernetes.io/name is KubeRay's. (list $ "component"). */}}
{{- define "onepiece.selectorOfAnyHost" -}}
app.kubernetes.io/part-of: onepiece
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object: (list $ "component"). */}}
{{- define "onepiece.labels" -}}
{{- $root := index . 0 -}}
{{ include "onepiece.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: onepiece
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of pods, without any version: a new chart alone replaces no pod. (list $ "component"). */}}
{{- define "onepiece.podLabels" -}}
{{ include "onepiece.selector" . }}
app.kubernetes.io/part-of: onepiece
{{- end -}}

{{/* An image: (list $ .Values.images.stream). */}}
{{- define "onepiece.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := $image.repository -}}
{{- if $root.Values.images.registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" $root.Values.images.registry) $image.repository -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Image and pull policy of a container: (list $ .Values.images.stream). */}}
{{- define "onepiece.containerImage" -}}
image: {{ include "onepiece.image" . | quote }}
imagePullPolicy: {{ (index . 0).Values.images.pullPolicy }}
{{- end -}}

{{/* What every container may not do. */}}
{{- define "onepiece.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/*
What every pod has: (list $ "component" .Values.component).
Service links are off: a Service named onepiece-kafka would put ONEPIECE_KAFKA_SERVICE_HOST into the environment, and
the settings refuse variables that they do not know.
*/}}
{{- define "onepiece.podBasics" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Spreads the pods of a component over nodes: (list $ "component"). */}}
{{- define "onepiece.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "onepiece.selector" . | nindent 8 }}
{{- end -}}

{{/* Name of the chart's service account without rights. */}}
{{- define "onepiece.serviceAccount" -}}
{{- include "onepiece.fullname" . -}}
{{- end -}}

{{/* Global options of the command line: (log level). */}}
{{- define "onepiece.logOptions" -}}
- --log-json
- --log-level={{ . }}
{{- end -}}

{{/* Settings as variables: (list "ONEPIECE_COLLECTOR_" .Values.collector.settings). */}}
{{- define "onepiece.settingsEnv" -}}
{{- $prefix := index . 0 -}}
{{- range $name, $value := index . 1 }}
- name: {{ $prefix }}{{ upper $name }}
  {{- if kindIs "float64" $value }}
  {{- /* Helm reads whole numbers as floats; they must not become 1e+06. */}}
  value: {{ (eq $value (floor $value)) | ternary (printf "%.0f" $value) (toString $value) | quote }}
  {{- else }}
  value: {{ toString $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Claim with the shop's files. */}}
{{- define "onepiece.shopClaim" -}}
{{- .Values.shop.existingClaim | default (printf "%s-shop" (include "onepiece.fullname" .)) -}}
{{- end -}}

{{/* Whether anything mounts that claim; empty if nothing. */}}
{{- define "onepiece.usesShop" -}}
{{- $uses := .Values.historyConsumer.enabled -}}
{{- range $name, $job := .Values.jobs -}}
{{- if kindIs "map" $job }}{{ if get $job "enabled" }}{{ $uses = true }}{{ end }}{{ end -}}
{{- end -}}
{{- if .Values.serving.enabled -}}
{{- if .Values.serving.itemTables }}{{ $uses = true }}{{ end -}}
{{- range .Values.serving.arms -}}
{{- if not (or .release.claim .release.storageUri) }}{{ $uses = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $uses }}yes{{ end -}}
{{- end -}}

{{/* The brokers. */}}
{{- define "onepiece.bootstrapServers" -}}
{{- if .Values.trial.kafka.enabled -}}
{{- printf "%s-trial-kafka:9092" (include "onepiece.fullname" .) -}}
{{- else -}}
{{- .Values.kafka.bootstrapServers -}}
{{- end -}}
{{- end -}}

{{/* User of a service and name of its Secret: (list $ "history"). */}}
{{- define "onepiece.kafkaUser" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- get $root.Values.kafka.users $role | default (printf "%s-%s" $root.Values.kafka.prefix $role) -}}
{{- end -}}

{{/* Variables of whoever talks to Kafka: (list $ "history"). */}}
{{- define "onepiece.kafkaEnv" -}}
{{- $root := index . 0 -}}
{{- $kafka := $root.Values.kafka -}}
- name: ONEPIECE_KAFKA_BOOTSTRAP_SERVERS
  value: {{ include "onepiece.bootstrapServers" $root | quote }}
- name: ONEPIECE_KAFKA_PREFIX
  value: {{ $kafka.prefix | quote }}
- name: ONEPIECE_KAFKA_NUM_PARTITIONS
  value: {{ $kafka.numPartitions | int | quote }}
- name: ONEPIECE_KAFKA_SECURITY_PROTOCOL
  value: {{ $kafka.securityProtocol }}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
- name: ONEPIECE_KAFKA_SASL_MECHANISM
  value: {{ $kafka.saslMechanism }}
- name: ONEPIECE_KAFKA_SASL_USERNAME
  value: {{ include "onepiece.kafkaUser" . | quote }}
- name: ONEPIECE_KAFKA_SASL_PASSWORD_FILE
  value: /etc/onepiece/kafka-user/password
{{- end }}
{{- if and (hasSuffix "SSL" $kafka.securityProtocol) $kafka.ca.existingSecret }}
- name: ONEPIECE_KAFKA_SSL_CA_FILE
  value: /etc/onepiece/kafka-ca/ca.crt
{{- end }}
{{- include "onepiece.settingsEnv" (list "ONEPIECE_KAFKA_" $kafka.settings) }}
{{- end -}}

{{/* Mounts of whoever talks to Kafka: ($). */}}
{{- define "onepiece.kafkaMounts" -}}
{{- if hasPrefix "SASL" .Values.kafka.securityProtocol }}
- name: kafka-user
  mountPath: /etc/onepiece/kafka-user
  readOnly: true
{{- end }}
{{- if and (hasSuffix "SSL" .Values.kafka.securityProtocol) .Values.kafka.ca.existingSecret }}
- name: kafka-ca
  mountPath: /etc/onepiece/kafka-ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* Volumes of whoever talks to Kafka: (list $ "history"). */}}
{{- define "onepiece.kafkaVolumes" -}}
{{- $kafka := (index . 0).Values.kafka -}}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
- name: kafka-user
  secret:
    secretName: {{ include "onepiece.kafkaUser" . }}
    items:
      - key: {{ $kafka.passwordKey }}
        path: password
{{- end }}
{{- if and (hasSuffix "SSL" $kafka.securityProtocol) $kafka.ca.existingSecret }}
- name: kafka-ca
  secret:
    secretName: {{ $kafka.ca.existingSecret }}
    items:
      - key: {{ $kafka.ca.key }}
        path: ca.crt
{{- end }}
{{- end -}}

{{/* Address of Redis. */}}
{{- define "onepiece.redisAddress" -}}
{{- if .Values.trial.redis.enabled -}}
{{- printf "%s-trial-redis:6379" (include "onepiece.fullname" .) -}}
{{- else -}}
{{- .Values.redis.address -}}
{{- end -}}
{{- end -}}

{{/* Mounts of whoever opens the online store: ($). */}}
{{- define "onepiece.storeMounts" -}}
- name: store
  mountPath: /etc/onepiece/store
  readOnly: true
{{- if .Values.redis.password.existingSecret }}
- name: redis-password
  mountPath: /etc/onepiece/redis
  readOnly: true
{{- end }}
{{- if and .Values.redis.tls.enabled .Values.redis.tls.caSecret }}
- name: redis-ca
  mountPath: /etc/onepiece/redis-ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* Volumes of whoever opens the online store: ($). */}}
{{- define "onepiece.storeVolumes" -}}
- name: store
  configMap:
    name: {{ include "onepiece.fullname" . }}-store
    items:
      - key: store.json
        path: store.json
{{- if .Values.redis.password.existingSecret }}
- name: redis-password
  secret:
    secretName: {{ .Values.redis.password.existingSecret }}
    items:
      - key: {{ .Values.redis.password.key }}
        path: password
{{- end }}
{{- if and .Values.redis.tls.enabled .Values.redis.tls.caSecret }}
- name: redis-ca
  secret:
    secretName: {{ .Values.redis.tls.caSecret }}
    items:
      - key: {{ .Values.redis.tls.caKey }}
        path: ca.crt
{{- end }}
{{- end -}}

{{/* The features' recipe as an argument, if one is given: ($). */}}
{{- define "onepiece.recipeArgs" -}}
{{- if .Values.shop.featuresRecipe }}
- --recipe=/etc/onepiece/recipe/features.yaml
{{- end }}
{{- end -}}

{{- define "onepiece.recipeMounts" -}}
{{- if .Values.shop.featuresRecipe }}
- name: recipe
  mountPath: /etc/onepiece/recipe
  readOnly: true
{{- end }}
{{- end -}}

{{- define "onepiece.recipeVolumes" -}}
{{- if .Values.shop.featuresRecipe }}
- name: recipe
  configMap:
    name: {{ include "onepiece.fullname" . }}-store
    items:
      - key: features.yaml
        path: features.yaml
{{- end }}
{{- end -}}

{{/* Changes when the store's ConfigMap does, so that pods are replaced: ($). */}}
{{- define "onepiece.storeChecksum" -}}
checksum/store: {{ include (print $.Template.BasePath "/store-configmap.yaml") . | sha256sum }}
{{- end -}}

{{/* Waits in a container that stops, while others learn that it leaves: (seconds). */}}
{{- define "onepiece.preStop" -}}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ int . | quote }}]
{{- end -}}

{{/* Where Redis is, as variables: ($). */}}
{{- define "onepiece.redisEnv" -}}
- name: ONEPIECE_REDIS_ADDRESS
  value: {{ include "onepiece.redisAddress" . | quote }}
{{- with .Values.redis }}
{{- if .username }}
- name: ONEPIECE_REDIS_USERNAME
  value: {{ .username | quote }}
{{- end }}
{{- if .password.existingSecret }}
- name: ONEPIECE_REDIS_PASSWORD_FILE
  value: /etc/onepiece/redis/password
{{- end }}
{{- if .tls.enabled }}
- name: ONEPIECE_REDIS_IS_TLS
  value: "true"
{{- end }}
{{- if and .tls.enabled .tls.caSecret }}
- name: ONEPIECE_REDIS_CA_FILE
  value: /etc/onepiece/redis-ca/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* Anything of the batch: what reads the log, the shop's files and the store; its pod's volumes. ($) */}}
{{- define "onepiece.batchVolumes" -}}
- name: tmp
  emptyDir: {}
- name: scratch
  emptyDir: {}
- name: shop
  persistentVolumeClaim:
    claimName: {{ include "onepiece.shopClaim" . }}
{{ include "onepiece.storeVolumes" . }}
{{- include "onepiece.recipeVolumes" . }}
{{- include "onepiece.kafkaVolumes" (list . "batch") }}
{{- end -}}

{{- define "onepiece.batchMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: scratch, mountPath: /scratch}
- {name: shop, mountPath: /shop}
{{ include "onepiece.storeMounts" . }}
{{- include "onepiece.recipeMounts" . }}
{{- include "onepiece.kafkaMounts" . }}
{{- end -}}

{{/* A container of a batch job: (list $ "name" "serve" arguments). */}}
{{- define "onepiece.batchContainer" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  {{- include "onepiece.containerImage" (list $root (get $root.Values.images (index . 2))) | nindent 2 }}
  {{- include "onepiece.containerSecurity" $root | nindent 2 }}
  command: [onepiece]
  args:
    {{- include "onepiece.logOptions" "INFO" | nindent 4 }}
    {{- range index . 3 }}
    - {{ . | quote }}
    {{- end }}
  env:
    # So that each run writes a folder of its own.
    - name: JOB_NAME
      valueFrom:
        fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}
    {{- include "onepiece.kafkaEnv" (list $root "batch") | nindent 4 }}
  resources:
    {{- toYaml $root.Values.jobs.resources | nindent 4 }}
  volumeMounts:
    {{- include "onepiece.batchMounts" $root | nindent 4 }}
{{- end -}}

{{/* A CronJob up to its containers: (list $ "name" .Values.jobs.name). */}}
{{- define "onepiece.cronJobHead" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $job := index . 2 -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "onepiece.fullname" $root }}-{{ $name }}
  labels:
    {{- include "onepiece.labels" (list $root $name) | nindent 4 }}
spec:
  schedule: {{ $job.schedule | quote }}
  # Days are those of UTC, as in the log.
  timeZone: Etc/UTC
  suspend: {{ $job.suspend }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 2
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels:
        {{- include "onepiece.podLabels" (list $root $name) | nindent 8 }}
    spec:
      # What failed once would fail again, and its exit code is the alarm.
      backoffLimit: {{ $job.retries }}
      activeDeadlineSeconds: {{ $job.longestSeconds | int }}
      template:
        metadata:
          labels:
            {{- include "onepiece.podLabels" (list $root $name) | nindent 12 }}
            onepiece-talks-to-kafka: "yes"
            onepiece-talks-to-redis: "yes"
        spec:
          restartPolicy: Never
          serviceAccountName: {{ include "onepiece.serviceAccount" $root }}
          {{- include "onepiece.podBasics" (list $root $name $root.Values.jobs) | nindent 10 }}
{{- end -}}

{{/* Arguments of the log, the catalogue and the recipe, as JSON: ($). */}}
{{- define "onepiece.logArgs" -}}
{{- $args := list "--kafka" (printf "--catalogue=/shop/%s" .Values.shop.catalogue) -}}
{{- if .Values.shop.featuresRecipe -}}
{{- $args = append $args "--recipe=/etc/onepiece/recipe/features.yaml" -}}
{{- end -}}
{{- toJson $args -}}
{{- end -}}

{{/* Arguments of a backfill, as JSON: (list $ "folder"). */}}
{{- define "onepiece.backfillArgs" -}}
{{- $root := index . 0 -}}
{{- $args := concat (list "features" "backfill") (include "onepiece.logArgs" $root | fromJsonArray) (list (printf "--out=%s" (index . 1))) -}}
{{- with $root.Values.shop.profiles -}}
{{- $args = append $args (printf "--profiles=/shop/%s" .) -}}
{{- end -}}
{{- toJson $args -}}
{{- end -}}
