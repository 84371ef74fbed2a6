"""nginx and HAProxy in processes of their own, with the example configs of the project.

A test gives what in an example belongs to one machine: addresses and paths. All else is as a reader
of the example has it. The proxies listen on a loopback address of their own, where no outgoing
connection can have taken a port that was free a moment ago.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.clients.witnesses import BACKEND, CHAIN, send_witness
from tests.running import STOP_TIMEOUT, RunningDaemon
from tests.wire import until

EXAMPLES: Final = Path(__file__).parent.parent.parent / "examples"
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
HOST: Final = f"127.0.4.{1 + _WORKER}"
"""Where the proxies of tests listen; those that run beside each other have each their own."""
CLIENT: Final = "127.0.0.2"
"""Where the clients of tests come from: not the address that a proxy connects from."""


class Proxy:
    """A proxy, which runs until the end of the `with` block and is then ended by its process id.

    Args:
        folder: an empty folder, where it runs and where what it says comes into `proxy.log`.
        command: the program and its options, in the foreground.
        is_ready: whether it serves; asked until it is so.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], is_ready: Callable[[], object]
    ) -> None:
        self._log = folder / "proxy.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            until(lambda: self._is_up(is_ready))
        except AssertionError:
            self._end()
            raise AssertionError(f"{command[0]} did not start\n{self.log_text()}") from None

    def log_text(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _is_up(self, is_ready: Callable[[], object]) -> bool:
        assert self._process.poll() is None, "it ended"
        try:
            return bool(is_ready())
        except OSError:
            return False

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def example_daemon(folder: Path, example: str, changes: Mapping[str, str]) -> RunningDaemon:
    """A daemon with an example config, on free ports and with its database in the folder.

    The stage of `witnesses` is added to its chain, for what no column holds.
    """
    own = {
        '"127.0.0.1:2525"': '"127.0.0.1:0"',
        '"mail.db"': f'"{folder / "mail.db"}"',
        'save_process = "HeadersParser|Hasher|Header|SQL"': f'save_process = "{CHAIN}"\n{BACKEND}',
    }
    return RunningDaemon(send_witness(folder), config=filled(example, {**own, **changes}))


def filled(example: str, changes: Mapping[str, str]) -> str:
    """An example with other texts in the places of its own; each has to be there."""
    text = (EXAMPLES / example).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"{example} has no {old!r}"
        text = text.replace(old, new)
    return text


def program(name: str) -> str:
    """The path of a proxy's program, which Debian has where only root's PATH looks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert found, f"no {name}: sh scripts/test-tools.sh installs it, or says how"
    return found


def free_ports(count: int) -> list[int]:
    """Ports of `HOST` that nobody has."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def asked(port: int, octets: bytes) -> str:
    """What a service of a proxy answers before it closes."""
    with socket.create_connection((HOST, port), timeout=20) as client:
        client.sendall(octets)
        parts = []
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts).decode()
