"""System calls a message, counted by strace.

A process that is traced is slower, and sees more messages a turn than it would; so the figure is
for comparing, and both receivers are traced alike.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from load import OURS, SCENARIOS, SINK, at_most
from measuring import WARM_UP, Bench
from postfix import BenchError
from receivers import START_LIMIT

MESSAGES: Final = 5_000
_ROW: Final = re.compile(
    r"^ *[\d.]+ +[\d.]+ +\d+ +(?P<calls>\d+) +(?:\d+ +)?(?P<name>[a-z]\w*)$", re.MULTILINE
)


def calls(bench: Bench) -> None:
    """The load of b, each receiver in turn."""
    load = at_most(SCENARIOS[1].load, bench.count(MESSAGES))
    for name in (SINK, OURS):
        start = bench.peers[name] if name != OURS else bench.serve
        with start() as receiver:
            bench.postfix.send(receiver.port, at_most(load, WARM_UP))
            told = bench.folder / "calls"
            with counted(receiver.pid, told):
                bench.postfix.send(receiver.port, load)
        bench.samples.add(f"calls {name}", total(told.read_text()) / load.messages)


@contextlib.contextmanager
def counted(pid: int, told: Path) -> Iterator[None]:
    """Counts the calls of a process and all its threads meanwhile, into that file."""
    if shutil.which("strace") is None:
        raise BenchError("strace is missing: apt-get install strace")
    command = ["strace", "-f", "-c", "-o", str(told), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        said = strace.stderr.readline() if strace.stderr else ""
        if "attached" not in said:
            raise BenchError(f"strace: {said.strip()}")
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate(timeout=START_LIMIT)


def total(table: str) -> int:
    """All calls of a table of strace."""
    last = table.strip().splitlines()[-1].split()
    if last[-1:] != ["total"]:
        raise BenchError(f"strace told no total: {' '.join(last)}")
    return int(last[3])


def by_name(table: str) -> dict[str, int]:
    """The calls of a table of strace, the most frequent first."""
    found = {row["name"]: int(row["calls"]) for row in _ROW.finditer(table)}
    found.pop("total", None)
    return dict(sorted(found.items(), key=lambda one: -one[1]))
