"""What is one over all processes, at a daemon of several: limits, and sessions of TLS."""

from __future__ import annotations

import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla.control.client import ask
from tests.certificates import self_signed, unverified
from tests.running import RunningDaemon
from tests.wire import HELLO, Wire, until

MOST: Final = 8

HASTY: Final = (
    sys.executable,
    "-c",
    (
        "import sys\n"
        "from guerrilla.processes import rotation\n"
        "rotation.EVERY = 0.1\n"
        "from guerrilla.cli import main\n"
        "sys.exit(main())\n"
    ),
)
"""A daemon whose keys of tickets get old fast."""

Serve = Callable[..., RunningDaemon]
Come = Callable[[RunningDaemon], Wire]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A daemon of so many processes whose server has these lines."""
    with ExitStack() as ended:

        def start(processes: int, server: str, *command: str) -> RunningDaemon:
            folder = tmp_path / "daemon"
            folder.mkdir()
            command = command or (sys.executable, "-m", "guerrilla")
            top = f"processes = {processes}"
            daemon = RunningDaemon(folder, top=top, server=server, command=command)
            return ended.enter_context(daemon)

        yield start


@pytest.fixture
def come() -> Iterator[Come]:
    """A client that stays until the test ends."""
    with ExitStack() as ended:
        yield lambda daemon: ended.enter_context(Wire(daemon.port, greeted=False))


def asked(daemon: RunningDaemon, command: str) -> dict[str, Any]:
    answer = ask(f"{daemon.config_file}.sock", command)
    assert answer["ok"], answer
    return dict(answer["result"])


def is_in(wire: Wire) -> bool:
    """Whether it is greeted, and not refused."""
    first = wire.reply()
    assert first.startswith(("220 ", "421 4.7.0 Too many "))
    return first.startswith("220 ")


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("key", ["max_clients", "max_connections_per_ip"])
def test_as_many_connect_as_one_process_would_let_in(
    serve: Serve, come: Come, key: str, processes: int
) -> None:
    """Also when one of them was killed, whose connections count no longer."""
    daemon = serve(processes, f"{key} = {MOST}\n")
    wires = [come(daemon) for _ in range(MOST)]
    assert all(is_in(wire) for wire in wires)
    assert not any(is_in(come(daemon)) for _ in range(2 * processes))

    each = asked(daemon, "status")["processes"]
    assert sum(one["clients"] for one in each) == MOST
    fullest = max(each, key=lambda one: one["clients"])
    os.kill(fullest["pid"], signal.SIGKILL)

    def is_replaced() -> bool:
        one = asked(daemon, "status")["processes"][fullest["number"]]
        return bool(one["state"] == "serving" and one["pid"] != fullest["pid"])

    until(is_replaced)
    assert asked(daemon, "stats")["connections_open"] == MOST - fullest["clients"]
    assert all(is_in(come(daemon)) for _ in range(fullest["clients"]))
    assert not any(is_in(come(daemon)) for _ in range(2 * processes))
    figures = asked(daemon, "stats")
    assert figures["connections_open"] == MOST
    assert figures["connections_accepted"] == MOST + fullest["clients"]
    refused = figures["connections_refused"] + figures["connections_limited"]
    assert refused == figures["replies_421"] == 4 * processes


@pytest.mark.parametrize("processes", [2, 4])
def test_a_rate_is_one_for_all_processes(serve: Serve, come: Come, processes: int) -> None:
    daemon = serve(processes, f"max_connection_rate_per_ip = {MOST}\n")
    assert [is_in(come(daemon)) for _ in range(MOST + 4)] == [True] * MOST + [False] * 4


class Visitor:
    """A client of TLS that comes back with what it was given."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self._context = unverified()
        self._context.maximum_version = self._context.minimum_version = version
        self.session: ssl.SSLSession | None = None

    def resumes(self, daemon: RunningDaemon, session: ssl.SSLSession | None) -> bool:
        """Whether this session is known; `session` is the new one then."""
        with Wire(daemon.port) as wire:
            wire.ask(HELLO)
            wire.ask(b"STARTTLS\r\n")
            secure = self._context.wrap_socket(wire.socket, session=session)
            with Wire(secure, greeted=False) as inner:
                # By then the ticket has come.
                assert inner.ask(HELLO).startswith("250")
                self.session = secure.session
                return bool(secure.session_reused)


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
def test_a_session_of_tls_goes_on_at_any_process(
    serve: Serve, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    daemon = serve(2, f"[servers.tls]\nstart_tls_on = true\n{self_signed(tmp_path).toml()}")
    visitor = Visitor(version)
    resumed = [visitor.resumes(daemon, visitor.session) for _ in range(24)]
    assert resumed == [False] + [True] * 23


@VERSIONS
def test_a_session_of_tls_gets_old(serve: Serve, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Its key is one of the last two."""
    server = f"[servers.tls]\nstart_tls_on = true\n{self_signed(tmp_path).toml()}"
    daemon = serve(2, server, *HASTY)
    visitor = Visitor(version)
    assert not visitor.resumes(daemon, None)
    old = visitor.session
    until(lambda: not visitor.resumes(daemon, old))
