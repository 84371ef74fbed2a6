"""The files of a new database, its table, and tables that were there before."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from guerrilla.store import StoreError, sqlite
from guerrilla.store.dialects import SQLiteDialect
from guerrilla.store.reader import Reader, purge
from guerrilla.store.schema import COLUMNS, check_table_name
from tests.store.mails import PLAIN, TABLE, envelope, rows, stored, subjects

if TYPE_CHECKING:
    pass


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened = sqlite.connect(str(tmp_path / "mail.db"), TABLE)
        opened.insert(rows(envelope()))
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    opened.close()
    assert modes == {"mail.db": 0o600, "mail.db-wal": 0o600, "mail.db-shm": 0o600}


def test_closing_leaves_one_complete_file(tmp_path: Path, path: Path) -> None:
    opened = sqlite.connect(str(path), TABLE)
    opened.insert(rows(envelope()))
    opened.close()
    opened.close()
    assert [file.name for file in tmp_path.iterdir()] == ["mail.db"]
    assert subjects(path) == ["hello"]


def test_writes_are_synced_in_wal_mode(path: Path, store: sqlite.SQLiteStore) -> None:
    store.insert(rows(envelope()))
    connection = store._writer._database._connection
    assert connection is not None
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("synchronous") == 2
    assert path.with_name("mail.db-wal").stat().st_size > 0


def test_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StoreError, match=r"3\.51\.2 can lose committed data: 3\.51\.3"):
        sqlite.connect(str(path), TABLE)
    assert not path.exists()


def test_repeat_is_passed_over_by_its_key_alone(path: Path, store: sqlite.SQLiteStore) -> None:
    one = envelope(PLAIN, "a@example.com")
    store.insert(rows(one))
    store.insert(rows(one))
    assert len(stored(path)) == 1
    connection = apsw.Connection(str(path))
    connection.execute(f"CREATE UNIQUE INDEX by_subject ON {TABLE} (subject)")
    connection.close()
    with pytest.raises(apsw.ConstraintError):
        store.insert(rows(envelope(PLAIN, "other@example.com")))
    assert len(stored(path)) == 1


def test_existing_table_without_queued_id_works(path: Path) -> None:
    columns = ", ".join(f'"{name}"' for name in COLUMNS if name != "queued_id")
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"CREATE TABLE old (mail_id INTEGER PRIMARY KEY, {columns})")
    opened = sqlite.connect(str(path), "old")
    opened.insert(rows(envelope(PLAIN, "a@example.com", "b@example.com")))
    assert [row["recipient"] for row in stored(path, "old")] == ["a@example.com", "b@example.com"]
    with Reader(str(path), "old") as reader:
        assert [mail.queued_id for mail in reader.newest()] == ["", ""]
        assert reader.find("2")[0].recipient == "b@example.com"
    opened.close()


def test_existing_table_without_the_unique_key_works(path: Path) -> None:
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"CREATE TABLE old (mail_id INTEGER PRIMARY KEY, {columns})")
    opened = sqlite.connect(str(path), "old")
    opened.insert(rows(envelope()))
    opened.close()
    assert len(stored(path, "old")) == 1


def existing(path: Path, old: str, new: str) -> None:
    """Makes the table as we do, but for a part of its DDL."""
    ddl = SQLiteDialect().create_table(TABLE)
    assert old in ddl
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(ddl.replace(old, new))


@pytest.mark.parametrize("column", ["recipient", "queued_id"])
def test_existing_key_that_takes_two_recipients_for_one_is_refused(path: Path, column: str) -> None:
    existing(path, f"{column} VARCHAR(255)", f"{column} VARCHAR(255) COLLATE NOCASE")
    with pytest.raises(StoreError, match=f"table {TABLE} in .* compares {column} by NOCASE"):
        sqlite.connect(str(path), TABLE)


@pytest.mark.parametrize("resolution", ["IGNORE", "REPLACE"])
def test_conflict_clause_of_an_existing_table_makes_no_mail_vanish(
    path: Path, resolution: str
) -> None:
    existing(path, "subject VARCHAR(255)", f"subject VARCHAR(255) UNIQUE ON CONFLICT {resolution}")
    opened = sqlite.connect(str(path), TABLE)
    opened.insert(rows(envelope()))
    with pytest.raises(apsw.ConstraintError):
        opened.insert(rows(envelope(PLAIN, "other@example.com")))
    opened.close()
    assert [row["recipient"] for row in stored(path)] == ["to@example.com"]


def test_existing_conflict_clause_of_the_key_still_passes_a_repeat_over(path: Path) -> None:
    key = "UNIQUE (queued_id, recipient)"
    existing(path, key, f"{key} ON CONFLICT REPLACE")
    opened = sqlite.connect(str(path), TABLE)
    one = envelope()
    for _ in range(2):
        opened.insert(rows(one))
    opened.close()
    assert [row["mail_id"] for row in stored(path)] == [1]


def test_existing_table_of_something_else_is_refused(path: Path) -> None:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"CREATE TABLE {TABLE} (mail_id INTEGER PRIMARY KEY, recipient, mail)")
    with pytest.raises(StoreError, match="has no column date, to, from"):
        sqlite.connect(str(path), TABLE)


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "1a", "a" * 64, "sqlite_x", "tä"])
def test_table_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a table"):
        check_table_name(name)


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("", "expected the path of the database file, got ''"),
        (":memory:", "expected the plain path"),
        ("file:mail.db?mode=rw", "expected the plain path"),
        ("{tmp}/missing/mail.db", "there is no folder"),
        ("{tmp}", "is no file"),
    ],
)
def test_dsn_that_cannot_be(tmp_path: Path, dsn: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        sqlite.connect(dsn.format(tmp=tmp_path), TABLE)


@pytest.mark.parametrize(
    "dsn",
    [
        "mail:secret@tcp(127.0.0.1:3306)/mail?readTimeout=10s",
        "mail:secret@unix(/run/mysqld.sock)/mail",
        "mail:secret@/mail",
        "postgres://mail:secret@127.0.0.1/mail",
        "host=127.0.0.1 password=secret dbname=mail",
    ],
)
def test_dsn_of_a_server_is_refused_and_not_shown(dsn: str) -> None:
    for use in (sqlite.connect, Reader, partial(purge, before="")):
        with pytest.raises(StoreError, match="got the address of a database server") as error:
            use(dsn, TABLE)
        assert "secret" not in str(error.value)


def test_file_that_is_no_database_is_refused_and_untouched(path: Path) -> None:
    path.write_bytes(b"no database\n" * 1000)
    with pytest.raises(StoreError, match="is damaged, or no SQLite database"):
        sqlite.connect(str(path), TABLE)
    assert path.read_bytes() == b"no database\n" * 1000
