# Every target uses .venv, which `make setup` builds; a second time it is quick.
PYTHON ?= python3
FOR ?= 20
CASES ?= 200000
MINUTES ?= 20
DYNALITE ?= $(HOME)/.cache/cronally-dynalite
SEED ?=
NAME ?= all
ARGS ?=
SEEDS ?= 1000
STATES ?= 500000
COMMAND ?=
CODE := src tests benchmarks deploy docs_site hatch_build.py
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
BINARY := dist/cronally
# colorama is for Windows alone.
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --quiet
LOCK += --constraint constraints.txt --no-emit-package colorama --custom-compile-command "make lock"
# What is built of one commit is the same whenever it is built.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-all dynalite cov fmt lint type layers check bench binary test-binary dist lock audit simulate simulate-cluster simulate-short model-check faults faults-cluster fuzz-times fuzz-socket crash-sweep kept-store man docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv with everything the other targets need

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make setup needs Python 3.11 or newer as '$(PYTHON)'; name another with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make setup needs Python 3.11 or newer; '$(PYTHON)' is older. Name another with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make setup needs Python's venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "building $(VENV) (once; about a minute)…"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local]' --group dev --group bench
	@$(BIN)/python -m compileall -q src  # as pip does for a wheel: commands start faster
	@touch $(STAMP)

$(VENV)/.group-%: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group $*
	@touch $@

demo: setup ## Run the main job for FOR seconds: daemon, local SNS and SQS, three schedules, a live table
	@$(BIN)/cronally demo --for $(FOR)

test: setup ## Run the tests, two at a time; those of whole processes that take long are test-long's
	@$(BIN)/pytest -q --numprocesses 2 --dist worksteal -m "not long" tests

# Four at a time: they wait more than they work.
test-long: setup ## Run the tests that kill, freeze, fill and attack a daemon, and set its clock
	@$(BIN)/pytest -q --numprocesses 4 --dist worksteal -o faulthandler_timeout=300 -m long tests

test-all: test test-long simulate-short ## All of that, and two hundred simulated days

dynalite: ## Install dynalite, a second server for the tests of the store of several machines (needs Node's npm), into DYNALITE
	@test -d $(DYNALITE)/node_modules/dynalite || npm install --silent --no-audit --no-fund --prefix $(DYNALITE) dynalite@4

cov: setup ## Run the tests and show what they do not reach
	@$(BIN)/pytest -q tests --cov --cov-report=term-missing:skip-covered

fmt: setup ## Format the code
	@$(BIN)/ruff format --quiet $(CODE)
	@$(BIN)/ruff check --quiet --fix $(CODE)

lint: setup ## Check style and names
	@$(BIN)/ruff format --check --quiet $(CODE) || { echo "run 'make fmt'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet $(CODE)

type: setup ## Check types
	@$(BIN)/mypy --no-error-summary

layers: setup ## Check that imports point one way
	@$(BIN)/lint-imports --no-cache

check: test lint type layers ## Everything CI checks, but for the demo

bench: setup ## Measure all, in about ten minutes; NAME=burst: one, ARGS="--sizes 1000": with its options
	@$(BIN)/python -m benchmarks $(NAME) $(ARGS)

binary: $(VENV)/.group-pack ## Build dist/cronally, one executable that needs no Python
	@PYTHONHASHSEED=1 $(BIN)/pyinstaller --noconfirm --log-level WARN --distpath dist --workpath build/binary deploy/binary/cronally.spec
	@ls -lh $(BINARY) | awk '{print "$(BINARY): " $$5 "B"}'

test-binary: binary ## Build it, and run its tests on it, and a short 'make faults'
	@TESTED_COMMAND=$(abspath $(BINARY)) $(BIN)/pytest -q --numprocesses 2 tests/e2e/test_binary.py
	@$(MAKE) --no-print-directory faults MINUTES=0.3 SEED=3 COMMAND=$(BINARY)

dist: $(VENV)/.group-release ## Build a wheel and an sdist into dist/, with a bill of materials and checksums, and check them
	@$(BIN)/python deploy/dist.py

lock: $(VENV)/.group-release ## Write requirements*.lock: what constraints.txt pins of the dependencies, with hashes for every platform
	@$(BIN)/uv pip compile $(LOCK) pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile $(LOCK) --group wheel --output-file requirements-build.lock

audit: $(VENV)/.group-audit ## Ask whether anything is known against what requirements.lock pins (75: it could not be asked)
	@$(BIN)/python deploy/audit.py

faults: setup ## Kill, freeze and stop a daemon and disturb its receiver for MINUTES; SEED=n: again as it was; COMMAND=dist/cronally
	@cd tests && $(if $(COMMAND),TESTED_COMMAND=$(abspath $(COMMAND))) ../$(BIN)/python -m support.campaign --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

faults-cluster: setup ## The same with three machines that share a table, cut off from it and from SNS for a while; SERVER=dynalite, LEASE=8
	@cd tests && ../$(BIN)/python -m support.cluster_campaign --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(LEASE),--lease $(LEASE)) $(if $(SERVER),--server $(SERVER))

fuzz-times: setup ## Compare CASES random rules with a brute-force oracle
	@CASES=$(CASES) $(BIN)/pytest -q -s --timeout=0 -o faulthandler_timeout=0 tests/property/test_recurrence_oracle.py

simulate: setup ## Run the engine through SEEDS days of seeded faults, or only through SEED, and check every slot
	@PYTHONPATH=tests $(BIN)/python -m simulation.campaign $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

simulate-cluster: setup ## The same of several machines that hand shards to each other, join, leave and die
	@PYTHONPATH=tests $(BIN)/python -m simulation.campaign --cluster $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

simulate-short: ## The same with 200 seeds, in a minute and a half
	@$(MAKE) --no-print-directory simulate SEEDS=200 SEED=
kept-store: setup ## Write the store that is kept of a version of the schema, once it is final, to tests/fixtures/
	@cd tests && ../$(BIN)/python -m support.kept_stores

model-check: setup ## Search STATES states of each arrangement of machines and shards for a broken promise (ten minutes)
	@MODEL_STATES=$(STATES) $(BIN)/pytest -q -s --timeout=0 -o faulthandler_timeout=0 tests/simulation/test_lease_model.py

crash-sweep: setup ## Stop the store at every write and sync of a run, and fail every one of them (some minutes)
	@CRASH_SWEEP=1 $(BIN)/pytest -q -s --timeout=0 -o faulthandler_timeout=0 tests/faults/test_crash_sweep.py

fuzz-socket: setup ## Send CASES random documents, and as many random requests, to the admin socket
	@CASES=$(CASES) $(BIN)/pytest -q --timeout=0 -o faulthandler_timeout=0 -k "no_document_is or no_bytes_are" tests/integration/test_hostile_values.py

man: setup ## Write the man pages into build/man, to look at them: man -M build/man cronally-add
	@$(BIN)/python -m cronally.cli.manual build/man/man1

docs: $(VENV)/.group-docs ## Build the documentation into site/, to be read there or served by any web server
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

clean: ## Remove what the targets made
	@rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
