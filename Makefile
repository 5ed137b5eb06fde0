# The few things people do. Everything is installed into .venv; nothing else on the machine changes.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint starter bench clean

demo: .venv/studio  ## the main job, from a brief to an exported pack
	$(BIN)/platemark demo

test: .venv/dev lint tests/c2pa_ts/node_modules  ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

# A C2PA reader that shares no code with ours; without npm its tests say that they were not run.
tests/c2pa_ts/node_modules: tests/c2pa_ts/package.json
	if command -v npm; then npm install --prefix tests/c2pa_ts --no-package-lock --ignore-scripts --silent; fi

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

starter: .venv/studio  ## retrain the starter models from nothing
	$(BIN)/python -m starter.train

bench: .venv/studio  ## side-by-side measurements
	$(BIN)/python -m bench.throughput
	$(BIN)/python bench/audit.py
	$(BIN)/python bench/export.py
	$(BIN)/python -m bench.mixed
	$(BIN)/python bench/memory.py
	$(BIN)/python -m bench.checks
	$(BIN)/python -m bench.copying
	$(BIN)/python bench/references.py
	$(BIN)/python bench/replay.py
	$(BIN)/python bench/ledger.py
	$(BIN)/python -m bench.recovery
	$(BIN)/python -m bench.verify
	$(BIN)/python -m bench.fuzz

clean:
	rm -rf .venv workspace

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Platemark needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv

.venv/studio: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a few minutes, some 6 GB: torch comes with its GPU libraries) ..."
	$(INSTALL) -e '.[studio]'
	@touch $@

.venv/dev: .venv/studio
	$(INSTALL) -e '.[studio,dev]'
	@touch $@
