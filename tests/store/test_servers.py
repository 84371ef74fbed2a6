"""What MariaDB and PostgreSQL hold of a mail, and what they never lose of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import random
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from guerrilla._core import Envelope
from guerrilla.store import RowTooLargeError, Target, drivers, rows_of, server
from guerrilla.store.schema import COLUMNS, FIELDS
from tests.corpora import as_sent, corpus
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import Place
from tests.store.mails import PLAIN, TABLE, envelope, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla.store import Row, Store

ALL_BYTES = bytes(range(256))
ODD = "it's a \"quote\" \\ \\' %s %% ? $1 `x` \U0001f600\u202e"


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    opened = connect(place)
    yield opened
    opened.close()


def connect(place: Place, target: Target | None = None, **parameters: str) -> Store:
    return drivers.connect(place.driver, place.dsn(**parameters), target or Target(TABLE))


def insert(store: Store, *envelopes: Envelope) -> None:
    store.insert(rows(*envelopes))


def test_row_has_every_column_of_the_envelope(place: Place, store: Store) -> None:
    data = (
        f"Subject: {ODD}\r\n"
        "Content-Type: Multipart/Mixed; boundary='x\\'\r\n"
        "Message-ID: <m'\\@example.org>\r\n"
        "Reply-To: Reply <reply@example.org>\r\n"
        "Sender: sec@example.org\r\n\r\nbody\r\n"
    ).encode()
    one = envelope(data, "a@example.com", "b@example.com", received_at=0.9, remote_ip="192.0.2.1")
    one.hashes[:] = ["h1", "h2"]
    insert(store, one)
    first, second = place.rows()
    assert second["recipient"] == second["to"] == "b@example.com"
    assert second["hash"] == "h2"
    assert first.pop("mail_id") == 1
    assert first == {
        "queued_id": one.queued_id,
        "recipient": "a@example.com",
        "date": dt.datetime(1970, 1, 1, 0, 0, 0),  # noqa: DTZ001  # as it is stored
        "to": "a@example.com",
        "from": "sender@example.org",
        "subject": ODD,
        "body": "",
        "spam_score": 0,
        "hash": "h1",
        "content_type": "Multipart/Mixed; boundary='x\\'",
        "has_attach": 1,
        "ip_addr": bytes(10) + b"\xff\xff\xc0\x00\x02\x01",
        "return_path": "sender@example.org",
        "is_tls": 0,
        "message_id": "m'\\@example.org",
        "reply_to": "reply@example.org",
        "sender": "sec@example.org",
        "mail": data,
    }


def test_every_sequence_of_bytes_is_kept(place: Place, store: Store) -> None:
    pairs = b"".join(bytes((first, second)) for first in ALL_BYTES for second in ALL_BYTES)
    quotes = random.Random(1).choices(b"'\\\"\0\n\x1a%`?\xf0\xe2\x9f", k=20_000)
    mails = [b"\r\n" + data for data in (pairs, bytes(quotes), b"\\", b"'", b"x" * 16)]
    insert(store, *[envelope(data) for data in mails])
    assert [row["mail"] for row in place.rows()] == mails


def test_every_mail_of_the_corpus_is_kept(place: Place, store: Store) -> None:
    mails = [as_sent(path.read_bytes()) for path in corpus()]
    envelopes = [envelope(data, "a@example.com", "b@example.com") for data in mails]
    for one in envelopes:
        one.make_delivery_header("mx.example.com")
    for start in range(0, len(envelopes), 64):
        insert(store, *envelopes[start : start + 64])
    expected = [one.bytes_for(number) for one in envelopes for number in (0, 1)]
    stored = [row["mail"] for row in place.rows()]
    assert [mail == wanted for mail, wanted in zip(stored, expected, strict=True)] == [
        True for _ in expected
    ]


def many_headers() -> bytes:
    return b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(10_000)) + b"\r\nbody"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"Subject: a\0b\r\nSender: \0\r\n\r\n\0", id="NUL"),
        pytest.param(b"Subject: \xff\xfe\xf0\x9f\r\nReply-To: \xc0\xaf\r\n\r\n\xff", id="no UTF-8"),
        pytest.param(b"Subject: =?utf-8?b?/////w==?=\r\n\r\n", id="no UTF-8, encoded"),
        pytest.param(b"Subject: =?utf-16?b?2AA=?=\r\n\r\n", id="half a surrogate pair"),
        pytest.param(many_headers(), id="10,000 headers"),
        pytest.param(b"\r\nonly a body\r\n", id="no header"),
        pytest.param(b"Subject: x\r\n\r\n", id="empty body"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"Subject: " + "\U0001f600".encode() * 300 + b"\r\n\r\n", id="long"),
    ],
)
def test_odd_mail_is_stored(data: bytes, place: Place, store: Store) -> None:
    one = envelope(data)
    insert(store, one)
    (row,) = place.rows()
    assert row["mail"] == data
    assert row["subject"] == one.subject[:255].replace("\0", "\ufffd")


def test_hundred_recipients_have_a_row_each(place: Place, store: Store) -> None:
    recipients = [f"user{number}@example.com" for number in range(100)]
    insert(store, envelope(PLAIN, *recipients))
    assert [row["recipient"] for row in place.rows()] == recipients


def test_large_mail_is_stored_beside_small_ones(place: Place, store: Store) -> None:
    large = b"Subject: large\r\n\r\n" + random.Random(1).randbytes(50 << 20)
    insert(store, envelope(), envelope(large), envelope())
    found = place.query(f"SELECT mail_id, md5(mail) AS sum FROM {TABLE} ORDER BY mail_id")
    sums = [hashlib.md5(data, usedforsecurity=False) for data in (PLAIN, large, PLAIN)]
    assert [row["sum"] for row in found] == [one.hexdigest() for one in sums]


def test_recipients_that_differ_in_case_or_blanks_are_two(place: Place, store: Store) -> None:
    insert(store, envelope(PLAIN, "a@example.com", "A@example.com", '"a "@example.com'))
    assert place.count() == 3


def test_repeat_is_passed_over_and_the_rest_is_stored(place: Place, store: Store) -> None:
    one, two = envelope(PLAIN, "a@example.com", "b@example.com"), envelope()
    insert(store, one)
    insert(store, one, two, one)
    assert place.count() == 3


def test_conflict_of_another_key_is_an_error_and_makes_no_mail_vanish(
    place: Place, store: Store
) -> None:
    insert(store, envelope(PLAIN))
    place.query(f"CREATE UNIQUE INDEX by_subject ON {TABLE} (subject)")
    other = envelope(b"Subject: other\r\n\r\n")
    for batch in ([envelope(PLAIN)], [other, envelope(PLAIN)]):
        with pytest.raises(Exception, match=r"(?i)by_subject|null") as error:
            insert(store, *batch)
        assert type(error.value).__name__ in {"IntegrityError", "UniqueViolation"}
    assert place.count() == 1
    insert(store, other)
    assert [row["subject"] for row in place.rows()] == ["hello", "other"]


def test_long_batch_is_several_statements_and_one_transaction(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("mysql", "postgresql"):
        monkeypatch.setattr(f"guerrilla.store.{module}.STATEMENT_BYTES", 3_000)
    store = connect(place)
    mails = [envelope(b"\r\n" + b"x" * size) for size in (10, 1_000, 900, 5_000, 10, 2_900, 10)]
    place.query(f"CREATE UNIQUE INDEX by_recipient ON {TABLE} (recipient)")
    with pytest.raises(Exception, match=r"(?i)by_recipient|null"):
        insert(store, *mails)
    assert place.count() == 0
    place.query(f"DROP INDEX by_recipient{f' ON {TABLE}' * (place.driver == 'mysql')}")
    insert(store, *mails)
    store.close()
    assert [row["mail"] for row in place.rows()] == [bytes(mail.data) for mail in mails]


def test_poison_fails_and_the_connection_stays(place: Place, store: Store) -> None:
    poison = envelope()
    poison.hashes[:] = ["\ud800"]
    before = link(store)
    with pytest.raises(UnicodeEncodeError):
        insert(store, envelope(), poison)
    assert place.count() == 0
    insert(store, envelope())
    assert link(store) is before


def link(store: Store) -> Any:
    assert isinstance(store, server.ServerStore)
    return store._kept.get()


def test_compressed_messages_and_those_in_redis(place: Place, store: Store) -> None:
    one, two, three = (envelope(PLAIN, "a@example.com", "b@example.com") for _ in range(3))
    for each in (one, two, three):
        each.make_delivery_header("mx.example.com")
    one.values["zlib-compressor"] = True
    two.values["redis"] = "redis"
    three.values.update({"zlib-compressor": True, "redis": "redis"})
    insert(store, one, two, three)
    found = place.rows()
    assert [row["body"] for row in found] == ["gzip"] * 2 + ["redis"] * 4
    assert [zlib.decompress(row["mail"]) for row in found[:2]] == [
        one.bytes_for(0),
        one.bytes_for(1),
    ]
    assert [row["mail"] for row in found[2:]] == [b""] * 4


def test_any_list_of_columns_can_be_stored(place: Place) -> None:
    columns = ("date", "to", "from", "subject", "body", "charset", "mail", "hash", "recipient")
    store = connect(place, Target("other", columns))
    one = envelope()
    store.insert(rows_of(one, "mx", body="redis"))
    store.close()
    (row,) = place.rows("other")
    assert set(row) == {"mail_id", *columns}
    assert (row["charset"], row["body"], row["mail"]) == ("UTF-8", "redis", b"")


def test_table_is_the_one_of_the_schema_command(
    place: Place, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    from guerrilla.cli import main  # noqa: PLC0415

    assert main(["schema", "--driver", place.driver, "--table", "second"]) == 0
    place.query(capsys.readouterr().out)
    described = [describe(place, table) for table in (TABLE, "second")]
    assert described[0] == described[1]
    assert {column["column_name"] for column in described[0]} == {"mail_id", *COLUMNS}


def describe(place: Place, table: str) -> Sequence[dict[str, Any]]:
    return place.query(
        "SELECT column_name AS column_name, data_type AS type, is_nullable AS nullable, "
        "character_maximum_length AS length, collation_name AS collation_name "
        "FROM information_schema.columns WHERE table_name = %s "
        "AND (table_schema = %s OR table_schema = 'public') ORDER BY ordinal_position",
        table,
        place.database,
    )


def test_mail_over_max_allowed_packet_is_too_large_and_only_that(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    store = connect(place, maxAllowedPacket="100000")
    large = envelope(b"\r\n" + b"x" * 100_000)
    quotes = envelope(b"\r\n" + b"'" * 50_000)
    for one in (large, quotes):
        with pytest.raises(RowTooLargeError, match="max_allowed_packet is 100000"):
            insert(store, envelope(), one, envelope())
    assert place.count() == 0
    many = [envelope(b"\r\n" + b"y" * 40_000) for _ in range(7)]
    insert(store, *many)
    store.close()
    assert place.count() == 7


def test_statement_of_just_max_allowed_packet_is_taken(mariadb: MariaDB) -> None:
    """What we call too large is not far from what the server calls so."""
    place = mariadb.fresh()
    before = place.query("SELECT @@max_allowed_packet AS n")[0]["n"]
    limit = 1 << 20
    place.query(f"SET GLOBAL max_allowed_packet = {limit}")
    try:
        store = connect(place)
        head = len(next(iter(link(store)._statements(rows(envelope(b""))))))
        fits = envelope(b"x" * (limit - head - len("_binary''") - 100))
        insert(store, fits)
        with pytest.raises(RowTooLargeError):
            insert(store, envelope(b"x" * (limit - head)))
        store.close()
    finally:
        place.query(f"SET GLOBAL max_allowed_packet = {before}")
    assert place.count() == 1


def test_value_over_a_gib_is_too_large(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guerrilla.store.postgresql.LONGEST", 1000)
    with contextlib.closing(connect(postgresql.fresh())) as store:
        insert(store, envelope(b"x" * 900))
        with pytest.raises(RowTooLargeError, match="and no value more than 1000"):
            insert(store, envelope(), envelope(b"x" * 1001))


def test_fields_are_the_columns_and_charset() -> None:
    assert set(FIELDS) == {*COLUMNS, "charset"}
    one: Row
    (one,) = rows(envelope())
    assert len(one.values()) == len(FIELDS)
