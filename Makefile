# Every target builds the environment first, once; it is built again when pyproject.toml or constraints.txt change.

PYTHON  ?= python3
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

# The parallelism is that of the workers: one thread each.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST  := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# One run of pytest for each installed framework; what needs no framework is in the first. At the end: which ran.
# Many processes import the same modules: they are compiled once.
SUITE   := PYTHONDONTWRITEBYTECODE= $(THREADS) MPLBACKEND=Agg $(BIN)/python -m tests.each_framework $(PYTEST)

.DEFAULT_GOAL := help
.PHONY: help audit test slow check format bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

audit: $(STAMP)  ## the demonstration: train on the digits, report the kinks met, into audit/
	$(BIN)/nonsmooth study digits -o audit

test: $(STAMP)  ## the tests and the examples of the docstrings, once for each installed framework
	$(SUITE)

slow: $(STAMP)  ## the exhaustive runs that `make test` leaves out
	$(SUITE) -m slow

check: $(STAMP)  ## format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy src

format: $(STAMP)  ## rewrite the sources in the project's format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(STAMP)  ## the measurements: every script of benchmarks/
	@set -e; for script in benchmarks/*.py; do \
	    [ -e "$$script" ] || { echo "benchmarks/ holds no script"; exit 1; }; \
	    echo "== $$script"; $(BIN)/python "$$script"; \
	done

clean:  ## remove what the other targets made, except the environment
	rm -rf audit build dist benchmarks/output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name $(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone, so that a wheel at hand (for one kind of processor, say) is taken before the registry's.
# An environment made by hand has no stamp: it is kept, and installed into.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(INSTALL) -e '.[torch,test,lint]'
	touch $@
