"""Reading and trimming beside the writer."""

from __future__ import annotations

import contextlib
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from guerrilla.store import StoreError, sqlite
from guerrilla.store.reader import Reader, purge
from guerrilla.store.schema import COLUMNS
from tests.store.mails import PLAIN, TABLE, envelope, rows, stored, subjects

if TYPE_CHECKING:
    pass


def test_reader_lists_both_ways_beside_the_writer(path: Path, store: sqlite.SQLiteStore) -> None:
    with Reader(str(path), TABLE) as reader:
        assert list(reader.newest()) == []
        for number in range(3):
            one = envelope(f"Subject: {number}\r\n\r\n".encode(), received_at=number * 60.0)
            store.insert(rows(one))
        assert [mail.subject for mail in reader.newest()] == ["2", "1", "0"]
        assert [mail.subject for mail in reader.newest(2)] == ["2", "1"]
        assert [mail.subject for mail in reader.oldest()] == ["0", "1", "2"]
        late = reader.oldest("1970-01-01 00:01:00")
        assert [mail.subject for mail in late] == ["1", "2"]


def test_reader_goes_on_from_page_to_page(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guerrilla.store.reader._PAGE", 3)
    store.insert(rows(*(envelope() for _ in range(10))))
    with Reader(str(path), TABLE) as reader:
        assert [mail.mail_id for mail in reader.newest()] == list(range(10, 0, -1))
        assert [mail.mail_id for mail in reader.oldest()] == list(range(1, 11))
        assert [mail.mail_id for mail in reader.newest(4)] == [10, 9, 8, 7]


def test_mail_is_found_by_any_of_its_names(path: Path, store: sqlite.SQLiteStore) -> None:
    one = envelope(PLAIN, "a@example.com", "b@example.com")
    one.compute_hashes()
    store.insert(rows(envelope(), one))
    with Reader(str(path), TABLE) as reader:
        assert [mail.recipient for mail in reader.find("2")] == ["a@example.com"]
        assert [mail.mail_id for mail in reader.find(one.queued_id)] == [2, 3]
        assert [mail.mail_id for mail in reader.find(one.hashes[1])] == [3]
        assert [mail.size for mail in reader.find("3")] == [len(PLAIN)]
        assert reader.message(reader.find("3")[0]) == PLAIN
        for name in ("", "0", "99", "9" * 30, "x' OR 1=1 --"):
            assert reader.find(name) == []


def test_compressed_message_is_unpacked_and_one_kept_elsewhere_refused(
    path: Path, store: sqlite.SQLiteStore
) -> None:
    store.insert(rows(envelope(), envelope(), envelope()))
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        update = f"UPDATE {TABLE} SET body = ?, mail = ? WHERE mail_id = ?"
        connection.execute(update, ("gzip", zlib.compress(PLAIN), 1))
        connection.execute(update, ("gzip", b"damaged", 2))
        connection.execute(update, ("redis", b"", 3))
    with Reader(str(path), TABLE) as reader:
        first, second, third = reader.oldest()
        assert reader.message(first) == PLAIN
        with pytest.raises(StoreError, match="is damaged"):
            reader.message(second)
        with pytest.raises(StoreError, match="kept in Redis"):
            reader.message(third)


def test_message_purged_meanwhile(path: Path, store: sqlite.SQLiteStore) -> None:
    store.insert(rows(envelope()))
    with Reader(str(path), TABLE) as reader:
        (mail,) = reader.newest()
        assert purge(str(path), TABLE, "9999-01-01 00:00:00") == 1
        with pytest.raises(StoreError, match="is no longer in"):
            reader.message(mail)


def test_reader_of_what_is_not_there(tmp_path: Path, path: Path) -> None:
    with pytest.raises(StoreError, match="no such database file"):
        Reader(str(path), TABLE)
    assert not path.exists()
    sqlite.connect(str(path), TABLE).close()
    with pytest.raises(StoreError, match="has no table other"):
        Reader(str(path), "other")
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database\n" * 1000)
    with pytest.raises(StoreError, match="no SQLite database"):
        Reader(str(garbage), TABLE)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(StoreError, match="has no column mail_id, date"):
        Reader(str(path), "other")


def test_purge_deletes_the_old_and_gives_room_back(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guerrilla.store.reader._PURGE_ROWS", 7)
    body = b"Subject: old\r\n\r\n" + b"x" * 20_000
    store.insert(rows(*(envelope(body, received_at=1000.0) for _ in range(50))))
    store.insert(rows(envelope()))
    before = "2000-01-01 00:00:00"
    assert purge(str(path), TABLE, before, dry_run=True) == 50
    assert len(stored(path)) == 51
    assert purge(str(path), TABLE, before) == 50
    assert subjects(path) == ["hello"]
    assert purge(str(path), TABLE, before) == 0
    store.insert(rows(envelope()))
    store.close()
    assert path.stat().st_size < 100_000
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        assert connection.pragma("integrity_check") == "ok"


def test_purge_beside_a_writer(path: Path, store: sqlite.SQLiteStore) -> None:
    store.insert(rows(*(envelope(received_at=1000.0) for _ in range(1000))))
    counts: list[int] = []
    thread = threading.Thread(
        target=lambda: counts.append(purge(str(path), TABLE, "2000-01-01 00:00:00"))
    )
    thread.start()
    written = 0
    while thread.is_alive():
        store.insert(rows(envelope()))
        written += 1
    thread.join()
    assert counts == [1000]
    assert subjects(path) == ["hello"] * written


def test_purge_of_a_locked_database(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert(rows(envelope(received_at=1000.0)))
    monkeypatch.setattr("guerrilla.store.reader._LOCK_STEPS", 10)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another process"):
            purge(str(path), TABLE, "2000-01-01 00:00:00")
    assert len(stored(path)) == 1


def test_purge_spares_a_newer_mail_of_the_same_number(path: Path) -> None:
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"CREATE TABLE old (mail_id INTEGER DEFAULT 7, {columns})")
    opened = sqlite.connect(str(path), "old")
    opened.insert(rows(envelope(received_at=1000.0), envelope(b"Subject: new\r\n\r\n")))
    opened.close()
    purge(str(path), "old", "2000-01-01 00:00:00")
    assert [row["subject"] for row in stored(path, "old")] == ["new"]
