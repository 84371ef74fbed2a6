"""From `listen_interface` to addresses that can be bound."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from guerrilla.config import parse_listen_interface
from guerrilla.running.addresses import resolve


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.1:25", ["127.0.0.1:25"]),
        ("0.0.0.0:0", ["0.0.0.0:0"]),
        ("unix:/run/a.sock", ["unix:/run/a.sock"]),
        ("[::1]:25", ["[::1]:25"]),
    ],
)
def test_an_address_stands_for_itself(text: str, addresses: list[str]) -> None:
    assert resolve(parse_listen_interface(text)) == addresses


@pytest.mark.parametrize(
    ("has_ipv6", "addresses"), [(True, ["0.0.0.0:25", "[::]:25"]), (False, ["0.0.0.0:25"])]
)
def test_a_port_alone_is_every_address(
    monkeypatch: pytest.MonkeyPatch, has_ipv6: bool, addresses: list[str]
) -> None:
    monkeypatch.setattr("guerrilla.running.addresses._has_ipv6", lambda: has_ipv6)
    assert resolve(parse_listen_interface(":25")) == addresses


@pytest.mark.parametrize(
    ("has_ipv6", "addresses"),
    [(True, ["192.0.2.1:25", "[2001:db8::1]:25"]), (False, ["192.0.2.1:25"])],
)
def test_a_name_is_each_of_its_addresses_once(
    monkeypatch: pytest.MonkeyPatch, has_ipv6: bool, addresses: list[str]
) -> None:
    def lookup(host: str, port: int, *, type: int) -> list[Any]:  # noqa: A002
        assert (host, port) == ("mx.example.com", 25)
        v6 = (socket.AF_INET6, type, 6, "", ("2001:db8::1", port, 0, 0))
        v4 = (socket.AF_INET, type, 6, "", ("192.0.2.1", port))
        return [v6, v4, v4]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr("guerrilla.running.addresses._has_ipv6", lambda: has_ipv6)
    assert resolve(parse_listen_interface("mx.example.com:25")) == addresses
