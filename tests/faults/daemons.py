"""Daemons under fault: what one holds, counts and has stored, and one that returns."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import apsw

from guerrilla.control.client import ask
from tests.running import RunningDaemon


def stats(daemon: RunningDaemon) -> dict[str, Any]:
    """All of its counters, asked for over its control socket."""
    answer = ask(f"{daemon.config_file}.sock", "stats")
    assert answer["ok"], answer
    return dict(answer["result"])


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> list[str]:
    """What those of a process are called."""
    names = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends at this moment
            names.append((thread / "comm").read_text().rstrip("\n"))
    return names


def mails_in(database: Path) -> Iterator[bytes]:
    """Every message in a SQLite database, one at a time: together they may be large."""
    connection = apsw.Connection(os.fspath(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5_000)
        for (mail,) in connection.execute("SELECT mail FROM new_mail"):
            yield bytes(mail)
    finally:
        connection.close()


def mails_of(maildir: Path) -> Iterator[bytes]:
    """Every message that was delivered into a maildir."""
    for file in (maildir / "new").iterdir():
        yield file.read_bytes()


class Returning:
    """A daemon that is started again on what it left: the same folder, another port.

    Args:
        start: starts it.
    """

    def __init__(self, start: Callable[[], RunningDaemon]) -> None:
        self._start = start
        self.daemon = start()

    def where(self) -> int:
        """The port of now, for senders.

        Raises:
            ConnectionRefusedError: it has ended; its port may be that of another process by now.
        """
        if self.daemon.process.returncode is not None:
            raise ConnectionRefusedError
        return self.daemon.port

    def again(self) -> None:
        """Starts it once it has ended."""
        self.daemon = self._start()

    def ended(self) -> int:
        """The status that it ends with."""
        status = self.daemon.process.wait(30)
        self.daemon.kill()  # closes what is read of it
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.daemon.__exit__(kind, error, trace)


def hang_up(daemon: RunningDaemon) -> None:
    """Has it read its config again."""
    daemon.process.send_signal(signal.SIGHUP)
