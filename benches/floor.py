"""How near a message comes to what the kernel alone takes for it.

    PYTHONPATH=. .venv/bin/python benches/floor.py [--scenarios a,b,c,d] [--rounds 3]

Beside smtp-sink and guerrillad, in turns, a receiver that understands nothing (core/floor.rs) and
the core without Python, whose mails a thread in Rust answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Final

from goals import FAILURES, bench
from load import OURS, SINK, Scenario, at_most, chosen, warm_up
from measuring import Bench, Samples, Start
from receivers import machine, raise_file_limit, telling
from rows import core

FLOOR: Final = "the floor"
CORE: Final = "the core alone"


def run(at: Bench, scenarios: Sequence[Scenario], rounds: int) -> None:
    """All of them, the receivers in turns."""
    receivers: Mapping[str, Start] = {
        SINK: at.peers[SINK],
        FLOOR: partial(telling, [core(), "floor"], at.folder),
        CORE: partial(telling, [core(), "serve"], at.folder),
        OURS: at.serve,
    }
    for number, scenario in product(range(rounds), scenarios):
        at.say(f"{scenario.name} {number + 1}/{rounds}")
        for name, start in receivers.items():
            with start() as receiver:
                at.postfix.send(receiver.port, at_most(scenario.load, warm_up(scenario.load)))
                at.send(receiver, scenario.load, f"{scenario.name} {name}")


def table(samples: Samples, scenarios: Sequence[Scenario]) -> list[str]:
    """CPU a message of each, and as a ratio to the reference."""
    form = "{:<33}{:<16}{:>10}{:>13}"
    lines = [form.format("scenario", "receiver", "server µs", "/ smtp-sink")]
    for one, name in product(scenarios, (SINK, FLOOR, CORE, OURS)):
        sample = f"{one.name} {name} server µs"
        ratio = samples.ratio(sample, f"{one.name} {SINK} server µs")
        cost = samples.median(sample)
        lines.append(form.format(f"{one.name}  {one.title}", name, f"{cost:.1f}", f"{ratio:.2f}"))
    return lines


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args, scenarios = chosen(parser)
    raise_file_limit()
    try:
        with bench(1.0, {}) as at:
            run(at, scenarios, args.rounds)
    except (*FAILURES, LookupError) as error:
        print(f"floor.py: {error}", file=sys.stderr)
        return 1
    print(f"{machine()}; {args.rounds} rounds, medians\n")
    print("\n".join(table(at.samples, scenarios)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
