"""A stand-in for a daemon, and clients of a control socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from guerrilla.config import AppConfig, from_mapping
from guerrilla.control import sockets
from guerrilla.control.server import Control
from guerrilla.control.spool import SpoolDesk

PATIENCE = 20.0
"""Seconds; a client of a test waits no longer for anything."""


@dataclass
class FakeReport:
    """As a reload gives it."""

    changes: tuple[object, ...] = ()
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failures


@dataclass
class FakeDaemon:
    """Has what the socket needs of a daemon; does and raises what it is told to."""

    config: AppConfig = field(default_factory=lambda: from_mapping({"shutdown_timeout": 5}))
    report: FakeReport = field(default_factory=FakeReport)
    error: Exception | None = None
    did: list[str] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    hangs: bool = False
    control: Control | None = None
    """Its own socket, which its end stops."""

    def _do(self, what: str) -> None:
        self.did.append(what)
        hangs = self.hangs  # Who waits for `entered` may change it.
        self.entered.set()
        if hangs:
            self.release.wait(PATIENCE)
        if self.error is not None:
            raise self.error

    def reload_config_file(self) -> FakeReport:
        self._do("reload")
        return self.report

    def upgrader(self) -> dict[str, Any]:
        self._do("upgrade")
        return {"pid": 1234, "version": "1.0"}

    def reopen_logs(self) -> None:
        self._do("reopen")

    def shutdown(self) -> bool:
        self._do("shutdown")
        if self.control is not None:
            self.control.stop()
        return True

    def status(self) -> dict[str, Any]:
        self._do("status")
        return {"version": "0.1", "pid": 1, "path": Path("p"), "text": "a\nb"}

    def stats(self) -> dict[str, int]:
        self._do("stats")
        return {"connections": 3}

    def spool_desk(self) -> SpoolDesk:
        """Of no spool."""
        return SpoolDesk(lambda: self._do("spool"))


class Client:
    """A connection to a control socket."""

    def __init__(self, path: str | Path) -> None:
        self.socket = sockets.connect(str(path), PATIENCE)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.readline())
        return found

    def ask(self, command: object, **arguments: object) -> dict[str, Any]:
        request = {"command": command} | ({"arguments": arguments} if arguments else {})
        self.send(json.dumps(request).encode() + b"\n")
        return self.answer()

    def has_ended(self) -> bool:
        """Waits for the end; anything but the end is a failure."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def end_sending(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def started(daemon: FakeDaemon, path: Path, timeout: float = PATIENCE) -> Iterator[Control]:
    """A control socket that is stopped at the end."""
    control = Control(daemon, path, timeout)
    daemon.control = control
    control.start()
    try:
        yield control
    finally:
        daemon.release.set()
        control.stop()
