"""What storing a message costs: each chain, and the server behind it.

    make bench-processors [ARGS="--stores MailDir;FastCGI --seconds 1 --write --json FILE"]

Each chain takes mails of 4 KiB over 1, 10 and 100 kept connections, one mail a batch at most
(`save_batch_size` 1) and 64. Messages a second are of wall time, and load, daemon and servers share
the cores; CPU is of the daemon alone, and of all that is behind it, by their process CPU clocks.
Every server is a private one on this machine. A run is bounded in time; all of them take about five
minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Final

import clients
from documents import filled
from measuring import WARM_UP, Figure, table
from postfix import BenchError, Load, Postfix, find_postfix
from receivers import Receiver, guerrillad, machine, raise_file_limit, smtp_sink
from stores import STORES, Places, Store, started_cpu_ns, tree_cpu_ns

CONNECTIONS: Final = (1, 10, 100)
BATCHES: Final = (1, 64)
SECONDS: Final = 2.0
"""That a run is to take."""
SYNCING: Final = 0.5
"""Seconds that the disk is tried."""
LEAST: Final = 5
"""Messages a connection that a run has at least."""
REFERENCE: Final = Load(sessions=100, messages=20_000)
SINK_US: Final = 62.0
"""Of smtp-sink in scenario b, on the machine that the figures of Go-Guerrilla are of."""
GO_REDIS_US: Final = 372.0
"""Of Go-Guerrilla with Redis in scenario b there, Redis included."""

README: Final = Path(__file__).parent / "README.md"

Send = Callable[[int, int, int], float]
"""Sends to a port, over so many kept connections, so many messages: seconds that it took."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run. Times are CPU µs a message; the rate is messages a second."""

    store: str
    batch: int
    connections: int
    messages: int
    rate: float
    server_us: float
    behind_us: float


# --- Measuring -----------------------------------------------------------------------------------


def by_postfix(postfix: Postfix) -> Send:
    """The load of scenario b: Postfix's smtp-source."""
    return lambda port, connections, messages: postfix.send(port, Load(connections, messages))[0]


def by_python(port: int, connections: int, messages: int) -> float:
    """The same in Python, where a figure is not the point."""
    with contextlib.closing(clients.Kept(port, connections)) as kept:
        begin = time.perf_counter()
        kept.send(messages)
        return time.perf_counter() - begin


def measure(
    store: Store, receiver: Receiver, connections: int, send: Send, seconds: float
) -> tuple[int, float, float, float]:
    """One run of about so many seconds, after a short one that tells how many messages that are.

    Returns:
        Messages; messages a second; CPU µs a message of the daemon, and of what is behind it.
    """
    least = LEAST * connections
    rate = least / send(receiver.port, connections, least)
    messages = max(least, round(rate * seconds))

    def behind_ns() -> int:
        # Programs that the daemon runs are behind it as well.
        programs = started_cpu_ns(receiver.pid)
        pids = [one.process.pid for one in store.services if one.process is not None]
        return programs + sum(map(tree_cpu_ns, pids))

    own, behind = receiver.cpu_ns(), behind_ns()
    took = send(receiver.port, connections, messages)
    own, behind = receiver.cpu_ns() - own, max(0, behind_ns() - behind)
    return messages, messages / took, own / 1_000 / messages, behind / 1_000 / messages


def run(
    names: Sequence[str], connections: Sequence[int], send: Send, seconds: float, folder: Path
) -> Iterator[Sample]:
    """Every chain, with a daemon for each size of its batches."""
    with Places(folder) as places:
        for name, batch in product(names, BATCHES):
            print(f"{name}, batch {batch}", file=sys.stderr, flush=True)
            store = STORES[name](places)
            backend = store.backend(batch)
            with guerrillad(places.folder("guerrillad"), backend=backend) as receiver:
                for count in connections:
                    found = measure(store, receiver, count, send, seconds)
                    yield Sample(name, batch, count, *found)


def reference(postfix: Postfix) -> float:
    """CPU µs a message of smtp-sink in scenario b: what tells how fast this machine is now."""
    with smtp_sink(postfix, REFERENCE.sessions + 10) as receiver:
        postfix.send(receiver.port, dataclasses.replace(REFERENCE, messages=WARM_UP))
        before = receiver.cpu_ns()
        postfix.send(receiver.port, REFERENCE)
        return (receiver.cpu_ns() - before) / 1_000 / REFERENCE.messages


def syncs_a_second(folder: Path) -> float:
    """How often a file can grow by 4 KiB and be synced: what a store without batches could do."""
    count, data = 0, b"x" * 4_096
    with (folder / "synced").open("wb", buffering=0) as file:
        begin = time.perf_counter()
        while (took := time.perf_counter() - begin) < SYNCING:
            file.write(data)
            os.fdatasync(file.fileno())
            count += 1
    return count / took


# --- The report ----------------------------------------------------------------------------------


def grid(samples: Sequence[Sample]) -> list[str]:
    """A line a chain and batch; for each number of connections, rate and CPU of both sides."""
    counts = sorted({one.connections for one in samples})
    of = {(one.store, one.batch, one.connections): one for one in samples}
    cell, head = "{:>9}{:>8}{:>8}", "{:<20}{:>6}"
    titles = [f"{count} connection{'s' * (count > 1)}" for count in counts]
    lines = [
        (head.format("", "") + "".join(f"{title:>25}" for title in titles)).rstrip(),
        head.format("", "batch") + cell.format("mails/s", "own µs", "behind") * len(counts),
    ]
    for name, batch in dict.fromkeys((one.store, one.batch) for one in samples):
        row = head.format(name if batch == BATCHES[0] else "", batch)
        for count in counts:
            one = of[name, batch, count]
            values = one.rate, one.server_us, one.behind_us
            row += cell.format(*(f"{value:,.0f}" for value in values))
        lines.append(row)
    return lines


def figures(samples: Sequence[Sample], sink_us: float, syncs: float) -> list[Figure]:
    """What is aimed at, with 100 connections and batches of up to 64."""
    full = {
        one.store: one
        for one in samples
        if (one.connections, one.batch) == (CONNECTIONS[-1], BATCHES[-1])
    }
    found = [
        Figure("smtp-sink, the same load", "server µs a message", sink_us),
        Figure("4 KiB more in a file, and synced", "a second", syncs),
    ]
    for name, must, goal in (("SQL, MariaDB", 4_000, 6_000), ("SQL, SQLite", 7_500, 12_000)):
        if name in full:
            title = f"{name}, at {CONNECTIONS[-1]} connections"
            found.append(Figure(title, "messages/s, at least", full[name].rate, must, goal))
    if one := full.get("Redis"):
        # What Go-Guerrilla would need on this machine, as slow or fast as it is now.
        theirs = GO_REDIS_US * sink_us / SINK_US
        ratio = (one.server_us + one.behind_us) / theirs
        found.append(Figure("Redis, both sides / Go-Guerrilla's", "of the CPU", ratio, 0.45, 0.3))
    return found


def report(samples: Sequence[Sample], sink_us: float | None, syncs: float) -> list[str]:
    """All of it, as the README has it."""
    lines = [f"{date.today():%d %B %Y}; {machine()}", "", *grid(samples)]  # noqa: DTZ011
    if sink_us is not None:
        lines += ["", *table(figures(samples, sink_us, syncs))]
    return lines


def write(lines: Sequence[str]) -> None:
    """Puts them into the README."""
    text = README.read_text(encoding="utf-8")
    README.write_text(filled(text, {"processors": lines}), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ";".join(STORES)
    parser.add_argument("--stores", default=names, help="which, with semicolons between")
    parser.add_argument("--connections", default=",".join(map(str, CONNECTIONS)), help="how many")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run, about")
    parser.add_argument("--client", choices=["postfix", "python"], default="postfix")
    parser.add_argument("--write", action="store_true", help="the figures into benches/README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample goes there too")
    args = parser.parse_args()
    args.stores = args.stores.split(";")
    args.connections = [int(count) for count in args.connections.split(",")]
    if unknown := [name for name in args.stores if name not in STORES]:
        parser.error(f"no store {'; '.join(unknown)}: there are {names}")
    return args


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    args = _arguments()
    raise_file_limit()
    try:
        postfix = find_postfix() if args.client == "postfix" else None
        send = by_postfix(postfix) if postfix else by_python
        with tempfile.TemporaryDirectory(prefix="guerrilla-stores-") as path:
            found = run(args.stores, args.connections, send, args.seconds, Path(path))
            samples = list(found)
            syncs = syncs_a_second(Path(path))
        sink_us = reference(postfix) if postfix else None
    except (BenchError, OSError, AssertionError, subprocess.SubprocessError) as error:
        print(f"processors.py: {error}", file=sys.stderr)
        if isinstance(error, subprocess.CalledProcessError) and error.stderr:
            print(error.stderr.decode(errors="replace"), file=sys.stderr)
        return 1
    lines = report(samples, sink_us, syncs)
    print("\n".join(lines))
    if args.write:
        write(lines)
    if args.json:
        rows = [dataclasses.asdict(sample) for sample in samples]
        told = {
            "machine": machine(),
            "smtp_sink_us": sink_us,
            "syncs_a_second": syncs,
            "samples": rows,
        }
        args.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
