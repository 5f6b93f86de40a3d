# `make help` lists what can be made.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= demo
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
READY := $(VENV)/.ready
LEVEL ?= 2
BED := PYTHONPATH=components:tests/cluster $(BIN)/python -m bed

.PHONY: help demo services services-down test cluster-test cluster-build cluster-up cluster-down cluster-status check install lock docs format clean
.DEFAULT_GOAL := help

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(READY) ## Runs the main job: real orders in, a measured experiment out (PROFILE=quick|demo|full, KAFKA=1, ARGS="--keep-serving")
	@$(BIN)/onepiece demo --profile $(PROFILE) $(if $(KAFKA),--kafka) $(ARGS)

test: $(READY) ## Runs the whole test suite, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore-glob='tests/cluster/test_level[1-4]_*' $(ARGS)

cluster-test: $(READY) ## Runs one level of the cluster tests, builds what it needs (LEVEL=0 to 4, TEST_KUBECONFIG=a cluster of yours)
	@[ -n "$$TEST_KUBECONFIG" ] || $(BED) build --level $(LEVEL)
	$(BIN)/python -m pytest tests/cluster/test_level$(LEVEL)_*.py --junitxml build/cluster-level$(LEVEL).xml $(ARGS)

cluster-build: $(READY) ## Compiles what a level needs, unless it is in the cache: 12 minutes for level 2 (LEVEL=n)
	@$(BED) build --level $(LEVEL)

cluster-up: $(READY) ## Starts a local cluster of a level; tests use it and leave it up (LEVEL=n)
	@$(BED) up --level $(LEVEL)

cluster-down: $(READY) ## Ends that cluster, also after a crash
	@$(BED) down

cluster-status: $(READY) ## Shows what runs of it
	@$(BED) status

services: $(READY) ## Fetches and starts a real Kafka and Redis on this machine, and prints where they are
	@$(BIN)/onepiece simulation services up

services-down: $(READY) ## Stops them; their data stay
	@$(BIN)/onepiece simulation services down

check: $(READY) ## Reads only: format, lint, types, import contracts, generated docs are fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m onepiece.generated_docs check

format: $(READY) ## Formats the code and mends what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Writes the generated pages (docs/generated)
	$(BIN)/python -m onepiece.generated_docs write

install: $(READY) ## Makes .venv with the locked versions

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

lock: $(READY) ## Resolves the versions anew into requirements.lock and components/sbom.lock
	$(BIN)/uv pip compile --quiet --all-extras --override overrides.txt --generate-hashes \
	  --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --group sbom --generate-hashes \
	  --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" --output-file components/sbom.lock

clean: ## Removes the virtual environment and build products, never results
	rm -rf $(VENV) build components/*.egg-info
