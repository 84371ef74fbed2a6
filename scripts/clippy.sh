#!/bin/sh
# clippy over all of the crate, without and with Python, after `make build`. In the folder of all other builds, so that
# the C of SQLite and AWS-LC, macros and build scripts are compiled once and not once more for it.
# PyO3 is compiled anew whenever the variables change that tell it of Python: they are those that maturin sets.
set -eu
cd "$(dirname "$0")/.."
clippy() { cargo clippy --release --locked --all-targets "$@" -- -D warnings; }

clippy

. .venv/bin/activate
folder=${CARGO_TARGET_DIR:-$PWD/target}
PYO3_CONFIG_FILE=$(ls -t "$folder"/maturin/pyo3-config-*.txt | head -n 1)
PYO3_ENVIRONMENT_SIGNATURE=$(python -c 'import struct, sys; print("cpython-%d.%d-%dbit" % (*sys.version_info[:2], 8 * struct.calcsize("P")))')
PYO3_PYTHON=$VIRTUAL_ENV/bin/python
PYTHON_SYS_EXECUTABLE=$PYO3_PYTHON
PYO3_BUILD_EXTENSION_MODULE=1
export PYO3_CONFIG_FILE PYO3_ENVIRONMENT_SIGNATURE PYO3_PYTHON PYTHON_SYS_EXECUTABLE PYO3_BUILD_EXTENSION_MODULE
clippy --features python
