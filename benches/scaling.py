"""What more processes bring: one against as many as there are cores, in one run.

    make bench-scaling [ARGS="--quick | --write | --json FILE | --from FILE --write"]

Two chains, in turns: one that Python is the limit of (`email` with its default policy, and some
headers that are read), and the null chain. Then how few connections fall on processes, with a
socket a process and with `shared_sockets`, and what that costs; and what the simulation
(simulate.py) has to confirm. Load and daemon share the cores, so a rate is compared with
cores / (server + client CPU a message). All of it takes some eight minutes; --quick one, and says
little. --write puts the figures, and what is calculated from them, into scaling.json,
benches/README.md and docs/scaling.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import clients
from family import SMALL, Family, Start, Window, await_that, by_postfix, by_python, family, load
from measured import FILE, LARGE_KIB, Balance, Few, Measured, Memory, Point, Share, busiest, middle
from postfix import BenchError, find_postfix
from receivers import machine, raise_file_limit
from scaling_report import report, write

CONNECTIONS: Final = 100
FEW: Final = (2, 4, 8, 16, 50, 200)
QUICK: Final = (2, 8, 50)
SPREAD: Final = (2, 4)
"""Processes among which connections are counted, whatever there are of cores."""
SLOW_KEYS: Final = {"slow_batch": 0.005, "slow_mail": 0.0001}
POINTS: Final = (("null", 64, 1), ("slow", 1, 1), ("slow", 64, 1), ("slow", 16, 4))
"""Chain, `save_batch_size`, `save_workers_size`."""
POINT_CONNECTIONS: Final = (1, 10, 100)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured."""

    processes: int
    rounds: int = 5
    seconds: float = 3.0
    """Of a window of the shares."""
    settle: float = 1.0
    """Before memory is read, and of a load before its window."""
    tries: int = 5
    """Of few connections, and of each point."""
    short: float = 0.8
    """Seconds of a window of those."""
    spreads: int = 15
    """Times that connections are opened, for each count."""
    few: Sequence[int] = FEW
    quick: bool = False

    def hurried(self) -> Plan:
        """The same in a minute."""
        return dataclasses.replace(
            self,
            rounds=1,
            seconds=1.0,
            settle=0.3,
            tries=1,
            short=0.3,
            spreads=3,
            few=QUICK,
            quick=True,
        )


@dataclasses.dataclass(frozen=True)
class Bench:
    """What each part has to work with."""

    plan: Plan
    start: Start
    folder: Path
    cores: int

    def say(self, what: str) -> None:
        """To whoever waits."""
        print(what, file=sys.stderr, flush=True)


# --- One against many -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Round:
    """Of one chain with so many processes."""

    window: Window
    rest: list[Memory]
    load: list[Memory]


def one_round(bench: Bench, chain: str, processes: int) -> Round:
    """A daemon of its own, at rest and under load."""
    plan = bench.plan
    with family(bench.folder / "share", processes, chain) as daemon:
        time.sleep(plan.settle)
        rest = daemon.memory()
        size = LARGE_KIB * 1_024 if chain == "large" else SMALL
        with load(daemon, bench.start, CONNECTIONS, bench.cores, size) as senders:
            time.sleep(plan.settle)
            window = daemon.window(senders, plan.seconds)
            return Round(window, rest, daemon.memory())


def shares(bench: Bench) -> list[Share]:
    """Both chains, with one process and with many, and larger mails, in turns."""
    kinds = [*product(("python", "null"), (1, bench.plan.processes)), ("large", 1)]
    rounds: dict[tuple[str, int], list[Round]] = {kind: [] for kind in kinds}
    for number, (chain, processes) in product(range(bench.plan.rounds), kinds):
        bench.say(f"{chain}, processes = {processes}: {number + 1}/{bench.plan.rounds}")
        rounds[chain, processes].append(one_round(bench, chain, processes))
    return [summary(bench.cores, *kind, found) for kind, found in rounds.items()]


def summary(cores: int, chain: str, processes: int, rounds: Sequence[Round]) -> Share:
    """The medians."""
    windows = [one.window for one in rounds]
    return Share(
        chain,
        processes,
        middle(one.rate for one in windows),
        min(one.rate for one in windows),
        middle(one.server_us for one in windows),
        middle(one.client_us for one in windows),
        middle(one.rate * (one.server_us + one.client_us) / 1e6 / cores for one in windows),
        middle(one.others for one in windows),
        middles([one.rest for one in rounds]),
        middles([one.load for one in rounds]),
    )


def middles(rounds: Sequence[Sequence[Memory]]) -> tuple[Memory, ...]:
    """Of each process by itself."""
    return tuple(
        Memory(*(middle(getattr(one, key) for one in mine) for key in ("rss", "pss", "own")))
        for mine in zip(*rounds, strict=True)
    )


# --- Few connections ------------------------------------------------------------------------------


def few(bench: Bench) -> list[Few]:
    """What few connections come to: one process, a socket each, and a shared one, in turns."""
    plan, found = bench.plan, []
    kinds = [(1, False), (plan.processes, False), (plan.processes, True)]
    with contextlib.ExitStack() as open_:
        daemons = {
            kind: open_.enter_context(
                family(bench.folder / f"few-{n}", kind[0], "python", shared=kind[1])
            )
            for n, kind in enumerate(kinds)
        }
        for connections in plan.few:
            bench.say(f"{connections} connections")
            windows: dict[tuple[int, bool], list[Window]] = {kind: [] for kind in kinds}
            for _, (kind, daemon) in product(range(plan.tries), daemons.items()):
                with load(daemon, bench.start, connections, bench.cores) as senders:
                    windows[kind].append(daemon.window(senders, plan.short))
            for kind, mine in windows.items():
                rates = [one.rate for one in mine]
                medians = (
                    middle(getattr(one, key) for one in mine) for key in ("busiest", "others")
                )
                found.append(Few(connections, *kind, middle(rates), min(rates), *medians))
    return found


def balance(bench: Bench) -> list[Balance]:
    """How connections fall that are opened one after the other at a daemon with nothing to do."""
    found = []
    for processes, shared in product(SPREAD, (False, True)):
        bench.say(f"{processes} processes, {'a shared socket' if shared else 'a socket each'}")
        with family(bench.folder / "balance", processes, shared=shared) as daemon:
            for connections in FEW:
                tries = [spread(daemon, connections) for _ in range(bench.plan.spreads)]
                found.append(Balance(connections, processes, shared, middle(tries), max(tries)))
    return found


def spread(daemon: Family, connections: int) -> float:
    """The share of the process that has most of so many."""
    with contextlib.ExitStack() as open_:
        for _ in range(connections):
            open_.enter_context(clients.open_session(daemon.receiver.port))
        await_that(partial(has, daemon, connections))
        each = daemon.clients()
    await_that(partial(has, daemon, 0))
    return busiest(each)


def has(daemon: Family, connections: int) -> bool:
    """Whether it has just so many."""
    return sum(daemon.clients()) == connections


# --- What the simulation has to confirm -----------------------------------------------------------


def points(bench: Bench) -> Iterator[Point]:
    """Chains whose costs are known, with few connections and with many."""
    for chain, batch, workers in POINTS:
        bench.say(f"{chain}, batches of {batch}, {workers} workers")
        keys: dict[str, object] = {"save_batch_size": batch, "save_workers_size": workers}
        keys |= SLOW_KEYS if chain == "slow" else {}
        with family(bench.folder / "points", 1, chain, keys) as daemon:
            for connections in POINT_CONNECTIONS:
                windows = []
                for _ in range(bench.plan.tries):
                    with load(daemon, bench.start, connections, bench.cores) as senders:
                        windows.append(daemon.window(senders, bench.plan.short))
                medians = (
                    middle(getattr(one, key) for one in windows)
                    for key in ("rate", "server_us", "client_us", "others")
                )
                yield Point(chain, batch, workers, connections, *medians)


# --- All of it ------------------------------------------------------------------------------------


def measure(plan: Plan, start: Start, folder: Path) -> Measured:
    """All parts, one after the other."""
    bench = Bench(plan, start, folder, len(os.sched_getaffinity(0)))
    return Measured(
        machine=machine(),
        date=f"{date.today():%d %B %Y}",  # noqa: DTZ011
        cores=bench.cores,
        quick=plan.quick,
        shares=tuple(shares(bench)),
        few=tuple(few(bench)),
        balance=tuple(balance(bench)),
        points=tuple(points(bench)),
    )


def _plan(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Plan:
    cores = len(os.sched_getaffinity(0))
    processes = args.processes or max(2, cores)
    if processes < 2:  # noqa: PLR2004
        parser.error(f"--processes {processes}: one is always measured; say how many against it")
    plan = Plan(processes)
    return plan.hurried() if args.quick else plan


def _arguments() -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a minute, to try it out")
    parser.add_argument("--processes", type=int, help="against one; by default one a core")
    parser.add_argument("--client", choices=["postfix", "python"], default="postfix")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing: take this file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures go there too")
    parser.add_argument("--write", action="store_true", help="put them into the documents")
    args = parser.parse_args()
    return args, _plan(parser, args)


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    args, plan = _arguments()
    raise_file_limit()
    try:
        if args.source:
            told = Measured.read(args.source)
        else:
            start = by_postfix(find_postfix()) if args.client == "postfix" else by_python
            with tempfile.TemporaryDirectory(prefix="guerrilla-scaling-") as path:
                told = measure(plan, start, Path(path))
    except (BenchError, OSError, subprocess.SubprocessError, ValueError) as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 1
    print("\n".join(report(told)), flush=True)
    try:
        if args.json:
            args.json.write_text(told.text(), encoding="utf-8")
        if args.write:
            FILE.write_text(told.text(), encoding="utf-8")
            write(told)
    except (OSError, LookupError) as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
