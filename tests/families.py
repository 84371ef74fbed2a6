"""Daemons of several processes, and who they are."""

from __future__ import annotations

import itertools
import smtplib
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guerrilla.control.client import ask
from tests.running import RunningDaemon
from tests.wire import HELLO, TRANSACTION, Wire, until

TIMEOUT = 30.0


QUICKLY = (
    "import sys\n"
    "from guerrilla.processes import children\n"
    "children.DELAYS = (0.0,) * 7\n"
    "from guerrilla.cli import main\n"
    "sys.exit(main())\n"
)
"""A parent that waits for nothing before it starts a successor: else, with a child that is killed
every second, most of the time nobody would serve."""


Make = Callable[..., RunningDaemon]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts daemons of several processes, each in a folder of its own; ends what is left."""
    made: list[RunningDaemon] = []
    numbers = itertools.count()

    def start(processes: int = 2, *, top: str = "", module: str = "", **keys: Any) -> RunningDaemon:
        folder = tmp_path / f"daemon{next(numbers)}"
        folder.mkdir(mode=0o755)
        if module:
            (folder / "own_stages.py").write_text(module)
            keys["backend"] = 'import = ["own_stages"]'
        daemon = RunningDaemon(folder, top=f"processes = {processes}\n{top}", **keys)
        made.append(daemon)
        return daemon

    yield start
    for daemon in made:
        children = pids_of(daemon) if daemon.process.poll() is None else []
        daemon.kill()
        for pid in children:
            until(partial(is_gone, pid))


def asked(daemon: RunningDaemon, command: str = "status") -> dict[str, Any]:
    answer = ask(f"{daemon.config_file}.sock", command)
    assert answer["ok"], answer
    return dict(answer["result"] or {})


def processes(daemon: RunningDaemon) -> list[dict[str, Any]]:
    return list(asked(daemon)["processes"])


def pids(daemon: RunningDaemon) -> list[int]:
    """Of the children that serve, by their numbers."""
    found = processes(daemon)
    assert all(one["state"] == "serving" for one in found), found
    return [one["pid"] for one in found]


def pids_of(daemon: RunningDaemon) -> list[int]:
    """Its children, also of one that does not answer."""
    found: list[int] = []
    with suppress(OSError):
        # By whichever thread has started them.
        for file in Path(f"/proc/{daemon.pid}/task").glob("*/children"):
            found += map(int, file.read_text().split())
    return found


def is_there(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False


def is_gone(pid: int) -> bool:
    return not is_there(pid)


def send(daemon: RunningDaemon, subject: str = "hello") -> tuple[int, bytes]:
    """One mail on a connection of its own; the answer to its data."""
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=TIMEOUT) as client:
        client.ehlo("client.example.org")
        client.mail("from@example.org")
        client.rcpt("to@example.com")
        return client.data(f"Subject: {subject}\r\n\r\nbody\r\n".encode())


def replaced(daemon: RunningDaemon, number: int, before: int) -> None:
    """Waits until another process has the place of one."""

    def is_another() -> bool:
        one = processes(daemon)[number]
        return bool(one["state"] == "serving" and one["pid"] != before)

    until(is_another)


def answers(client: Wire) -> bool:
    """Whether its session goes on."""
    with suppress(ConnectionResetError, BrokenPipeError):
        return client.ask(b"NOOP\r\n").startswith("250 ")
    return False


DYING = """\
import os, pathlib, signal, guerrilla

if pathlib.Path("die").exists():
    os.kill(os.getpid(), signal.SIGSEGV)

@guerrilla.processor("Dying")
def dying(envelope):
    return None
"""


def in_data(client: Wire) -> None:
    """Brings a session into the middle of a message."""
    client.send(HELLO)
    client.reply()
    client.send(TRANSACTION)
    assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]


def refused(daemon: RunningDaemon) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", daemon.port), 5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
