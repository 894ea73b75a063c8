# Everything starts from nothing: python3 (3.10 or newer), make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow test-onnx test-exports exports mutants lint format bench bench-run vectors clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[prove,report,s3,test,browser,lint,bench]'
	touch $(STAMP)

# Proves a real handwritten digit on two Ray workers and verifies it. Keys stay in .cache.
demo: $(STAMP)
	ZKML_RAY_CACHE=.cache/demo $(BIN)/zkml-ray demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# Models handed over as torch modules: torch is large, so its tests have an environment of their own.
test-exports:
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet -c constraints.txt -e '.[prove,test,exports]'
	.venv-torch/bin/python -m pytest tests/integration/test_given_models.py

# Plants one fault after the other in a copy, and fails if the tests named with it notice none of it.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants

# ONNX's own node tests, counted by operator: minutes.
test-onnx: $(STAMP)
	$(BIN)/python -m pytest -m onnx

# Networks of torch, keras, scikit-learn, xgboost and lightgbm, exported, planned and compared with
# onnxruntime, in a table: an hour. The exporters have an environment of their own.
exports: $(STAMP)
	$(PYTHON) -m venv .venv-exports
	.venv-exports/bin/python -m pip install --quiet -r tests/exports/requirements.txt
	.venv-exports/bin/python -m tests.exports.export .cache/exports
	ZKML_RAY_CACHE=.cache/exports-plans $(BIN)/python -m tests.exports.measure .cache/exports

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Tables and plots in the documents, from the stored results.
bench: $(STAMP)
	$(BIN)/python benchmarks/report.py

# Measures again: hours, on a machine that has nothing else to do. Keys stay in .cache/benchmarks.
WORKERS := 2
bench-run: $(STAMP)
	for model in digits lenet5 resnet_block encoder_block; do \
	  $(BIN)/python benchmarks/versus_ezkl.py --model $$model --workers $(WORKERS) --replace \
	    --out benchmarks/results/versus/$$model.json || exit 1; \
	  $(BIN)/python benchmarks/scaling.py --model $$model \
	    --out benchmarks/results/scaling/$$model.json || exit 1; \
	  $(BIN)/python benchmarks/accuracy.py --model $$model \
	    --out benchmarks/results/accuracy/$$model.json || exit 1; \
	done
	$(BIN)/python benchmarks/commitment_cost.py --out benchmarks/results/commitment_cost.json
	$(BIN)/python benchmarks/rounding_slack.py --out benchmarks/results/rounding_slack.json
	$(BIN)/python benchmarks/big.py --workers $(WORKERS) --out benchmarks/results/big.json

# The Poseidon vectors of the independent oracle; its own environment (docs/adr/0002).
vectors:
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install --quiet -r tests/vectors/requirements-oracle.txt
	.venv-oracle/bin/python tests/vectors/generate_poseidon_vectors.py \
	  > tests/vectors/poseidon_bn254_t2.json

clean:
	rm -rf $(VENV) .venv-oracle .venv-torch .venv-exports .cache build dist
