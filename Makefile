# Every command works from a clean clone with nothing but Python 3.11+ (with venv and pip) and make.
# Another interpreter: make test PYTHON=python3.12

PYTHON  ?= python3
VENV    := .venv
DEMO    := .demo
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
SOURCES := contracts runners toolkit conformance_tests benchmarks examples .ci

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo check format-check lint types imports docs test servers bench venv format clean python

help:  ## list these commands
	@grep -E '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1|/' \
		| while IFS='|' read -r name text; do printf '  make %-14s%s\n' "$$name" "$$text"; done

demo: python  ## see it work: a fresh environment, install, four processes share 2,000 orders, one is killed
	@rm -rf $(DEMO)
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet .
	$(DEMO)/bin/onceward demo

check: format-check lint types imports docs  ## all that needs no test run: format, lint, types, imports, docs

format-check: $(READY)  ## is the code formatted?
	$(BIN)/ruff format --check $(SOURCES)

lint: $(READY)  ## ruff's rules
	$(BIN)/ruff check $(SOURCES)

types: $(READY)  ## mypy strict, and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(READY)  ## do the arrows between the packages point one way?
	$(BIN)/lint-imports

docs: $(READY)  ## do links lead somewhere, do snippets run, is every item of the seeds accounted for?
	$(BIN)/pytest -q -p no:cacheprovider conformance_tests/tests/test_docs.py

test: $(READY) servers  ## all tests, on all cores; with CI set, a server that is missing fails instead of skipping
	$(BIN)/pytest -n auto

servers:  ## install the servers that tests need from Debian packages, where that is possible; starts none
	@.ci/servers

bench: $(READY)  ## measure against raw drivers; report in reports/bench. Servers too: make bench STORES="redis mongodb"
	$(BIN)/onceward bench $(STORES) --peers --out reports/bench

venv: $(READY)  ## make .venv with everything that development needs

format: $(READY)  ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:  ## remove everything that these commands made
	rm -rf $(VENV) $(DEMO) dist build reports .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml | python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Onceward needs Python 3.11 or later; '$(PYTHON)' is" \
			"$$($(PYTHON) --version 2>&1 || true). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' lacks venv or pip. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
