"""Every kind of client that nobody wants: each is a connection that leaves as it likes.

A kind is a function that is given a connection, whose greeting it has not read, and ends it.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Final

from tests.wire import GONE, HELLO, TRANSACTION, Wire

Abuse = Callable[[Wire, Random], None]

KINDS: Final[dict[str, list[Abuse]]] = {}
"""By the server that they are for: see test_abuse.py."""

AT_ONCE: Final = 16
"""Clients at a time."""


def against(server: str) -> Callable[[Abuse], Abuse]:
    """Adds a kind."""

    def add(kind: Abuse) -> Abuse:
        KINDS.setdefault(server, []).append(kind)
        return kind

    return add


def commit(addresses: Mapping[str, str], rounds: int, seed: int) -> int:
    """Abuses the servers, all kinds in turns, each so often.

    Returns:
        How many connections that were.

    Raises:
        AssertionError: a server did not do what was expected of it.
    """
    kinds = [(server, kind) for server in addresses for kind in KINDS[server]]
    connections = rounds * len(kinds)
    turns = itertools.islice(itertools.cycle(kinds), connections)
    lock = threading.Lock()

    def client(number: int) -> None:
        chance = Random(f"{seed}.{number}")
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                return
            server, kind = turn
            with Wire(addresses[server], receive_buffer=4_096, greeted=False) as wire:
                try:
                    kind(wire, chance)
                except GONE:
                    continue  # whoever sends what is not wanted may be reset
                except Exception as error:
                    error.add_note(f"by {kind.__name__}")
                    raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(client, number) for number in range(AT_ONCE)]:
            done.result()
    return connections


def leave(wire: Wire, chance: Random) -> None:
    """Goes in one of the ways to go."""
    match chance.randrange(3):
        case 0:
            wire.close()
        case 1:
            wire.reset()
        case _:
            with contextlib.suppress(OSError):  # it is closed already
                wire.finish_sending()
            wire.rest()


# --- Before there is a session --------------------------------------------------------------------


@against("plain")
def comes_and_goes(wire: Wire, chance: Random) -> None:
    leave(wire, chance)


@against("plain")
def hears_the_greeting_and_goes(wire: Wire, chance: Random) -> None:
    assert wire.reply().startswith("220 ")
    leave(wire, chance)


@against("full")
def is_one_too_many(wire: Wire, chance: Random) -> None:
    assert wire.rest()[0].startswith("421 4.7.0 ")
    leave(wire, chance)


@against("full")
def is_one_too_many_and_does_not_listen(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION)
    leave(wire, chance)


# --- Commands -------------------------------------------------------------------------------------


@against("plain")
def says_half_a_command(wire: Wire, chance: Random) -> None:
    wire.send(HELLO[: chance.randrange(len(HELLO))])
    leave(wire, chance)


@against("plain")
def says_half_a_command_until_its_time_is_up(wire: Wire, chance: Random) -> None:
    wire.send(b"NO")
    if chance.random() < 0.003:  # as it takes seconds
        assert wire.rest()[-1].startswith("421 4.4.2 ")
    leave(wire, chance)


@against("plain")
def talks_garbage(wire: Wire, chance: Random) -> None:
    wire.send(chance.randbytes(chance.randrange(1, 5_000)))
    leave(wire, chance)


@against("plain")
def talks_tls(wire: Wire, chance: Random) -> None:
    wire.send(tls_hello())
    leave(wire, chance)


@against("plain")
def talks_http(wire: Wire, chance: Random) -> None:
    wire.send(b"POST / HTTP/1.1\r\nHost: mx.example.com\r\nX: y\r\nZ: z\r\n\r\n" + HELLO)
    assert wire.rest()[-1].startswith("421 4.7.0 ")


@against("plain")
def never_ends_a_line(wire: Wire, chance: Random) -> None:
    wire.send(b"x" * chance.randrange(200_000))
    leave(wire, chance)


@against("plain")
def makes_too_many_errors(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + b"WHAT\r\n" * chance.randrange(5, 500))
    assert wire.rest()[-1].startswith("421 4.7.0 ")


@against("plain")
def does_nothing_for_too_long(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + b"NOOP\r\nRSET\r\n" * 30)
    assert wire.rest()[-1].startswith("421 4.7.0 ")


@against("plain")
def floods_and_does_not_listen(wire: Wire, chance: Random) -> None:
    wire.send(HELLO)
    for _ in range(chance.randrange(20)):
        wire.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRSET\r\n" * 200)
    wire.reset()


# --- Mails ----------------------------------------------------------------------------------------


@against("plain")
def goes_before_data(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + b"MAIL FROM:<a@example.org>\r\n")
    wire.send(b"RCPT TO:<b@example.com>\r\n" * chance.randrange(150))
    leave(wire, chance)


@against("plain")
def goes_in_the_middle_of_data(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION + b"x" * chance.choice([0, 10, 70_000, 300_000]))
    leave(wire, chance)


@against("plain")
def goes_in_the_middle_of_what_is_too_large(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION + b"x" * 1_200_000)
    leave(wire, chance)


@against("plain")
def declares_more_than_it_sends(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION.replace(b"org>", b"org> SIZE=1000000") + b"x")
    leave(wire, chance)


@against("plain")
def goes_after_the_final_dot(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION + b"x" * chance.choice([0, 100_000]) + b"\r\n.\r\n")
    wire.reset()


@against("plain")
def goes_within_the_final_dot(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + TRANSACTION + b"x\r\n.\r")
    leave(wire, chance)


def tls_hello() -> bytes:
    """The first octets of a TLS client."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _TLS.wrap_bio(into, out, server_hostname="mx.example.com")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("a handshake needs two")


_TLS: Final = ssl.create_default_context()
