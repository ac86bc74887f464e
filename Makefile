PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check bench serve mlflow clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## Create .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## Ingest, train, promote, serve and ask, on a real retailer's data
	$(BIN)/shopkeeper demo

test: $(INSTALLED)  ## The tests that every change must pass
	$(BIN)/pytest

test-all: $(INSTALLED)  ## The slow proofs too
	$(BIN)/pytest -m "not benchmark"

check: $(INSTALLED)  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## Timings, as ratios within one run
	$(BIN)/python tests/benchmarks/bench_features.py
	$(BIN)/python tests/benchmarks/bench_ranking.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_scale.py
	$(BIN)/python tests/benchmarks/bench_http.py --shop completejourney

serve: $(INSTALLED)  ## Serve the demo's champions on http://127.0.0.1:3000
	$(BIN)/shopkeeper serve --shop completejourney

mlflow: $(INSTALLED)  ## Show the tracked runs on http://127.0.0.1:5000
	$(BIN)/mlflow server --backend-store-uri sqlite:///$(CURDIR)/.shopkeeper/mlflow.db --port 5000

clean:  ## Remove the environment and what commands wrote
	rm -rf .venv .shopkeeper build *.egg-info
