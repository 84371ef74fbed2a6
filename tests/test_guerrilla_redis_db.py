"""GuerrillaRedisDB: messages in a real Redis, rows in real databases, and either of them away."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from guerrilla._core import Address, Envelope
from guerrilla.engine.chain import Chain, build
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError, StartError
from guerrilla.processors.guerrillaredisdb import GuerrillaRedisDB
from guerrilla.reply import Reply
from guerrilla.testing import make_envelope
from tests.badmails import BAD
from tests.chains import fates
from tests.corpora import as_sent, corpus
from tests.services.redis import Babbler, RedisServer
from tests.services.sql import Place

LATER = Reply.retry()
ACCEPTED = "accepted"

COLUMNS = (
    *("queued_id", "recipient", "date", "to", "from", "subject", "body", "spam_score", "hash"),
    *("content_type", "has_attach", "ip_addr", "return_path", "is_tls", "charset", "mail"),
)

Open = Callable[..., Chain[Any]]


@pytest.fixture
def open_both(tmp_path: Path) -> Iterator[Open]:
    """Opens a chain of this stage alone, which keeps rows in `tmp_path`."""
    with contextlib.ExitStack() as stack:

        def start(
            server: RedisServer | Babbler, name: str = "GuerrillaRedisDB", **options: Any
        ) -> Chain[Any]:
            values = {
                "redis_interface": server.address,
                "sql_dsn": str(tmp_path / "mail.db"),
                "primary_mail_host": "mx.example.com",
                **options,
            }
            return stack.enter_context(build(name, "save", values, Registry()))

        yield start


def through(chain: Chain[Any], *envelopes: Envelope) -> list[object]:
    chain.run(envelopes)
    return fates(envelopes)


def rows(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(apsw.Connection(str(path / "mail.db"))) as connection:
        found = connection.execute("SELECT * FROM new_mail ORDER BY mail_id")
        return [
            dict(zip((name for name, _ in found.get_description()), row, strict=True))
            for row in found
        ]


def message(row: dict[str, Any], server: RedisServer) -> bytes:
    """What a reader finds by a row, wherever the message is."""
    if row["body"] == "redis":
        assert row["mail"] == b""
        return zlib.decompress(server.ask("GET", row["hash"]))
    assert row["body"] == "gzencode"
    return zlib.decompress(row["mail"])


# --- What is stored ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GuerrillaRedisDB", "GuerrillaDbRedis", "guerrillaredisdb"])
def test_the_stage_alone_does_it_all(
    open_both: Open, empty_redis: RedisServer, tmp_path: Path, name: str
) -> None:
    chain = open_both(empty_redis, name, redis_expire_seconds=60)
    assert chain.stores
    assert chain.warnings() == []
    envelope = make_envelope(
        b"To: Shown <shown@example.com>\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\r\nbody\r\n",
        rcpt_to=["to@example.com"],
    )
    assert through(chain, envelope) == [ACCEPTED]
    (row,) = rows(tmp_path)
    assert set(row) == {"mail_id", *COLUMNS}
    assert row["hash"] == envelope.hashes[0]
    assert (row["to"], row["recipient"]) == ("shown@example.com", "to@example.com")
    assert (row["from"], row["subject"]) == ("from@example.org", "café")
    assert (row["body"], row["charset"], row["spam_score"]) == ("redis", "UTF-8", 0)
    kept = message(row, empty_redis)
    assert kept == envelope.bytes_for(0)
    assert kept.startswith(b"Delivered-To: to@mx.example.com\r\nReceived: ")
    assert kept.endswith(bytes(envelope.data))
    assert 0 < empty_redis.ask("TTL", row["hash"]) <= 60


def test_every_recipient_has_his_row_and_his_form(
    open_both: Open, empty_redis: RedisServer, tmp_path: Path
) -> None:
    people = ["to@example.com", "bcc@example.org", "third@example.net"]
    envelope = make_envelope(rcpt_to=people)
    assert through(open_both(empty_redis), envelope, make_envelope()) == [ACCEPTED] * 2
    found = rows(tmp_path)
    assert [row["recipient"] for row in found] == [*people, "to@example.com"]
    for index, row in enumerate(found[:3]):
        assert message(row, empty_redis) == envelope.bytes_for(index)
        others = set(people) - {people[index]}
        assert not any(
            other.partition("@")[0].encode() + b"@" in message(row, empty_redis) for other in others
        )
    assert len(empty_redis.values()) == 4


def test_a_repeat_is_skipped(open_both: Open, empty_redis: RedisServer, tmp_path: Path) -> None:
    octets = make_envelope(rcpt_to=["a@example.com", "b@example.com"]).to_bytes()
    chain = open_both(empty_redis)
    for _ in range(2):
        assert through(chain, Envelope.from_bytes(octets)) == [ACCEPTED]
    assert len(rows(tmp_path)) == 2
    assert len(empty_redis.values()) == 2


def test_the_corpus_comes_back_byte_for_byte(
    open_both: Open, empty_redis: RedisServer, tmp_path: Path
) -> None:
    envelopes = [make_envelope(as_sent(path.read_bytes())) for path in corpus()]
    assert set(through(open_both(empty_redis), *envelopes)) == {ACCEPTED}
    found = rows(tmp_path)
    assert len(found) == len(envelopes)
    for envelope, row in zip(envelopes, found, strict=True):
        assert message(row, empty_redis) == envelope.bytes_for(0)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("is_up", [True, False])
def test_every_kind_of_message_is_kept_byte_for_byte(
    open_both: Open, own_redis: Callable[..., RedisServer], tmp_path: Path, kind: str, is_up: bool
) -> None:
    """A hundred recipients each but for the big one; in Redis, or in the table without it."""
    server = own_redis()
    chain = open_both(server)
    people = [f"r{number}@example.com" for number in range(2 if kind == "big" else 100)]
    envelope = make_envelope(BAD[kind], mail_from=None, rcpt_to=people)
    if not is_up:
        server.kill()
    assert through(chain, envelope) == [ACCEPTED]
    found = rows(tmp_path)
    assert [row["recipient"] for row in found] == people
    assert {row["body"] for row in found} == {"redis" if is_up else "gzencode"}
    for index, row in enumerate(found):
        assert message(row, server) == envelope.bytes_for(index)
    assert message(found[0], server).endswith(BAD[kind])


@pytest.mark.parametrize("answer", [b"220 mx ESMTP\r\n", b"", b"*1\r\n+OK\r\n", None])
def test_a_redis_that_answers_garbage_or_nothing_costs_no_mail(
    open_both: Open, tmp_path: Path, answer: bytes | None
) -> None:
    with Babbler(answer) as babbler:
        chain = open_both(babbler, redis_timeout=2)
        assert through(chain, make_envelope(), make_envelope()) == [ACCEPTED] * 2
    assert [row["body"] for row in rows(tmp_path)] == ["gzencode"] * 2


def test_options_of_go_guerrilla_are_taken() -> None:
    options = GuerrillaRedisDB.Options.model_validate(
        {"redis_sql_batch_timeout": 3, "redis_expire_seconds": 7200, "sql_driver": "mysql"}
    )
    assert options.redis_sql_batch_timeout == 3
    assert GuerrillaRedisDB.Options(redis_sql_batch_timeout="").redis_sql_batch_timeout == 0  # type: ignore[arg-type]


def test_rows_in_a_database_server(open_both: Open, empty_redis: RedisServer, place: Place) -> None:
    chain = open_both(empty_redis, sql_driver=place.driver, sql_dsn=place.dsn())
    people = ["a@example.com", "b@example.com"]
    first, second = make_envelope(rcpt_to=people), make_envelope(subject="\U0001f600")
    repeat = Envelope.from_bytes(first.to_bytes())
    assert through(chain, first, second) == [ACCEPTED] * 2
    assert through(chain, repeat) == [ACCEPTED]
    found = place.rows()
    assert [row["recipient"] for row in found] == [*people, "to@example.com"]
    assert found[2]["subject"] == "\U0001f600"
    for index, row in enumerate(found[:2]):
        assert message(row, empty_redis) == first.bytes_for(index)


# --- One of them is away -------------------------------------------------------------------------


def test_while_redis_is_down_the_table_has_the_messages(
    open_both: Open,
    own_redis: Callable[..., RedisServer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = own_redis()
    chain = open_both(server)
    before, during, after = (
        make_envelope(rcpt_to=["a@example.com", "b@example.com"]) for _ in range(3)
    )
    assert through(chain, before) == [ACCEPTED]
    server.kill()
    assert through(chain, during) == [ACCEPTED]
    assert "messages go into the table" in caplog.text
    assert during.queued_id in caplog.text
    found = rows(tmp_path)
    assert [row["body"] for row in found] == ["redis"] * 2 + ["gzencode"] * 2
    assert [message(row, server) for row in found[2:]] == [during.bytes_for(i) for i in range(2)]
    server.start()
    again = _until_in_redis(chain, tmp_path)
    assert message(again, server)
    assert through(chain, after) == [ACCEPTED]
    assert [message(row, server) for row in rows(tmp_path)[-2:]] == [
        after.bytes_for(index) for index in range(2)
    ]


def test_what_redis_refuses_goes_into_the_table_alone(
    open_both: Open, own_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = own_redis(settings={"maxmemory-policy": "noeviction", "proto-max-bulk-len": "1mb"})
    chain = open_both(server)
    large = make_envelope(b"Subject: large\r\n\r\n" + bytes(range(256)) * (5 << 12))
    longest = make_envelope(b"Subject: longest\r\n\r\n" + os.urandom(2 << 20))
    assert through(chain, large, make_envelope(), longest) == [ACCEPTED] * 3
    assert [row["body"] for row in rows(tmp_path)] == ["redis", "redis", "gzencode"]
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert through(chain, make_envelope()) == [ACCEPTED]
    assert rows(tmp_path)[-1]["body"] == "gzencode"
    assert [message(row, server)[-100:] for row in rows(tmp_path)[:3:2]] == [
        bytes(large.data[-100:]),
        bytes(longest.data[-100:]),
    ]


def test_a_paused_redis_costs_its_time_limit_and_no_mail(
    open_both: Open, own_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = own_redis()
    chain = open_both(server, redis_timeout=2)
    server.pause()
    for _ in range(2):
        assert through(chain, make_envelope(), make_envelope()) == [ACCEPTED] * 2
    server.resume()
    assert [row["body"] for row in rows(tmp_path)] == ["gzencode"] * 4
    _until_in_redis(chain, tmp_path)


def test_a_repeat_while_redis_is_down_keeps_what_is_there(
    open_both: Open, own_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = own_redis(settings={"appendonly": "yes", "appendfsync": "always"})
    chain = open_both(server)
    octets = make_envelope().to_bytes()
    assert through(chain, Envelope.from_bytes(octets)) == [ACCEPTED]
    server.kill()
    assert through(chain, Envelope.from_bytes(octets)) == [ACCEPTED]
    server.start()
    (row,) = rows(tmp_path)
    assert message(row, server).endswith(b"body\r\n")


def test_the_database_locked_is_451(
    open_both: Open, empty_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guerrilla.store.database.BUSY_TIMEOUT_MS", 10)
    chain = open_both(empty_redis)
    with contextlib.closing(apsw.Connection(str(tmp_path / "mail.db"))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert through(chain, make_envelope(), make_envelope()) == [LATER] * 2
    assert rows(tmp_path) == []
    assert through(chain, make_envelope()) == [ACCEPTED]
    assert len(rows(tmp_path)) == 1


def test_a_database_server_that_goes_away_is_451(
    open_both: Open,
    empty_redis: RedisServer,
    mortal: Place,
    until: Callable[[Callable[[], object]], None],
) -> None:
    chain = open_both(empty_redis, sql_driver=mortal.driver, sql_dsn=mortal.dsn())
    assert through(chain, make_envelope()) == [ACCEPTED]
    mortal.server.kill()
    assert through(chain, make_envelope()) == [LATER]
    mortal.server.start()
    until(lambda: through(chain, make_envelope()) == [ACCEPTED])
    assert [row["body"] for row in mortal.rows()] == ["redis"] * 2


def test_a_poison_fails_alone(open_both: Open, empty_redis: RedisServer, tmp_path: Path) -> None:
    host = ".".join(["h" * 60] * 4)
    people = [Address("u" * 128, f"{host}.example.{end}") for end in ("com", "org")]
    poison = make_envelope(rcpt_to=people)
    good, other = make_envelope(), make_envelope()
    assert through(open_both(empty_redis), good, poison, other) == [ACCEPTED, LATER, ACCEPTED]
    assert {row["queued_id"] for row in rows(tmp_path)} == {good.queued_id, other.queued_id}


# --- What cannot start ---------------------------------------------------------------------------


def test_neither_may_be_missing_at_start(
    open_both: Open, empty_redis: RedisServer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"backend_config.sql_dsn: "):
        open_both(empty_redis, sql_dsn=str(tmp_path / "none" / "mail.db"))
    with pytest.raises(StartError, match=r"backend_config.redis_interface: "):
        open_both(empty_redis, redis_interface=f"unix:{tmp_path}/none.sock")
    open_both(empty_redis)


def _until_in_redis(chain: Chain[Any], tmp_path: Path) -> dict[str, Any]:
    """Sends on until a message goes there again; each is accepted meanwhile."""
    limit = time.monotonic() + 20
    while True:
        assert through(chain, make_envelope()) == [ACCEPTED]
        row = rows(tmp_path)[-1]
        if row["body"] == "redis":
            return row
        assert time.monotonic() < limit
        time.sleep(0.02)
