# Runs beside Envoy and lets it end in order.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY envoy-gateway /usr/local/bin/envoy-gateway
USER 65532:65532
