"""Redis killed at random under load: what was answered 250 is there, byte for byte."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger import CONNECTIONS, KILLS, MAILS, audit, deliver, killer, make_mails
from tests.running import RunningDaemon
from tests.services.redis import DURABLE, RedisServer

CHAIN = "HeadersParser|Hasher|Header|Compressor|Redis"


@pytest.mark.timeout(300)
def test_what_was_answered_250_is_there(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    server = own_redis(settings=DURABLE)
    backend = f'redis_interface = "{server.address}"\nsave_workers_size = 2'
    with RunningDaemon(tmp_path, chain=CHAIN, backend=backend) as daemon:
        disturb = killer(MAILS, server.kill, server.start)
        sent = deliver(daemon.port, make_mails(), disturb=disturb)
        assert sent.refusals >= KILLS * 10
        assert sent.dropped == sent.unanswered.total() == 0
    # What Redis had when it was killed, and had not answered: a batch of each worker at most.
    copies = audit(sent, map(zlib.decompress, server.values().values()))
    assert copies <= KILLS * CONNECTIONS
