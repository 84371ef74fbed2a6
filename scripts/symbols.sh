#!/bin/sh
# The package once more, under build/symbols, whose core is what `make build` has built, but with the names of its functions
# and their source lines in it: for profiles. Only the crate itself is compiled again.
set -eu
cd "$(dirname "$0")/.."
. .venv/bin/activate
. scripts/pyo3-env.sh
library=$(cargo rustc --release --locked --lib --crate-type cdylib --features python --message-format=json-render-diagnostics |
    sed -n 's/.*"target":{"kind":\["cdylib"\][^}]*"name":"guerrilla".*"filenames":\["\([^"]*\.so\)".*/\1/p' | tail -n 1)
rm -rf build/symbols
mkdir -p build/symbols/guerrilla
ln -s "$PWD"/python/guerrilla/* build/symbols/guerrilla/
rm -f build/symbols/guerrilla/_core*.so
cp "$library" build/symbols/guerrilla/_core.abi3.so
