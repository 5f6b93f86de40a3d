# The stream image: imports events, folds them into histories, writes features (extra `stream`).
# Build from the repository's root: docker build -f components/stream.Dockerfile .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG UV=uv==0.13.9

FROM ${PYTHON_IMAGE} AS dependencies
ARG UV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON=/opt/onepiece/bin/python
WORKDIR /src
COPY requirements.lock overrides.txt ./
# The locked versions of this image's extra alone. Code comes after them: a change of it makes a small layer anew.
COPY pyproject.toml ./
RUN python -m pip install --quiet --no-cache-dir --target /tmp/uv $UV && export PATH=/tmp/uv/bin:$PATH \
 && uv venv --quiet --python python3.11 /opt/onepiece \
 && uv pip compile --quiet --extra stream --constraint requirements.lock --override overrides.txt \
      --generate-hashes --output-file image.txt pyproject.toml \
 && uv pip sync --no-cache --require-hashes image.txt \
 && uv pip install --no-cache setuptools==$(sed -n 's/^setuptools==\([^ ]*\).*/\1/p' requirements.lock) \
 && rm -r /tmp/uv

FROM dependencies AS build
ARG UV
RUN python -m pip install --no-cache-dir $UV
COPY README.md LICENSE ./
COPY components/onepiece components/onepiece
RUN UV_PYTHON=/opt/onepiece/bin/python uv pip install --no-cache --no-deps --no-build-isolation --compile-bytecode --prefix /code .

FROM dependencies
RUN useradd --uid 65532 --no-create-home --home-dir /tmp onepiece
COPY --from=build /code /opt/onepiece
COPY feature_repo /opt/onepiece/share/feature_repo
ENV PATH=/opt/onepiece/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["onepiece"]
CMD ["features", "consume", "--help"]
