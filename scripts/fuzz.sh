#!/bin/sh
# fuzz.sh SECONDS [TARGET…]: runs the fuzz targets one after the other, each for so long; all where none is named.
# What is found is in fuzz/artifacts; inputs that reach new code are in target/fuzz-corpus, where the next run begins.
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift

cargo +nightly --version >/dev/null 2>&1 || {
    echo "make fuzz needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2
    exit 1
}
c++ --version >/dev/null 2>&1 || {
    echo "make fuzz needs a C++ compiler, for libFuzzer: on Debian, apt-get install g++" >&2
    exit 1
}
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked

cargo +nightly fuzz build --target-dir target/fuzz # once for all
for target in ${*:-$(cargo +nightly fuzz list)}; do
    mkdir -p "target/fuzz-corpus/$target"
    log="target/fuzz-corpus/$target.log"
    echo "$target: $seconds s"
    cargo +nightly fuzz run --target-dir target/fuzz "$target" \
        "target/fuzz-corpus/$target" "fuzz/corpus/$target" -- \
        -dict=fuzz/dictionary -max_len=2048 -timeout=10 -max_total_time="$seconds" >"$log" 2>&1 || {
        tail -n 60 "$log"
        exit 1
    }
    grep -a DONE "$log" # executions, edges, features, inputs, executions a second, memory
done
