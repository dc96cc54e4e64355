# Every target sets up what it needs and does nothing twice. `make help` lists them.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
# Installed first and by itself: left to a dependency, pip may pick another build of several gigabytes.
TORCH ?= torch==2.13.0
BASE ?= smollm2-135m
DATA ?= samples/pairs.jsonl
PRESET ?= auto
BIN := .venv/bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

.PHONY: setup
setup: .venv/ready ## make the environment in .venv/

# Depends on what says which converter made it.
models/%/config.json: enrich/engine/bases.py | .venv/ready
	$(BIN)/python -m enrich.engine.fetch $*
	@touch $@

.PHONY: model
model: models/$(BASE)/config.json ## fetch a base model into models/ (BASE=smollm2-135m or tinyllama)

.PHONY: enrich
enrich: .venv/ready model ## fill the missing descriptions: INPUT=… [OUTPUT=…] [ARGS=…]
	@test -n "$(INPUT)" || { echo "say which catalogue: make enrich INPUT=samples/catalog.parquet" >&2; exit 64; }
	$(BIN)/enrich run "$(INPUT)" $(if $(OUTPUT),--output "$(OUTPUT)") $(ARGS)

.PHONY: train
train: .venv/ready model ## train an adapter, promote it if it is better: [DATA=…] [PRESET=…] [ARGS=…]
	$(BIN)/enrich-train all $(DATA) --preset $(PRESET) $(ARGS)

.PHONY: describe
describe: .venv/ready model ## type a title, see its description written: [ARGS=…]
	@$(BIN)/enrich describe $(ARGS)

.PHONY: install-nightly
install-nightly: .venv/ready model ## have systemd run the night, as root: [ARGS="--dry-run --user NAME"]
	@jobs/install.sh $(ARGS)

.PHONY: test
test: .venv/ready model ## run the tests
	$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

.PHONY: test-faults
test-faults: .venv/ready model ## run every fault there is, and count: about half an hour
	FAULTS=full $(BIN)/pytest tests/faults tests/test_resume.py --numprocesses auto --dist worksteal $(ARGS)

.PHONY: test-mutations
test-mutations: .venv/ready ## remove each safeguard in turn and see that a test notices
	$(BIN)/python -m tests.mutations $(ARGS)

.PHONY: test-gpu
test-gpu: .venv/ready model ## run the tests that need a CUDA card
	$(BIN)/pytest -m gpu $(ARGS)

.PHONY: check
check: .venv/ready ## lint, types, README against the code, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_house.py

.PHONY: bench
bench: .venv/ready ## measure speed and memory of the catalogue work: [ARGS=…]
	$(BIN)/python -m tests.bench.catalogue $(ARGS)

.PHONY: bench-prepare
bench-prepare: .venv/ready model ## measure speed and memory of preparing: [ARGS=…]
	$(BIN)/python -m tests.bench.prepare $(ARGS)

.PHONY: bench-quality
bench-quality: .venv/ready ## measure how many texts are judged a second: [ARGS=…]
	$(BIN)/python -m tests.bench.quality $(ARGS)

.PHONY: bench-gpu
bench-gpu: .venv/ready ## measure the engine on a CUDA card: [ARGS=…]
	$(BIN)/python -m tests.bench.engine $(ARGS)

.PHONY: bench-night
bench-night: .venv/ready model ## measure a whole night on a CUDA card: ARGS="--titles FILE"
	$(BIN)/python -m tests.bench.night $(ARGS)

.PHONY: bench-cards
bench-cards: .venv/ready ## measure one card against several of this machine: ARGS="--titles FILE --gpus 2"
	$(BIN)/python -m tests.bench.cards $(ARGS)

.PHONY: bench-driver
bench-driver: .venv/ready ## measure how many rows a second feed several cards: [ARGS=…]
	$(BIN)/python -m tests.bench.driver $(ARGS)

.PHONY: bench-train
bench-train: .venv/ready ## measure fine-tuning on a CUDA card: [ARGS=…]
	$(BIN)/python -m tests.bench.training $(ARGS)

requirements.lock: pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	echo "$(TORCH)" | $(BIN)/uv pip compile pyproject.toml --constraint - --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --quiet --output-file $@

.PHONY: lock
lock: .venv/ready requirements.lock ## pin every package by version and hash in requirements.lock

.PHONY: audit
audit: .venv/ready ## ask the public databases about known holes in what requirements.lock pins
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --disable-pip --require-hashes --strict --requirement requirements.lock

.PHONY: samples
samples: .venv/ready ## build the sample catalogues again
	$(BIN)/python samples/build.py

.PHONY: clean
clean: ## remove the environment and the models
	rm -rf .venv models build *.egg-info
