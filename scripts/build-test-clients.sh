#!/bin/sh
# Builds the clients of the tests that are programs of their own, into build/clients/: Go's net/smtp
# and Nodemailer. Does nothing where they are up to date.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/clients
mkdir -p "$out/node"

# Go's own cache knows whether anything is to be done. The standard library is all it needs.
(cd tests/clients/go && GOTOOLCHAIN=local go build -trimpath -buildvcs=false -o "$out/go-client" .)

# Written last, so that an installation that was interrupted is done again.
if ! cmp -s tests/clients/node/package-lock.json "$out/node/installed"; then
    cp tests/clients/node/package.json tests/clients/node/package-lock.json tests/clients/node/.npmrc "$out/node/"
    echo "installing Nodemailer into build/clients (for the tests)"
    (cd "$out/node" && npm ci --silent)
    cp tests/clients/node/package-lock.json "$out/node/installed"
fi
