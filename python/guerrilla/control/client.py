"""Asking a running daemon over its control socket: the side of the client."""

from __future__ import annotations

import json
import os
import select
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

from guerrilla.control import sockets
from guerrilla.control.server import STOP_GRACE
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping
    from os import PathLike

TIMEOUT: Final = 30.0
"""Seconds for an answer."""

RELOAD_TIMEOUT: Final = 600.0
"""Seconds for that of a reload, which opens chains and closes others."""

UPGRADE_TIMEOUT: Final = 180.0
"""Seconds for that of an upgrade: the new program is given up before, with an answer."""

_PATIENCE: Final = {"reload": RELOAD_TIMEOUT, "upgrade": UPGRADE_TIMEOUT}

_MAX_ANSWER: Final = 16 * 2**20
_LAST_BREATH: Final = 2.0
"""Seconds from the end of the socket to that of the process, which need not end."""


class ControlError(GuerrillaError):
    """Nobody answers at the socket, or not as a daemon does; the message names it."""


class NobodyThereError(ControlError):
    """No daemon listens at the socket."""


def ask(path: str | PathLike[str], command: str, timeout: float | None = None) -> dict[str, Any]:
    """Asks for one thing; the answer as `guerrilla.control.server` describes it.

    After `stop` it returns when the daemon has stopped.

    Args:
        path: of the socket.
        command: `reload`, `upgrade`, `reopen-logs`, `stop`, `status`, `stats` or `config`.
        timeout: seconds for the answer; by default `RELOAD_TIMEOUT` for a reload,
            `UPGRADE_TIMEOUT` for an upgrade, else `TIMEOUT`.

    Raises:
        NobodyThereError: no daemon runs there.
        ControlError: it is not ours to ask, or it does not answer in time.
    """
    if timeout is None:
        timeout = _PATIENCE.get(command, TIMEOUT)
    with Connection(path, timeout) as daemon:
        answer = daemon.ask(command)
        if command == "stop" and answer["ok"]:
            daemon.wait_for_the_end(answer["result"])
        return answer


class Connection:
    """A connection to a daemon, which may be asked several things. A context manager.

    Args:
        path: of the socket.
        timeout: seconds for each answer.

    Raises:
        NobodyThereError: no daemon runs there.
        ControlError: it is not ours to ask, or it does not answer in time; so does each method.
    """

    def __init__(self, path: str | PathLike[str], timeout: float = TIMEOUT) -> None:
        self.path = os.path.abspath(path)
        self._timeout = timeout
        with self._told():
            self._socket = sockets.connect(self.path, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self._socket.close()

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks for one thing; the answer as `guerrilla.control.server` describes it."""
        request: dict[str, Any] = {"command": command}
        if arguments:
            request["arguments"] = dict(arguments)
        with self._told():
            # One that has no room for us says so, and reads nothing.
            with suppress(BrokenPipeError):
                self._socket.sendall(json.dumps(request).encode("ascii") + b"\n")
            return _parse(_read_line(self._socket, self._timeout), self.path)

    def wait_for_the_end(self, stopping: dict[str, Any]) -> None:
        """Until the daemon has stopped, after the answer to `stop`."""
        with self._told():
            _wait_for_the_end(self._socket, stopping, self.path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ControlError(f"{self.path}: no answer within {self._timeout:g} s") from error
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NobodyThereError(
                f"{self.path}: no daemon answers there: is it running?"
            ) from error
        except OSError as error:
            raise ControlError(f"{self.path}: {error.strerror or error}") from error


def _read_line(server: socket.socket, timeout: float) -> bytes:
    limit = time.monotonic() + timeout
    data = bytearray()
    while b"\n" not in data and len(data) <= _MAX_ANSWER:
        server.settimeout(max(0.001, limit - time.monotonic()))
        more = server.recv(2**16)
        if not more:
            break
        data += more
    return bytes(data)


def _parse(line: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        what = "what answers there is no guerrillad" if line else "it ended without an answer"
        raise ControlError(f"{path}: {what}")
    return answer


def _wait_for_the_end(server: socket.socket, stopping: dict[str, Any], path: str) -> None:
    """Until the socket ends, and then for a moment until the process does."""
    process = _process(stopping["pid"])
    try:
        limit = stopping["shutdown_timeout"] + STOP_GRACE
        server.settimeout(limit)
        try:
            server.recv(1)
        except ConnectionResetError:
            pass
        except TimeoutError as error:
            raise ControlError(f"{path}: it has not stopped within {limit:g} s") from error
        if process is not None:
            select.select([process], [], [], _LAST_BREATH)
    finally:
        if process is not None:
            os.close(process)


def _process(pid: int) -> int | None:
    """What becomes readable when the process ends; None where that cannot be told."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
