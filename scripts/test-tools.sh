#!/bin/sh
# Makes sure that the mail clients of the tests are there, swaks and curl, and openssl.
# Installed where that is possible; otherwise says what to install, and fails: no test is skipped.
set -u
missing=""
for name in swaks curl openssl; do
    command -v "$name" >/dev/null || missing="$missing $name"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing (for the tests)"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of names
    { apt-get install -y --no-install-recommends $missing ||
        { apt-get update && apt-get install -y --no-install-recommends $missing; }; } >/dev/null
fi
for name in $missing; do
    command -v "$name" >/dev/null || { echo "make test needs$missing: on Debian, apt-get install$missing" >&2; exit 1; }
done
