# For people and for CI: `make run` and `make test` install what they need into .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
comma := ,
EXTRAS := dev$(if $(CUDA),$(comma)cuda)
STAMP := $(VENV)/installed$(if $(CUDA),-cuda)
RUN := $(BIN)/python -m ntk_tf.main --dataset=digits

.PHONY: install run test lint format docs dist benchmark clean

install: $(STAMP)  ## make install CUDA=1 brings the libraries for NVIDIA GPUs

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "ntk_tf needs Python 3.11 to 3.13; name one with make PYTHON=..."; exit 1; }
	@echo "installing into $(VENV) (about 2 GB, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@

run: install  ## the main job on embedded data: LeNet and its linearization
	@$(RUN)
	@$(RUN) --linearized
	@$(BIN)/python -m ntk_tf.report --runs_dir=runs

test: lint  ## lint, docstring lint, types and all tests; workers often wait for a process
	@$(BIN)/python -m pytest -n 3 --dist worksteal

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python scripts/flags_table.py

docs: $(VENV)/docs  ## the documentation site into site/; --quiet would make it less strict
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/docs: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

dist: install  ## wheel and source distribution, into dist/
	@rm -rf build dist
	@$(BIN)/python -m build --outdir dist .

benchmark: install  ## a training step beside PyTorch and JAX, on Linux
	@$(BIN)/python scripts/benchmark.py --quick

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
