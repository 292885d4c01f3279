# `make demo` and `make test` set up .venv by themselves; they need Python 3.11 or later and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := build/tools
HOLO := --no-build-isolation -e .

.PHONY: demo test check faults lint types format constraints audit package clean

demo: $(READY)  ## the whole tour on the embedded stories
	$(BIN)/holo demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

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

# Every file is checked against its hash. torch comes first and is chosen by version alone: where pip
# is given its build for CPUs, it is that one, and NVIDIA's libraries are left out.
PIP := -m pip --disable-pip-version-check
HASHED := $(PIP) install --quiet --no-deps --require-hashes
TORCH := build/torch
$(READY): pyproject.toml constraints.txt constraints-cuda.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -rf $(TORCH) && mkdir -p $(TORCH)
	sed -n '/^torch==/,/[^\\]$$/p' constraints.txt > $(TORCH)/torch.txt
	$(BIN)/python $(PIP) download --quiet --no-deps --dest $(TORCH) `sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt`
	$(BIN)/python $(HASHED) --no-index --find-links $(TORCH) -r $(TORCH)/torch.txt
	rm -rf $(TORCH)
	$(BIN)/python $(HASHED) -r constraints.txt
	$(BIN)/python -c "from importlib.metadata import version as v; exit('+cpu' not in v('torch'))" \
		|| $(BIN)/python $(HASHED) -r constraints-cuda.txt
	$(BIN)/python $(PIP) install --quiet --no-deps $(HOLO)
	touch $(READY)

constraints: $(TOOLS)  ## pins and hashes anew from pyproject.toml; UPGRADE=1 takes newer versions
	$(PYTHON) .ci/constraints.py $(TOOLS)/bin/uv

audit: $(TOOLS)  ## known vulnerabilities of the pinned packages, where the network allows
	$(PYTHON) .ci/audit.py $(TOOLS)/bin/pip-audit

$(TOOLS):
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv pip-audit

# In an environment and a folder of its own, so that nothing of this folder can stand in for what the
# wheel lacks.
TRIAL := build/package
package: $(READY)  ## wheel and sdist in dist/, and `holo demo` from the wheel alone
	rm -rf dist $(TRIAL) && mkdir -p $(TRIAL)/work
	$(BIN)/python -m hatchling build -d dist
	$(MAKE) --no-print-directory VENV=$(TRIAL)/venv HOLO="`ls dist/*.whl`" $(TRIAL)/venv/.ready
	cd $(TRIAL)/work && ../venv/bin/holo demo

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache build dist
