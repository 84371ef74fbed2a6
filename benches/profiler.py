"""Where every microsecond of a message goes, and how it grows.

    make bench-profile [ARGS="--quick | --write | --only spent,growth | --json FILE | --from FILE"]

Four loads, as Postfix's smtp-source brings them: a, a message of 4 KiB a connection; b, kept
connections; c, 100 KiB; d, 1 MiB. CPU is by the kernel's own clocks; perf says on which part of the
daemon it goes (those of the core only with the symbols that `make bench-profile` builds), and
strace which system calls a message takes. Where one of the two is missing its table is empty. Then
the tables of profile_growth.py. All of it takes some five minutes, --quick one. --write puts the
figures into profile.json, and into docs/performance.md with its plots.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import profile_growth
import profile_perf
from calls import by_name, counted
from family import Family, Window, by_postfix, family, load
from load import SCENARIOS, Scenario, at_most
from measured import middle
from postfix import BenchError, Postfix, find_postfix
from profile_clocks import Clock, between, clocks
from profile_parts import shares
from profile_report import report, write
from profiled import FILE, Point, Profile, Spent, Thread
from receivers import machine, raise_file_limit

SYMBOLS: Final = Path(__file__).parent.parent / "build" / "symbols"
CORE: Final = "_core.abi3.so"
SERVER: Final = 'max_clients = 1500\nmax_size = "64 MiB"'


TRACED: Final = {"a": 1_000, "b": 3_000, "c": 1_000, "d": 100}
"""Messages of each scenario that strace is given."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and with what."""

    postfix: Postfix
    folder: Path
    perf: str | None
    strace: bool
    windows: int = 3
    seconds: float = 1.5
    """Of a window, and of what perf records at a time."""
    settle: float = 0.5
    quick: bool = False


# --- One load -------------------------------------------------------------------------------------


def spent(plan: Plan, scenario: Scenario) -> Spent:
    """A daemon of its own: its clocks, then perf, then strace."""
    print(f"{scenario.name}: {scenario.title}", file=sys.stderr, flush=True)
    asked = scenario.load
    start = by_postfix(plan.postfix, kept=asked.kept)
    with family(plan.folder / "spent", 1, server=SERVER) as daemon:
        with load(daemon, start, asked.sessions, 1, asked.size) as senders:
            time.sleep(plan.settle)
            before, begin = clocks(daemon.receiver.pid), time.perf_counter()
            had = sum(daemon.messages())
            windows = [daemon.window(senders, plan.seconds) for _ in range(plan.windows)]
            used = between(before, clocks(daemon.receiver.pid))
            count, took = sum(daemon.messages()) - had, time.perf_counter() - begin
            parts = seen(plan, daemon)
        calls = traced(plan, daemon, scenario)
    return summary(scenario, windows, threads(used, count, took), parts, calls)


def summary(
    scenario: Scenario,
    windows: Sequence[Window],
    each: tuple[Thread, ...],
    parts: Mapping[str, float],
    calls: Mapping[str, float],
) -> Spent:
    """The medians; the parts are shares of the CPU that the daemon has without perf."""
    rate, server, client, others = (
        middle(getattr(one, key) for one in windows)
        for key in ("rate", "server_us", "client_us", "others")
    )
    costs = {part: share * server for part, share in parts.items()}
    return Spent(
        scenario.name, scenario.title, rate, server, client, others, each, costs, dict(calls)
    )


def threads(used: Mapping[str, Clock], count: int, took: float) -> tuple[Thread, ...]:
    """Of so many messages in so many seconds."""
    found = []
    for name, clock in used.items():
        user, system = (seconds * 1e6 / count for seconds in clock.modes())
        found.append(Thread(name, user, system, clock.waits / count, clock.cpu / took))
    return tuple(found)


def seen(plan: Plan, daemon: Family) -> dict[str, float]:
    """The share of each part, while a load is there."""
    if plan.perf is None:
        return {}
    file, pid = plan.folder / "perf.data", daemon.receiver.pid
    profile_perf.record(plan.perf, pid, plan.windows * plan.seconds, file)
    samples = profile_perf.read(plan.perf, file)
    if not samples:
        raise BenchError("perf has seen nothing")
    library = SYMBOLS / "guerrilla" / CORE
    maps = profile_perf.mapped(pid, library) if library.exists() else []
    files = profile_perf.sources(samples, library, maps) if maps else {}
    return shares(samples, files, CORE)


def traced(plan: Plan, daemon: Family, scenario: Scenario) -> dict[str, float]:
    """System calls a message."""
    if not plan.strace:
        return {}
    load, told = at_most(scenario.load, TRACED[scenario.name]), plan.folder / "calls"
    with counted(daemon.receiver.pid, told):
        plan.postfix.send(daemon.receiver.port, load)
    each = by_name(told.read_text(encoding="utf-8"))
    return {name: count / load.messages for name, count in each.items()}


# --- All of it ------------------------------------------------------------------------------------


def measure(plan: Plan, only: Sequence[str]) -> Profile:
    """What was asked for."""
    costs = [spent(plan, one) for one in SCENARIOS] if "spent" in only else []
    found: list[Point] = []
    if "growth" in only:
        growth = profile_growth.Growth(plan.postfix, plan.folder)
        if plan.quick:
            growth = dataclasses.replace(growth, windows=1, seconds=0.3, settle=0.1, quick=True)
        found = list(profile_growth.points(growth))
    day = f"{date.today():%d %B %Y}"  # noqa: DTZ011
    return Profile(machine(), day, plan.quick, tuple(costs), tuple(found))


def _measured(args: argparse.Namespace) -> Profile:
    if args.source:
        return Profile.read(args.source)
    raise_file_limit()
    if SYMBOLS.is_dir():
        os.environ["PYTHONPATH"] = str(SYMBOLS)
    with tempfile.TemporaryDirectory(prefix="guerrilla-profile-") as path:
        perf, strace = profile_perf.find_perf(), shutil.which("strace") is not None
        plan = Plan(find_postfix(), Path(path), perf, strace)
        if args.quick:
            plan = dataclasses.replace(plan, windows=1, seconds=0.5, settle=0.1, quick=True)
        return measure(plan, args.only.split(","))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a minute, to try it out")
    parser.add_argument("--only", default="spent,growth", help="one of the two")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing: take this file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures go there too")
    parser.add_argument("--write", action="store_true", help="put them into the document")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - {"spent", "growth"}:
        parser.error(f"--only {', '.join(sorted(unknown))}: there are spent and growth")
    if args.write and not args.source and args.only != "spent,growth":
        parser.error("--write: with all of it, or with --from")
    return args


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    args = _arguments()
    try:
        told = _measured(args)
        print("\n".join(report(told)), flush=True)
        if args.json:
            args.json.write_text(told.text(), encoding="utf-8")
        if args.write:
            FILE.write_text(told.text(), encoding="utf-8")
            # As the file has it, which keeps fewer digits: a test holds the document to it.
            write(Profile.read(FILE))
    except (BenchError, OSError, LookupError, subprocess.SubprocessError, ValueError) as error:
        print(f"profiler.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
