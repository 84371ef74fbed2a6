"""What sessions and connections obey after a reload, key by key, and from when on."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from guerrilla import AUTHENTICATED, Processor
from guerrilla._core import Credentials, Reply, Transaction
from guerrilla.config import from_mapping
from guerrilla.config.server import EXTENSIONS
from guerrilla.daemon import Daemon
from tests.daemons import Keeper, Make, config, connect
from tests.reloads import (
    MAIL,
    RECIPIENT,
    SENDER,
    Probe,
    at_top,
    each,
    ehlo,
    refuses,
    reload,
    says,
    server,
    shows,
)
from tests.wire import HELLO, TRANSACTION, Wire


def test_a_session_obeys_the_new_config_where_it_has_no_transaction(running: Daemon) -> None:
    with connect(running) as idle, connect(running) as busy:
        busy.begin()
        reload(running, server(max_size=100, host_name="other.example.com", max_recipients=1))
        # What began by the old one ends by it.
        assert busy.ask(b"x" * 200 + b"\r\n.\r\n").startswith("250 ")
        for wire in (idle, busy):
            wire.send(HELLO)
            lines = wire.lines()
            assert lines[0] == "250-other.example.com Hello"
            assert "250-SIZE 100" in lines
            assert wire.ask(b"MAIL FROM:<a@b.example> SIZE=101\r\n").startswith("552 ")


def test_max_clients_is_resized_and_drops_nobody(running: Daemon) -> None:
    with connect(running) as first, connect(running) as second:
        reload(running, server(max_clients=1))
        for wire in (first, second):
            assert wire.deliver(MAIL).startswith("250 ")
        with connect(running, greeted=False) as refused:
            assert refused.reply().startswith("421 4.7.0 ")
        reload(running, server(max_clients=3))
        with connect(running) as third:
            assert third.deliver(MAIL).startswith("250 ")


def test_timeout_changes_for_who_is_connected(running: Daemon) -> None:
    with connect(running) as wire:
        reload(running, server(timeout="1s"))
        assert wire.ask(b"NOOP\r\n").startswith("250 ")
        assert wire.rest() == ["421 4.4.2 Timeout, closing the connection"]


@shows("between transactions", "allowed_hosts")
def test_allowed_hosts_change(running: Daemon) -> None:
    with connect(running) as wire, connect(running) as busy:
        busy.send(HELLO + SENDER)
        assert [busy.reply()[:3] for _ in range(2)] == ["250"] * 2
        reload(running, at_top(allowed_hosts=["other.example"]))
        wire.send(HELLO + TRANSACTION)
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "550", "554"]
        assert busy.ask(RECIPIENT).startswith("250 ")  # as it began
        assert busy.ask(b"RSET\r\n").startswith("250 ")
        busy.send(SENDER + RECIPIENT)
        assert [busy.reply()[:3] for _ in range(2)] == ["250", "550"]


@shows("between transactions", "servers[].max_header_size")
def test_the_part_of_a_header_that_is_parsed_changes(running: Daemon, keeper: type[Keeper]) -> None:
    message = b"X-Filler: " + b"x" * 200 + b"\r\nSubject: seen\r\n\r\n"
    with connect(running) as idle, connect(running) as busy:
        busy.begin()
        reload(running, server(max_header_size=100))
        assert busy.ask(message + b".\r\n").startswith("250 ")
        assert idle.deliver(message).startswith("250 ")
        assert busy.begin_again().ask(message + b".\r\n").startswith("250 ")
    assert [envelope.subject for envelope in keeper.envelopes] == ["seen", "", ""]


@shows("next connection", "servers[].ipv6_prefix")
def test_the_network_that_is_one_client_changes(make: Make) -> None:
    raw = config()
    raw["servers"][0] |= {"proxy_protocol": True, "max_connections_per_ip": 1}

    def comes(last: int) -> Wire:
        wire = connect(daemon, greeted=False)
        wire.send(b"PROXY TCP6 2001:db8::%d 2001:db8::25 4711 25\r\n" % last)
        return wire

    with make(raw) as daemon, comes(1) as first:
        assert first.reply().startswith("220 ")
        with comes(2) as second:
            assert second.reply().startswith("421 4.7.0 ")
        raw["servers"][0]["ipv6_prefix"] = 128
        assert daemon.reload_config(from_mapping(raw)).ok
        with comes(2) as second:
            assert second.reply().startswith("220 ")
        assert first.deliver(MAIL).startswith("250 ")


# --- Key by key ---


def is_closed_idle(wire: Wire) -> bool:
    """Who says nothing more is told so."""
    wire.ask(b"NOOP\r\n")
    wire.socket.settimeout(8)
    try:
        return wire.rest() == ["421 4.4.2 Timeout, closing the connection"]
    except TimeoutError:
        return False


def is_closed_in_data(wire: Wire) -> bool:
    wire.begin()
    wire.socket.settimeout(8)
    try:
        return wire.line().startswith("421 4.4.2 ")
    except TimeoutError:
        return False


HOPS: Final = b"Received: a\r\nReceived: b\r\n\r\ntext"
BETWEEN: Final[dict[str, tuple[Any, Probe]]] = {
    "host_name": ("new.example.com", ehlo("new.example.com")),
    "max_size": (500, ehlo("SIZE 500")),
    "timeout": ("3s", is_closed_idle),
    "xclient_on": (True, ehlo("XCLIENT")),
    "bare_newline": ("reject", refuses(b"a\nb")),
    "extensions": ({"CHUNKING": False}, lambda wire: not ehlo("CHUNKING")(wire)),
    "data_timeout": ("300ms", is_closed_in_data),
    "helo_required": (False, says(SENDER, code="250")),
    "max_recipients": (1, says(HELLO, SENDER, RECIPIENT, RECIPIENT, code="452")),
    "max_errors": (1, says(b"WHAT\r\n", code="421")),
    "max_idle_commands": (1, says(b"NOOP\r\n", b"NOOP\r\n", code="421")),
    "max_received_hops": (1, refuses(HOPS)),
    "protocol": ("lmtp", says(b"LHLO client.example.org\r\n", code="250")),
    "max_messages": (1, lambda wire: refuses(b"a")(wire) or says(SENDER, code="421")(wire)),
}
"""Keys of a server that sessions obey between two transactions."""


@pytest.mark.parametrize("key", each("between transactions", BETWEEN, "servers[]."))
def test_a_session_obeys_it_between_two_transactions(make: Make, key: str) -> None:
    value, is_new = BETWEEN[key]
    raw = config()
    with make(raw) as daemon, connect(daemon) as old, connect(daemon) as control:
        assert not is_new(control)
        raw["servers"][0][key] = value
        assert daemon.reload_config(from_mapping(raw)).ok
        assert is_new(old)
        with connect(daemon) as new:
            assert is_new(new)


OPENED: Final = (HELLO, SENDER, RECIPIENT)
OFFERED: Final[dict[str, Probe]] = {
    "PIPELINING": ehlo("PIPELINING"),
    "SIZE": says(HELLO, b"MAIL FROM:<> SIZE=1\r\n", code="250"),
    "8BITMIME": says(HELLO, b"MAIL FROM:<> BODY=8BITMIME\r\n", code="250"),
    "ENHANCEDSTATUSCODES": says(HELLO, b"NOOP\r\n", code="250 2.0.0"),
    "HELP": says(b"HELP\r\n", code="214"),
    "SMTPUTF8": says(HELLO, b"MAIL FROM:<> SMTPUTF8\r\n", code="250"),
    "CHUNKING": says(*OPENED, b"BDAT 0 LAST\r\n", code="250"),
    "BINARYMIME": says(HELLO, b"MAIL FROM:<> BODY=BINARYMIME\r\n", code="250"),
    "DSN": says(HELLO, b"MAIL FROM:<> RET=HDRS\r\n", code="250"),
    "LIMITS": ehlo("LIMITS RCPTMAX=100"),
}
"""Every extension, and what shows that it is on."""


def test_there_is_no_other_extension() -> None:
    assert set(OFFERED) == set(EXTENSIONS)


@pytest.mark.parametrize("keyword", OFFERED)
def test_a_session_obeys_an_extension_between_two_transactions(make: Make, keyword: str) -> None:
    is_on = OFFERED[keyword]
    raw = config()
    with make(raw) as daemon, connect(daemon) as wire:
        assert ehlo(keyword)(wire)
        assert is_on(wire)
        for on in (False, True):
            wire.ask(b"RSET\r\n")
            raw["servers"][0]["extensions"] = {keyword: on}
            assert daemon.reload_config(from_mapping(raw)).ok
            assert ehlo(keyword)(wire) == on
            with connect(daemon) as new:
                assert ehlo(keyword)(new) == on
                assert is_on(new) == on
        assert is_on(wire)


# --- AUTH ---


class Door(Processor):
    """Lets in who knows the word."""

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply | None:
        del transaction
        return AUTHENTICATED if credentials.password == "mellon" else None


GOOD: Final = b"AUTH PLAIN AGpvZQBtZWxsb24=\r\n"
BAD: Final = b"AUTH PLAIN AGpvZQBmcmllbmQ=\r\n"
ELSEWHERE: Final = b"RCPT TO:<to@elsewhere.example>\r\n"


def is_answered_late(wire: Wire) -> bool:
    wire.ask(HELLO)
    began = time.monotonic()
    assert wire.ask(BAD).startswith("535 ")
    return time.monotonic() - began >= 5


AUTH: Final[dict[str, tuple[Any, Any, Probe]]] = {
    "required": (False, True, says(HELLO, SENDER, code="530")),
    "relay": (False, True, says(HELLO, GOOD, SENDER, ELSEWHERE, code="250")),
    "allow_plaintext": (False, True, ehlo("AUTH PLAIN LOGIN")),
    "failure_delay": (0, "5s", is_answered_late),
    "max_failures": (9, 1, says(HELLO, BAD, code="421")),
}
"""Keys of `auth`: an old value, a new one, and what shows that it is obeyed."""


@pytest.mark.parametrize("key", each("between transactions", AUTH, "servers[].auth."))
def test_a_session_obeys_auth_between_two_transactions(make: Make, key: str) -> None:
    old_value, value, is_new = AUTH[key]
    raw = config(auth_process="Door")
    auth = {"allow_plaintext": True, "failure_delay": 0, key: old_value}
    raw["servers"][0]["auth"] = auth
    daemon = make(raw)
    daemon.add_processor("Door", Door)
    with daemon, connect(daemon) as old, connect(daemon) as control:
        assert not is_new(control)
        auth[key] = value
        assert daemon.reload_config(from_mapping(raw)).ok
        assert is_new(old)
        with connect(daemon) as new:
            assert is_new(new)


def test_who_has_greeted_goes_on_as_it_began(running: Daemon) -> None:
    with connect(running) as wire:
        assert wire.ask(HELLO).startswith("250 ")
        reload(running, server(protocol="lmtp"))
        wire.send(b"MAIL FROM:<>\r\n" + RECIPIENT * 2 + b"DATA\r\n" + MAIL + b"\r\n.\r\nNOOP\r\n")
        codes = [wire.reply()[:3] for _ in range(6)]
        assert codes == ["250", "250", "250", "354", "250", "250"]
        assert wire.ask(HELLO).startswith("500 ")
        wire.send(HELLO.replace(b"EHLO", b"LHLO") + b"MAIL FROM:<>\r\n" + RECIPIENT * 2)
        assert [wire.reply()[:3] for _ in range(4)] == ["250"] * 4
        wire.send(b"DATA\r\n" + MAIL + b"\r\n.\r\n")
        assert [wire.reply()[:3] for _ in range(3)] == ["354", "250", "250"]


CONNECTION: Final[dict[str, Any]] = {
    "max_clients": 1,
    "max_connections_per_ip": 1,
    "max_connection_rate_per_ip": 1,
    "greet_delay": "20s",
    "proxy_protocol": True,
    "trusted_proxies": ["192.0.2.1"],
}
"""Keys of a server that count for the next connection, which is not greeted then."""


@pytest.mark.parametrize("key", each("next connection", CONNECTION, "servers[]."))
def test_the_next_connection_meets_it_and_no_other(make: Make, key: str) -> None:
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
                assert new.reply().startswith("220 ")  # the first since it is counted
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
