# `make demo` and `make test` do all their own set-up: one .venv with pinned dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup docs demo demo-compare demo-pir results results-recheck results-test results-tables test test-all test-peer test-compat test-space check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(READY): constraints.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "vsehub needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[test]"
	touch $(READY)

setup: $(READY)  ## make .venv with everything that the targets below need

demo: $(READY)  ## train D2S-VSE on generated scenes, write a Hub folder, search it
	$(BIN)/vsehub demo

demo-compare: $(READY)  ## D2S-VSE over 5 seeds beside a sparse-only baseline, at equal steps
	$(BIN)/vsehub demo --compare

demo-pir: $(READY)  ## train PIR on generated overhead scenes, draw what it believes
	$(BIN)/vsehub demo-pir

RESULTS = OMP_NUM_THREADS=1 $(BIN)/python benchmarks/results.py --data "$(DATA)" --backbones "$(BACKBONES)" --text "$(MINILM)"
results: $(READY)  ## the runs of docs/protocol.md that are missing, then the tables of docs/results.md (DATA= BACKBONES= MINILM=)
	$(RESULTS) $(ARGS)

results-recheck: $(READY)  ## one seed of each row that is older than the code, again
	$(RESULTS) --recheck $(ARGS)

results-test: $(READY)  ## the kept weights of all runs on the test splits, once; trains nothing
	$(RESULTS) --test $(ARGS)

results-tables: $(READY)  ## the tables alone, from docs/runs.jsonl; rows older than the code are marked
	$(BIN)/python benchmarks/results.py --tables

check: $(READY)  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .mypy && ln -sfn .. .mypy/vsehub
	$(BIN)/mypy

# Tests run in two processes with a thread each: on two cores, half the time. JOBS=0 runs them in this one. Files come in
# the order of tests/conftest.py: by their number of tests, a few that take minutes would come last.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: check  ## lint and the fast tests
	$(PYTEST)

test-all: check  ## all tests, the slow ones too
	$(PYTEST) -m "slow or not slow"

docs: $(READY)  ## the documentation as a site, in site/; warnings are errors
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[docs]"
	@mkdir -p .mypy && ln -sfn .. .mypy/vsehub
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

test-peer: $(READY)  ## transformers' own suites over our classes (fetches their source distribution); ARGS="-k processor"
	$(BIN)/python tests/peer/run_peer.py $(ARGS)

COMPAT ?= 5.0.0 5.12.1 5.23.0
test-compat: $(READY)  ## the Hub round trip on the oldest, a middle and a recent transformers
	@set -e; for version in $(COMPAT); do \
		echo "transformers $$version"; \
		VSEHUB_FLOOR_VERSION=$$version $(BIN)/python -m pytest -q -m slow -k oldest tests/hub_cards; \
	done

test-space: $(READY)  ## the page of `vsehub serve` and the Space in headless Chromium (needs `chromium`)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt playwright
	SHOTS=runs/space OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/serving/test_page.py tests/hub_cards/demo

clean:  ## remove environments, caches and runs
	rm -rf $(VENV) .mypy runs site
