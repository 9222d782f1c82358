# Everything runs from .venv, which is built once and again whenever pyproject.toml or constraints.txt changes.
# BLOWOUT_CACHE (default ~/.cache/blowout) holds the compiled engine: keep it between checkouts and `make` starts at once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOOLS := .venv/.ready-tools
WORKERS ?= 2
SOURCES := sim loadtest tests $(wildcard benchmarks)

.DEFAULT_GOAL := help
.PHONY: help demo test test-vllm lint fmt warm bench results clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blowout needs Python 3.11 or newer; set PYTHON=...")'
	@echo "building .venv (once; a minute or two)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[loadtest]'
	@touch $@

$(TOOLS): $(READY)
	@echo "adding what tests and load tests need (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,loadtest,dask]'
	@touch $@

warm: $(READY) ## compile the engine, if this machine has not yet
	@$(BIN)/python -m sim.engine

demo: warm ## play scenarios/kv-cliff.yaml: P99 explodes, P50 hardly moves
	@$(BIN)/blowout run scenarios/kv-cliff.yaml
	@run=$$(ls -td results/kv-cliff/*/ | head -n 1); \
	echo; echo "the figures:"; ls -1 "$$run"figures/*.png | sed 's/^/  /'; \
	echo "the report, one file to open in a browser:"; echo "  $${run}report.html"

test: lint warm $(TOOLS) ## lint, types and every test: what .ci/run runs
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-vllm: warm $(TOOLS) ## the load tester against a real vLLM on this CPU, which it sets up: minutes, and 3 GB the first time
	@$(BIN)/python -m benchmarks.real_vllm.install
	$(BIN)/pytest benchmarks/real_vllm

lint: $(TOOLS) ## style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy sim loadtest

fmt: $(TOOLS) ## format, and mend what can be mended without thought
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: warm ## how fast, on this machine
	$(BIN)/python benchmarks/speed.py

results: warm ## measure the 57 claims into results/seed/, then play every shipped scenario into results/
	@$(BIN)/blowout reproduce
	@set -e; for scenario in scenarios/*.yaml; do echo "== $$scenario"; $(BIN)/blowout run "$$scenario"; done

clean: ## remove .venv, caches and build leftovers; results/ and the compiled engine stay
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find sim loadtest tests $(wildcard benchmarks) -name __pycache__ -prune -exec rm -rf {} +
