# `make demo` and `make test` do everything from a fresh clone: environment, installation, run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 3

.PHONY: help demo test check lint types suite coverage slow site format clean

help:
	@echo "make demo      merge the demo stream on an embedded Hub (installs what it needs into $(VENV))"
	@echo "make test      lint, types and tests"
	@echo "make coverage  the tests, with the share of the code that they run"
	@echo "make slow      the tests that take minutes"
	@echo "make site      build the documentation as a site, into site/"
	@echo "make format    let ruff format the code"
	@echo "make clean     remove the environment and the demo's files"

demo: $(VENV)/.demo-installed
	$(BIN)/hubmerge demo --root .demo

# mypy takes one core for a minute or two where it has no cache, so it runs beside the tests.
test: lint
	$(MAKE) --no-print-directory -j 2 types suite

check: lint types

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test-installed
	$(BIN)/mypy

# Three workers suit two cores, since many tests wait for other programs. A worker without work takes tests from another's
# end: neighbors stay together, and so do the fixtures of a module.
suite: $(VENV)/.test-installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(SUITE_OPTIONS) tests

# Before Python 3.14, where branches are counted without a call for every line, the tests need twice the time with it.
coverage: SUITE_OPTIONS = --cov --cov-report=
coverage: suite

slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow tests

site: $(VENV)/.test-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch is asked for first and by its exact version, so that no later requirement brings another build.
$(VENV)/.demo-installed: pyproject.toml constraints.txt
	@echo "installing torch and the libraries of the demo into $(VENV): 0.2 GB with the CPU build of torch, several GB with CUDA"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/.test-installed: $(VENV)/.demo-installed
	@echo "installing the libraries of the tests into $(VENV)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
# These import torchvision, which transformers would use as soon as it is installed: they lie beside the environment. So does
# axe-core, which is one file in a package with many dependencies.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --target $(VENV)/other-libraries \
		timm open_clip_torch torchvision ftfy wcwidth axe-playwright-python
	touch $@

clean:
	rm -rf $(VENV) .demo site
