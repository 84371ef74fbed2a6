"""Whether our ratios are those that another program finds.

    PYTHONPATH=. .venv/bin/python benches/agreement.py PROGRAM [--scenarios a,b,c,d] [--rounds 3]

PROGRAM loads a receiver that runs: `PROGRAM --pid PID --port PORT --scenario a|b|c|d`, and prints
a line of JSON with `server_us_msg`, the receiver's CPU time a message. For each scenario smtp-sink
and guerrillad are measured by it and by load.py, in turns, each time in a receiver that was just
started. Exit status 1 where two ratios differ by more than a fifth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Final

from goals import FAILURES, bench
from load import OURS, SINK, Scenario, at_most, chosen, warm_up
from measuring import Bench, Samples, Start
from postfix import BenchError
from receivers import Receiver, machine, raise_file_limit

TOLERANCE: Final = 0.2
PATIENCE: Final = 120.0

Way = Callable[[Bench, Scenario, Receiver, str], None]
"""Measures a receiver, and adds a sample of that name."""


def by_ours(at: Bench, scenario: Scenario, receiver: Receiver, name: str) -> None:
    """As load.py does."""
    at.postfix.send(receiver.port, at_most(scenario.load, warm_up(scenario.load)))
    at.send(receiver, scenario.load, name)


def by_theirs(program: Path) -> Way:
    """As that program does."""

    def measure(at: Bench, scenario: Scenario, receiver: Receiver, name: str) -> None:
        command = [sys.executable, str(program), "--scenario", scenario.name]
        command += ["--pid", str(receiver.pid), "--port", str(receiver.port)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise BenchError(f"{program.name}: {(done.stderr or done.stdout).strip()[-300:]}")
        at.samples.add(f"{name} server µs", json.loads(done.stdout)["server_us_msg"])

    return measure


def run(at: Bench, scenarios: Sequence[Scenario], rounds: int, program: Path) -> None:
    """All of them, both ways and both receivers in turns."""
    ways: dict[str, Way] = {"ours": by_ours, "theirs": by_theirs(program)}
    receivers: dict[str, Start] = {SINK: at.peers[SINK], OURS: at.serve}
    for number, scenario in product(range(rounds), scenarios):
        at.say(f"{scenario.name} {number + 1}/{rounds}")
        for (way, do), (name, start) in product(ways.items(), receivers.items()):
            with start() as receiver:
                sample = f"{scenario.name} {way} {name}"
                do(at, scenario, receiver, sample)
                at.say(f"{sample}: {at.samples.of[f'{sample} server µs'][-1]:.1f} µs")


def table(samples: Samples, scenarios: Sequence[Scenario]) -> tuple[list[str], float]:
    """The ratios beside each other, and by how much they differ at most."""
    form = "{:<34}{:>10}{:>10}{:>13}"
    lines = [form.format("guerrilla / smtp-sink", "load.py", "other", "difference")]
    most = 0.0
    for one in scenarios:
        ours, theirs = (ratio(samples, one.name, way) for way in ("ours", "theirs"))
        difference = ours / theirs - 1
        most = max(most, abs(difference))
        title = f"{one.name}  {one.title}"
        lines.append(form.format(title, f"{ours:.3f}", f"{theirs:.3f}", f"{difference:+.0%}"))
    return lines, most


def ratio(samples: Samples, scenario: str, way: str) -> float:
    """Of the medians of one way."""
    return samples.ratio(f"{scenario} {way} {OURS} server µs", f"{scenario} {way} {SINK} server µs")


def main() -> int:
    """Measures and prints; 1 when they do not agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", type=Path)
    args, scenarios = chosen(parser)
    raise_file_limit()
    try:
        with bench(1.0, {}) as at:
            run(at, scenarios, args.rounds, args.program)
    except (*FAILURES, LookupError) as error:
        print(f"agreement.py: {error}", file=sys.stderr)
        return 1
    lines, most = table(at.samples, scenarios)
    print(f"{machine()}; {args.rounds} rounds, medians\n")
    print("\n".join(lines))
    return 0 if most <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
