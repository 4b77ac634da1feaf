# Everything here sets itself up: `make story` and `make test` need Python 3.11 or newer and make, nothing else.

PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11 python,$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $(p))))
BIN := .venv/bin
ifeq ($(origin PREMISE),undefined)
PREMISE := $(shell cat stories/starters/lighthouse.txt)
endif
PARAGRAPHS ?= 12
# As they were given, by the environment: make and the shell read nothing in them.
override PREMISE := $(value PREMISE)
override PARAGRAPHS := $(value PARAGRAPHS)
export PREMISE PARAGRAPHS

.PHONY: story test soak lint evaluate setup setup-dev clean

story: setup ## write a story with the bundled model
	@$(BIN)/recurrent-writer write --premise "$$PREMISE" --paragraphs "$$PARAGRAPHS"

test: setup-dev ## run all tests
	@$(BIN)/python -m pytest

soak: setup-dev ## the slow tests: long stories, kills, all of them for real
	@$(BIN)/python -m pytest -m soak

lint: setup-dev ## style, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

evaluate: setup-dev ## measure what the bundled model can do (hours)
	@$(BIN)/python -m training.evaluate

setup: .venv/story.ready
setup-dev: .venv/dev.ready

.venv/python.ready:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found: install it, or say where it is: make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -m venv .venv
	@touch $@

# One pip command for everything, so that one choice of torch holds for all.
.venv/story.ready: pyproject.toml | .venv/python.ready
	@echo "Setting up (a few minutes, once) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev.ready: pyproject.toml | .venv/python.ready
	@echo "Setting up (a few minutes, once) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ .venv/story.ready

clean: ## take away what was set up
	rm -rf .venv
