"""Kinds of abuse of what came with extensions: the chunks of BDAT, the exchanges of AUTH."""

from __future__ import annotations

import base64
import select
from random import Random
from typing import Final

from tests.abuse import against, leave
from tests.wire import HELLO, Wire

MAIL: Final = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
HUGE: Final = 2**64 - 1
"""The most that a chunk can claim."""
TIMED_OUT: Final = "421 4.4.2 "


# --- Chunks ---------------------------------------------------------------------------------------


def begin(wire: Wire) -> None:
    """Up to the first chunk."""
    assert wire.reply().startswith("220 ")
    assert wire.ask(HELLO).startswith("250 ")
    wire.send(MAIL)
    assert [wire.reply()[:3] for _ in range(2)] == ["250", "250"]


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    """A BDAT with its octets."""
    return b"BDAT %d%s\r\n%s" % (len(octets), b" LAST" if last else b"", octets)


@against("plain")
def goes_in_the_middle_of_a_chunk(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL + b"BDAT 500000\r\n" + b"x" * chance.choice([0, 10, 70_000, 300_000]))
    leave(wire, chance)


@against("plain")
def goes_between_chunks(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL)
    for _ in range(chance.randrange(1, 5)):
        wire.send(chunk(b"x" * chance.choice([0, 10, 100_000])))
    leave(wire, chance)


@against("plain")
def goes_after_the_last_chunk(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL + chunk(b"x" * chance.choice([0, 100_000])) + b"BDAT 0 LAST\r\n")
    wire.reset()


@against("plain")
def claims_a_huge_chunk(wire: Wire, chance: Random) -> None:
    mail = chance.choice([b"", MAIL])
    wire.send(HELLO + mail + b"BDAT %d LAST\r\n" % HUGE + b"x" * chance.randrange(200_000))
    leave(wire, chance)


@against("plain")
def sends_a_chunk_without_end(wire: Wire, chance: Random) -> None:
    """Fast, until its time is up; most go before that, as it takes two seconds."""
    begin(wire)
    wire.send(b"BDAT %d\r\n" % HUGE)
    if chance.random() < 0.003:
        while not select.select([wire.socket], [], [], 0)[0]:
            wire.send(b"RSET\r\nQUIT\r\n" * 5_000)
        assert wire.reply().startswith(TIMED_OUT)
    else:
        wire.send(b"RSET\r\nQUIT\r\n" * chance.randrange(50_000))
        wire.reset()


@against("plain")
def drips_a_chunk_that_is_dropped(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + b"BDAT %d\r\nx" % HUGE)
    if chance.random() < 0.003:  # as it takes seconds
        assert wire.rest()[-1].startswith(TIMED_OUT)
    leave(wire, chance)


@against("plain")
def claims_more_than_64_bits_hold(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL + b"BDAT %d LAST\r\n" % (HUGE + chance.randrange(1, 2**64)))
    assert wire.rest()[-1].startswith("421 4.5.4 ")


@against("plain")
def floods_with_chunks_of_one_octet(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL + chunk(b"x") * chance.randrange(5_000))
    leave(wire, chance)


@against("plain")
def floods_with_chunks_and_does_not_listen(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL)
    for _ in range(chance.randrange(20)):
        wire.send(chunk(b"x") * 1_000)
    wire.reset()


@against("plain")
def floods_with_chunks_of_nothing(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL + chunk(b"") * chance.randrange(51, 500))
    assert wire.rest()[-1].startswith("421 4.7.0 ")


@against("plain")
def floods_with_chunks_that_are_refused(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + chunk(b"DATA\r\n", last=True) * chance.randrange(5_000))
    leave(wire, chance)


@against("plain")
def sends_too_much_in_small_chunks(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL)
    for _ in range(20):
        wire.send(chunk(b"x" * 65_536))
    wire.send(b"QUIT\r\n")
    said = wire.rest()
    assert [line[:3] for line in said[-5:]] == ["552", "503", "503", "503", "221"]


# --- Exchanges ------------------------------------------------------------------------------------


def answer(text: str) -> bytes:
    """What a client says to a challenge."""
    return base64.b64encode(text.encode()) + b"\r\n"


def challenged(wire: Wire, command: bytes) -> None:
    """Asks for a challenge."""
    assert wire.reply().startswith("220 ")
    assert wire.ask(HELLO).startswith("250 ")
    assert wire.ask(command).startswith("334 ")


@against("auth")
def goes_at_the_challenge(wire: Wire, chance: Random) -> None:
    challenged(wire, chance.choice([b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"AUTH LOGIN am9l\r\n"]))
    leave(wire, chance)


@against("auth")
def gives_half_an_answer(wire: Wire, chance: Random) -> None:
    challenged(wire, b"AUTH PLAIN\r\n")
    whole = answer("\0joe\0secret")
    wire.send(whole[: chance.randrange(len(whole))])
    if chance.random() < 0.003:  # as it takes seconds
        assert wire.rest()[-1].startswith(TIMED_OUT)
    leave(wire, chance)


@against("auth")
def never_ends_an_answer(wire: Wire, chance: Random) -> None:
    challenged(wire, b"AUTH LOGIN\r\n")
    assert wire.ask(b"x" * chance.randrange(12_288, 70_000)).startswith("500 5.5.6 ")
    leave(wire, chance)


@against("auth")
def answers_with_garbage(wire: Wire, chance: Random) -> None:
    challenged(wire, b"AUTH PLAIN\r\n")
    wire.send(chance.randbytes(chance.randrange(1, 20_000)))
    leave(wire, chance)


@against("auth")
def asks_and_cancels(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + b"AUTH LOGIN\r\n*\r\nAUTH PLAIN\r\n*\r\n" * chance.randrange(26, 100))
    assert wire.rest()[-1].startswith("421 4.7.0 ")


@against("auth")
def guesses(wire: Wire, chance: Random) -> None:
    wire.send(HELLO)
    wire.send(b"AUTH PLAIN " + answer(f"\0joe\0{chance.random()}"))
    wire.send(b"AUTH LOGIN\r\n" + answer("jane") + answer(f"{chance.random()}") + b"QUIT\r\n")
    codes = [line[:4] for line in wire.rest()]
    assert codes[-5:] == ["535 ", "334 ", "334 ", "535 ", "221 "]


@against("auth")
def guesses_and_does_not_wait(wire: Wire, chance: Random) -> None:
    wire.send(HELLO)
    for _ in range(chance.randrange(1, 10)):
        wire.send(b"AUTH PLAIN " + answer(f"\0joe\0{chance.random()}"))
    wire.reset()


@against("auth")
def sends_without_a_password(wire: Wire, chance: Random) -> None:
    wire.send(HELLO + MAIL + chunk(MAIL, last=True) + b"QUIT\r\n")
    assert [line[:3] for line in wire.rest()[-4:]] == ["530", "530", "530", "221"]
