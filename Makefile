# The two commands a newcomer needs: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Tests run in this many processes; one numeric thread each keeps them from fighting over cores.
TEST_WORKERS ?= 2
# Further keys of `make train`, such as ARGS="seed=1 total_steps=1_000_000", or options of `make bench`.
ARGS ?=

.PHONY: help setup core train test test-slow test-cluster bench check docs format wheel clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# An environment without pip is one whose making failed, as it does where Debian's python3-venv is missing.
$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; v = sys.version_info[:2]; v < (3, 11) and sys.exit( \
		"ReLIC needs Python 3.11 or newer, $(PYTHON) is %d.%d. Select one: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.setup: $(VENV)/.core
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.setup
	$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e '.[docs]'
	@touch $@

# Numba's cache does not notice that a kernel which another file inlines has changed.
$(VENV)/.kernels: $(VENV)/.core $(shell find envs relic -name '*.py')
	find envs relic -name '*.nb[ci]' -delete
	@touch $@

core: $(VENV)/.core $(VENV)/.kernels  ## Install what training needs into .venv

setup: $(VENV)/.setup $(VENV)/.kernels  ## Install everything that can be tested on a CPU into .venv

train: core  ## Train the default agent; ends with plots
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.test $(VENV)/.kernels  ## Run the fast tests
	$(BIN)/python -m pytest -m "not slow and not cluster" -n $(TEST_WORKERS) --dist loadfile

test-slow: setup test-cluster  ## Run the slow tests
	$(BIN)/python -m pytest -m "slow and not cluster" -n $(TEST_WORKERS) --dist loadfile

# One after the other: Ray gives its own processes seconds to start, which a busy machine does not
# have.
test-cluster: setup  ## Run the tests that start Ray
	$(BIN)/python -m pytest -m cluster

bench: setup $(VENV)/.bench  ## Run every benchmark on this machine; ARGS="--quick" takes minutes
	$(BIN)/python benchmarks/run_all.py $(ARGS)

check: setup  ## Format, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/pyright

docs: $(VENV)/.docs  ## Build the documentation into site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: setup  ## Format the code and apply safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.core  ## Build the package into dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache dist
