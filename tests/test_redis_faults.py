"""The Redis stage when a server refuses, answers nothing that can be read, or goes away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerrilla.engine.chain import Chain
from guerrilla.processors.redis import Redis
from guerrilla.testing import make_envelope
from tests.chains import chain_of
from tests.redises import (
    ACCEPTED,
    LATER,
    Open,
    Start,
    keys_of,
    through,
)
from tests.services.redis import DURABLE, Babbler

# --- What Redis refuses --------------------------------------------------------------------------


def test_a_full_redis_is_451_for_each_and_one_line(
    own_redis: Start, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis(settings={"maxmemory-policy": "noeviction"})
    stage = open_redis(server)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    envelopes = [make_envelope(), make_envelope(rcpt_to=["a@example.com", "b@example.com"])]
    caplog.clear()
    assert through(stage, *envelopes) == [LATER] * 2
    (record,) = [record for record in caplog.records if "OOM" in record.getMessage()]
    assert all(envelope.queued_id in record.getMessage() for envelope in envelopes)
    assert "redis" not in envelopes[0].values
    assert server.values() == {}
    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert through(stage, make_envelope()) == [ACCEPTED]
    assert len(server.values()) == 1


def test_one_that_does_not_fit_fails_alone(own_redis: Start, open_redis: Open) -> None:
    """Redis looks at its memory before each command: what comes after a large one is refused."""
    server = own_redis(settings={"maxmemory-policy": "noeviction"})
    stage = open_redis(server)
    server.ask("CONFIG", "SET", "maxmemory", "30mb")
    envelopes = [
        make_envelope(),
        make_envelope(rcpt_to=["a@example.com", "b@example.com"]),
        make_envelope(b"Subject: large\r\n\r\n" + b"x" * (40 << 20)),
        make_envelope(),
        make_envelope(rcpt_to=["a@example.com", "b@example.com"]),
    ]
    replies = through(stage, *envelopes)
    assert replies[:2] == [ACCEPTED] * 2
    assert replies[3:] == [LATER] * 2
    accepted = [one for one, fate in zip(envelopes, replies, strict=True) if fate == ACCEPTED]
    assert set(server.values()) == keys_of(*accepted)


def test_a_refused_copy_leaves_none_for_the_others(own_redis: Start, open_redis: Open) -> None:
    """Of several recipients all or none: a user who may write only some keys."""
    server = own_redis()
    envelope = make_envelope(rcpt_to=["a@example.com", "b@example.com", "c@example.com"])
    allowed, refused, _ = envelope.compute_hashes()
    words = ["~" + allowed, "+@all"]
    server.ask("ACL", "SETUSER", "mail", "on", "nopass", *words)
    stage = open_redis(server, redis_username="mail", redis_password="any")
    one = make_envelope(rcpt_to=["d@example.com"])
    assert through(stage, envelope, one) == [LATER, LATER]
    assert refused.encode() not in server.values()
    assert server.values() == {}


@pytest.mark.parametrize("several", [False, True])
def test_a_read_only_replica_is_451(own_redis: Start, open_redis: Open, several: bool) -> None:
    main, replica = own_redis(), own_redis()
    stage = open_redis(replica)
    replica.ask("REPLICAOF", "127.0.0.1", main.port)
    people = ["a@example.com", "b@example.com"][: 1 + several]
    assert through(stage, make_envelope(rcpt_to=people)) == [LATER]
    replica.ask("REPLICAOF", "NO", "ONE")
    assert through(stage, make_envelope(rcpt_to=people)) == [ACCEPTED]


def test_another_main_one_at_the_same_address_is_found(own_redis: Start, tmp_path: Path) -> None:
    """The old one lives on as its replica, and closes no connection."""
    old, new = own_redis(), own_redis()
    address = tmp_path / "redis.sock"
    address.symlink_to(old.socket)
    with chain_of(Redis(Redis.Options(redis_interface=f"unix:{address}"))) as chain:
        assert through(chain, make_envelope()) == [ACCEPTED]
        old.ask("REPLICAOF", "127.0.0.1", new.port)
        address.unlink()
        address.symlink_to(new.socket)
        assert through(chain, make_envelope()) == [LATER]
        last = make_envelope()
        assert through(chain, last) == [ACCEPTED]
    assert set(new.values()) == keys_of(last)
    old.ask("REPLICAOF", "NO", "ONE")  # The other would wait for it at its stop.


def test_a_snapshot_that_fails_is_451(
    own_redis: Start, open_redis: Open, until: Callable[[Callable[[], object]], None]
) -> None:
    """MISCONF, as with a disk that fails: a folder stands where the snapshot belongs."""
    server = own_redis(settings={"save": "3600 1", "dbfilename": "gone.rdb"})
    stage = open_redis(server)
    (server.folder / "gone.rdb").mkdir()
    server.ask("BGSAVE")
    until(lambda: server.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
    assert through(stage, make_envelope()) == [LATER]
    server.kill()  # It would not end without its snapshot.


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"-CLUSTERDOWN The cluster is down\r\n", "CLUSTERDOWN The cluster is down"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "3999"),
        (b"-MISCONF Errors writing to the AOF file\r\n", "MISCONF Errors"),
        (b"-OOM command not allowed\r\n", "OOM command"),
        (b"-TRYAGAIN\r\n", "TRYAGAIN"),
        (b"-\xff\x00strange\r\n", "strange"),
    ],
)
def test_any_error_of_redis_is_451_and_the_connection_stays(
    open_redis: Open, caplog: pytest.LogCaptureFixture, answer: bytes, words: str
) -> None:
    with Babbler(answer) as babbler:
        stage = open_redis(babbler)
        assert through(stage, make_envelope()) == [LATER]
        babbler.answer = b"+OK\r\n"
        assert through(stage, make_envelope()) == [ACCEPTED]
        assert babbler.connections == 1
    assert words in caplog.text


def test_one_error_fails_its_mail_only(open_redis: Open) -> None:
    with Babbler(b"+OK\r\n-OOM full\r\n+OK\r\n") as babbler:
        stage = open_redis(babbler)
        replies = through(stage, *(make_envelope() for _ in range(3)))
    assert replies == [ACCEPTED, LATER, ACCEPTED]


def test_of_several_recipients_one_error_is_enough(open_redis: Open) -> None:
    people = ["a@example.com", "b@example.com"]
    queued = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n"
    for answer in (
        b"+OK\r\n+QUEUED\r\n-OOM full\r\n-EXECABORT Transaction discarded\r\n",
        queued + b"*2\r\n+OK\r\n-ERR failed\r\n",
        b"-NOPERM no multi\r\n+QUEUED\r\n+QUEUED\r\n-ERR EXEC without MULTI\r\n",
    ):
        with Babbler(answer) as babbler:
            assert through(open_redis(babbler), make_envelope(rcpt_to=people)) == [LATER]
    with Babbler(queued + b"*2\r\n+OK\r\n+OK\r\n") as babbler:
        assert through(open_redis(babbler), make_envelope(rcpt_to=people)) == [ACCEPTED]


# --- What fails on the way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"+NO\r\n",
        b":1\r\n",
        b"*1\r\n+OK\r\n",
        b"220 mx ESMTP\r\n",
        b":x\r\n",
        b"\r\n",
        b"$-1\r\n",
        b"+QUEUED\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-MOVED x\r\n",
    ],
)
def test_an_answer_that_is_none_is_451_and_a_new_connection(
    open_redis: Open, caplog: pytest.LogCaptureFixture, answer: bytes | None
) -> None:
    with Babbler(answer) as babbler:
        stage = open_redis(babbler)
        assert through(stage, make_envelope(), make_envelope()) == [LATER] * 2
        babbler.answer = b"+OK\r\n"
        assert through(stage, make_envelope()) == [ACCEPTED]
        assert babbler.connections == 2
    assert "Redis unavailable" in caplog.text


def test_a_surplus_answer_is_never_that_of_another_mail(open_redis: Open) -> None:
    with Babbler(b"+OK\r\n" * 3) as babbler:
        stage = open_redis(babbler)
        assert through(stage, make_envelope()) == [ACCEPTED]
        babbler.answer = b"-OOM full\r\n"
        assert through(stage, make_envelope()) == [LATER]
        assert babbler.connections == 2


@pytest.mark.parametrize("answer", [b"", b"+O", b"$100\r\nabc"])
def test_no_answer_in_time_is_451(
    open_redis: Open, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    with Babbler(answer) as babbler:
        stage = open_redis(babbler, redis_timeout=2)
        assert through(stage, make_envelope()) == [LATER]
    assert "Timeout" in caplog.text


def test_a_batch_has_gw_save_timeout_in_all(
    open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """However soon each answer comes after the one before."""
    with Babbler(b"+OK\r\n" * 30, pause=0.1) as babbler:
        stage = open_redis(babbler, gw_save_timeout=2)
        assert through(stage, *(make_envelope() for _ in range(30))) == [LATER] * 30
    assert "not done within gw_save_timeout" in caplog.text or "Timeout" in caplog.text


def test_a_paused_redis_is_451_and_then_none(own_redis: Start, open_redis: Open) -> None:
    server = own_redis()
    stage = open_redis(server, redis_timeout=2)
    assert through(stage, make_envelope()) == [ACCEPTED]
    server.pause()
    assert through(stage, make_envelope()) == [LATER]
    assert through(stage, make_envelope()) == [LATER]
    server.resume()
    _until_accepted(stage)


def test_a_restart_between_two_mails_costs_none(own_redis: Start, open_redis: Open) -> None:
    server = own_redis(settings=DURABLE)
    stage = open_redis(server)
    first = make_envelope()
    assert through(stage, first) == [ACCEPTED]
    server.kill()
    server.start()
    second = make_envelope()
    assert through(stage, second) == [ACCEPTED]
    assert set(server.values()) == keys_of(first, second)


def test_while_it_is_down_senders_hear_so_at_once(
    own_redis: Start, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis()
    stage = open_redis(server)
    server.stop()
    for _ in range(30):
        assert through(stage, make_envelope()) == [LATER]
    assert "tried again in" in caplog.text
    server.start()
    with caplog.at_level(logging.INFO, "guerrilla.kept"):
        _until_accepted(stage)
    assert "connected again" in caplog.text


def _until_accepted(chain: Chain[Any]) -> None:
    """Tries again, as a sender does, until it is over; each time it is 250 or 451."""
    limit = time.monotonic() + 20
    while (fate := through(chain, make_envelope())) == [LATER]:
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert fate == [ACCEPTED]
