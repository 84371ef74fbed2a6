"""Servers that do with each connection what a test wants, and `guerrillad bench` against them."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import pytest

from guerrilla.cli import main

Serve = Callable[[socket.socket], None]
Answer = str | Serve


@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """A server on a free port, which gives each connection to `serve`, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        open_sockets: list[socket.socket] = []

        def one(connection: socket.socket) -> None:
            with contextlib.suppress(OSError, ValueError, IndexError), connection:
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    open_sockets.append(connection)
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in open_sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def session(answers: Mapping[str, Answer]) -> Serve:
    """A session of SMTP with other answers than those that are good.

    Args:
        answers: by verb; `CONNECT` is the greeting, `.` the reply to a message. What is no text
            ends the session.
    """

    def answer(connection: socket.socket, verb: str, default: str) -> bool:
        found = answers.get(verb, default)
        if callable(found):
            found(connection)
            return False
        connection.sendall(found.encode("latin-1"))
        return True

    def message(connection: socket.socket, lines: BinaryIO) -> bool:
        is_wanted = str(answers.get("DATA", "354")).startswith("354")
        while is_wanted and lines.readline() not in (b".\r\n", b""):
            pass
        return not is_wanted or answer(connection, ".", "250 OK\r\n")

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            goes_on = answer(connection, "CONNECT", "220 ready\r\n")
            while goes_on and (line := lines.readline()):
                verb = line.split()[0].decode().upper()
                default = "354 go\r\n" if verb == "DATA" else "250 OK\r\n"
                goes_on = answer(connection, verb, default) and verb != "QUIT"
                if goes_on and verb == "DATA":
                    goes_on = message(connection, lines)

    return serve


def closes(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stalls(connection: socket.socket) -> None:
    """Says nothing, until the other side has had enough."""
    while connection.recv(65_536):
        pass


def hangs(connection: socket.socket) -> None:
    """Reads nothing, and waits until the other side has closed."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(30_000)


class Bench:
    """Runs `guerrillad bench` within this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        """Exit status, what it printed, and what it said on stderr."""
        self._capsys.readouterr()
        try:
            status = main(["bench", *(str(word) for word in words)])
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = self._capsys.readouterr()
        return status, out, err

    def json(self, *words: object) -> tuple[int, dict[str, Any]]:
        """Exit status, and what `--json` told."""
        status, out, err = self(*words, "--json")
        assert err == ""
        told: dict[str, Any] = json.loads(out)
        return status, told


def errors(told: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Errors by kind and where they came."""
    return {(one["kind"], one["at"]): one["count"] for one in told["errors"]}


def refusals(told: dict[str, Any]) -> dict[tuple[int, str], int]:
    """Replies that refuse, by code and where they came."""
    return {(one["code"], one["at"]): one["count"] for one in told["refusals"]}


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(capsys)
