{{/* Settings of a replica: on Ray they are arguments of the application. ($) */}}
{{- define "onepiece.raySettings" -}}
{{- $settings := deepCopy .Values.serving.settings -}}
{{- if .Values.shop.itemCurrency -}}
{{- $_ := set $settings "item_currency" .Values.shop.itemCurrency -}}
{{- end -}}
{{- range $name, $value := $settings }}
{{ $name }}: {{ toJson $value }}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* Pod of a Ray cluster: (list $ "recommend" "a" $stage $arm $placement "head"). */}}
{{- define "onepiece.rayPod" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $armName := index . 2 -}}
{{- $stage := index . 3 -}}
{{- $arm := index . 4 -}}
{{- $role := index . 6 -}}
metadata:
  labels:
    # Not app.kubernetes.io/name: by its own value there, KubeRay finds the head of NAME-head-svc.
    {{- include "onepiece.selectorOfAnyHost" (list $root "server") | nindent 4 }}
    onepiece-stage: {{ $name }}
    onepiece-arm: {{ $armName }}
    onepiece-ray: "yes"
    onepiece-talks-to-redis: "yes"
    {{- if $root.Values.shop.itemCurrency }}
    onepiece-talks-to-kafka: "yes"
    {{- end }}
spec:
  serviceAccountName: {{ include "onepiece.serverAccount" $root }}
  {{- include "onepiece.podBasics" (list $root "server" (index . 5)) | nindent 2 }}
  {{- include "onepiece.serverSpread" (list $root $name $armName) | nindent 2 }}
  terminationGracePeriodSeconds: {{ add 35 $root.Values.serving.drainSeconds }}
  containers:
    - name: ray-{{ $role }}
      {{- include "onepiece.containerImage" (list $root $root.Values.images.serve) | nindent 6 }}
      {{- include "onepiece.containerSecurity" $root | nindent 6 }}
      env:
        # As in serving/ray_environment.py: before Ray is imported.
        - {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
        - {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
        - {name: RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S, value: "60"}
        - {name: RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S, value: "30"}
        - {name: RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S, value: "60"}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        {{- include "onepiece.redisEnv" $root | nindent 8 }}
        {{- include "onepiece.serverKafkaEnv" $root | nindent 8 }}
      ports:
        {{- if eq $role "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: serve, containerPort: 8000}
        - {name: serve-grpc, containerPort: 9000}
      # Our own probes: those that KubeRay adds call wget, which the image does not have.
      startupProbe:
        httpGet: {path: /api/local_raylet_healthz, port: 52365}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /api/local_raylet_healthz, port: 52365}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        {{- if eq $role "head" }}
        httpGet: {path: /api/gcs_healthz, port: 8265}
        {{- else }}
        httpGet: {path: /-/healthz, port: 8000}
        {{- end }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- include "onepiece.preStop" $root.Values.serving.drainSeconds | nindent 6 }}
      resources:
        {{- if eq $role "head" }}
        requests: {cpu: 500m, memory: 2Gi}
        limits: {cpu: "2", memory: 2Gi}
        {{- else }}
        {{- include "onepiece.serverResources" (list $root $stage $arm) | nindent 8 }}
        {{- end }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        {{- include "onepiece.serverMounts" (list $root $arm) | nindent 8 }}
  volumes:
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: 512Mi}
    {{- include "onepiece.serverVolumes" (list $root $arm) | nindent 4 }}
{{- end -}}
