"""Faults while running: a batch fails whole, and is stored once the cause is gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from guerrilla.errors import Unavailable
from guerrilla.store import Row, StoreError, StoreFullError, database, sqlite
from tests.store.mails import TABLE, envelope, rows, stored, subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def small_disk() -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder with room for little, and how to make room: a tmpfs where one can be mounted."""
    folder = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "none", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    ballast = folder / "ballast"
    if mounted:
        yield folder, lambda: _remount(folder)
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "_open", _opener_with_few_pages(ballast))
            ballast.touch()
            yield folder, ballast.unlink
    shutil.rmtree(folder, ignore_errors=True)


def _remount(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(folder)], check=True)


def _opener_with_few_pages(ballast: Path) -> Callable[[str], apsw.Connection]:
    original = database._open

    def opener(path: str) -> apsw.Connection:
        connection = original(path)
        connection.pragma("max_page_count", 40 if ballast.exists() else 100_000)
        return connection

    return opener


def test_full_disk_stores_nothing_of_the_batch(
    small_disk: tuple[Path, Callable[[], None]],
) -> None:
    folder, make_room = small_disk
    path = folder / "mail.db"
    opened = sqlite.connect(str(path), TABLE)
    opened.insert(rows(envelope(b"Subject: before\r\n\r\n")))
    small = envelope(b"Subject: small\r\n\r\n")
    large = envelope(b"Subject: large\r\n\r\n" + b"x" * 1_000_000)
    for _ in range(2):
        with pytest.raises(StoreFullError, match="the disk is full"):
            opened.insert(rows(small, large))
    assert subjects(path) == ["before"]
    make_room()
    opened.insert(rows(small, large))
    assert subjects(path) == ["before", "small", "large"]
    opened.close()


def test_full_disk_at_start_is_one_clear_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = database._open

    def full(path: str) -> apsw.Connection:
        connection = original(path)
        connection.pragma("max_page_count", 1)
        return connection

    monkeypatch.setattr(database, "_open", full)
    with pytest.raises(StoreError, match="cannot grow: the disk is full"):
        sqlite.connect(str(path), TABLE)
    assert sqlite._Writer._shared == {}


LOCKER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("impatient")
def test_lock_of_another_process(path: Path) -> None:
    opened = sqlite.connect(str(path), TABLE)
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == b"locked\n"
        one = envelope()
        with pytest.raises(Unavailable, match="is locked by another process"):
            opened.insert(rows(one))
        locker.communicate()
    assert stored(path) == []
    opened.insert(rows(one))
    assert subjects(path) == ["hello"]
    opened.close()


def test_dropped_table_is_made_again(path: Path, store: sqlite.SQLiteStore) -> None:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"DROP TABLE {TABLE}")
    one = envelope()
    with pytest.raises(Unavailable, match="no such table"):
        store.insert(rows(one))
    store.insert(rows(one))
    assert subjects(path) == ["hello"]


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that everybody may use, in the place of a person without rights to all files."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_file_that_turns_read_only(as_nobody: Path) -> None:
    path = as_nobody / "mail.db"
    opened = sqlite.connect(str(path), TABLE)
    opened.insert(rows(envelope()))
    opened._writer._database.abandon()  # As after any failure: the next batch opens it again.
    path.chmod(0o400)
    one = envelope(b"Subject: after\r\n\r\n")
    with pytest.raises(Unavailable, match="cannot be written safely: read-only is True"):
        opened.insert(rows(one))
    with pytest.raises(StoreError, match="read-only"):
        sqlite.connect(str(path), "another")
    path.chmod(0o600)
    opened.insert(rows(one))
    assert subjects(path) == ["hello", "after"]
    opened.close()


def test_folder_that_cannot_be_written(as_nobody: Path) -> None:
    as_nobody.chmod(0o555)
    with pytest.raises(StoreError, match="cannot be made: Permission denied"):
        sqlite.connect(str(as_nobody / "mail.db"), TABLE)


def test_folder_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    opened = sqlite.connect(str(folder / "mail.db"), TABLE)
    one = envelope()
    shutil.rmtree(folder)
    with pytest.raises(Unavailable, match="there is no folder"):
        opened.insert(rows(one))
    folder.mkdir()
    opened.insert(rows(one))
    assert subjects(folder / "mail.db") == ["hello"]
    opened.close()


def test_io_error_reopens_the_file(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(row: Row) -> Any:
        raise apsw.IOError(row.envelope.queued_id)

    before = store._writer._database._connection
    monkeypatch.setattr(Row, "values", fail)
    with pytest.raises(Unavailable, match="cannot be read or written"):
        store.insert(rows(envelope()))
    assert store._writer._database._connection is None
    monkeypatch.undo()
    store.insert(rows(envelope()))
    assert store._writer._database._connection is not before
    assert subjects(path) == ["hello"]


def test_row_that_cannot_be_stored_is_its_own_fault(path: Path, store: sqlite.SQLiteStore) -> None:
    good, bad = envelope(), envelope()
    bad.hashes[:] = ["\ud800"]
    with pytest.raises(UnicodeEncodeError):
        store.insert(rows(good, bad))
    assert stored(path) == []
    store.insert(rows(good))
    assert len(stored(path)) == 1


@pytest.mark.usefixtures("impatient")
def test_after_a_failure_the_log_waits_for_its_readers(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is emptied before anything is written behind what may not be on the disk."""

    def fail(row: Row) -> Any:
        raise apsw.IOError(row.envelope.queued_id)

    store.insert(rows(envelope(b"Subject: one\r\n\r\n")))
    with contextlib.closing(apsw.Connection(str(path))) as reader:
        reader.execute("BEGIN")
        assert reader.execute(f"SELECT count(*) FROM {TABLE}").get == 1
        store.insert(rows(envelope(b"Subject: two\r\n\r\n")))
        monkeypatch.setattr(Row, "values", fail)
        with pytest.raises(Unavailable, match="cannot be read or written"):
            store.insert(rows(envelope()))
        monkeypatch.undo()
        monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
        for _ in range(2):
            with pytest.raises(Unavailable, match="its log has to wait"):
                store.insert(rows(envelope()))
        reader.execute("COMMIT")
        store.insert(rows(envelope(b"Subject: three\r\n\r\n")))
    assert subjects(path) == ["one", "two", "three"]
