"""Whether memory grows: one daemon, a mixed load for as long as it is told, and a slope.

    python benches/slope.py [--seconds 3600] [--rate 250] [--largest 1048576] [--json FILE]

The load is that of `mixture.py`. Resident memory is read at even distances; the slope is that of
the straight line with the least squares through all behind the warm-up. Of a leak an hour says
more than a minute: what is made once, caches and the pieces that an allocator keeps, grows ever
less. So the slope of the second half stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from edge_tls import StartTls
from mixture import Mixture, Sender, sending
from postfix import BenchError
from receivers import CHAIN, SILENT, Receiver, guerrillad, machine, starttls

STAGES: Final = Path(__file__).parent / "benchstages.py"
WORKERS: Final = "save_workers_size = "
STORE: Final = """\
log_received_mails = false
sql_driver = "sqlite"
sql_dsn = "mail.db"
mail_table = "new_mail"
"""
FEWEST: Final = 3
"""Readings behind the warm-up: with fewer there is no slope."""
STALLED: Final = 10.0
"""Seconds in which nothing was sent, which are no hiccup of the machine."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long, how much."""

    seconds: float = 3_600.0
    warm_up: float = 300.0
    """Seconds of them whose readings do not count."""
    every: float = 10.0
    """Seconds between two readings."""
    rate: float = 250.0
    """Things a second; nearly all of them are messages."""
    largest: int = 1 << 20
    """Octets of a message."""
    senders: int = 4
    chain: str = CHAIN
    reload: float = 0.0
    """Seconds from one reload to the next, each of which changes the number of workers; 0: none."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was resident, after so many seconds and things that were sent."""

    seconds: float
    sent: int
    kib: int


@dataclasses.dataclass(frozen=True)
class Slope:
    """All readings, and by how much memory grew behind the warm-up."""

    readings: tuple[Reading, ...]
    kib_a_minute: float
    late: float
    """The same of the second half."""
    octets_each: float
    """By the thing that was sent."""


def slope_of(readings: Sequence[Reading], warm_up: float) -> Slope:
    """The slope of the line through all behind the warm-up."""
    counted = [one for one in readings if one.seconds >= warm_up]
    if len(counted) < FEWEST:
        raise BenchError("there are too few readings behind the warm-up")
    kib = [one.kib for one in counted]
    each = statistics.linear_regression([one.sent for one in counted], kib)
    late = counted[len(counted) // 2 :] if len(counted) >= 2 * FEWEST else counted
    return Slope(tuple(readings), _a_minute(counted), _a_minute(late), each.slope * 1_024)


def _a_minute(readings: Sequence[Reading]) -> float:
    seconds, kib = [one.seconds for one in readings], [one.kib for one in readings]
    return statistics.linear_regression(seconds, kib).slope * 60


def run(plan: Plan, folder: Path, say: Callable[[Reading], None]) -> Slope:
    """Loads a daemon of its own, in that folder; each reading is said."""
    shutil.copy(STAGES, folder)
    backend = f'{WORKERS}1\nsave_process = "{plan.chain}"\nimport = ["benchstages"]\n{STORE}'
    server = f"max_clients = 100\n{starttls(folder)}"
    with guerrillad(folder, server, SILENT, backend) as receiver:
        mixture = Mixture(receiver.port, plan.rate, plan.largest, StartTls(), plan.senders)
        with sending(mixture) as senders, _reloading(plan.reload, folder / "load.toml", receiver):
            readings = _read(plan, receiver, senders, say)
    return slope_of(readings, plan.warm_up)


@contextlib.contextmanager
def _reloading(every: float, config: Path, receiver: Receiver) -> Iterator[None]:
    """Other workers, with chains of their own, in the place of those who work."""
    ends = threading.Event()

    def reload() -> None:
        for workers in itertools.cycle((2, 1)):
            if ends.wait(every):
                return
            text = config.read_text(encoding="utf-8")
            fresh = config.with_suffix(".part")
            fresh.write_text(re.sub(f"{WORKERS}.", f"{WORKERS}{workers}", text), encoding="utf-8")
            fresh.replace(config)
            os.kill(receiver.pid, signal.SIGHUP)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(reload) if every else None
        try:
            yield
        finally:
            ends.set()
        if done is not None:
            done.result()


def _read(
    plan: Plan, receiver: Receiver, senders: Sequence[Sender], say: Callable[[Reading], None]
) -> list[Reading]:
    readings: list[Reading] = []
    began, moved = time.monotonic(), 0.0
    while (now := time.monotonic() - began) <= plan.seconds:
        sent = sum(sender.sent.total() for sender in senders)
        if not readings or sent != readings[-1].sent:
            moved = now
        readings.append(Reading(now, sent, receiver.resident_kib()))
        if now - moved > STALLED:
            raise BenchError(f"nothing was sent for {STALLED:g} s")
        say(readings[-1])
        time.sleep(max(0.0, len(readings) * plan.every - (time.monotonic() - began)))
    return readings


def main() -> int:
    """Loads and prints; 1 when it cannot be done."""
    standard = Plan()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=standard.seconds)
    parser.add_argument("--warm-up", type=float, help="of them; by default a twelfth, at least 20")
    parser.add_argument("--every", type=float, default=standard.every, help="seconds, a reading")
    parser.add_argument("--rate", type=float, default=standard.rate, help="messages a second")
    parser.add_argument("--largest", type=int, default=standard.largest, help="octets of a message")
    parser.add_argument("--senders", type=int, default=standard.senders, help="at a time")
    parser.add_argument("--chain", default=standard.chain)
    parser.add_argument("--reload", type=float, default=0.0, help="seconds from reload to reload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every reading goes there too")
    args = parser.parse_args()
    warm_up = args.warm_up if args.warm_up is not None else max(20.0, args.seconds / 12)
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Plan)}
    plan = Plan(**given | {"warm_up": warm_up})
    print(f"{machine()}\n\n{'s':>6} {'sent':>9} {'RSS, KiB':>9}", flush=True)

    def say(one: Reading) -> None:
        print(f"{one.seconds:6.0f} {one.sent:9,} {one.kib:9,}", flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="guerrilla-slope-") as folder:
            found = run(plan, Path(folder), say)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"slope.py: {error}", file=sys.stderr)
        return 1
    print(
        f"\nslope behind the first {plan.warm_up:.0f} s: {found.kib_a_minute:+.1f} KiB a minute, "
        f"{found.octets_each:+.1f} octets a message; second half {found.late:+.1f} KiB a minute"
    )
    if args.json:
        told = {"machine": machine(), "plan": dataclasses.asdict(plan)}
        args.json.write_text(json.dumps(told | dataclasses.asdict(found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
