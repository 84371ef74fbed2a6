"""Files that are moved, removed or replaced while the daemon runs: no mail is lost."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import apsw
import pytest

from guerrilla.errors import Unavailable
from guerrilla.store import Row, StoreError, database, sqlite
from guerrilla.store.reader import Reader
from tests.store.mails import PLAIN, TABLE, envelope, rows, subjects


def test_removed_file_is_made_again(path: Path, store: sqlite.SQLiteStore) -> None:
    store.insert(rows(envelope()))
    for name in ("mail.db", "mail.db-wal", "mail.db-shm"):
        path.with_name(name).unlink()
    store.insert(rows(envelope(b"Subject: after\r\n\r\n")))
    assert subjects(path) == ["after"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_moved_file_has_all_its_mails(path: Path, store: sqlite.SQLiteStore) -> None:
    store.insert(rows(envelope()))
    moved = path.rename(path.with_name("moved.db"))
    store.insert(rows(envelope(b"Subject: after\r\n\r\n")))
    assert subjects(path) == ["after"]
    assert subjects(moved) == ["hello"]


def test_replaced_file_is_not_overwritten_from_the_old_log(
    tmp_path: Path, path: Path, store: sqlite.SQLiteStore
) -> None:
    other = another(tmp_path)
    store.insert(rows(envelope()))
    other.replace(path)
    store.insert(rows(envelope(b"Subject: after\r\n\r\n")))
    assert subjects(path) == ["other", "after"]
    store.close()
    assert subjects(path) == ["other", "after"]


def test_moved_file_waits_for_its_readers(
    path: Path, impatient: None, store: sqlite.SQLiteStore
) -> None:
    """The log still belongs to the old file while somebody reads it there."""
    store.insert(rows(envelope()))
    one = envelope(b"Subject: after\r\n\r\n")
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"BEGIN; SELECT * FROM {TABLE}").fetchall()
        store.insert(rows(envelope()))
        moved = path.rename(path.with_name("moved.db"))
        with pytest.raises(Unavailable, match="while another process reads the old file"):
            store.insert(rows(one))
        assert not path.exists()
    store.insert(rows(one))
    assert subjects(path) == ["after"]
    assert subjects(moved) == ["hello", "hello"]


def test_removed_log_loses_nothing(path: Path, store: sqlite.SQLiteStore) -> None:
    store.insert(rows(envelope()))
    path.with_name("mail.db-wal").unlink()
    store.insert(rows(envelope(b"Subject: after\r\n\r\n")))
    assert subjects(path) == ["hello", "after"]


def test_file_moved_during_the_write_is_not_called_stored(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Row.values

    def move(row: Row) -> Any:
        path.rename(path.with_name("moved.db"))
        return original(row)

    one = envelope()
    monkeypatch.setattr(Row, "values", move)
    with pytest.raises(Unavailable, match="was moved or removed"):
        store.insert(rows(one))
    monkeypatch.undo()
    store.insert(rows(one))
    assert subjects(path) == ["hello"]


def test_moved_file_that_cannot_be_completed_is_not_let_go(
    path: Path, store: sqlite.SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.insert(rows(envelope(PLAIN + b"x" * 1_000_000)))
    moved = path.rename(path.with_name("moved.db"))
    one = envelope(b"Subject: after\r\n\r\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match="and the old file cannot be completed"):
                store.insert(rows(one))
        assert not path.exists()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.text.count("it is opened again") == 1
    store.insert(rows(one))
    assert subjects(path) == ["after"]
    assert subjects(moved) == ["hello"]


def test_replaced_file_is_not_overwritten_after_a_failure(
    tmp_path: Path, path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another(tmp_path)
    store.insert(rows(envelope()))
    moved = path.with_name("moved.db")

    def replace(row: Row) -> Any:
        path.rename(moved)
        other.rename(path)
        raise apsw.IOError(row.envelope.queued_id)

    one = envelope(b"Subject: after\r\n\r\n")
    monkeypatch.setattr(Row, "values", replace)
    with pytest.raises(Unavailable):
        store.insert(rows(one))
    monkeypatch.undo()
    store.insert(rows(one))
    store.close()
    assert subjects(path) == ["other", "after"]
    assert subjects(moved) == ["hello"]


def test_file_replaced_beside_the_old_log_is_refused(
    tmp_path: Path, path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another(tmp_path)
    store.insert(rows(envelope()))
    one = envelope(b"Subject: after\r\n\r\n")

    def fail(row: Row) -> Any:
        raise apsw.IOError(row.envelope.queued_id)

    with contextlib.closing(apsw.Connection(str(path))) as reader:
        reader.execute("PRAGMA schema_version").fetchall()  # Its being open keeps the log.
        monkeypatch.setattr(Row, "values", fail)
        with pytest.raises(Unavailable):
            store.insert(rows(one))
        monkeypatch.undo()
        moved = path.rename(path.with_name("moved.db"))
        other.rename(path)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"was replaced, and .*-wal holds mails of the old"):
            store.insert(rows(one))
    path.rename(other)
    moved.rename(path)
    store.insert(rows(one))
    assert subjects(path) == ["hello", "after"]
    assert subjects(other) == ["other"]


@pytest.mark.parametrize("moment", ["make_file", "_open"])
def test_file_moved_while_it_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    original = getattr(database, moment)

    def move(path: str) -> Any:
        made = original(path)
        Path(path).rename(f"{path}.moved")
        return made

    monkeypatch.setattr(database, moment, move)
    with pytest.raises(StoreError, match=r"was moved or removed|cannot be opened"):
        sqlite.connect(str(path), TABLE)
    monkeypatch.undo()
    opened = sqlite.connect(str(path), TABLE)
    opened.insert(rows(envelope()))
    opened.close()
    assert subjects(path) == ["hello"]


KILLED = """
import os, sys
from guerrilla._core import Envelope
from guerrilla.store import rows_of, sqlite
store = sqlite.connect(sys.argv[1], "new_mail")
store.insert(rows_of(Envelope.create(b"Subject: hello\\r\\n\\r\\n", rcpt_to=["a@b.c"]), "mx"))
os._exit(9)
"""


@pytest.mark.parametrize("empty", [False, True])
def test_log_that_lost_its_database_is_kept(path: Path, empty: bool) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    moved = path.rename(path.with_name("moved.db"))
    if empty:
        path.touch()
        with pytest.raises(StoreError, match="missing or empty"):
            Reader(str(path), TABLE)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"missing or empty, and .*-wal holds mails of it"):
            sqlite.connect(str(path), TABLE)
    moved.replace(path)
    sqlite.connect(str(path), TABLE).close()
    assert subjects(path) == ["hello"]


OTHER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
insert = (
    "INSERT INTO new_mail (queued_id, recipient, date, subject, ip_addr, mail) "
    "VALUES (hex(randomblob(9)), 'a@b.c', '', ?, '', '')"
)
connection.execute("SELECT count(*) FROM new_mail").fetchall()
print("ready", flush=True)
for line in sys.stdin:
    connection.execute(insert, (line.strip(),))
    print("done", flush=True)
connection.close()
"""


class Other:
    """Another process that has the database open and stores what it is told to."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("ready\n")

    def insert(self, subject: str) -> None:
        assert self._process.stdin is not None
        print(subject, file=self._process.stdin, flush=True)
        self._expect("done\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)

    def _expect(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == line


def test_who_still_has_the_moved_file_open_writes_nothing_into_the_new_one(
    tmp_path: Path, path: Path, store: sqlite.SQLiteStore
) -> None:
    store.insert(rows(envelope()))
    with Other(path) as other:
        path.rename(path.with_name("moved.db"))
        store.insert(rows(envelope(b"Subject: one\r\n\r\n")))
        other.insert("theirs")
        store.insert(rows(envelope(b"Subject: two\r\n\r\n")))
        crashed = copy_as_after_a_crash(path, tmp_path / "crashed")
        assert subjects(crashed) == ["one", "two"]
    store.insert(rows(envelope(b"Subject: three\r\n\r\n")))
    assert subjects(path) == ["one", "two", "three"]


def test_removed_index_of_the_log_loses_nothing(
    tmp_path: Path, path: Path, store: sqlite.SQLiteStore
) -> None:
    """Who opens the file then makes an index of its own, and both would write to one place."""
    store.insert(rows(envelope()))
    path.with_name("mail.db-shm").unlink()
    with Other(path) as other:
        other.insert("theirs")
        store.insert(rows(envelope(b"Subject: after\r\n\r\n")))
        other.insert("theirs too")
        crashed = copy_as_after_a_crash(path, tmp_path / "crashed")
        assert subjects(crashed) == ["hello", "theirs", "after", "theirs too"]


def another(folder: Path) -> Path:
    """A complete database with one mail."""
    path = folder / "other.db"
    opened = sqlite.connect(str(path), TABLE)
    opened.insert(rows(envelope(b"Subject: other\r\n\r\n")))
    opened.close()
    return path


def copy_as_after_a_crash(path: Path, folder: Path) -> Path:
    """The database and its log, without the log's index."""
    folder.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), folder)
    return folder / path.name
