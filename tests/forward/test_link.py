"""Connecting: to whichever address answers, within one time for all of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from guerrilla.config import ListenAddress, parse_listen_interface
from guerrilla.forward.link import connect
from tests.services.base import free_port

HERE = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0)) as server:
        yield server


def _resolves_to(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> ListenAddress:
    """A host with these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    return parse_listen_interface("mail.example.com:25")


def test_the_first_that_answers_is_taken(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = listener.getsockname()
    address = _resolves_to(monkeypatch, (HERE, free_port()), place)
    with connect(address, time.monotonic() + 10) as found:
        assert found.getpeername() == place


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    address = _resolves_to(monkeypatch, (HERE, free_port()), (HERE, free_port()))
    with pytest.raises(ConnectionRefusedError):
        connect(address, time.monotonic() + 10)


def test_all_of_them_have_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with many addresses, none of which answers, would take it for each."""
    waits: list[float] = []

    class Silent(socket.socket):
        def connect(self, where: object) -> None:
            waits.append(self.gettimeout() or 0.0)
            clock[0] += waits[-1] if len(waits) > 1 else 6
            raise TimeoutError("timed out")

    clock = [100.0]
    monkeypatch.setattr("guerrilla.forward.link.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(socket, "socket", Silent)
    address = _resolves_to(monkeypatch, *[(HERE, 25)] * 5)
    with pytest.raises(TimeoutError, match="no connection in time"):
        connect(address, 110.0)
    assert waits == [10.0, 4.0]
