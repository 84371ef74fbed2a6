"""Kinds of abuse of what stands before the commands: TLS, PROXY, limits of an address, the wait."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import ssl
from random import Random
from typing import Final

from tests.abuse import against, leave, tls_hello
from tests.certificates import unverified
from tests.wire import GONE, HELLO, TRANSACTION, Wire

_CLIENT: Final = unverified()
BROKEN: Final = (*GONE, ssl.SSLError)
"""What a client within TLS may raise when the server has ended it."""

V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""How a PROXY header of version 2 begins."""
HELD: Final = b"PROXY TCP4 192.0.2.77 192.0.2.1 1 25\r\n"
"""The header of a client that has its only connection already."""


def starttls(wire: Wire, behind: bytes = b"") -> None:
    """Asks for it; perhaps more follows in the same packet."""
    assert wire.reply().startswith("220 ")
    assert wire.ask(HELLO).startswith("250 ")
    assert wire.ask(b"STARTTLS\r\n" + behind).startswith("220 2.0.0 ")


def encrypted(wire: Wire, *, greeted: bool = False) -> Wire:
    """Makes the handshake."""
    return Wire(_CLIENT.wrap_socket(wire.socket), greeted=greeted)


def header(chance: Random) -> bytes:
    """A PROXY header of some client, one of 2**64."""
    text = str(ipaddress.IPv6Address((0x20010DB8 << 96) | (chance.getrandbits(64) << 32)))
    return f"PROXY TCP6 {text} ::1 {chance.randrange(65_536)} 25\r\n".encode()


# --- TLS ------------------------------------------------------------------------------------------


@against("starttls")
def abandons_the_handshake(wire: Wire, chance: Random) -> None:
    starttls(wire)
    wire.send(tls_hello()[: chance.randrange(600)])
    leave_unread(wire, chance)


@against("starttls")
def abandons_the_handshake_half_way(wire: Wire, chance: Random) -> None:
    starttls(wire)
    wire.send(tls_hello())
    assert wire.socket.recv(1) == b"\x16"  # the server's part of it
    leave_unread(wire, chance)


@against("starttls")
def never_begins_the_handshake(wire: Wire, chance: Random) -> None:
    starttls(wire)
    if chance.random() < 0.003:  # as it takes seconds
        assert wire.rest() == []
    leave(wire, chance)


@against("starttls")
def talks_garbage_for_a_handshake(wire: Wire, chance: Random) -> None:
    starttls(wire)
    wire.send(chance.randbytes(chance.randrange(1, 5_000)))
    leave_unread(wire, chance)


@against("starttls")
def claims_a_huge_record(wire: Wire, chance: Random) -> None:
    starttls(wire)
    wire.send(b"\x16\x03\x01\xff\xff" + bytes(chance.randrange(70_000)))
    leave_unread(wire, chance)


@against("starttls")
def goes_on_in_plain_text(wire: Wire, chance: Random) -> None:
    starttls(wire)
    wire.send(HELLO + TRANSACTION)
    leave_unread(wire, chance)


@against("starttls")
def injects_behind_starttls(wire: Wire, chance: Random) -> None:
    starttls(wire, HELLO + TRANSACTION + b"injected\r\n.\r\n")
    with encrypted(wire) as inner:
        assert inner.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("503 5.5.1 ")
        leave_tls(inner, chance)


@against("starttls")
def resets_within_tls(wire: Wire, chance: Random) -> None:
    starttls(wire)
    with encrypted(wire) as inner:
        if chance.random() < 0.5:
            assert inner.ask(HELLO).startswith("250 ")
        inner.reset()


@against("starttls")
def goes_in_the_middle_of_data_in_tls(wire: Wire, chance: Random) -> None:
    starttls(wire)
    with encrypted(wire) as inner:
        inner.begin()
        inner.send(b"x" * chance.choice([0, 10, 70_000]))
        leave_tls(inner, chance)


@against("starttls")
def breaks_a_record(wire: Wire, chance: Random) -> None:
    """Octets between the records, as of one who is on the way and has no keys."""
    starttls(wire)
    with encrypted(wire) as inner:
        assert inner.ask(HELLO).startswith("250 ")
        os.write(inner.socket.fileno(), b"\x17\x03\x03\x00\x20" + chance.randbytes(32))
        with contextlib.suppress(*BROKEN):
            assert inner.rest() == []


@against("starttls")
def floods_within_tls_and_does_not_listen(wire: Wire, chance: Random) -> None:
    starttls(wire)
    with encrypted(wire) as inner:
        inner.send(HELLO)
        for _ in range(chance.randrange(5)):
            inner.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRSET\r\n" * 200)
        inner.reset()


@against("implicit")
def talks_plain_text_to_tls(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION)
    leave_unread(wire, chance)


@against("implicit")
def talks_garbage_to_tls(wire: Wire, chance: Random) -> None:
    wire.send(chance.randbytes(chance.randrange(1, 5_000)))
    leave_unread(wire, chance)


@against("implicit")
def abandons_an_implicit_handshake(wire: Wire, chance: Random) -> None:
    wire.send(tls_hello()[: chance.randrange(600)])
    leave_unread(wire, chance)


@against("implicit")
def resets_before_the_greeting(wire: Wire, chance: Random) -> None:
    with encrypted(wire) as inner:
        inner.reset()


@against("implicit")
def makes_too_many_errors_in_tls(wire: Wire, chance: Random) -> None:
    with encrypted(wire, greeted=True) as inner:
        inner.send(b"WHAT\r\n" * chance.randrange(5, 50))
        assert inner.rest()[-1].startswith("421 4.7.0 ")


# --- Proxies --------------------------------------------------------------------------------------


@against("proxy")
def sends_half_a_proxy_header(wire: Wire, chance: Random) -> None:
    whole = chance.choice([header(chance), V2 + b"\x21\x11\x00\x0c" + bytes(12)])
    wire.send(whole[: chance.randrange(len(whole) - 1)])
    if chance.random() < 0.003:  # as it takes seconds
        assert wire.rest() == []
    leave(wire, chance)


@against("proxy")
def talks_garbage_for_a_proxy_header(wire: Wire, chance: Random) -> None:
    wire.send(chance.randbytes(chance.randrange(1, 5_000)))
    assert wire.rest() == []


@against("proxy")
def claims_a_huge_proxy_header(wire: Wire, chance: Random) -> None:
    wire.send(V2 + b"\x21\x11\xff\xff" + bytes(chance.randrange(70_000)))
    assert wire.rest() == []


@against("proxy")
def never_ends_a_proxy_header(wire: Wire, chance: Random) -> None:
    wire.send(b"PROXY TCP4 " + b"1" * chance.randrange(100, 70_000))
    assert wire.rest() == []


@against("proxy")
def speaks_for_many_and_goes(wire: Wire, chance: Random) -> None:
    wire.send(header(chance))
    assert wire.reply().startswith("220 ")
    leave(wire, chance)


@against("proxy")
def speaks_for_one_after_the_other(wire: Wire, chance: Random) -> None:
    wire.send(header(chance) + HELLO)
    for number in range(chance.randrange(20)):
        wire.send(b"XCLIENT ADDR=192.0.2.%d NAME=client.example HELO=x\r\n" % number)
    leave(wire, chance)


@against("named")
def speaks_for_whom_has_too_many(wire: Wire, chance: Random) -> None:
    wire.send(HELD + HELLO)
    assert wire.rest()[0].startswith("421 4.7.0 ")


@against("untrusted")
def is_no_proxy(wire: Wire, chance: Random) -> None:
    assert wire.rest()[0].startswith("421 4.7.0 ")
    leave(wire, chance)


@against("untrusted")
def is_no_proxy_and_does_not_listen(wire: Wire, chance: Random) -> None:
    wire.send(header(chance) + HELLO)
    leave(wire, chance)


# --- Addresses, and the wait before the greeting --------------------------------------------------


@against("crowded")
def has_too_many(wire: Wire, chance: Random) -> None:
    assert wire.rest()[0].startswith("421 4.7.0 ")
    leave(wire, chance)


@against("crowded")
def has_too_many_and_does_not_listen(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION)
    leave(wire, chance)


@against("slow")
def talks_too_early(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION * chance.randrange(100))
    assert wire.rest()[0].startswith("554 5.5.1 ")


@against("slow")
def does_not_wait_for_the_greeting(wire: Wire, chance: Random) -> None:
    (wire.reset if chance.random() < 0.5 else wire.close)()


def leave_unread(wire: Wire, chance: Random) -> None:
    """Goes as `leave`; what the server still says is no SMTP."""
    match chance.randrange(3):
        case 0:
            wire.close()
        case 1:
            wire.reset()
        case _:
            wire.finish_sending()
            while octets := wire.socket.recv(65_536):
                # Longer than what turns up by chance in what is encrypted, now and then.
                assert not re.search(rb"250[ -](2\.|mx)", octets)


def leave_tls(inner: Wire, chance: Random) -> None:
    """Goes as `leave`, or with an alert that says so (RFC 8446 section 6.1)."""
    match chance.randrange(3):
        case 0:
            inner.close()
        case 1:
            inner.reset()
        case _:
            assert isinstance(inner.socket, ssl.SSLSocket)
            with contextlib.suppress(*BROKEN):
                inner.socket.unwrap()
