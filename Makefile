# `make demo` and `make test` set up all that they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-fast evidence coverage lint format docs web bench clean

demo: $(VENV)/demo-ready
	$(BIN)/vitarium demo

# one worker more than cores, for some tests wait for processes of theirs; slow files come first
# (tests/conftest.py), so that no worker is left alone with one at the end
PYTEST = $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --numprocesses \
	$(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count()) + 1)')

test: $(VENV)/test-ready
	$(PYTEST) -m "(slow or not slow) and not evidence" --durations=10

test-fast: $(VENV)/test-ready
	$(PYTEST)

# what takes too long for every change: every bit of a zoo flipped, and the like
evidence: $(VENV)/test-ready
	$(BIN)/python -m pytest -m evidence

# half as long again: each line is watched, in subprocesses, too
coverage: $(VENV)/test-ready
	$(PYTEST) -m "(slow or not slow) and not evidence" --cov --cov-report=term

lint: $(VENV)/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/test-ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the tables of plug-ins, from the registry, and the API reference, from docstrings
docs: $(VENV)/test-ready
	$(BIN)/python tools/plugin_tables.py
	$(BIN)/python tools/api_reference.py

# the explorer's page, from web/ into the package; needs Node.js, which users do not. Not `npm ci`:
# it refuses a lock file without an optional package for Windows that the registry does not resolve
web:
	cd web && npm install --no-save --no-audit --no-fund && npm run check && npm run build

bench: $(VENV)/test-ready
	$(BIN)/python benchmarks/growing.py
	$(BIN)/python benchmarks/loop_overhead.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/listing.py
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/pairwise_weights.py
	$(BIN)/python benchmarks/soup.py
	$(BIN)/python benchmarks/similarity.py
	$(BIN)/python benchmarks/matching.py
	$(BIN)/python benchmarks/lineage_accuracy.py
	$(BIN)/python benchmarks/multiplexing.py
	$(BIN)/python benchmarks/adapting.py
	$(BIN)/python benchmarks/accumulation.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/exploring.py
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "vitarium needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vitarium into $(VENV) (torch and its libraries: some minutes, once)"
	$(PIP) --editable '.[study,explore]'
	@touch $@

$(VENV)/test-ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vitarium with its development tools into $(VENV) (some minutes, once)"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/demo-ready
