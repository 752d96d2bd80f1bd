# The README's commands.
PYTHON ?= python3
WORKERS ?= auto
BIN := .venv/bin

# Each process that the tests start would compile the package anew, which takes a second.
test: export PYTHONDONTWRITEBYTECODE =

.PHONY: digits test check
digits: .venv/installed
	$(BIN)/simclic run benchmarks/digits.py

test: .venv/installed
	exec $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10 --durations-min=1

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "installing into .venv: a few GB, most of it torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
