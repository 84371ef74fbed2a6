"""Stores killed at random under load: what was answered 250 is there, byte for byte."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger import CONNECTIONS, KILLS, MAILS, audit, deliver, killer, make_mails
from tests.running import RunningDaemon
from tests.services.mariadb import MariaDB
from tests.services.redis import DURABLE, RedisServer
from tests.wire import until

CHAIN = "HeadersParser|Hasher|Header|Compressor|Redis"

_CONFIG = """
allowed_hosts = ["."]
[[servers]]
listen_interface = "127.0.0.1:0"
[backend_config]
save_process = "GuerrillaRedisDB"
{backend}
"""


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


@pytest.mark.timeout(300)
def test_both_stores_hold_what_was_answered_250(
    tmp_path: Path,
    own_redis: Callable[..., RedisServer],
    mortal_mariadb: MariaDB,
) -> None:
    """GuerrillaRedisDB: both are killed, and Redis comes back after the database.

    Not before the table has a message of that time: else both may be back before the next mail.
    """
    server, place = own_redis(settings=DURABLE), mortal_mariadb.fresh()
    backend = (
        f'redis_interface = "{server.address}"\nsave_workers_size = 2\n'
        f'sql_driver = "mysql"\nsql_dsn = {json.dumps(place.dsn())}'
    )

    def kill() -> None:
        server.kill()
        mortal_mariadb.kill()

    def in_table() -> int:
        (row,) = place.query("SELECT count(*) AS n FROM new_mail WHERE body = 'gzencode'")
        return int(row["n"])

    def restart() -> None:
        mortal_mariadb.start()
        before = in_table()
        until(lambda: in_table() > before)
        server.start()

    config = _CONFIG.format(backend=backend)
    with RunningDaemon(tmp_path, config=config) as daemon:
        sent = deliver(daemon.port, make_mails(), disturb=killer(MAILS, kill, restart))
        assert sent.refusals >= KILLS * 10
        assert sent.dropped == sent.unanswered.total() == 0
    values = server.values()
    stored = place.rows()
    written = [row["mail"] for row in stored if row["body"] == "gzencode"]
    kept = [values[row["hash"].encode()] for row in stored if row["body"] == "redis"]
    assert len(kept) + len(written) == len(stored)
    assert audit(sent, map(zlib.decompress, kept + written)) <= KILLS * CONNECTIONS
