"""Sockets over an upgrade: the daemon's own are its own again, and systemd's stay systemd's."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from guerrilla.config import AppConfig
from guerrilla.errors import UpgradeError
from guerrilla.processes import family
from guerrilla.processes.family import Family
from guerrilla.processes.parent import Parent
from guerrilla.processes.upgrade import Launch, Upgrade
from tests.services.base import free_port
from tests.test_activation import LAUNCHER, address_of, listening
from tests.test_inherited import without_descriptors
from tests.test_moving import Clients
from tests.upgrades import TIMEOUT, Make, Upgradable, make
from tests.wire import until

__all__ = ["make"]

numbers = pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 2), (2, 1)])


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def changed(daemon: Upgradable, old: str, new: str) -> None:
    text = daemon.config_file.read_text()
    assert old in text
    daemon.config_file.write_text(text.replace(old, new))


def upgraded(daemon: Upgradable, before: int, after: int) -> None:
    """Another one of maybe another number of processes, once the old one has ended."""
    changed(daemon, f"processes = {before}\n", f"processes = {after}\n")
    daemon.upgrade()
    daemon.ended()


def listed(daemon: Upgradable) -> list[str]:
    return [one for server in daemon.asked()["servers"] for one in server["addresses"]]


@numbers
def test_a_server_moves_after_an_upgrade_and_nobody_is_refused(
    make: Make, before: int, after: int
) -> None:
    port = free_port()
    places = [f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"[::]:{port}", f"localhost:{port}"]
    server = f'[[servers]]\nlisten_interface = "{places[0]}"\nhost_name = "mx.example.com"'
    daemon = make(before, server=server)
    with Clients(port) as clients:
        clients.more(20)
        upgraded(daemon, before, after)
        for old, new in ((0, 1), (1, 0), (0, 1)):
            clients.more(20)
            changed(daemon, places[old], places[new])
            daemon.asked("reload")
            assert places[new] in listed(daemon)
        clients.more(20)
    assert clients.heard.keys() <= {"220 ", "421 "}
    assert clients.heard["220 "] >= 60


@numbers
def test_what_systemd_has_passed_stays_systemds(
    make: Make, opened: ExitStack, before: int, after: int
) -> None:
    sockets = [listening(opened), listening(opened)]
    places = [one.getsockname()[:2] for one in sockets]
    fds = [one.fileno() for one in sockets]
    server = '[[servers]]\nlisten_interface = "systemd:smtp"\nhost_name = "mx.example.com"'
    daemon = make(
        before,
        server=server,
        command=[sys.executable, "-c", LAUNCHER, ",".join(map(str, fds))],
        environment={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "smtp:smtp"},
        descriptors=fds,
    )

    def waiting() -> list[socket.socket]:
        return [
            opened.enter_context(socket.create_connection(place, TIMEOUT)) for place in places * 5
        ]

    def reloaded(old: str, new: str) -> None:
        changed(daemon, old, new)
        daemon.asked("reload")

    # What a server is taken out of is there for who comes after, too.
    reloaded(server, "#")
    early = waiting()
    upgraded(daemon, before, after)
    assert "no server listens at what systemd has passed: clients wait there" in daemon.log_text()
    reloaded("#", server)
    early += waiting()
    assert {client.recv(1000)[:4] for client in early} == {b"220 "}
    # It is left as it is.
    changed(daemon, "systemd:smtp", f"0.0.0.0:{places[0][1]}")
    assert not daemon.ask("reload")["ok"]
    assert not sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    reloaded(f"0.0.0.0:{places[0][1]}", address_of(sockets[0]))
    assert listed(daemon)[1:] == [address_of(sockets[0])]
    late = waiting()
    assert {client.recv(1000)[:4] for client in late[::2]} == {b"220 "}
    reloaded(address_of(sockets[0]), "systemd:smtp")
    assert {client.recv(1000)[:4] for client in late[1::2]} == {b"220 "}
    # Twice: what was handed over once goes on from hand to hand.
    pid = daemon.upgrade()
    until(lambda: daemon.asked()["pid"] == pid)
    assert {client.recv(1000)[:4] for client in waiting()} <= {b"220 ", b"421 "}
    reloaded(server, "#")
    waits = waiting()
    daemon.asked("stop")
    # They wait for whom systemd starts next.
    for one, client in zip(sockets, waits, strict=False):
        one.settimeout(TIMEOUT)
        with one.accept()[0] as accepted:
            assert accepted.getpeername() == client.getsockname()


def test_without_descriptors_to_hand_over_none_is_left_open(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each try would leave fewer of them, to the process that is short of them."""
    parent: Any = Parent(AppConfig.default(), None, 2)
    sockets = [(f"127.0.0.1:{number}", listening(opened).fileno()) for number in (1, 2)]
    monkeypatch.setattr(parent, "sockets", SimpleNamespace(all=lambda: sockets))
    monkeypatch.setattr(parent, "_started", True)
    upgrade = Upgrade(parent, Launch((), ".", {}))
    with without_descriptors(but=1):
        with pytest.raises(UpgradeError, match="Too many open files"):
            upgrade.run()
        os.close(os.dup(0))


def test_processes_that_do_not_serve_are_waited_for_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not for longer than the process before them waits for all that."""
    hub: Any = SimpleNamespace()
    monkeypatch.setattr(family, "SERVING_LIMIT", 0.3)
    begun = time.monotonic()
    assert Family(20, hub).release() == {}
    assert 0.3 <= time.monotonic() - begun < 5.9
