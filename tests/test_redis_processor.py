"""The Redis stage against real servers: what is stored, and what a sender hears when it fails."""

from __future__ import annotations

import contextlib
import logging
import smtplib
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import guerrilla
from guerrilla._core import Envelope
from guerrilla.cli import main
from guerrilla.engine.chain import Chain
from guerrilla.errors import StartError
from guerrilla.processors.redis import TOO_LARGE, Redis
from guerrilla.redisstore import messages
from guerrilla.reply import Reply
from guerrilla.testing import make_envelope, run_chain
from tests.certificates import Authority
from tests.chains import chain_of, fates
from tests.corpora import as_sent, corpus
from tests.reference.pages import examples
from tests.running import RunningDaemon
from tests.services.redis import (
    DURABLE,
    Babbler,
    RedisServer,
)

CHAIN = "HeadersParser|Hasher|Header|Redis"
COMPRESSED = "HeadersParser|Hasher|Header|Compressor|Redis"
OK = "OK: queued as "
LATER = Reply.retry()
ACCEPTED = "accepted"

Start = Callable[..., RedisServer]


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
def opened() -> Iterator[Callable[..., Chain[Any]]]:
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


@pytest.mark.parametrize(("password", "status"), [("", 0), ("hidden", 1)])
def test_check_tries_it_and_shows_no_password(
    empty_redis: RedisServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    password: str,
    status: int,
) -> None:
    file = tmp_path / "guerrilla.toml"
    file.write_text(
        f'allowed_hosts = ["."]\n[backend_config]\nsave_process = "{CHAIN}"\n'
        f'redis_interface = "redis://:{password}@{empty_redis.address}"\n'
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
    )
    assert main(["check", "--connect", "-c", str(file)]) == status
    captured = capsys.readouterr()
    assert "hidden" not in captured.out + captured.err
    refused = f"backend_config.redis_password: redis {empty_redis.address}: "
    assert (refused in captured.err) is bool(status)


# --- The ways there ------------------------------------------------------------------------------


def test_a_unix_socket(empty_redis: RedisServer) -> None:
    assert codes(save(f"unix:{empty_redis.socket}", make_envelope())) == [250]
    assert len(empty_redis.values()) == 1


@pytest.mark.parametrize("url", [False, True])
def test_another_database(empty_redis: RedisServer, url: bool) -> None:
    where = f"redis://{empty_redis.address}/3" if url else empty_redis.address
    options: dict[str, Any] = {} if url else {"redis_database": 3}
    assert codes(save(where, make_envelope(), **options)) == [250]
    assert (len(empty_redis.values(0)), len(empty_redis.values(3))) == (0, 1)


def test_a_password(own_redis: Start) -> None:
    server = own_redis(secret="p@ss/word: 1")
    server.ask("ACL", "SETUSER", "mail", "on", ">other", "~*", "+set", "+setex", "+ping")
    ways: list[tuple[str, dict[str, Any]]] = [
        (server.address, {"redis_password": "p@ss/word: 1"}),
        (f"redis://:p%40ss%2Fword%3A 1@{server.address}", {}),
        (server.address, {"redis_username": "mail", "redis_password": "other"}),
        (f"redis://mail:other@{server.address}/0", {"redis_password": "other"}),
    ]
    for where, options in ways:
        assert codes(save(where, make_envelope(), **options)) == [250]
    assert len(server.values()) == len(ways)


def test_tls(own_redis: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "redis")
    server = own_redis(tls=authority)
    client = authority.issue("/CN=guerrilla")
    files = {
        "redis_tls_root_cas_file": str(authority.certificate),
        "redis_tls_private_key_file": str(client.key),
        "redis_tls_public_key_file": str(client.certificate),
    }
    envelopes = [make_envelope(body="x" * 100_000) for _ in range(20)]
    assert codes(save(server, *envelopes, redis_tls=True, **files)) == [250] * 20
    assert codes(save(f"rediss://{server.address}", make_envelope(), **files)) == [250]
    assert len(server.values()) == 21
    for wrong, words in (
        ({**files, "redis_tls_root_cas_file": ""}, "certificate verify failed"),
        ({"redis_tls_root_cas_file": files["redis_tls_root_cas_file"]}, "redis_interface: "),
        ({**files, "redis_tls_root_cas_file": "/nowhere.crt"}, "No such file"),
    ):
        with pytest.raises(StartError, match=words):
            save(server, make_envelope(), redis_tls=True, **wrong)
    with pytest.raises(StartError, match="redis_interface"):
        save(server, make_envelope())


# --- What cannot start ---------------------------------------------------------------------------


def test_nothing_listens_there(tmp_path: Path) -> None:
    with Babbler(b"") as gone:
        where = gone.address
    with pytest.raises(StartError, match=rf"redis_interface: redis {where}: .*refused"):
        save(where, make_envelope())
    with pytest.raises(StartError, match=r"redis_interface: redis unix:.*No such file"):
        save(f"unix:{tmp_path}/none.sock", make_envelope())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "redis_password: .* NOAUTH Authentication required"),
        ({"redis_password": "wrong-secret"}, "redis_password: .* WRONGPASS"),
        (
            {"redis_username": "nobody", "redis_password": "wrong-secret"},
            "redis_username or redis_password: .* WRONGPASS",
        ),
        ({"redis_password": "right", "redis_database": 9}, "redis_interface: .* out of range"),
    ],
)
def test_redis_does_not_let_it_in(own_redis: Start, options: dict[str, Any], words: str) -> None:
    server = own_redis(secret="right")
    with pytest.raises(StartError, match=words) as raised:
        save(server, make_envelope(), **options)
    assert "wrong-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("hello", [b"+HELLO\r\n", b"220 mx ESMTP\r\n", b"$99\r\n", b":x\r\n", b""])
def test_what_answers_is_no_redis(hello: bytes) -> None:
    with (
        Babbler(b"+OK\r\n", hello=hello) as babbler,
        pytest.raises(StartError, match="redis_interface"),
    ):
        save(babbler, make_envelope(), redis_timeout=0.2)


def test_start_says_what_a_250_is_worth(own_redis: Start, caplog: pytest.LogCaptureFixture) -> None:
    forgetful, hasty = own_redis(), own_redis(settings={"appendonly": "yes"})
    durable = own_redis(settings=DURABLE)
    messages._warned.clear()
    for server in (forgetful, hasty, durable, forgetful, durable):
        save(server, make_envelope())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert forgetful.address in lines[0]
    assert "appendonly is 'no'" in lines[0]
    assert hasty.address in lines[1]
    assert "appendfsync is 'everysec'" in lines[1]


# --- What Redis refuses --------------------------------------------------------------------------


def test_a_full_redis_is_451_for_each_and_one_line(
    own_redis: Start, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis(settings={"maxmemory-policy": "noeviction"})
    stage = opened(server)
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


def test_one_that_does_not_fit_fails_alone(own_redis: Start, opened: Any) -> None:
    """Redis looks at its memory before each command: what comes after a large one is refused."""
    server = own_redis(settings={"maxmemory-policy": "noeviction"})
    stage = opened(server)
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


def test_a_refused_copy_leaves_none_for_the_others(own_redis: Start, opened: Any) -> None:
    """Of several recipients all or none: a user who may write only some keys."""
    server = own_redis()
    envelope = make_envelope(rcpt_to=["a@example.com", "b@example.com", "c@example.com"])
    allowed, refused, _ = envelope.compute_hashes()
    words = ["~" + allowed, "+@all"]
    server.ask("ACL", "SETUSER", "mail", "on", "nopass", *words)
    stage = opened(server, redis_username="mail", redis_password="any")
    one = make_envelope(rcpt_to=["d@example.com"])
    assert through(stage, envelope, one) == [LATER, LATER]
    assert refused.encode() not in server.values()
    assert server.values() == {}


@pytest.mark.parametrize("several", [False, True])
def test_a_read_only_replica_is_451(own_redis: Start, opened: Any, several: bool) -> None:
    main, replica = own_redis(), own_redis()
    stage = opened(replica)
    replica.ask("REPLICAOF", "127.0.0.1", main.port)
    people = ["a@example.com", "b@example.com"][: 1 + several]
    assert through(stage, make_envelope(rcpt_to=people)) == [LATER]
    replica.ask("REPLICAOF", "NO", "ONE")
    assert through(stage, make_envelope(rcpt_to=people)) == [ACCEPTED]


def test_a_snapshot_that_fails_is_451(
    own_redis: Start, opened: Any, until: Callable[[Callable[[], object]], None]
) -> None:
    """MISCONF, as with a disk that fails: a folder stands where the snapshot belongs."""
    server = own_redis(settings={"save": "3600 1", "dbfilename": "gone.rdb"})
    stage = opened(server)
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
    opened: Any, caplog: pytest.LogCaptureFixture, answer: bytes, words: str
) -> None:
    with Babbler(answer) as babbler:
        stage = opened(babbler)
        assert through(stage, make_envelope()) == [LATER]
        babbler.answer = b"+OK\r\n"
        assert through(stage, make_envelope()) == [ACCEPTED]
        assert babbler.connections == 1
    assert words in caplog.text


def test_one_error_fails_its_mail_only(opened: Any) -> None:
    with Babbler(b"+OK\r\n-OOM full\r\n+OK\r\n") as babbler:
        stage = opened(babbler)
        replies = through(stage, *(make_envelope() for _ in range(3)))
    assert replies == [ACCEPTED, LATER, ACCEPTED]


def test_of_several_recipients_one_error_is_enough(opened: Any) -> None:
    people = ["a@example.com", "b@example.com"]
    queued = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n"
    for answer in (
        b"+OK\r\n+QUEUED\r\n-OOM full\r\n-EXECABORT Transaction discarded\r\n",
        queued + b"*2\r\n+OK\r\n-ERR failed\r\n",
        b"-NOPERM no multi\r\n+QUEUED\r\n+QUEUED\r\n-ERR EXEC without MULTI\r\n",
    ):
        with Babbler(answer) as babbler:
            assert through(opened(babbler), make_envelope(rcpt_to=people)) == [LATER]
    with Babbler(queued + b"*2\r\n+OK\r\n+OK\r\n") as babbler:
        assert through(opened(babbler), make_envelope(rcpt_to=people)) == [ACCEPTED]


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
    opened: Any, empty_redis: RedisServer, caplog: pytest.LogCaptureFixture, hashes: list[Any]
) -> None:
    stage = opened(empty_redis).stages[0][1]
    bad = make_envelope(rcpt_to=["a@example.com", "b@example.com"])
    good = make_envelope()
    good.compute_hashes()
    bad.hashes[:] = hashes
    assert stage.save_batch([bad, good]) == [LATER, None]
    assert stage.save_batch([bad]) == [LATER]
    assert bad.queued_id in caplog.text
    assert set(empty_redis.values()) == keys_of(good)


def test_one_longer_than_redis_takes_is_refused_for_good(own_redis: Start, opened: Any) -> None:
    server = own_redis(settings={"proto-max-bulk-len": "2mb"})
    stage = opened(server)
    large = make_envelope(b"Subject: large\r\n\r\n" + b"x" * (2 << 20))
    fits = make_envelope(b"Subject: fits\r\n\r\n" + b"x" * ((2 << 20) - 4_000))
    assert through(stage, make_envelope(), large, fits) == [ACCEPTED, TOO_LARGE, ACCEPTED]
    packed = make_envelope(b"Subject: large\r\n\r\n" + b"x" * (2 << 20))
    packed.values["zlib-compressor"] = True
    assert through(stage, packed) == [ACCEPTED]
    assert len(server.values()) == 3


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
    opened: Any, caplog: pytest.LogCaptureFixture, answer: bytes | None
) -> None:
    with Babbler(answer) as babbler:
        stage = opened(babbler)
        assert through(stage, make_envelope(), make_envelope()) == [LATER] * 2
        babbler.answer = b"+OK\r\n"
        assert through(stage, make_envelope()) == [ACCEPTED]
        assert babbler.connections == 2
    assert "Redis unavailable" in caplog.text


def test_a_surplus_answer_is_never_that_of_another_mail(opened: Any) -> None:
    with Babbler(b"+OK\r\n" * 3) as babbler:
        stage = opened(babbler)
        assert through(stage, make_envelope()) == [ACCEPTED]
        babbler.answer = b"-OOM full\r\n"
        assert through(stage, make_envelope()) == [LATER]
        assert babbler.connections == 2


@pytest.mark.parametrize("answer", [b"", b"+O", b"$100\r\nabc"])
def test_no_answer_in_time_is_451(
    opened: Any, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    with Babbler(answer) as babbler:
        stage = opened(babbler, redis_timeout=0.1)
        assert through(stage, make_envelope()) == [LATER]
    assert "Timeout" in caplog.text


def test_a_batch_has_gw_save_timeout_in_all(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    """However soon each answer comes after the one before."""
    with Babbler(b"+OK\r\n" * 30, pause=0.02) as babbler:
        stage = opened(babbler, gw_save_timeout=0.3)
        assert through(stage, *(make_envelope() for _ in range(30))) == [LATER] * 30
    assert "not done within gw_save_timeout" in caplog.text or "Timeout" in caplog.text


def test_a_paused_redis_is_451_and_then_none(own_redis: Start, opened: Any) -> None:
    server = own_redis()
    stage = opened(server, redis_timeout=0.2)
    assert through(stage, make_envelope()) == [ACCEPTED]
    server.pause()
    assert through(stage, make_envelope()) == [LATER]
    assert through(stage, make_envelope()) == [LATER]
    server.resume()
    _until_accepted(stage)


def test_a_restart_between_two_mails_costs_none(own_redis: Start, opened: Any) -> None:
    server = own_redis(settings=DURABLE)
    stage = opened(server)
    first = make_envelope()
    assert through(stage, first) == [ACCEPTED]
    server.kill()
    server.start()
    second = make_envelope()
    assert through(stage, second) == [ACCEPTED]
    assert set(server.values()) == keys_of(first, second)


def test_while_it_is_down_senders_hear_so_at_once(
    own_redis: Start, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis()
    stage = opened(server)
    server.stop()
    for _ in range(3):
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
