# `make demo` and `make test` do all the set-up they need, in .venv.

# The first Python on the path that is new enough; `make PYTHON=... demo` says otherwise.
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
# Every command and every test starts processes: that they compile this package anew each time would double their start.
export PYTHONDONTWRITEBYTECODE =
PACKAGE := pyproject.toml setup.py $(wildcard runtime/ring/native/*)

.DEFAULT_GOAL := demo
.PHONY: help demo release test fast site lint conformance docs format soak long seconds scan faults results tpch examples clean

## What can be made; `demo` if nothing is named.
help:
	@awk '/^## /{text = text (text ? " " : "") substr($$0, 4)} /^[a-z]+:/{split($$1, name, ":"); if (text) printf "%-12s %s\n", name[1], text; text = ""}' Makefile

## Three processes train a model on three hospitals' data over mutual TLS.
demo: .venv/examples
	@$(BIN)/python examples/hospitals/prepare.py
	@$(BIN)/python examples/hospitals/train.py --network

# One worker more than cores: tests of processes wait for each other and for limits of time.
WORKERS = $$(( $$(getconf _NPROCESSORS_ONLN) + 1 ))

## Lint, types and all tests.
test: lint
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal

## The inner loop: what finds most mistakes, in a minute.
fast: .venv/dev
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal tests/test_imports.py tests/test_ir.py tests/test_text.py tests/test_lower.py tests/test_passes.py \
	    tests/test_expand.py tests/test_cost.py tests/test_kernels.py tests/test_encoding.py tests/test_link.py tests/test_surface.py

## The documentation as pages, in build/site.
site: .venv/dev
	$(BIN)/python -m mkdocs build --strict

## Lint and types.
lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Every primitive, type, visibility, shape, protocol and ring against JAX; the stated error bounds on 10^6 points each.
conformance: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m conformance run

## docs/operations.md, docs/precision.md and docs/plots, from the tables that the conformance run checks; docs/protocols.md.
docs: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m conformance docs
	$(BIN)/spuvm protocols --markdown docs/protocols.md

## benchmarks/RESULTS.md, measured on these cores: an hour. ONLY=kernels,boosting measures some sections, DATA=folder
## (for 17 GB of inputs) adds the billion rows.
results: .venv/dev
	$(BIN)/python benchmarks/results.py $(if $(ONLY),--only $(ONLY)) $(if $(DATA),--data $(DATA))

## TPC-H against DuckDB at SCALE (0.01) in all three settings: some minutes each; the table in docs/sql.md.
tpch: .venv/dev
	for setting in owners spread shares; do \
	    $(BIN)/python benchmarks/tpch.py --scale $(or $(SCALE),0.01) --setting $$setting --write || exit 1; done

## Every program of examples/programs, under both protocols, simulated and over TLS: some minutes.
examples: .venv/examples
	$(BIN)/python examples/programs/all.py

## Three services, 1,000 jobs of all kinds, while services are killed, restarted and paused: some hours. JOBS=20 is shorter.
soak: .venv/dev
	$(BIN)/python benchmarks/soak.py --jobs $(or $(JOBS),1000)

## A long job of three services, connections cut and parties restarted meanwhile: SECONDS (180), CUTS (20), RESTARTS (1).
long: .venv/dev
	$(BIN)/python benchmarks/long_job.py --seconds $(or $(SECONDS),180) --cuts $(or $(CUTS),20) --restarts $(or $(RESTARTS),1)

## Predicted and measured seconds of four programs over two links, shaped here: some minutes, on a quiet machine.
seconds: .venv/dev
	$(BIN)/python benchmarks/seconds.py

## What a scan of a service's port costs a job that runs: some minutes, on a quiet machine.
scan: .venv/dev
	$(BIN)/python benchmarks/scan.py

## Kills, pauses, cuts, changed bytes and full disks at random moments: RUNS=n (300), a table of how runs ended.
faults: .venv/dev
	$(BIN)/python benchmarks/faults.py --runs $(or $(RUNS),300)

## What is published, in dist/: a wheel with native kernels that other Linux machines run, tested in a clean environment,
## the sources, checksums, a bill of materials, what changed.
release:
	$(PYTHON) release/make.py

## Imports in order, lint that mends itself, layout.
format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Away with what was built here, .venv too.
clean:
	rm -rf .venv build *.egg-info spuvm/runtime/ring/_native*.so

# The environment, with what the extra named like the file needs.
.venv/examples .venv/dev: .venv/%: $(PACKAGE) | .venv/bin/python
	@echo "installing spuvm[$*] into .venv: this takes a minute"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$*]'
	@touch $@

.venv/bin/python:
	@test -n '$(PYTHON)' || { echo 'spuvm needs Python 3.11 or newer: make PYTHON=/path/to/python demo' >&2; exit 1; }
	@$(PYTHON) -m venv .venv
