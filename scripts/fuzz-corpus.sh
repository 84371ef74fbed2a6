#!/bin/sh
# fuzz-corpus.sh [TARGET…]: makes fuzz/corpus anew. Of the seeds, of what the runs have found and of what is there, few
# and small inputs that together reach the same code; of more than 80, any 80: make test needs no more. After `make fuzz`.
set -eu
cd "$(dirname "$0")/.."
seeds=target/fuzz-seeds
rm -rf "$seeds" target/fuzz-least
python3 scripts/fuzz_seeds.py "$seeds"
for target in ${*:-$(cargo +nightly fuzz list)}; do
    least="target/fuzz-least/$target"
    mkdir -p "$least" "fuzz/corpus/$target" "target/fuzz-corpus/$target"
    # Without counters: what reaches an edge more often is one input more, for little.
    "target/fuzz/$(rustc +nightly --print host-tuple)/release/$target" -set_cover_merge=1 -use_counters=0 \
        "$least" "$seeds/$target" "fuzz/corpus/$target" "target/fuzz-corpus/$target" 2>&1 | tail -n 1
    rm -rf "fuzz/corpus/$target"
    mv "$least" "fuzz/corpus/$target"
    # They are named by their hashes.
    find "fuzz/corpus/$target" -type f | sort | tail -n +81 | xargs -r rm
done
