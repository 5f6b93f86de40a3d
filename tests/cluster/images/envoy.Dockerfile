# The proxy of a gateway: Envoy as it is in the Python package index.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY envoy /usr/local/bin/envoy
USER 65532:65532
