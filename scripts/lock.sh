#!/bin/sh
# Writes requirements/*.txt anew from the *.in files: pinned, hashed, for every platform and Python.
# Needs uv. Cargo.lock has `cargo update`.
set -eu
cd "$(dirname "$0")/../requirements"
command -v uv >/dev/null || { echo "make lock needs uv (pipx install uv)" >&2; exit 1; }
for name in build runtime test deny; do   # runtime before test, which is constrained by it
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --custom-compile-command "make lock" "$name.in" --output-file "$name.txt"
done
