#!/bin/sh
# fuzz.sh SECONDS [TARGET…]: runs the fuzz targets one after the other, each for so long; all where none is named.
# With AddressSanitizer, which also looks for leaks: what `unsafe` code of ours or of a crate does wrong ends the run.
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

# The same for build and run, or all is compiled twice. Memory that was left is found where a frame has returned, too.
build="--sanitizer address --target-dir target/fuzz"
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"

# shellcheck disable=SC2086  # a list of options
cargo +nightly fuzz build $build # once for all
for target in ${*:-$(cargo +nightly fuzz list)}; do
    mkdir -p "target/fuzz-corpus/$target"
    log="target/fuzz-corpus/$target.log"
    echo "$target: $seconds s"
    # shellcheck disable=SC2086
    cargo +nightly fuzz run $build "$target" \
        "target/fuzz-corpus/$target" "fuzz/corpus/$target" -- \
        -dict=fuzz/dictionary -max_len=2048 -timeout=10 -max_total_time="$seconds" >"$log" 2>&1 || {
        tail -n 60 "$log"
        exit 1
    }
    grep -a DONE "$log" # executions, edges, features, inputs, executions a second, memory
done
