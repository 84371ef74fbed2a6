#!/bin/sh
# What a message costs the parser and the session, in instructions: exact, on however busy a machine.
# Needs valgrind. One figure is the difference of two runs, so that what a run costs once is not in it.
set -eu
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 1; }
program=$(cargo bench --profile release --locked --bench core --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"target":{"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p' | tail -1)

# SCENARIO COUNT: instructions in all.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

for scenario in parse session pipelined; do
    few=$(count "$scenario" 1000)
    many=$(count "$scenario" 3000)
    echo "$scenario	$(((many - few) / 2000)) instructions"
done
