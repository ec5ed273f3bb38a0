# SPDX-License-Identifier: MIT
# make demo · make serve · make test · make bench · make lint

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
MODEL  ?= recipes/tiny-kimi
RECIPE ?= recipes/tiny-kimi/agg.yaml
DYNAMO ?= 1.6.1

.DEFAULT_GOAL := help
.PHONY: help demo serve test bench lint format install clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: install  ## a multi-turn conversation through Dynamo's frontend and two workers
	@$(PY) -m dynamo_tokenspeed.launch demo $(RECIPE)

serve: install  ## leave a frontend and a worker running (MODEL=<dir>)
	@$(PY) -m dynamo_tokenspeed.launch serve $(RECIPE) --model $(MODEL)

test: $(VENV)/.test  ## every test, two files at a time
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: install $(VENV)/.test  ## every benchmark, peers beside us where installed
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

lint: $(VENV)/.lint install  ## ruff, mypy, import-linter, clang-format, clang-tidy
	@$(PY) scripts/lint.py

format: $(VENV)/.lint  ## rewrite sources in the house style
	@$(PY) scripts/lint.py --fix

install: $(VENV)/.installed  ## .venv with everything that demo and serve need

clean:  ## remove the environment and every build product
	rm -rf $(VENV) .venvs build dist

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python {sys.version.split()[0]} is too old: dynamo-tokenspeed needs 3.11 or newer (make PYTHON=/path/to/python3.11)")'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.packages: $(VENV)/.python constraints.txt requirements/runtime.txt requirements/dynamo.txt requirements/build.txt
	@echo "Installing packages"
	@$(PIP) install --quiet --progress-bar on -c constraints.txt -r requirements/runtime.txt -r requirements/dynamo.txt -r requirements/build.txt
	@$(PIP) install --quiet --no-deps ai-dynamo==$(DYNAMO) ai-dynamo-runtime==$(DYNAMO)
	@touch $@

$(VENV)/.installed: $(VENV)/.packages pyproject.toml CMakeLists.txt
	@$(PY) scripts/build.py
	@touch $@

$(VENV)/.test: $(VENV)/.installed constraints.txt requirements/test.txt
	@$(PIP) install --quiet -c constraints.txt -r requirements/test.txt
	@$(PIP) install --quiet --no-deps -c constraints.txt tokenspeed-mla quack-kernels
	@touch $@

$(VENV)/.lint: $(VENV)/.python constraints.txt requirements/lint.txt
	@$(PIP) install --quiet -c constraints.txt -r requirements/lint.txt
	@touch $@
