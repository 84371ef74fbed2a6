"""What the tests of Redis share: a batch through a chain, and a chain that stays open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guerrilla._core import Envelope
from guerrilla.engine.chain import Chain
from guerrilla.processors.redis import Redis
from guerrilla.reply import Reply
from guerrilla.testing import run_chain
from tests.chains import chain_of, fates
from tests.services.redis import Babbler, RedisServer

CHAIN = "HeadersParser|Hasher|Header|Redis"
COMPRESSED = "HeadersParser|Hasher|Header|Compressor|Redis"
LATER = Reply.retry()
ACCEPTED = "accepted"

Start = Callable[..., RedisServer]
Open = Callable[..., Chain[Any]]


def save(
    server: RedisServer | Babbler | str, *envelopes: Envelope, chain: str = CHAIN, **options: Any
) -> list[Reply]:
    """What their senders hear when they come as one batch."""
    where = server if isinstance(server, str) else server.address
    return run_chain(chain, envelopes, options={"redis_interface": where, **options})


def codes(replies: list[Reply]) -> list[int]:
    return [reply.code for reply in replies]


def keys_of(*envelopes: Envelope) -> set[bytes]:
    return {digest.encode() for envelope in envelopes for digest in envelope.hashes}


@pytest.fixture
def open_redis() -> Iterator[Callable[..., Chain[Any]]]:
    """Opens a chain that stays open while a test does things to its server."""
    with contextlib.ExitStack() as stack:

        def start(server: RedisServer | Babbler, **options: Any) -> Chain[Any]:
            stage = Redis(Redis.Options(redis_interface=server.address, **options))
            return stack.enter_context(chain_of(stage))

        yield start


def through(chain: Chain[Any], *envelopes: Envelope) -> list[object]:
    """What becomes of a batch in a chain that is open already."""
    for envelope in envelopes:
        envelope.compute_hashes()
    chain.run(envelopes)
    return fates(envelopes)
