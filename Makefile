# hardmine: `make demo` and `make test` create the environment themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# tests that start no Ray share the cores, four at most: each process imports torch and numba
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

# the tools of `make audit`, in an environment of their own: they are no part of what they look at
AUDIT := .venv-audit
AUDIT_TOOLS := pip-audit==2.10.1 cyclonedx-bom==7.5.0 pip-licenses==5.5.5

.PHONY: help env demo test unit gpu-check check lint types imports format settings audit chaos clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## create .venv with everything pinned

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hardmine needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@# torch first and pinned: whatever asks for torch later is content with what is there
	@$(BIN)/pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: env ## the whole loop on a generated catalogue, with an arm of random negatives beside it
	@$(BIN)/hardmine demo

test: check ## format, lint, types, import directions and all tests
	@$(BIN)/python -m pytest $(PARALLEL) -m "not cluster"
	@# two processes: one shares a local Ray, beside it the other starts ranks of training (tests/conftest.py)
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m "cluster and not faults"

unit: env ## the fast tests only: no Ray, no DeepSpeed, no real model, no browser
	@$(BIN)/python -m pytest $(PARALLEL) -m "not cluster and not slow"

gpu-check: env ## what needs a GPU, in one table; says so where there is none
	@$(BIN)/python -m benchmarks.gpu

check: lint types imports ## lint, types and import directions

lint: env
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run make format"; exit 1; }
	@$(BIN)/ruff check .

types: env
	@$(BIN)/mypy

imports: env
	@$(BIN)/lint-imports

format: env ## format the code, sort imports and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

settings: env ## write docs/settings.md from the docstrings of the settings
	@$(BIN)/python -m jobs.config.reference > docs/settings.md

audit: env ## known vulnerabilities, licences, and a bill of materials (sbom.json) of all that is installed
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/pip install --quiet $(AUDIT_TOOLS); }
	@# the last word: what is of no licence that lets you ship it
	@$(AUDIT)/bin/pip-licenses --python=$(BIN)/python --summary --partial-match --fail-on="GPL;AGPL;SSPL;BUSL"
	@$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json
	@# strict: a package that the advisory database does not answer for is an error, not a pass
	@$(AUDIT)/bin/pip-audit --strict --skip-editable --progress-spinner off --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

SEED ?= 1
FAULTS ?= 20
chaos: env ## kill drivers, workers and nodes at random (SEED=…, FAULTS=…); what the runs leave must not change
	@$(BIN)/python -m pytest -m faults
	@$(BIN)/python -m benchmarks.cluster.chaos --seed $(SEED) --faults $(FAULTS)

clean: ## remove the environment and caches, not the runs
	@rm -rf $(VENV) $(AUDIT) sbom.json .pytest_cache .mypy_cache .ruff_cache *.egg-info
