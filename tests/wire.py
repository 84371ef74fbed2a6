"""A client that says exactly what a test wants, byte by byte, and what a process costs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 30.0
"""Seconds to wait for what must come; nothing is ever waited out."""

GONE = (ConnectionResetError, BrokenPipeError)
"""What a socket raises whose peer has closed with octets unread."""

HELLO = b"EHLO client.example.org\r\n"
TRANSACTION = b"MAIL FROM:<from@example.org>\r\nRCPT TO:<to@example.com>\r\nDATA\r\n"
"""Up to the 354."""


class Wire:
    """A connection; it has read the greeting.

    Args:
        where: a port of 127.0.0.1, an address as the daemon prints it, or a socket to use.
        receive_buffer: octets of replies that the kernel takes for it; the kernel's own default
            at 0.
        greeted: whether the greeting is read.
    """

    def __init__(
        self, where: int | str | socket.socket, *, receive_buffer: int = 0, greeted: bool = True
    ) -> None:
        if isinstance(where, socket.socket):
            self.socket = where
        else:
            self.socket = _connect(where, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self._unread = b""
        try:
            self.greeting = self.reply() if greeted else ""
        except BaseException:
            self.socket.close()
            raise

    def send(self, octets: bytes) -> None:
        """Sends all of it."""
        self.socket.sendall(octets)

    def line(self) -> str:
        """One line of a reply, without its CRLF; empty at the end of the connection."""
        while b"\r\n" not in self._unread:
            octets = self.socket.recv(65_536)
            if not octets:
                assert not self._unread, f"ended within a line: {self._unread!r}"
                return ""
            self._unread += octets
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line.decode()

    def reply(self) -> str:
        """The last line of a reply, without its CRLF; empty at the end of the connection."""
        return self.lines()[-1]

    def lines(self) -> list[str]:
        """Every line of one reply."""
        found = [self.line()]
        while found[-1][3:4] == "-":
            found.append(self.line())
        return found

    def ask(self, octets: bytes) -> str:
        """Sends, and reads one reply."""
        self.send(octets)
        return self.reply()

    def begin(self, parameters: str = "") -> Self:
        """Says EHLO and everything else up to the 354.

        Args:
            parameters: of MAIL, with a space before each.
        """
        assert self.ask(HELLO).startswith("250 ")
        return self.begin_again(parameters)

    def begin_again(self, parameters: str = "") -> Self:
        """Everything but EHLO."""
        self.send(TRANSACTION.replace(b">\r\n", b">%s\r\n" % parameters.encode(), 1))
        codes = [self.reply()[:3] for _ in range(3)]
        assert codes == ["250", "250", "354"]
        return self

    def deliver(self, message: bytes) -> str:
        """Sends one message; the reply to its data."""
        self.begin()
        return self.ask(message + b"\r\n.\r\n")

    def rest(self) -> list[str]:
        """Every line until the daemon closes; a reset is an end as well."""
        lines = []
        try:
            while line := self.line():
                lines.append(line)
        except GONE:
            pass
        return lines

    def finish_sending(self) -> None:
        """Sends a FIN; what comes can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Ends the connection by a reset, as a process that is gone does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Closes."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _connect(where: int | str, receive_buffer: int) -> socket.socket:
    if isinstance(where, str) and where.startswith("unix:"):
        family, address = socket.AF_UNIX, where.removeprefix("unix:")
        client = socket.socket(family)
        return _connected(client, address)
    host, _, port = (
        f"127.0.0.1:{where}".rpartition(":") if isinstance(where, int) else (where.rpartition(":"))
    )
    host = host.strip("[]")
    client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if receive_buffer:  # before the connect, which agrees on the window
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    _connected(client, (host, int(port)))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _connected(client: socket.socket, address: str | tuple[str, int]) -> socket.socket:
    client.settimeout(PATIENCE)
    try:
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def rate(port: int, windows: int = 10) -> float:
    """Mails of 4 KiB a second that one sender on one connection has answered 250.

    Args:
        port: where to.
        windows: how often 0.2 s of it are counted; the median is the rate.
    """
    message = b"Subject: small\r\n\r\n" + b"x" * 4_096 + b"\r\n.\r\n"
    rates = []
    with Wire(port) as client:
        client.ask(HELLO)
        for _ in range(windows):
            count = 0
            began = time.perf_counter()
            while (taken := time.perf_counter() - began) < 0.2:
                client.send(TRANSACTION)
                assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
                assert client.ask(message).startswith("250 ")
                count += 1
            rates.append(count / taken)
    return statistics.median(rates)


def stands_still(pid: int) -> bool:
    """Whether all threads of a process have stopped."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = (thread / "stat").read_text()
            if stat.rpartition(")")[2].split()[0] not in "TZX":
                return False
    return True


def halt(pid: int) -> None:
    """Stops a process, and waits until it does nothing more.

    The signal is told to one of its threads. Until that one is given a core the others go on: they
    greet who comes, and answer what they are asked.
    """
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stands_still(pid))


def until(true: Callable[[], object], patience: float = PATIENCE) -> None:
    """Waits for another process or thread; fails instead of hanging."""
    limit = time.monotonic() + patience
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.005)


def descriptors() -> dict[str, str]:
    """What this process has open, by number; what others in it close meanwhile is left out."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def opened_since(before: Mapping[str, str]) -> dict[str, str]:
    """What is open that was not before."""
    return {number: of for number, of in descriptors().items() if before.get(number) != of}


def no_more_than(before: Mapping[str, str]) -> None:
    """Waits until another thread has closed what was not open before; fails with what is."""
    with contextlib.suppress(AssertionError):
        until(lambda: not opened_since(before))
    assert opened_since(before) == {}


def peak_memory(pid: int) -> int:
    """The most octets a process has had in memory."""
    return _status(pid, "VmHWM") * 1024


def resident_memory(pid: int) -> int:
    """The octets a process has in memory now."""
    return _status(pid, "VmRSS") * 1024


def forget_peak(pid: int) -> int:
    """Begins a new peak; the octets that the process has now."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")
    return resident_memory(pid)


def anonymous_memory(pid: int) -> int:
    """Octets that a process has in memory, but for what is mapped from files."""
    return _status(pid, "RssAnon") * 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and kernel mode."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    raise AssertionError(key)
