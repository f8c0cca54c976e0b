# `make` lists what there is to do. Every target sets up what it needs, in .venv and nowhere else.
.DEFAULT_GOAL := help
.PHONY: help demo chaos test prove lint types contracts test-unit test-postgresql test-browser test-stack docs constraints clean
.ONESHELL:
.SHELLFLAGS := -euc
SHELL := /bin/sh

VENV ?= .venv
FOLDER ?= .demo
PORT ?= 8000
KILLS ?= 45
SEED ?= 0
PYTHON := $(VENV)/bin/python
export VENV

help: ## list the targets
	@sed -nE 's/^([a-z -]+):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 40

demo: ## the whole product with three devices; EXIT=1 ends with the job; FOLDER=.demo PORT=8000
	@deploy/venv.sh requirements.txt
	exec $(PYTHON) -m workers.demo --folder '$(FOLDER)' --port '$(PORT)' $(if $(filter-out 0 no false,$(EXIT)),--exit)

chaos: ## kill processes of a real site at drawn moments, compare the bits; KILLS=45 SEED=0 ARGS=
	@deploy/venv.sh requirements.txt
	exec $(PYTHON) -m benchmarks chaos --kills '$(KILLS)' --seed '$(SEED)' $(ARGS)

test: ## static checks, unit, postgresql, browser and stack tests, side by side
	@deploy/venv.sh requirements-dev.txt
	exec $(PYTHON) -m tests.parts

lint types contracts: ## one of the static checks (make lint, make types, make contracts)
	@deploy/venv.sh requirements-dev.txt
	exec $(PYTHON) -m tests.parts $@

test-unit test-postgresql test-browser test-stack: ## one part of the tests; ARGS='-k name' goes to pytest
	@deploy/venv.sh requirements-dev.txt
	exec $(PYTHON) -m tests.parts $(patsubst test-%,%,$@) -- $(ARGS)

prove: ## the long runs of tests/PROOFS.md, whose last result they write there; ARGS='-k name' runs some
	@deploy/venv.sh requirements-dev.txt
	exec $(PYTHON) -m tests.parts prove $(if $(ARGS),-- $(ARGS))

docs: ## write the pages that are made from code (docs/reference/jobspec.md)
	@deploy/venv.sh requirements.txt
	$(PYTHON) -m fedcore.spec.reference >docs/reference/jobspec.md

constraints: ## pin every indirect dependency again, from a fresh installation
	@deploy/pin.sh

clean: ## remove what the targets made, the demo's data included
	@rm -rf $(VENV) '$(FOLDER)' staticfiles .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
