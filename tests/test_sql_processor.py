"""The SQL stage: its options, its answers, and a chain that has it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from guerrilla._core import Address, Envelope, Reply, make_check
from guerrilla.engine.chain import build, read_options
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError, StartError, Unavailable
from guerrilla.processors.sql import SQL, MySQL
from guerrilla.store import database
from guerrilla.store.dialects import SQLiteDialect
from guerrilla.store.rows import Row
from guerrilla.store.statement import GO_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"Subject: hello\r\n\r\nbody\r\n"


def envelope(*recipients: str) -> Envelope:
    return Envelope.create(
        DATA, mail_from="a@example.org", rcpt_to=recipients or ("b@example.com",)
    )


def count(path: Path, table: str = "new_mail") -> int:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").get)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail.db"


@pytest.fixture
def stage(path: Path) -> Iterator[SQL]:
    opened = SQL(SQL.Options(sql_driver="sqlite", sql_dsn=str(path)))
    opened.open()
    yield opened
    opened.close()


def test_it_stores_and_says_so() -> None:
    assert SQL.stores
    assert SQL.atomic


def test_batch_is_stored_and_passed_on(path: Path, stage: SQL) -> None:
    assert stage.save_batch([envelope(), envelope("c@example.com", "d@example.com")]) == [None] * 2
    assert count(path) == 3


def test_full_disk_is_452(
    path: Path, stage: SQL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(row: Row) -> Any:
        raise apsw.FullError(row.envelope.queued_id)

    one = envelope()
    monkeypatch.setattr(Row, "values", fail)
    outcomes = stage.save_batch([one, envelope()])
    assert outcomes == [Reply(452, "4.3.1", "Insufficient system storage")] * 2
    assert one.queued_id in caplog.text
    monkeypatch.undo()
    assert stage.save_batch([one]) == [None]
    assert count(path) == 1


def test_lock_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 10)
    stage = SQL(SQL.Options(sql_dsn=str(path)))
    stage.open()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="is locked"):
            stage.save_batch([envelope()])
    assert stage.save_batch([envelope()]) == [None]
    stage.close()
    assert count(path) == 1


def test_relative_path_begins_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = SQL(SQL.Options(sql_dsn="here.db", mail_table="mails"))
    stage.open()
    monkeypatch.chdir("/")
    stage.save_batch([envelope()])
    stage.close()
    assert count(tmp_path / "here.db", "mails") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sql_driver": "oracle"},
            "one of mysql, mariadb, postgres, postgresql, pgx, sqlite, sqlite3, got 'oracle'",
        ),
        ({"sql_driver": "mysql", "sql_dsn": "mail.db"}, "backend_config.sql_dsn: expected user:"),
        ({"sql_driver": "pgx", "sql_dsn": "mail.db"}, "backend_config.sql_dsn: expected postgres"),
        ({"sql_insert": "INSERT INTO x"}, "backend_config.sql_insert: "),
        ({"sql_values": "(?)"}, "backend_config.sql_values: expected 14 marks"),
        (
            {"sql_dsn": ""},
            "backend_config.sql_dsn: expected the path of the database file, got ''",
        ),
        (
            {"sql_dsn": "mail:secret@tcp(127.0.0.1)/mail"},
            "expected the path of the database file, got the address of a database server",
        ),
        ({"sql_dsn": "/nowhere/at/all/mail.db"}, "there is no folder /nowhere/at/all"),
    ],
)
def test_what_cannot_be_opened(path: Path, options: dict[str, str], message: str) -> None:
    stage = SQL(SQL.Options.model_validate({"sql_dsn": str(path), **options}))
    with pytest.raises((ConfigError, StartError)) as error:
        stage.open()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    stage.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mail_table", "a; DROP TABLE b"),
        ("mail_table", ""),
        ("sql_max_open_conns", -1),
        ("sql_max_conn_lifetime", "soon"),
    ],
)
def test_options_that_cannot_be_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        read_options("SQL", SQL, {key: value})
    assert str(error.value).startswith(f"backend_config.{key}: ")


@pytest.mark.parametrize(
    ("driver", "module", "extra"),
    [
        ("mysql", "pymysql", "pip install 'guerrilla[mysql]'"),
        ("postgresql", "psycopg", "pip install 'guerrilla[postgresql]'"),
    ],
)
def test_driver_without_its_package_names_the_extra(
    driver: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"guerrilla.store.{driver}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    stage = SQL(SQL.Options(sql_driver=driver, sql_dsn="u@/db"))
    with pytest.raises(ConfigError) as error:
        stage.open()
    assert "backend_config.sql_driver: " in str(error.value)
    assert extra in str(error.value)


def test_mysql_is_sql_with_that_driver() -> None:
    assert MySQL.Options().sql_driver == "mysql"
    read_options("MySQL", MySQL, {"sql_driver": "MariaDB"})
    with pytest.raises(ConfigError) as error:
        read_options("MySQL", MySQL, {"sql_driver": "sqlite"})
    assert str(error.value).startswith("backend_config.sql_driver: expected 'mysql', or")
    assert Registry().find("mysql") is MySQL


def test_own_insert_into_sqlite(path: Path) -> None:
    insert = "INSERT INTO own (note, octets, id) VALUES"
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE own (note, octets, id)")
    stage = SQL(
        SQL.Options(
            sql_dsn=str(path), sql_insert=insert, sql_values="('?', :mail, upper(:queued_id))"
        )
    )
    stage.open()
    one = envelope("b@example.com", "c@example.com")
    stage.save_batch([one])
    stage.close()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        found = connection.execute("SELECT * FROM own").fetchall()
        assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 1
    assert found == [("?", DATA, one.queued_id.upper())] * 2


@pytest.mark.parametrize("values", ["", "(NOW(), ?, ?, ?, ?, ?, 0, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"])
def test_insert_of_go_guerrilla_into_sqlite(path: Path, values: str) -> None:
    """Its own marks; SQLite has no NOW()."""
    columns = [name for name in SQLiteDialect.types if name not in {"queued_id", "charset"}]
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(SQLiteDialect().create_table("new_mail", columns))
    names = ", ".join(f'"{name}"' for name in GO_COLUMNS)
    insert = f"INSERT INTO new_mail ({names}) VALUES"
    values = values.replace("NOW()", "datetime()")
    stage = SQL(SQL.Options(sql_dsn=str(path), sql_insert=insert, sql_values=values))
    stage.open()
    assert stage.save_batch([envelope("b@example.com")]) == [None]
    stage.close()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        wanted = "SELECT recipient, return_path, mail, length(ip_addr) FROM new_mail"
        found = connection.execute(wanted).get
    assert found == ("b@example.com", "a@example.org", DATA, 16)


def test_mail_that_sqlite_never_takes_is_552(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"sql_dsn": str(path)}
    real = Row.values

    def values_of(row: Row) -> Any:
        if row.envelope is large:
            raise apsw.TooBigError
        return real(row)

    monkeypatch.setattr(Row, "values", values_of)
    small, large, other = envelope(), envelope(), envelope()
    with build("SQL", "save", values, Registry()) as chain:
        chain.run([small, large, other])
    assert large.answered == Reply(552, "5.3.4", "Message size exceeds what the storage takes")
    assert (small.answered, other.answered) == (None, None)
    assert count(path) == 2


def test_options_of_go_guerrilla_are_taken() -> None:
    options = SQL.Options.model_validate(
        {
            "sql_driver": "sqlite",
            "sql_dsn": "mail.db",
            "mail_table": "new_mail",
            "primary_mail_host": "mail.example.com",
            "sql_insert": "",
            "sql_values": "",
            "sql_max_open_conns": 10,
            "sql_max_idle_conns": 2,
            "sql_max_conn_lifetime": "1h30m",
        }
    )
    assert options.sql_max_conn_lifetime == 5400
    assert SQL.Options.model_validate({"sql_max_conn_lifetime": ""}).sql_max_conn_lifetime == 0


def test_user_over_255_is_refused(stage: SQL) -> None:
    transaction = make_check("b@example.com").transaction
    assert stage.validate(transaction, Address("u" * 255, "example.com")) is None
    reply = stage.validate(transaction, Address("u" * 256, "example.com"))
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.1.1")


def test_poison_in_a_batch_fails_alone(path: Path) -> None:
    chain = build("SQL", "save", {"sql_dsn": str(path)}, Registry())
    good, poison, other = envelope(), envelope(), envelope()
    poison.hashes[:] = ["\ud800"]
    with chain:
        chain.run([good, poison, other])
    assert good.answered is None
    assert other.answered is None
    assert isinstance(poison.answered, Reply)
    assert poison.answered.code == 451
    assert not good.answer()
    assert count(path) == 2


def test_chain_hashes_heads_and_stores(path: Path) -> None:
    values = {"sql_dsn": str(path), "primary_mail_host": "mx.example.com"}
    one = envelope("b@example.com", "c@example.com")
    with build("HeadersParser|Hasher|Header|SQL", "save", values, Registry()) as chain:
        chain.run([one])
        chain.run([one])
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        found = connection.execute("SELECT queued_id, hash, mail FROM new_mail").fetchall()
    assert {row[1] for row in found} == set(one.hashes)
    assert [row[0] for row in found] == [one.queued_id] * 2
    mails = [row[2] for row in found if isinstance(row[2], bytes)]
    assert mails == [one.bytes_for(0), one.bytes_for(1)]
    assert all(mail.endswith(DATA) and b"Delivered-To: " in mail for mail in mails)
