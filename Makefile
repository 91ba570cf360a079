# Every target sets up what it needs. `make help` lists them.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
IN_VENV := $(VENV)/bin
PYTEST := python -m pytest -q -n auto --dist loadfile
EVERY_KIND := not gpu and not openvino and not rare
OPENVINO := .venv-openvino
OPENVINO_STAMP := $(OPENVINO)/.installed
OLDEST := .venv-oldest
OLDEST_STAMP := $(OLDEST)/.installed

# What releases of diffusers, transformers and ONNX Runtime have broken so far: loading pipelines and
# tokenizers, tracing their modules, schedulers, the CLIP score, and pictures beside diffusers' own.
# The other tests call dipgo and PyTorch, which is the same in both sets; the slow ones take CI too
# long twice. make test-oldest runs all.
ON_LIBRARIES := tests/models tests/pipelines tests/evaluate tests/compiler/sampler \
	tests/compiler/trace

# Where Python is told to keep no bytecode, every child process of a test compiles all of dipgo.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-fast test-slow test-oldest test-oldest-fast fuzz test-openvino lint newer docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Install dipgo and its tools into .venv (PYTHON=python3.12 chooses another Python)

demo: $(STAMP) ## Export a small trained model, dense and pruned, run both and compare
	@echo "== demo"
	@$(IN_VENV)/python -m scripts.demo

test: $(STAMP) ## Run every kind of test, but those that need a GPU or OpenVINO
	@echo "== tests: every kind but those that need a GPU or OpenVINO"
	@$(IN_VENV)/$(PYTEST) -m "$(EVERY_KIND)" --durations 10

test-fast: $(STAMP) ## Run the tests that take seconds
	@echo "== tests: the fast ones"
	@$(IN_VENV)/$(PYTEST) -m "$(EVERY_KIND) and not slow"

test-slow: $(STAMP) ## Run the further cases that test leaves out: more models, grains and precisions
	@echo "== tests: further cases of slow kinds"
	@$(IN_VENV)/$(PYTEST) -m "not gpu and not openvino and rare" --durations 10

test-oldest: $(OLDEST_STAMP) ## Run what test runs with the oldest libraries, in .venv-oldest
	@echo "== tests: the oldest libraries"
	@$(OLDEST)/bin/$(PYTEST) -m "$(EVERY_KIND)" --durations 10

test-oldest-fast: $(OLDEST_STAMP) ## Run the fast tests that depend on libraries with the oldest
	@echo "== tests: the oldest libraries, fast tests that depend on them"
	@$(OLDEST)/bin/$(PYTEST) -m "$(EVERY_KIND) and not slow" $(ON_LIBRARIES)

fuzz: $(STAMP) ## Export drawn pipelines and compare with diffusers for MINUTES=30, from seed FIRST=1000
	@$(IN_VENV)/python -m scripts.fuzz.fuzz_pipelines --minutes $(or $(MINUTES),30) \
		--first $(or $(FIRST),1000) --shrink

test-openvino: $(OPENVINO_STAMP) ## Run the tests of the OpenVINO provider, in .venv-openvino
	@echo "== tests: OpenVINO"
	@$(OPENVINO)/bin/python -m pytest -q -s tests/engines/test_openvino.py tests/engines/test_openvino_options.py

lint: $(STAMP) ## Check style, format and types
	@echo "== ruff: style"
	@$(IN_VENV)/ruff check --quiet
	@echo "== ruff: format"
	@$(IN_VENV)/ruff format --check --quiet
	@echo "== mypy: types"
	@$(IN_VENV)/mypy

newer: $(STAMP) ## Say which libraries have newer releases than were tried
	@$(IN_VENV)/python -m scripts.newer_releases

docs: $(STAMP) ## Write the generated pages of docs/reference
	@for page in cli_reference manifest_schema modules_page python_reference; do \
		$(IN_VENV)/python -m scripts.generate.$$page || exit; done

clean: ## Remove .venv, .venv-oldest, .venv-openvino, caches and build products; out/ stays
	rm -rf $(VENV) $(OLDEST) $(OPENVINO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find dipgo tests scripts -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) not found: install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); dipgo needs 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "== set-up: a virtual environment in $(VENV), with $$($(PYTHON) -V 2>&1)"
	@$(PYTHON) -m venv $(VENV)
	@echo "== set-up: installing dipgo, PyTorch and the other packages (a few minutes)"
	@$(IN_VENV)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

$(OLDEST_STAMP): pyproject.toml constraints-oldest.txt
	@echo "== set-up: a virtual environment in $(OLDEST), for the oldest libraries"
	@$(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		-e '.[dev]' -c constraints-oldest.txt
	@touch $@

# onnxruntime-openvino brings the module onnxruntime, as dipgo[cpu] does: never both in one place.
$(OPENVINO_STAMP): pyproject.toml constraints.txt
	@echo "== set-up: a virtual environment in $(OPENVINO), for OpenVINO"
	@$(PYTHON) -m venv $(OPENVINO)
	@$(OPENVINO)/bin/python -m pip install --quiet --disable-pip-version-check \
		-e '.[openvino,export,search]' 'pytest>=8' 'scipy>=1.13' -c constraints.txt
	@touch $@
