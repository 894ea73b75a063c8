# Everything starts from nothing: python3 (3.10 or newer), make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow lint format bench vectors clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[prove,s3,test,lint,bench]'
	touch $(STAMP)

# Proves a real handwritten digit on two Ray workers and verifies it. Keys stay in .cache.
demo: $(STAMP)
	ZKML_RAY_CACHE=.cache/demo $(BIN)/zkml-ray demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/commitment_cost.py --out benchmarks/results/commitment_cost.json
	$(BIN)/python benchmarks/rounding_slack.py --out benchmarks/results/rounding_slack.json

# The Poseidon vectors of the independent oracle; its own environment (docs/adr/0002).
vectors:
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install --quiet -r tests/vectors/requirements-oracle.txt
	.venv-oracle/bin/python tests/vectors/generate_poseidon_vectors.py

clean:
	rm -rf $(VENV) .venv-oracle .cache build dist
