"""`docs/reload.md` says of every key when it takes effect: here each is changed, and looked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla.config import AppConfig, ServerConfig, TLSConfig, from_mapping, unbuilt
from guerrilla.config.section import key_of
from tests.certificates import Pair, encrypted, self_signed
from tests.daemons import Make, config, connect
from tests.wire import HELLO, Wire

ROOT: Final = Path(__file__).parent.parent
_ROW: Final = re.compile(r"\| `([\w.\[\]]+)` \| (at once|between transactions|next \w+)")
TABLE: Final = dict(_ROW.findall((ROOT / "docs/reload.md").read_text(encoding="utf-8")))
"""When each key takes effect."""

Probe = Callable[[Wire], bool]
"""Whether a client that has been greeted meets the new value."""

SENDER: Final = b"MAIL FROM:<from@example.org>\r\n"
RECIPIENT: Final = b"RCPT TO:<to@example.com>\r\n"


def ehlo(text: str) -> Probe:
    """The reply to EHLO has a line that begins so."""

    def probe(wire: Wire) -> bool:
        wire.send(HELLO)
        return any(line[4:].startswith(text) for line in wire.lines())

    return probe


def says(*commands: bytes, code: str) -> Probe:
    """The last of these commands is answered so."""

    def probe(wire: Wire) -> bool:
        return [wire.ask(command) for command in commands][-1].startswith(code)

    return probe


def refuses(message: bytes) -> Probe:
    """The message is refused."""
    return lambda wire: not wire.deliver(message).startswith("250 ")


def is_closed_idle(wire: Wire) -> bool:
    """Who says nothing more is told so."""
    wire.ask(b"NOOP\r\n")
    wire.socket.settimeout(2)
    try:
        return wire.rest() == ["421 4.4.2 Timeout, closing the connection"]
    except TimeoutError:
        return False


def is_closed_in_data(wire: Wire) -> bool:
    wire.begin()
    wire.socket.settimeout(2)
    try:
        return wire.line().startswith("421 4.4.2 ")
    except TimeoutError:
        return False


HOPS: Final = b"Received: a\r\nReceived: b\r\n\r\ntext"
BETWEEN: Final[dict[str, tuple[Any, Probe]]] = {
    "host_name": ("new.example.com", ehlo("new.example.com")),
    "max_size": (500, ehlo("SIZE 500")),
    "timeout": ("300ms", is_closed_idle),
    "xclient_on": (True, ehlo("XCLIENT")),
    "bare_newline": ("reject", refuses(b"a\nb")),
    "data_timeout": ("300ms", is_closed_in_data),
    "helo_required": (False, says(SENDER, code="250")),
    "max_recipients": (1, says(HELLO, SENDER, RECIPIENT, RECIPIENT, code="452")),
    "max_errors": (1, says(b"WHAT\r\n", code="421")),
    "max_idle_commands": (1, says(b"NOOP\r\n", b"NOOP\r\n", code="421")),
    "max_received_hops": (1, refuses(HOPS)),
    "max_messages": (1, lambda wire: refuses(b"a")(wire) or says(SENDER, code="421")(wire)),
}
"""Keys of a server that sessions obey between two transactions."""

UNPROBED: Final = {
    # What they do is seen after a minute, or is the same key's neighbour's.
    "min_data_rate",
    "max_header_size",
    # Tested with what they need, by name: here and in test_reload.py, test_backends.py,
    # test_tls_openssl.py.
    "backend",
    "is_enabled",
    "listen_interface",
    "log_file",
    "log_level",
    "ipv6_prefix",
}


@pytest.mark.parametrize("key", BETWEEN)
def test_a_session_obeys_it_between_two_transactions(make: Make, key: str) -> None:
    assert TABLE[f"servers[].{key}"] == "between transactions"
    value, is_new = BETWEEN[key]
    raw = config()
    with make(raw) as daemon, connect(daemon) as old, connect(daemon) as control:
        assert not is_new(control)
        raw["servers"][0][key] = value
        assert daemon.reload_config(from_mapping(raw)).ok
        assert is_new(old)
        with connect(daemon) as new:
            assert is_new(new)


CONNECTION: Final[dict[str, Any]] = {
    "max_clients": 1,
    "max_connections_per_ip": 1,
    "max_connection_rate_per_ip": 1,
    "greet_delay": "20s",
    "proxy_protocol": True,
    "trusted_proxies": ["192.0.2.1"],
}
"""Keys of a server that count for the next connection, which is not greeted then."""


@pytest.mark.parametrize("key", CONNECTION)
def test_the_next_connection_meets_it_and_no_other(make: Make, key: str) -> None:
    assert TABLE[f"servers[].{key}"] == "next connection"
    raw = config()
    if key == "trusted_proxies":
        raw["servers"][0]["xclient_on"] = True
    with make(raw) as daemon, connect(daemon) as old:
        raw["servers"][0] |= {key: CONNECTION[key], "timeout": "60s"}
        assert daemon.reload_config(from_mapping(raw)).ok
        assert old.deliver(b"as before").startswith("250 ")
        with connect(daemon, greeted=False) as new:
            if key == "trusted_proxies":
                assert new.reply().startswith("220 ")
                assert not ehlo("XCLIENT")(new)
                assert ehlo("XCLIENT")(old)
                return
            if key in {"max_connections_per_ip", "max_connection_rate_per_ip"}:
                assert is_greeted(new)  # the first since it is counted
                with connect(daemon, greeted=False) as newer:
                    assert not is_greeted(newer)
            else:
                assert not is_greeted(new)


def is_greeted(wire: Wire) -> bool:
    """Within a second."""
    wire.socket.settimeout(1)
    try:
        return wire.reply().startswith("220 ")
    except TimeoutError:
        return False


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, Pair]:
    return (
        self_signed(tmp_path, "one.example", stem="one"),
        self_signed(tmp_path, "two.example", stem="two"),
    )


def handshake(wire: Wire) -> tuple[bytes, str]:
    """The certificate that STARTTLS shows, and the version."""
    assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
    with encrypted(wire) as inner:
        shown = inner.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        return shown, inner.socket.version()  # type: ignore[attr-defined]


def test_keys_of_tls_between_transactions(make: Make, pairs: tuple[Pair, Pair]) -> None:
    raw = config()
    with make(raw) as daemon, connect(daemon) as old:
        raw["servers"][0]["tls"] = pairs[0].section()
        assert daemon.reload_config(from_mapping(raw)).ok
        assert ehlo("STARTTLS")(old)
        raw["servers"][0]["tls"] = pairs[0].section(required=True)
        assert daemon.reload_config(from_mapping(raw)).ok
        assert old.ask(SENDER).startswith("530 5.7.0 ")
    for key in ("start_tls_on", "required"):
        assert TABLE[f"servers[].tls.{key}"] == "between transactions"


def test_keys_of_tls_at_the_next_handshake(make: Make, pairs: tuple[Pair, Pair]) -> None:
    """On connections that were there before, too."""
    one, two = pairs
    with make(one.config()) as daemon, connect(daemon) as old, connect(daemon) as older:
        assert daemon.reload_config(from_mapping(two.config())).ok
        assert handshake(old)[0] == two.der()
        # The same names, other content.
        two.become(one)
        assert daemon.reload_config(from_mapping(two.config(protocols=["tls1.2", "tls1.2"]))).ok
        assert handshake(older) == (one.der(), "TLSv1.2")
    for key in ("private_key_file", "public_key_file", "protocols"):
        assert TABLE[f"servers[].tls.{key}"] == "next handshake"


def test_implicit_tls_at_the_next_connection(make: Make, pairs: tuple[Pair, Pair]) -> None:
    with make() as daemon, connect(daemon) as old:
        new = pairs[0].config(start_tls_on=False, tls_always_on=True)
        assert daemon.reload_config(from_mapping(new)).ok
        assert old.deliver(b"as before").startswith("250 ")
        with connect(daemon, greeted=False) as wire, encrypted(wire, greeted=True) as inner:
            assert inner.deliver(b"within").startswith("250 ")
    assert TABLE["servers[].tls.tls_always_on"] == "next connection"


def test_every_key_that_is_built_is_in_the_table() -> None:
    keys = {key_of(AppConfig, field) for field in AppConfig.model_fields}
    keys |= {f"servers[].{key_of(ServerConfig, field)}" for field in ServerConfig.model_fields}
    keys |= {f"servers[].tls.{key_of(TLSConfig, field)}" for field in TLSConfig.model_fields}
    late = {line.partition(":")[0].replace("[0]", "[]") for line in unbuilt(everything())}
    late = {re.sub(r"\.auth\..*", ".auth", key) for key in late}
    sections = {"servers", "servers[].tls"}
    assert keys - late - sections - set(TABLE) == set()
    probed = {*BETWEEN, *CONNECTION, *UNPROBED}
    named = {key for key in TABLE if re.fullmatch(r"servers\[\]\.\w+", key)}
    assert {key.removeprefix("servers[].") for key in named} == probed


def everything() -> AppConfig:
    """A config in which all that is not built is on."""
    raw = config(auth_process="A", processors={"a": {}})
    raw |= {
        "processes": 2,
        "spool": {"path": "s"},
        "dashboard": {"is_enabled": True},
        "metrics": {"listen_interface": "127.0.0.1:0"},
    }
    raw["servers"][0] |= {
        "protocol": "lmtp",
        "extensions": {"SIZE": False},
        "auth": {"required": True, "relay": True, "allow_plaintext": True},
    }
    return from_mapping(raw)
