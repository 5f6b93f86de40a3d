# The train image: trains and evaluates bundles with Ray Train (extra `train`).
# Build from the repository's root: docker build -f components/train.Dockerfile .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN python -m pip install --no-cache-dir uv==0.13.9
WORKDIR /src
# No bytecode: it holds times, so that no two builds would be alike.
ENV UV_LINK_MODE=copy UV_PYTHON=/opt/onepiece/bin/python PYTHONDONTWRITEBYTECODE=1
RUN uv venv --python python3.11 /opt/onepiece
COPY components/sbom.lock ./
RUN uv venv --python python3.11 /opt/sbom \
 && uv pip sync --no-cache --python /opt/sbom/bin/python --require-hashes sbom.lock
COPY pyproject.toml requirements.lock overrides.txt ./
# The locked versions of this image's extra alone, then the code: a change of code reuses the layer.
RUN uv pip compile --quiet --extra train --constraint requirements.lock --override overrides.txt \
      --generate-hashes --output-file image.txt pyproject.toml \
 && uv pip sync --no-cache --require-hashes image.txt \
 && uv pip install --no-cache setuptools==$(sed -n 's/^setuptools==\([^ ]*\).*/\1/p' requirements.lock)
COPY README.md LICENSE ./
COPY components/onepiece components/onepiece
# What uv notes for its own cache is the time of this build; the SBOM is of all that is installed.
RUN uv pip install --no-cache --no-deps --no-build-isolation . \
 && (cd /opt/onepiece/lib/python3.11/site-packages/onepiece_platform-*.dist-info \
     && rm uv_cache.json && sed -i '/uv_cache\.json/d' RECORD) \
 && mkdir -p /opt/onepiece/share \
 && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
      --output-file /opt/onepiece/share/sbom.cdx.json /opt/onepiece/bin/python

FROM ${PYTHON_IMAGE}
# useradd writes the day; the time of the build would be another one in each.
ARG SOURCE_DATE_EPOCH=0
RUN useradd --uid 65532 --no-create-home --home-dir /tmp onepiece
COPY --from=build /opt/onepiece /opt/onepiece
COPY feature_repo /opt/onepiece/share/feature_repo
COPY ray_jobs /opt/onepiece/share/ray_jobs
ENV PATH=/opt/onepiece/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["onepiece"]
CMD ["training", "run", "--help"]
