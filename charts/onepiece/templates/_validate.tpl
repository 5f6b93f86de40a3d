{{/* Refuses what would not work, with what to set. Included once, by serviceaccount.yaml. */}}
{{- define "onepiece.validate" -}}
{{- $values := .Values -}}
{{- $api := .Capabilities.APIVersions -}}
{{- range $name, $image := $values.images -}}
{{- if kindIs "map" $image -}}
{{- if eq (get $image "tag" | default "") "latest" -}}
{{- fail (printf "images.%s.tag is latest, which changes under a running release; give a version, or images.%s.digest" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.trial.kafka.enabled $values.kafka.bootstrapServers -}}
{{- fail "trial.kafka.enabled is true and kafka.bootstrapServers is given; give one of them" -}}
{{- end -}}
{{- if and $values.trial.redis.enabled $values.redis.address -}}
{{- fail "trial.redis.enabled is true and redis.address is given; give one of them" -}}
{{- end -}}
{{- $needsKafka := or $values.collector.enabled $values.historyConsumer.enabled $values.anchors.enabled $values.router.enabled $values.shop.itemCurrency -}}
{{- if and $needsKafka (not (include "onepiece.bootstrapServers" .)) -}}
{{- fail "kafka.bootstrapServers is empty; give the brokers as host:port, or set trial.kafka.enabled=true to try out" -}}
{{- end -}}
{{- if and $values.trial.kafka.enabled (ne $values.kafka.securityProtocol "PLAINTEXT") -}}
{{- fail (printf "trial.kafka.enabled is true and kafka.securityProtocol is %s; the Kafka for trying out knows PLAINTEXT only" $values.kafka.securityProtocol) -}}
{{- end -}}
{{- if and $values.kafka.ca.existingSecret (not (hasSuffix "SSL" $values.kafka.securityProtocol)) -}}
{{- fail (printf "kafka.ca.existingSecret is given and kafka.securityProtocol is %s, which is not encrypted; set it to SSL or SASL_SSL" $values.kafka.securityProtocol) -}}
{{- end -}}
{{- $needsRedis := or $values.historyConsumer.enabled $values.anchors.enabled $values.serving.enabled -}}
{{- if and $needsRedis (not (include "onepiece.redisAddress" .)) -}}
{{- fail "redis.address is empty; give host:port, or set trial.redis.enabled=true to try out" -}}
{{- end -}}
{{- if and $values.trial.redis.enabled (or $values.redis.tls.enabled $values.redis.username $values.redis.password.existingSecret) -}}
{{- fail "trial.redis.enabled is true and redis has a user, a password or TLS; the Redis for trying out has none: take them out" -}}
{{- end -}}
{{- if and $values.redis.username (not $values.redis.password.existingSecret) -}}
{{- fail (printf "redis.username is %s without a password; give redis.password.existingSecret" $values.redis.username) -}}
{{- end -}}
{{- if and $values.redis.tls.caSecret (not $values.redis.tls.enabled) -}}
{{- fail "redis.tls.caSecret is given and redis.tls.enabled is false; set redis.tls.enabled=true" -}}
{{- end -}}
{{- $scaling := $values.historyConsumer.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "historyConsumer.autoscaling.minReplicas is %d, more than maxReplicas (%d); lower it" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if $values.historyConsumer.enabled -}}
{{- $most := ternary (int $values.historyConsumer.replicas) (int $scaling.maxReplicas) (eq $scaling.kind "none") -}}
{{- if gt $most (int $values.kafka.numPartitions) -}}
{{- fail (printf "historyConsumer may have %d pods and kafka.numPartitions is %d: the others would be idle; lower historyConsumer.replicas or autoscaling.maxReplicas" $most (int $values.kafka.numPartitions)) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (not ($api.Has "keda.sh/v1alpha1/ScaledObject")) -}}
{{- fail "historyConsumer.autoscaling.kind is keda and the cluster has no keda.sh/v1alpha1; install KEDA, or set the kind to hpa (with `helm template`: --api-versions keda.sh/v1alpha1/ScaledObject)" -}}
{{- end -}}
{{- end -}}
{{- if $values.serving.enabled -}}
{{- include "onepiece.validateServing" . -}}
{{- end -}}
{{- include "onepiece.validateRoutes" . -}}
{{- include "onepiece.validateRollout" . -}}
{{- include "onepiece.validateJobs" . -}}
{{- end -}}

{{- define "onepiece.validateJobs" -}}
{{- $values := .Values -}}
{{- range $name := list "materialize" "featureCheck" "skew" "release" "report" -}}
{{- if (get $values.jobs $name).enabled -}}
{{- if not (and (include "onepiece.bootstrapServers" $) (include "onepiece.redisAddress" $)) -}}
{{- fail (printf "jobs.%s.enabled is true and Kafka or Redis has no address; give kafka.bootstrapServers and redis.address" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $values.jobs.report -}}
{{- if .enabled -}}
{{- if not $values.router.plan -}}
{{- fail "jobs.report.enabled is true and router.plan is empty; give the plan that ran" -}}
{{- end -}}
{{- if le (int64 .toMs) (int64 .fromMs) -}}
{{- fail (printf "jobs.report.fromMs is %d and toMs %d; give the start and the end of the live phase, in Unix milliseconds" (int64 .fromMs) (int64 .toMs)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $monitoring := $values.monitoring -}}
{{- if or $monitoring.podMonitor.enabled $monitoring.rules.enabled -}}
{{- if not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor") -}}
{{- fail "monitoring.podMonitor or monitoring.rules is enabled and the cluster has no monitoring.coreos.com/v1; install the Prometheus operator, or disable them (with `helm template`: --api-versions monitoring.coreos.com/v1/PodMonitor)" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "onepiece.validateServing" -}}
{{- $serving := .Values.serving -}}
{{- $api := .Capabilities.APIVersions -}}
{{- if not $serving.arms -}}
{{- fail "serving.arms is empty; give at least one, as serving.arms.a.release.path, or set serving.enabled=false" -}}
{{- end -}}
{{- if not $serving.stages.recommend.enabled -}}
{{- fail "serving.stages.recommend.enabled is false; it answers whatever is not split off: set it to true, or serving.enabled=false" -}}
{{- end -}}
{{- if gt (int $serving.replicas.min) (int $serving.replicas.max) -}}
{{- fail (printf "serving.replicas.min is %d, more than max (%d); lower it" (int $serving.replicas.min) (int $serving.replicas.max)) -}}
{{- end -}}
{{- $total := 0 -}}
{{- range $name, $arm := $serving.arms -}}
{{- $total = add $total (int $arm.weight) -}}
{{- if and $arm.release.storageUri (or $arm.release.path $arm.release.claim) -}}
{{- fail (printf "serving.arms.%s.release has a storageUri and a claim or path; give one of them" $name) -}}
{{- end -}}
{{- if not (or $arm.release.storageUri $arm.release.path) -}}
{{- fail (printf "serving.arms.%s.release names no place; give path (a folder in the claim) or storageUri" $name) -}}
{{- end -}}
{{- with $arm.replicas -}}
{{- if gt (int .min) (int .max) -}}
{{- fail (printf "serving.arms.%s.replicas.min is %d, more than max (%d); lower it" $name (int .min) (int .max)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (int $total) 0 -}}
{{- fail "serving.arms have weight 0 each: nobody would answer; give one of them more" -}}
{{- end -}}
{{- range $stage, $key := include "onepiece.stages" . | fromJson -}}
{{- $host := (get $serving.stages $key).host -}}
{{- if and (eq $host "kserve") (not ($api.Has "serving.kserve.io/v1beta1/InferenceService")) -}}
{{- fail (printf "serving.stages.%s.host is kserve and the cluster has no serving.kserve.io/v1beta1; install KServe, or set the host to ray (with `helm template`: --api-versions serving.kserve.io/v1beta1/InferenceService)" $key) -}}
{{- end -}}
{{- if eq $host "ray" -}}
{{- if not ($api.Has "ray.io/v1/RayService") -}}
{{- fail (printf "serving.stages.%s.host is ray and the cluster has no ray.io/v1; install the KubeRay operator, or set the host to kserve (with `helm template`: --api-versions ray.io/v1/RayService)" $key) -}}
{{- end -}}
{{- range $name, $arm := $serving.arms -}}
{{- if $arm.release.storageUri -}}
{{- fail (printf "serving.arms.%s.release.storageUri is fetched by KServe only and serving.stages.%s.host is ray; give release.claim and release.path, or set the host to kserve" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "item_currency" -}}
{{- if hasKey $serving.settings $key -}}
{{- fail "serving.settings.item_currency is given; give shop.itemCurrency, which the jobs read, too" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "onepiece.validateRoutes" -}}
{{- $values := .Values -}}
{{- $gateway := $values.routes.gateway -}}
{{- if $values.routes.enabled -}}
{{- if not $values.serving.enabled -}}
{{- fail "routes.enabled is true and serving.enabled is false: the routes would lead nowhere; set routes.enabled=false" -}}
{{- end -}}
{{- if not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/GRPCRoute") -}}
{{- fail "routes.enabled is true and the cluster has no gateway.networking.k8s.io/v1; install the Gateway API's CRDs and a gateway controller, or set routes.enabled=false (with `helm template`: --api-versions gateway.networking.k8s.io/v1/GRPCRoute)" -}}
{{- end -}}
{{- if and $gateway.create (not $gateway.className) -}}
{{- fail "routes.gateway.create is true and routes.gateway.className is empty; give the class, such as eg for Envoy Gateway" -}}
{{- end -}}
{{- if and $gateway.create $gateway.namespace (ne $gateway.namespace .Release.Namespace) -}}
{{- fail (printf "routes.gateway.create is true and routes.gateway.namespace is %s; the chart makes it in the release's namespace: leave it empty" $gateway.namespace) -}}
{{- end -}}
{{- if not (or $gateway.create $gateway.name) -}}
{{- fail "routes.enabled is true without a gateway; give routes.gateway.name, or set routes.gateway.create=true" -}}
{{- end -}}
{{- end -}}
{{- if and $gateway.tlsSecret (not $gateway.create) -}}
{{- fail "routes.gateway.tlsSecret is given and routes.gateway.create is false; the certificate belongs to the gateway: set create=true or take it out" -}}
{{- end -}}
{{- if $values.router.enabled -}}
{{- if not $values.serving.enabled -}}
{{- fail "router.enabled is true and serving.enabled is false: nobody would answer; set serving.enabled=true" -}}
{{- end -}}
{{- if not $values.router.plan -}}
{{- fail "router.plan is empty; give the plan, such as `onepiece experiment plan` prints it" -}}
{{- end -}}
{{- if $values.router.layer -}}
{{- $found := dict -}}
{{- range $values.router.plan.layers -}}
{{- if eq .name $values.router.layer }}{{ $found = . }}{{ end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "router.layer is %s, which is no layer of router.plan; name one of them" $values.router.layer) -}}
{{- end -}}
{{- range $found.arms -}}
{{- if not (hasKey $values.serving.arms .name) -}}
{{- fail (printf "router.layer is %s and serving.arms has no %s, which is an arm of that layer; add it, or rename one of them" $values.router.layer .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.router.gateway (not $values.networkPolicy.servingFrom) $values.networkPolicy.enabled -}}
{{- fail "router.gateway is given and networkPolicy.servingFrom is empty: the router could not reach the gateway; say where the gateway is" -}}
{{- end -}}
{{- end -}}
{{- end -}}
