#!/bin/sh
# clippy over all of the crate, without and with Python, after `make build`. In the folder of all other builds, so that
# the C of SQLite and AWS-LC, macros and build scripts are compiled once and not once more for it.
set -eu
cd "$(dirname "$0")/.."
clippy() { cargo clippy --release --locked --all-targets "$@" -- -D warnings; }

clippy

. .venv/bin/activate
. scripts/pyo3-env.sh
clippy --features python
