SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROGRAMS := operator sandboxd services
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo down test test-unit test-integration test-e2e lint format crds lock venv

help: ## Show what there is to do
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: venv ## Bring up a real cluster, install the operator and show it at work
	$(BIN)/python -m capibara_devcluster.demo

down: venv ## Stop the demo's cluster
	$(BIN)/capibara-devcluster down

test: test-unit test-integration test-e2e ## Set up and run all tests

test-unit: venv ## Unit and contract tests (no cluster, under a minute)
	$(BIN)/pytest tests/unit tests/contract -q -n 4 --dist loadfile

test-integration: venv ## Tests on a real API server, without a kubelet
	$(BIN)/pytest tests/integration -q -n 3 --dist loadfile

test-e2e: venv ## Tests on a real cluster with a kubelet
	$(BIN)/pytest tests/e2e -q

lint: venv ## Check style, types, import directions, YAML, Dockerfile and chart
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile

format: venv ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

crds: venv ## Generate the CRDs, the chart's copies and the reference from the models
	$(BIN)/python -m capibara_operator.api.crd crds
	$(BIN)/python helm/sync_chart.py
	$(BIN)/python -m capibara_operator.api.reference docs/reference.md

lock: venv ## Compile the hash-pinned locks from pyproject.toml
	$(COMPILE) requirements/build.in -o requirements/build.txt
	for program in $(PROGRAMS); do \
	  $(COMPILE) pyproject.toml --extra $$program -o requirements/$$program.txt || exit 1; done
	$(COMPILE) pyproject.toml --all-extras --group test --group lint --group build \
	  -o requirements/dev.txt

venv: $(VENV)/.ready

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } || \
	  { echo "Python's venv module is missing: sudo apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) (about two minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
