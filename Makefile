# Each goal sets up what it needs. Everything lands in this folder: .venv, data, .dvc/cache, .checkpoints.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PROFILE ?= embedded
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: repro test test-all lint clean pins

repro: .venv/runtime  ## run every stage that is not up to date
	python -m pipeline repro

test: .venv/dev  ## the fast tests, with the smoke run of the whole pipeline
	python -m pytest -m "not slow and not real"

test-all: test  ## and the slow ones, and those on real samples (RSSQA_REAL_SAMPLES)
	python -m pytest -m "slow or real"

lint: .venv/dev
	ruff check . && ruff format --check . && mypy && python -m pipeline check-lock

clean:  ## remove all outputs and the virtual environment; data/raw stays
	rm -rf .venv .checkpoints .dvc/cache .dvc/tmp logs dvc_plots
	find data -mindepth 1 -maxdepth 1 -type d ! -name raw -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; found $$(python3 --version 2>&1). Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime: requirements.txt | .venv/bin/python
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt | .venv/bin/python
	python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/runtime

# Exact versions of everything, for every platform and Python that pyproject.toml names.
UV = uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make pins" pyproject.toml
pins:
	$(UV) -o requirements.txt
	$(UV) --extra dev --constraint requirements.txt -o requirements-dev.txt
