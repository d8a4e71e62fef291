# Everything here needs Linux, make and a Python of 3.11 or later; the rest goes into $(VENV),
# by pip, from pyproject.toml. Another Python beside the first: make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV ?= .venv

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Stamps: what $(VENV) holds. Installed again when pyproject.toml changes; CHECK includes DEV, and
# DEV includes DEMO.
DEMO := $(VENV)/.holds-demo
DEV := $(VENV)/.holds-dev
CHECK := $(VENV)/.holds-check
BENCH := $(VENV)/.holds-bench

# Tests run in two processes more than there are cores, since half of a run is waiting; a plain
# `pytest` runs them one after the other.
AT_ONCE = --numprocesses $$(( $$(nproc) + 2 )) --dist worksteal

# Those of the torture keep two processes busy, or wait. One may take minutes on a busy machine.
TORTURE = --numprocesses $$(nproc) --dist worksteal --override-ini faulthandler_timeout=1200

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt storm torture bench report clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "make %-7s %s\n", $$1, $$2}'

demo: $(DEMO) ## a queue at work: one job for each file of Python's standard library, one worker killed
	@$(PY) examples/demo.py $(ARGS)

test: $(DEV) ## the tests, doctests and examples; ARGS="-k lease" for some of them
	@$(PY) -m pytest $(AT_ONCE) $(ARGS)

check: $(CHECK) ## the whole gate: format, lint, types, then all that `make test` runs
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(PY) -m mypy
	@$(PY) -m basedpyright --pythonpath $(PY)
	@$(PY) -m pytest $(AT_ONCE)

fmt: $(DEV) ## format, and mend what ruff can mend
	@$(PY) -m ruff format
	@$(PY) -m ruff check --fix

storm: $(DEV) ## the long crash and stress runs
	@$(PY) -m pytest -m storm --ignore=tests/torture $(ARGS)

torture: $(DEV) ## all that machines do to a queue, at length; ARGS=tests/torture/power for some, JOBQ_SEED=… again
	@$(PY) -m pytest -m storm $(TORTURE) $(if $(filter tests/%,$(ARGS)),,tests/torture) $(ARGS)

bench: $(BENCH) ## the benchmarks, quick forms; ARGS=--full, --keep, or the names of some
	@$(PY) -m benchmarks $(ARGS)

report: $(BENCH) ## docs/benchmarks.md anew, out of the results that were kept
	@$(PY) -m benchmarks.report

clean: ## away with the virtual environment and the caches
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(DEMO): pyproject.toml
	@$(call venv)
	@echo "installing jobq into $(VENV) …"
	@$(PIP) --editable '.[progress]'
	@touch $@

$(DEV): pyproject.toml
	@$(call venv)
	@echo "installing jobq and its development tools into $(VENV) …"
	@$(PIP) --editable '.[dev]'
	@touch $(DEMO) $@

$(BENCH): pyproject.toml
	@$(call venv)
	@echo "installing jobq and what it is measured beside into $(VENV) …"
	@$(PIP) --editable '.[bench]'
	@touch $@

$(CHECK): pyproject.toml
	@$(call venv)
	@echo "installing jobq and all that checks it into $(VENV) …"
	@$(PIP) --editable '.[check]'
	@touch $(DEMO) $(DEV) $@

# A virtual environment that works, of a Python that is new enough.
define venv
$(PY) -c '' 2>/dev/null || { \
  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    echo "jobq needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1 || true)." >&2; \
    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; \
    exit 1; }; \
  $(PYTHON) -m venv --clear $(VENV); }
endef
