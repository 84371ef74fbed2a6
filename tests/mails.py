"""Mails that a store can be compared with: each has a token of its own in its first line."""

from __future__ import annotations

import itertools
import random
import re
from typing import Final, NamedTuple

from tests.corpora import as_sent, corpus

MAILS: Final = 5_000

_LARGEST: Final = 32_768
"""Octets of a mail of the corpus that is sent this often; each test of a store sends the others."""
_LINE: Final = 76
_KINDS: Final = ((0, 2_000, 70), (2_000, 20_000, 25), (20_000, 250_000, 4), (300_000, 1_200_000, 1))
"""Sizes of mixed mails, from and to, and of how many in a hundred. The last are those that are
received, and spooled, as files."""
_TOKEN: Final = re.compile(rb"^X-Ledger: (\S+)\r\n", re.MULTILINE)


class Mail(NamedTuple):
    """A mail to send."""

    token: str
    message: bytes
    """As a receiver with `bare_newline = "fix"` stores it."""


def make_mails(count: int = MAILS) -> list[Mail]:
    """Mails of the corpus, round and round, each with a token in its first line."""
    bodies = [as_sent(path.read_bytes()) for path in corpus()]
    bodies = [body for body in bodies if len(body) <= _LARGEST]
    return [
        _mail(number, body)
        for number, body in enumerate(itertools.islice(itertools.cycle(bodies), count))
    ]


def mixed_mails(count: int, *, first: int = 0, seed: int = 1) -> list[Mail]:
    """Mails of all sizes: most of some lines, one in a hundred up to 1.2 MB.

    Args:
        count: how many.
        first: number of the first token, where several of these are sent to one store.
        seed: of sizes and contents.
    """
    chance = random.Random(seed)
    text = _lines(chance, max(most for _, most, _ in _KINDS) + 100_000)
    weights = [weight for _, _, weight in _KINDS]
    mails = []
    for number in range(first, first + count):
        least, most, _ = chance.choices(_KINDS, weights)[0]
        begin = chance.randrange(100_000) // (_LINE + 2) * (_LINE + 2)
        body = text[begin : begin + chance.randint(least, most)]
        mails.append(_mail(number, b"Subject: %d\r\n\r\n" % number + as_sent(body)))
    return mails


def token_of(stored: bytes) -> str:
    """The token of what a store holds: whatever the receiver put before the message."""
    found = _TOKEN.search(stored)
    assert found, f"no mail of ours: {stored[:200]!r}"
    return found[1].decode()


def _mail(number: int, body: bytes) -> Mail:
    return Mail(f"{number:06d}", b"X-Ledger: %06d\r\n" % number + body)


def _lines(chance: random.Random, octets: int) -> bytes:
    """Text, in lines that have nothing to be stuffed."""
    letters = bytes(range(ord("a"), ord("z") + 1)) * 10
    text = chance.randbytes(octets).translate(letters[:256])
    return b"\r\n".join(text[at : at + _LINE] for at in range(0, octets, _LINE))
