# Everything a developer runs. The first two: make serve, make test.

SHELL := /bin/sh
# rustup's folder is on PATH only after the next login.
export PATH := $(PATH):$(HOME)/.cargo/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What `guerrillad version` says the core was built from.
export GUERRILLA_BUILD := $(shell git rev-parse --short HEAD 2>/dev/null || echo 'no commit'), release

VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP    := $(BIN)/python -m pip install --quiet --require-hashes
# Tests wait more than they compute. What measures or builds (`alone`) has the machine for itself,
# afterwards.
BESIDE := --numprocesses 3 --dist worksteal -m "not alone"
PYTHON_SOURCES := python tests benches scripts $(wildcard examples)

# Python sources need no build: the package in .venv is the one in python/.
RUST_SOURCES := $(shell find rust/src -name '*.rs') Cargo.toml Cargo.lock pyproject.toml

.PHONY: help serve build test lint rust-lint python-lint rust-test python-test fuzz-dialogues \
	abuse faults bench bench-gate bench-processors bench-spool bench-scaling bench-profile symbols instructions fuzz deny wheel lock clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

serve: build  ## build, then receive mail on 127.0.0.1:2525 into mail.db (Ctrl-C stops)
	@exec $(BIN)/python scripts/foreground.py $(BIN)/guerrillad serve -c examples/quickstart.toml

build: $(STAMPS)/core  ## .venv with the package and its compiled core

test: lint rust-test bench-gate python-test  ## lint, Rust tests, what a message costs, Python tests

lint: rust-lint python-lint  ## formats, clippy, licences of crates, ruff, mypy, pyright, the stub of the core

# --- .venv ---------------------------------------------------------------------------------------

$(STAMPS)/venv:
	sh scripts/build-tools.sh
	"$$(sh scripts/find-python.sh)" -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/locked: $(STAMPS)/venv requirements/build.txt requirements/runtime.txt
	$(PIP) -r requirements/build.txt -r requirements/runtime.txt
	@touch $@

$(STAMPS)/core: $(STAMPS)/locked $(RUST_SOURCES)
	. $(BIN)/activate && maturin develop --release --locked
	@touch $@

$(STAMPS)/test: $(STAMPS)/locked requirements/test.txt
	$(PIP) -r requirements/test.txt
	@touch $@

# --- tests ---------------------------------------------------------------------------------------

# Behind the core: clippy uses what that has compiled.
rust-lint: $(STAMPS)/core
	cargo fmt --check
	sh scripts/clippy.sh
	sh scripts/deny.sh

python-lint: $(STAMPS)/core $(STAMPS)/test
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/mypy $(PYTHON_SOURCES)
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest guerrilla._core

rust-test: $(STAMPS)/venv  ## cargo test, without Python
	cargo test --release --locked

python-test: $(STAMPS)/core $(STAMPS)/test  ## pytest; one file: make python-test ARGS=tests/test_docs.py
	sh scripts/test-tools.sh
	sh scripts/build-test-clients.sh
	$(BIN)/python -m pytest $(or $(ARGS),$(BESIDE))
	$(if $(ARGS),,$(BIN)/python -m pytest -m alone)

fuzz-dialogues: $(STAMPS)/core $(STAMPS)/test  ## 10,000 random dialogues with a daemon, others each time: minutes
	$(BIN)/python -m pytest tests/test_dialogues.py --hypothesis-profile=long --timeout 1800 $(ARGS)

abuse: $(STAMPS)/core $(STAMPS)/test  ## 20,000 connections of each kind of abuse, which must leave nothing: ten minutes
	$(BIN)/python -m pytest tests/test_abuse.py -s --abuse 20000 --timeout 3600 $(ARGS)

faults: $(STAMPS)/core $(STAMPS)/test  ## every fault in full, and what was lost: 20 minutes; WRITE=1 puts the table into docs/reliability.md
	sh scripts/test-tools.sh
	$(if $(WRITE),GUERRILLA_WRITE_FAULTS=1) $(BIN)/python -m pytest tests/faults --faults full $(ARGS)

# --- the rest ------------------------------------------------------------------------------------

bench: build  ## every goal beside other receivers, 20 minutes; ARGS=--quick is three, ARGS="--rows b,c" some, ARGS=--write fills the documents
	PYTHONPATH=. $(BIN)/python benches/goals.py $(ARGS)

bench-processors: build  ## what storing costs: each chain with a server of its own behind it, five minutes; ARGS=--write fills the document
	PYTHONPATH=. $(BIN)/python benches/processors.py $(ARGS)

bench-spool: build  ## what a sync before the 250 costs, beside a chain that keeps nothing; ARGS="--rounds 1"
	PYTHONPATH=. $(BIN)/python benches/spool.py $(ARGS)

bench-scaling: build  ## one process against as many as there are cores, eight minutes; ARGS=--quick is one, ARGS=--write fills the documents
	$(BIN)/python benches/scaling.py $(ARGS)

bench-profile: symbols  ## where every microsecond of a message goes, five minutes; ARGS=--quick is one, ARGS=--write fills docs/performance.md
	$(BIN)/python benches/profiler.py $(ARGS)

symbols: $(STAMPS)/symbols  ## the core once more in build/symbols, with its names: for profiles

$(STAMPS)/symbols: $(STAMPS)/core scripts/symbols.sh scripts/pyo3-env.sh
	sh scripts/symbols.sh
	@touch $@

instructions: $(STAMPS)/venv  ## instructions a command and a message cost the parser and the session (valgrind)
	sh scripts/test-tools.sh
	$(BIN)/python scripts/instructions.py $(ARGS)

bench-gate: $(STAMPS)/venv  ## fails where they have grown by more than 3 %; ARGS=--write accepts that
	sh scripts/test-tools.sh
	$(BIN)/python scripts/instructions.py --gate $(ARGS)

fuzz:  ## each fuzz target for 60 s, by a nightly compiler: make fuzz SECONDS=300 ARGS="session data"
	sh scripts/fuzz.sh $(or $(SECONDS),60) $(ARGS)

deny: $(STAMPS)/venv  ## crates: licences, versions, sources, and known holes where their database can be had
	sh scripts/deny.sh all

wheel: $(STAMPS)/core  ## an abi3 wheel and an sdist in dist/
	. $(BIN)/activate && maturin build --release --locked --out dist
	. $(BIN)/activate && maturin sdist --out dist

lock:  ## new versions of the Python packages into requirements/*.txt (needs uv)
	sh scripts/lock.sh

clean:  ## all that was built; mail.db stays
	rm -rf $(VENV) target dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f python/guerrilla/_core*.so
	find python tests benches scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +
