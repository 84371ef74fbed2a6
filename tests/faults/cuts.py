"""Connections of senders that end without a word, beside those that a killed process had open."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.wire import GONE, PATIENCE, halt

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ENDS: Final = re.compile(rb"(?:^|\r\n)421 [^\r\n]*\r\n\Z")
"""The last that is said to who is told that the connection ends."""
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_MOMENT: Final = 1.0
"""Seconds for what a connection has in hand when it can be written to no more."""


class Cut(NamedTuple):
    """A connection that ended, by its port at the sender's side."""

    port: int
    when: float


class Cuts:
    """What becomes of the connections of all senders. Filled by many threads.

    Args:
        port: where they connect to.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.opened = 0
        self.refused = 0
        """Connections that nobody listened for."""
        self.found: list[Cut] = []
        """Those that ended, and no 421 had said so."""
        self.held: list[Cut] = []
        """Those that a killed process had open, and when it was killed."""
        self.kills = 0
        self.lock = threading.Lock()

    def where(self) -> socket.socket:
        """A connection: for `deliver`."""
        watched = _Watched(self)
        watched.settimeout(PATIENCE)
        try:
            watched.connect(("127.0.0.1", self._port))
        except BaseException as error:
            watched.close()
            with self.lock:
                self.refused += isinstance(error, ConnectionRefusedError)
            raise
        watched.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.opened += 1
        return watched

    def kill(self, pid: int) -> None:
        """Kills a process of the receiver at this moment, having seen what it has open."""
        halt(pid)  # It takes and closes nothing from here on.
        ports = peers(pid, self._port)
        with self.lock:
            self.held += [Cut(port, time.monotonic()) for port in ports]
            self.kills += 1
        os.kill(pid, signal.SIGKILL)

    def unexplained(self) -> list[Cut]:
        """Those that ended, and no process that was killed before had them."""
        held = sorted(self.held, key=lambda one: one.when)
        left = []
        for cut in sorted(self.found, key=lambda one: one.when):
            # Of one that was killed a connection ends once: the next may have the same port.
            had = next((one for one in held if one.port == cut.port and one.when <= cut.when), None)
            if had is None:
                left.append(cut)
            else:
                held.remove(had)
        return left


class _Watched(socket.socket):
    """A connection that writes down how it ended."""

    def __init__(self, cuts: Cuts) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._cuts = cuts
        self._said = b""
        self._is_over = False

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As it is; looks at what is said."""
        try:
            octets = super().recv(size, flags)
        except GONE:
            self._end()
            raise
        self._said = (self._said + octets)[-1_000:]
        if not octets:
            self._end()
        return octets

    def sendall(self, octets: ReadableBuffer, flags: int = 0, /) -> None:
        """As it is; where that fails, what was said before tells why."""
        try:
            super().sendall(octets, flags)
        except GONE:
            self.settimeout(_MOMENT)
            with suppress(OSError):
                while self.recv(65_536):
                    pass
            self._end()
            raise

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if _ENDS.search(self._said) is None:
            with self._cuts.lock:
                self._cuts.found.append(Cut(self.getsockname()[1], time.monotonic()))


def peers(pid: int, port: int) -> set[int]:
    """The ports at the other side of all connections to this port that a process has."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if found := _SOCKET.fullmatch(os.readlink(descriptor)):
                inodes.add(found[1])
    ports = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        here, there = (int(fields[at].rpartition(":")[2], 16) for at in (1, 2))
        if here == port and there and fields[9] in inodes:
            ports.add(there)
    return ports
