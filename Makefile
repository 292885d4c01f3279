# `make demo` and `make test` set up .venv by themselves; they need Python 3.11 or later and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check faults lint types format clean

demo: $(READY)  ## the whole tour on the embedded stories
	$(BIN)/holo demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n auto

check: lint types test  ## what must hold before a commit

faults: $(READY)  ## the long fault bench, about half an hour; resumes where it was stopped
	$(BIN)/python -m benchmarks.faults

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone: the version pinned here is chosen before anything else asks for one
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,hf]"
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache build dist
