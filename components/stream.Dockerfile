# The stream image: imports events, folds them into histories, writes features (extra `stream`).
# Build from the repository's root: docker build -f components/stream.Dockerfile .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG UV=uv==0.13.9 UV_LINK_MODE=copy UV_PYTHON=/opt/onepiece/bin/python
# Bytecode that is checked by nothing holds no times: two builds have the same bytes.
ARG UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1

FROM ${PYTHON_IMAGE} AS dependencies
ARG UV UV_LINK_MODE UV_PYTHON UV_COMPILE_BYTECODE PYC_INVALIDATION_MODE PYTHONHASHSEED PYTHONDONTWRITEBYTECODE
WORKDIR /src
COPY requirements.lock overrides.txt ./
# The locked versions of this image's extra. Code comes after them: a change of it makes a small layer anew.
COPY pyproject.toml ./
RUN python -m pip install --quiet --no-cache-dir --target /tmp/uv $UV && export PATH=/tmp/uv/bin:$PATH \
 && uv venv --quiet --python python3.11 /opt/onepiece \
 && uv pip compile --quiet --extra stream --constraint requirements.lock --override overrides.txt \
      --generate-hashes --output-file image.txt pyproject.toml \
 && uv pip sync --no-cache --require-hashes image.txt \
 && uv pip install --no-cache setuptools==$(sed -n 's/^setuptools==\([^ ]*\).*/\1/p' requirements.lock) \
 && rm -r /tmp/uv

FROM dependencies AS build
ARG UV UV_LINK_MODE UV_PYTHON UV_COMPILE_BYTECODE PYC_INVALIDATION_MODE PYTHONHASHSEED PYTHONDONTWRITEBYTECODE
RUN python -m pip install --no-cache-dir $UV
COPY components/sbom.lock ./
RUN uv venv --python python3.11 /opt/sbom \
 && uv pip sync --no-cache --python /opt/sbom/bin/python --require-hashes sbom.lock
COPY README.md LICENSE ./
COPY components/onepiece components/onepiece
# What uv notes for its own cache is the time of this build; the SBOM is of all that is installed.
RUN uv pip install --no-cache --no-deps --no-build-isolation --prefix /code . \
 && (cd /code/lib/python3.11/site-packages/onepiece_platform-*.dist-info \
     && rm uv_cache.json && sed -i '/uv_cache\.json/d' RECORD) \
 && cp -r /code/. /opt/onepiece/ \
 && mkdir -p /code/share \
 && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
      --output-file /code/share/sbom.cdx.json /opt/onepiece/bin/python

FROM dependencies
# useradd writes the day; the time of the build would be another one in each.
ARG SOURCE_DATE_EPOCH=0
RUN useradd --uid 65532 --no-create-home --home-dir /tmp onepiece
COPY --from=build /code /opt/onepiece
COPY feature_repo /opt/onepiece/share/feature_repo
ENV PATH=/opt/onepiece/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["onepiece"]
CMD ["features", "consume", "--help"]
