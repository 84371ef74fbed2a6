"""Tables of MariaDB and PostgreSQL that were there before, and INSERTs that a config writes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from guerrilla.store import StoreError, Target, drivers
from guerrilla.store.dialects import Dialect
from guerrilla.store.schema import TEXT_LIMIT
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import Place
from tests.store.mails import PLAIN, TABLE, envelope, rows

if TYPE_CHECKING:
    from guerrilla._core import Envelope

GO_TABLE = """
    CREATE TABLE new_mail (
        `mail_id` BIGINT(20) unsigned NOT NULL AUTO_INCREMENT,
        `date` datetime NOT NULL COMMENT 'The date field indicates when the mail was received',
        `from` varchar(256) character set latin1 NOT NULL,
        `to` varchar(256) character set latin1 NOT NULL,
        `subject` varchar(255) NOT NULL,
        `body` text NOT NULL,
        `charset` varchar(32) character set latin1 NOT NULL,
        `mail` longblob NOT NULL,
        `spam_score` float NOT NULL,
        `hash` char(32) character set latin1 NOT NULL,
        `content_type` varchar(64) character set latin1 NOT NULL,
        `recipient` varchar(128) character set latin1 NOT NULL,
        `has_attach` int(11) NOT NULL,
        `ip_addr` varchar(15) NOT NULL,
        `return_path` VARCHAR(255) NOT NULL,
        `is_tls` BIT(1) DEFAULT b'0' NOT NULL,
        `message_id` varchar(256) character set latin1 NOT NULL,
        `reply_to` varchar(256) NOT NULL,
        `sender` varchar(256) NOT NULL,
        PRIMARY KEY (`mail_id`), KEY `to` (`to`), KEY `hash` (`hash`), KEY `date` (`date`)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8
"""
"""As its documentation has it: for 3-byte UTF-8 and Latin-1, with short columns."""

LONG = (
    "Subject: {0}\r\nContent-Type: text/plain; x={0}\r\nReply-To: {0}\r\nMessage-ID: <{0}@x>\r\n"
    "\r\nbody\r\n"
).format("\U0001f600\u0159" * 200)


def store(place: Place, target: Target, *envelopes: Envelope) -> None:
    with contextlib.closing(drivers.connect(place.driver, place.dsn(), target)) as opened:
        opened.insert(rows(*envelopes))


def make(place: Place, old: str = "", new: str = "") -> None:
    """Makes the table as we do, but for a part of its DDL."""
    ddl = dialect(place).create_table(TABLE)
    assert old in ddl
    place.query(ddl.replace(old, new) if old else ddl)


def dialect(place: Place) -> Dialect:
    return drivers.find(place.driver).dialect()


def test_table_of_go_guerrilla_takes_every_mail(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    place.query(GO_TABLE)
    recipient = f"{'u' * 60}@{'d' * 60}.example.com"
    one = envelope(LONG.encode(), recipient, remote_ip="192.0.2.1")
    one.hashes[:] = ["0" * 32]
    six = envelope(PLAIN, remote_ip="2001:db8::1")
    store(place, Target(TABLE), one, six)
    first, second = place.rows()
    assert first["mail"] == LONG.encode()
    assert first["subject"].startswith("\ufffd\u0159\ufffd")
    assert len(first["subject"]) == TEXT_LIMIT
    assert first["content_type"] == f"text/plain; x={'??' * 100}"[:64]
    assert first["recipient"] == recipient[:128]
    assert first["charset"] == "UTF-8"
    assert first["ip_addr"] == "192.0.2.1"
    assert second["ip_addr"] == "2001:db8::1"
    assert first["is_tls"] == b"\0"


def test_table_without_queued_id_works(place: Place) -> None:
    line = next(
        line for line in dialect(place).create_table(TABLE).splitlines() if "queued_id " in line
    )
    ddl = dialect(place).create_table(TABLE).replace(line, "")
    place.query(ddl[: ddl.rindex(",\n    UNIQUE")] + ")")
    one = envelope(PLAIN, "a@example.com", "b@example.com")
    store(place, Target(TABLE), one)
    assert [row["recipient"] for row in place.rows()] == ["a@example.com", "b@example.com"]


def test_table_without_the_unique_key_works(place: Place) -> None:
    ddl = dialect(place).create_table(TABLE)
    place.query(ddl[: ddl.rindex(",\n    UNIQUE")] + ")")
    store(place, Target(TABLE), envelope())
    assert place.count() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP COLUMN hash", "has no column hash"),
        ("ADD COLUMN extra VARCHAR(9) NOT NULL", "wants a value for extra: give it a default"),
    ],
)
def test_table_that_cannot_be_used_names_the_column(
    place: Place, change: str, message: str
) -> None:
    make(place)
    place.query(f"ALTER TABLE {TABLE} {change}")
    with pytest.raises(StoreError, match=f"the table {TABLE} in .*{message}") as error:
        store(place, Target(TABLE))
    assert error.value.key == "mail_table"


def test_table_whose_mails_are_text_is_refused(place: Place) -> None:
    make(place, f"mail {dialect(place).types['mail']}", "mail TEXT NOT NULL")
    with pytest.raises(StoreError, match="mail has to hold bytes, and is of the type text"):
        store(place, Target(TABLE))


def test_key_of_a_short_recipient_is_refused(place: Place) -> None:
    make(place, "recipient VARCHAR(255)", "recipient VARCHAR(100)")
    with pytest.raises(StoreError, match="recipient is in a unique key and holds 100 characters"):
        store(place, Target(TABLE))


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ("utf8mb4_bin", "utf8mb4_general_ci", "compares .* by utf8mb4_general_ci"),
        ("(queued_id, recipient)", "(queued_id, recipient(50))", "recipient by its first 50"),
    ],
)
def test_key_of_mysql_that_takes_two_recipients_for_one_is_refused(
    mariadb: MariaDB, old: str, new: str, how: str
) -> None:
    place = mariadb.fresh()
    make(place, old, new)
    with pytest.raises(StoreError, match=how):
        store(place, Target(TABLE))


def test_key_of_postgresql_that_takes_two_recipients_for_one_is_refused(
    postgresql: PostgreSQL,
) -> None:
    place = postgresql.fresh()
    place.query(
        "CREATE COLLATION nocase "
        "(provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    make(place, 'recipient VARCHAR(255) COLLATE "C"', "recipient VARCHAR(255) COLLATE nocase")
    with pytest.raises(StoreError, match="compares recipient so that a mail could be taken"):
        store(place, Target(TABLE))


def test_partial_index_of_postgresql_is_no_key(postgresql: PostgreSQL) -> None:
    place = postgresql.fresh()
    make(place, "UNIQUE (queued_id, recipient)", "CHECK (true)")
    place.query(f"CREATE UNIQUE INDEX ON {TABLE} (queued_id, recipient) WHERE is_tls = 0")
    store(place, Target(TABLE), envelope())
    assert place.count() == 1


def test_engine_without_transactions_is_refused(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    make(place, "ENGINE=InnoDB ROW_FORMAT=DYNAMIC", "ENGINE=MyISAM")
    with pytest.raises(StoreError, match=f"kept by MyISAM.*ALTER TABLE {TABLE} ENGINE=InnoDB"):
        store(place, Target(TABLE))


def test_mail_column_that_is_too_small_for_a_mail(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    make(place, "mail LONGBLOB", "mail BLOB")
    store(place, Target(TABLE), envelope(b"x" * 65_535))
    with pytest.raises(StoreError, match="a mail has 65536 bytes, and its column holds 65535"):
        store(place, Target(TABLE), envelope(b"x" * 65_536))
    assert place.count() == 1


def test_types_of_postgresql_are_met(postgresql: PostgreSQL) -> None:
    place = postgresql.fresh()
    make(place)
    place.query(
        f"ALTER TABLE {TABLE} ALTER is_tls DROP DEFAULT, ALTER is_tls TYPE boolean USING false, "
        "ALTER ip_addr TYPE inet USING NULL, ALTER date TYPE timestamptz"
    )
    store(place, Target(TABLE), envelope(remote_ip="192.0.2.1", received_at=0))
    (row,) = place.query(
        f"SELECT is_tls, host(ip_addr) AS ip, extract(epoch FROM date) AS at FROM {TABLE}"
    )
    assert (row["is_tls"], row["ip"], int(row["at"])) == (False, "192.0.2.1", 0)


def test_time_is_utc_whatever_the_server_says(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    make(place, "`date` DATETIME", "`date` TIMESTAMP")
    place.query("SET GLOBAL time_zone = '+05:00'")
    try:
        store(place, Target(TABLE), envelope(received_at=86_400))
        (row,) = place.query(f"SELECT UNIX_TIMESTAMP(date) AS at FROM {TABLE}")
    finally:
        place.query("SET GLOBAL time_zone = SYSTEM")
    assert row["at"] == 86_400


# --- sql_insert and sql_values -------------------------------------------------------------------

GO_INSERT = {
    "mysql": "INSERT INTO new_mail (`date`, `to`, `from`, `subject`, `body`, `mail`, `spam_score`, "
    "`hash`, `content_type`, `recipient`, `has_attach`, `ip_addr`, `return_path`, `is_tls`, "
    "`message_id`, `reply_to`, `sender`) VALUES",
    "postgresql": 'INSERT INTO new_mail ("date", "to", "from", subject, body, mail, spam_score, '
    "hash, content_type, recipient, has_attach, ip_addr, return_path, is_tls, message_id, "
    "reply_to, sender) VALUES",
}
GO_VALUES = {
    "mysql": "(NOW(), ?, ?, ?, ? , ?, 0, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
    "postgresql": "(NOW(), $1, $2, $3, $4, $5, 0, $6, $7, $8, 0, $9, $10, $11, $12, $13, $14)",
}


def make_go(place: Place) -> None:
    """Ours without `queued_id`, which an INSERT of Go-Guerrilla does not fill."""
    columns = [name for name in dialect(place).types if name not in {"queued_id", "charset"}]
    place.query(dialect(place).create_table(TABLE, columns))


@pytest.mark.parametrize("parts", [("insert", "values"), ("insert",), ("values",)])
def test_insert_of_go_guerrilla_fills_its_marks(place: Place, parts: tuple[str, ...]) -> None:
    make_go(place)
    insert = GO_INSERT[place.driver] if "insert" in parts else ""
    values = GO_VALUES[place.driver] if "values" in parts else ""
    one = envelope(b"Subject: it's %s\r\n\r\nbody", "a@example.com", "b@example.com")
    store(place, Target(TABLE, insert=insert, values=values), one)
    found = place.rows()
    assert [row["recipient"] for row in found] == ["a@example.com", "b@example.com"]
    assert {row["subject"] for row in found} == {"it's %s"}
    assert {row["mail"] for row in found} == {bytes(one.data)}
    assert {row["ip_addr"] for row in found} == {bytes(10) + b"\xff\xff\x7f\0\0\1"}


def test_marks_may_be_names_of_columns(place: Place) -> None:
    place.query(
        "CREATE TABLE own (mail_id INT PRIMARY KEY DEFAULT 1, id VARCHAR(40), note VARCHAR(40), "
        f"octets {dialect(place).types['mail']})"
    )
    insert = "INSERT INTO own (octets, id, note) VALUES "
    one = envelope()
    store(place, Target(TABLE, insert=insert, values="(:mail, :queued_id, 'a ? :b $1 100%')"), one)
    (row,) = place.rows("own")
    assert (row["octets"], row["id"]) == (PLAIN, one.queued_id)
    assert row["note"] == "a ? :b $1 100%"
    assert not place.query(
        "SELECT 1 FROM information_schema.tables WHERE table_name = 'new_mail' "
        "AND table_schema = %s",
        place.database,
    )


@pytest.mark.parametrize(
    ("insert", "values", "key", "message"),
    [
        ("INSERT INTO nowhere (a) VALUES", "(:mail)", "sql_insert", "nowhere"),
        ("INSERT WHAT", "(:mail)", "sql_insert", "does not take it"),
        ("", "(?, ?)", "sql_values", "expected 14 marks '[?]', found 2: to, from, subject"),
        ("", "($5, $15)", "sql_values", r"expected marks \$1 to \$14, found \$15"),
        ("", "(:mail, :nobody)", "sql_values", "after ':', found 'nobody'"),
        ("", "(:mail, $1)", "sql_values", "expected marks of one kind"),
        ("", "(NOW())", "sql_values", "expected a mark for the column mail"),
        ("", "(:mail)", "sql_values", "does not take it"),
    ],
)
def test_insert_that_cannot_be_is_found_at_start(
    place: Place, insert: str, values: str, key: str, message: str
) -> None:
    with pytest.raises(StoreError, match=message) as error:
        store(place, Target(TABLE, insert=insert, values=values))
    assert error.value.key == key
