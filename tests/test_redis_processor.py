"""The Redis stage against a real server: what is stored, and what is wrong with a mail."""

from __future__ import annotations

import contextlib
import smtplib
import zlib
from pathlib import Path
from typing import Any

import apsw
import pytest

import guerrilla
from guerrilla._core import Envelope
from guerrilla.processors.redis import TOO_LARGE, Redis
from guerrilla.testing import make_envelope
from tests.corpora import as_sent, corpus
from tests.redises import (
    ACCEPTED,
    CHAIN,
    COMPRESSED,
    LATER,
    Open,
    Start,
    codes,
    keys_of,
    save,
    through,
)
from tests.reference.pages import examples
from tests.running import RunningDaemon
from tests.services.redis import RedisServer

OK = "OK: queued as "


# --- What is stored ------------------------------------------------------------------------------


def test_it_stores_and_says_so(empty_redis: RedisServer) -> None:
    assert Redis.stores
    envelope = make_envelope()
    (reply,) = save(empty_redis, envelope)
    assert str(reply).startswith(f"250 2.0.0 {OK}")
    assert empty_redis.values() == {envelope.hashes[0].encode(): envelope.bytes_for(0)}
    assert envelope.values["redis"] == "redis"


def test_a_batch_goes_in_one_pipeline(empty_redis: RedisServer) -> None:
    envelopes = [make_envelope(subject=f"{number}") for number in range(64)]
    before = empty_redis.ask("INFO", "commandstats").get("cmdstat_setex", {"calls": 0})["calls"]
    assert codes(save(empty_redis, *envelopes, redis_expire_seconds=60)) == [250] * 64
    after = empty_redis.ask("INFO", "commandstats")["cmdstat_setex"]["calls"]
    assert after - before == 64
    assert set(empty_redis.values()) == keys_of(*envelopes)


def test_the_corpus_comes_back_byte_for_byte(empty_redis: RedisServer) -> None:
    for chain, read in ((CHAIN, bytes), (COMPRESSED, zlib.decompress)):
        empty_redis.ask("FLUSHALL")
        envelopes = [make_envelope(as_sent(path.read_bytes())) for path in corpus()]
        assert set(codes(save(empty_redis, *envelopes, chain=chain))) == {250}
        stored = empty_redis.values()
        assert len(stored) == len(envelopes)
        for envelope in envelopes:
            kept = read(stored[envelope.hashes[0].encode()])
            assert kept == envelope.bytes_for(0)
            assert kept.endswith(bytes(envelope.data))


def test_each_recipient_has_a_key_of_his_own_and_no_other(empty_redis: RedisServer) -> None:
    people = ["to@example.com", "bcc@example.org", "third@example.net"]
    envelope = make_envelope(rcpt_to=people)
    assert codes(save(empty_redis, envelope, chain=COMPRESSED)) == [250]
    stored = empty_redis.values()
    assert len(stored) == 3
    for index, person in enumerate(people):
        text = zlib.decompress(stored[envelope.hashes[index].encode()])
        assert text == envelope.bytes_for(index)
        for other in people:
            assert (other.partition("@")[0].encode() + b"@" in text) is (other == person)


def test_a_hundred_recipients_among_other_mails(empty_redis: RedisServer) -> None:
    many = make_envelope(rcpt_to=[f"r{number}@example.com" for number in range(100)])
    others = [make_envelope(), make_envelope(rcpt_to=["same@example.com"] * 2)]
    assert codes(save(empty_redis, others[0], many, others[1])) == [250] * 3
    assert set(empty_redis.values()) == keys_of(many, *others)
    assert len(empty_redis.values()) == 102


def test_the_same_mail_again_changes_nothing(empty_redis: RedisServer) -> None:
    octets = make_envelope().to_bytes()
    for _ in range(2):
        assert codes(save(empty_redis, Envelope.from_bytes(octets))) == [250]
    assert len(empty_redis.values()) == 1


@pytest.mark.parametrize(("seconds", "least", "most"), [(0, -1, -1), (7200, 7190, 7200)])
def test_it_expires_when_told_to(
    empty_redis: RedisServer, seconds: int, least: int, most: int
) -> None:
    envelopes = make_envelope(), make_envelope(rcpt_to=["a@example.com", "b@example.com"])
    save(empty_redis, *envelopes, redis_expire_seconds=seconds)
    times = [empty_redis.ask("TTL", key) for key in keys_of(*envelopes)]
    assert len(times) == 3
    assert all(least <= left <= most for left in times)


def test_a_large_mail_is_stored(empty_redis: RedisServer) -> None:
    large = make_envelope(b"Subject: large\r\n\r\n" + b"\x00\xff\r\n" * (13 << 20))
    small = make_envelope()
    assert codes(save(empty_redis, small, large, make_envelope())) == [250] * 3
    assert empty_redis.ask("STRLEN", large.hashes[0]) == len(large.bytes_for(0))
    assert empty_redis.ask("GET", large.hashes[0]) == large.bytes_for(0)


@pytest.mark.parametrize(
    "message",
    [b"\r\n", b"\x00\r\n", b"Subject: =?utf-8?q?=ff?=\r\n\r\n\xff\xfe\r\n", b"X: y\r\n" * 10_000],
)
def test_odd_mails_are_stored(empty_redis: RedisServer, message: bytes) -> None:
    envelope = make_envelope(message, mail_from=None)
    assert codes(save(empty_redis, envelope)) == [250]
    (value,) = empty_redis.values().values()
    assert value.endswith(message)


def test_sql_after_it_keeps_no_message(empty_redis: RedisServer, tmp_path: Path) -> None:
    envelope = make_envelope(rcpt_to=["a@example.com", "b@example.com"])
    file = str(tmp_path / "mail.db")
    chain = f"{COMPRESSED}|SQL"
    assert codes(save(empty_redis, envelope, chain=chain, sql_dsn=file)) == [250]
    with contextlib.closing(apsw.Connection(file)) as connection:
        rows = connection.execute("SELECT hash, body, mail FROM new_mail").fetchall()
    assert rows == [(digest, "redis", b"") for digest in envelope.hashes]
    assert set(empty_redis.values()) == keys_of(envelope)


def test_two_of_them_in_one_chain(empty_redis: RedisServer) -> None:
    tables = {
        "hot": {"redis_database": 1, "redis_expire_seconds": 60},
        "cold": {"redis_database": 2},
    }
    chain = "Hasher|Redis:hot|Redis:cold"
    assert codes(save(empty_redis, make_envelope(), chain=chain, processors=tables)) == [250]
    assert [len(empty_redis.values(database)) for database in range(3)] == [0, 1, 1]


def test_a_daemon_stores_into_two_servers(
    empty_redis: RedisServer, own_redis: Start, tmp_path: Path
) -> None:
    """Each by its own options over those of the backend; one of them away is 451."""
    cold = own_redis()
    config = f"""
allowed_hosts = ["."]
[[servers]]
listen_interface = "127.0.0.1:0"
[backend_config]
save_process = "Hasher|Header|Redis:hot|Compressor|Redis:cold"
redis_interface = "{empty_redis.address}"
redis_expire_seconds = 3600
[backend_config.processors.hot]
redis_database = 1
[backend_config.processors.cold]
redis_interface = "unix:{cold.socket}"
redis_database = 2
redis_expire_seconds = 0
"""
    message = "Subject: twice\r\n\r\nbody\r\n"
    with (
        RunningDaemon(tmp_path, config=config) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        assert client.sendmail("a@example.org", ["b@example.com", "c@example.com"], message) == {}
        hot, packed = empty_redis.values(1), cold.values(2)
        cold.stop()
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("a@example.org", ["b@example.com"], message)
        assert caught.value.smtp_code == 451
    assert len(hot) == 2
    assert hot == {key: zlib.decompress(value) for key, value in packed.items()}
    assert empty_redis.values() == {}
    with empty_redis.client(1) as client:
        assert all(0 < client.ttl(key) <= 3600 for key in hot)


@pytest.mark.parametrize("name", ["Compressor", "Redis", "GuerrillaRedisDB"])
def test_the_example_of_its_page_runs(empty_redis: RedisServer, tmp_path: Path, name: str) -> None:
    (text,) = examples(name)
    text = text.replace("127.0.0.1:6379", empty_redis.address)
    place = '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
    with (
        RunningDaemon(tmp_path, config=f"{text}\n{place}") as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        assert client.sendmail("a@example.org", ["b@example.com"], "Subject: x\r\n\r\n") == {}
        stored = list(empty_redis.values().values()) or [row["mail"] for row in daemon.rows()]
    (value,) = stored
    assert zlib.decompress(value).endswith(b"Subject: x\r\n\r\n")


# --- What is wrong with a mail -------------------------------------------------------------------


def test_without_hasher_it_does_not_start(empty_redis: RedisServer) -> None:
    words = "save_process: Redis needs Hasher before it"
    for chain in ("Redis", "Header|Redis", "Redis|Hasher"):
        with pytest.raises(ValueError, match=words):
            save(empty_redis, make_envelope(), chain=chain)


def test_a_stage_of_ones_own_may_hash(empty_redis: RedisServer) -> None:
    @guerrilla.processor("MyHasher")
    def hash_it(envelope: Envelope) -> None:
        envelope.hashes[:] = [f"mine-{envelope.subject}"]

    envelope = make_envelope(subject="one")
    assert codes(save(empty_redis, envelope, chain="MyHasher|Redis")) == [250]
    assert set(empty_redis.values()) == {b"mine-one"}


@pytest.mark.parametrize("hashes", [[], ["one"], ["one", ""], ["one", "\ud800"], ["one", 2]])
def test_a_mail_without_its_hashes_fails_alone(
    open_redis: Open, empty_redis: RedisServer, caplog: pytest.LogCaptureFixture, hashes: list[Any]
) -> None:
    stage = open_redis(empty_redis).stages[0][1]
    bad = make_envelope(rcpt_to=["a@example.com", "b@example.com"])
    good = make_envelope()
    good.compute_hashes()
    bad.hashes[:] = hashes
    assert stage.save_batch([bad, good]) == [LATER, None]
    assert stage.save_batch([bad]) == [LATER]
    assert bad.queued_id in caplog.text
    assert set(empty_redis.values()) == keys_of(good)


def test_one_longer_than_redis_takes_is_refused_for_good(
    own_redis: Start, open_redis: Open
) -> None:
    server = own_redis(settings={"proto-max-bulk-len": "2mb"})
    stage = open_redis(server)
    large = make_envelope(b"Subject: large\r\n\r\n" + b"x" * (2 << 20))
    fits = make_envelope(b"Subject: fits\r\n\r\n" + b"x" * ((2 << 20) - 4_000))
    assert through(stage, make_envelope(), large, fits) == [ACCEPTED, TOO_LARGE, ACCEPTED]
    packed = make_envelope(b"Subject: large\r\n\r\n" + b"x" * (2 << 20))
    packed.values["zlib-compressor"] = True
    assert through(stage, packed) == [ACCEPTED]
    assert len(server.values()) == 3
