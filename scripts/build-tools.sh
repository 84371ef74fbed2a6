#!/bin/sh
# Makes sure that the build's tools are there: Python 3.11+ with venv, a C compiler, Rust.
# Debian packages are installed where that is possible; otherwise says what to install, and fails.
set -u
cd "$(dirname "$0")/.." || exit 1
missing=""

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# need COMMAND PACKAGE WHAT: runs COMMAND; when it fails, installs PACKAGE and tries once more.
need() {
    sh -c "$1" >/dev/null 2>&1 && return
    if can_install; then
        echo "installing $2 (for $3)"
        { apt-get install -y --no-install-recommends $2 ||
            { apt-get update && apt-get install -y --no-install-recommends $2; }; } >/dev/null
        sh -c "$1" >/dev/null 2>&1 && return
    fi
    missing="$missing
  $3: on Debian, apt-get install $2"
}

export DEBIAN_FRONTEND=noninteractive
need "sh scripts/find-python.sh" "python3 python3-venv" "Python 3.11 or newer"
need '"$(sh scripts/find-python.sh)" -c "import ensurepip, venv"' "python3-venv" "Python's venv"
need "cc --version" "build-essential" "a C compiler (Rust links with it)"

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
oldest=$(printf '%s\n' "$wanted" "${have:-0}" | sort -V | head -n 1)
[ "$oldest" = "$wanted" ] || missing="$missing
  Rust $wanted or newer (found: ${have:-none}): https://rustup.rs, or your system's cargo package
  where it is new enough"

[ -z "$missing" ] && exit 0
echo "make build needs:$missing" >&2
exit 1
