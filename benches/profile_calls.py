"""System calls a message, by strace, which makes the daemon some times slower.

What a message costs the socket is the same then. How many events one `epoll_wait` brings and how
often a thread has to be woken (`futex`) depends on who is slow: those two are what strace sees, and
the waits that the kernel counts (profile_clocks.py) are what happens without it.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from postfix import BenchError, Load, Postfix
from receivers import Receiver

PATIENCE: Final = 30.0
_ROW: Final = re.compile(
    r"^ *[\d.]+ +[\d.]+ +\d+ +(?P<calls>\d+) +(?:\d+ +)?(?P<name>[a-z]\w*)$", re.MULTILINE
)


def find_strace() -> str | None:
    """The program, where it is there."""
    return shutil.which("strace")


def calls(
    strace: str, receiver: Receiver, postfix: Postfix, load: Load, folder: Path
) -> dict[str, float]:
    """System calls a message by name, of all threads, the most frequent first."""
    told = folder / "calls"
    command = [strace, "-f", "-c", "-o", str(told), "-p", str(receiver.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _await_attached(process, receiver.pid)
            postfix.send(receiver.port, load)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                said = process.communicate(timeout=PATIENCE)[1]
            except subprocess.TimeoutExpired:
                process.kill()
                raise BenchError("strace does not end") from None
    if not told.exists():
        raise BenchError(f"strace: {said.strip()[-300:]}")
    counted = parsed(told.read_text(encoding="utf-8"))
    return {name: count / load.messages for name, count in counted.items()}


def _await_attached(process: subprocess.Popen[str], pid: int) -> None:
    """Every thread has a tracer."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        tasks = Path(f"/proc/{pid}/task").glob("*/status")
        if not any("\nTracerPid:\t0\n" in task.read_text(encoding="utf-8") for task in tasks):
            return
        time.sleep(0.02)
    if process.poll() is not None:
        raise BenchError(f"strace: {process.communicate()[1].strip()[-300:]}")
    raise BenchError("strace does not attach")


def parsed(text: str) -> dict[str, int]:
    """Calls by name in what `strace -c` prints, the most frequent first."""
    found = {row["name"]: int(row["calls"]) for row in _ROW.finditer(text)}
    found.pop("total", None)
    return dict(sorted(found.items(), key=lambda one: -one[1]))
