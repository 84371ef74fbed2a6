"""Many workers, and other processes, write to one database."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from guerrilla._core import Envelope
from guerrilla.errors import Unavailable
from guerrilla.store import Row, sqlite
from guerrilla.store.database import Database
from tests.store.mails import PLAIN, TABLE, envelope, rows, stored, subjects

Until = Callable[[Callable[[], object]], None]


def test_workers_share_one_writer(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link.db"
    first = sqlite.connect(str(path), TABLE)
    link.symlink_to(path)
    second = sqlite.connect(str(link), TABLE)
    assert first._writer is second._writer
    first.close()
    second.insert(rows(envelope()))
    assert subjects(path) == ["hello"]
    second.close()
    assert sqlite._Writer._shared == {}


def test_batches_that_wait_become_one_transaction(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    written: list[int] = []
    writing, go_on = threading.Event(), threading.Event()
    original = Database.write

    def write(self: Any, batches: Any) -> None:
        written.append(len(batches))
        writing.set()
        assert go_on.wait(20)
        original(self, batches)

    monkeypatch.setattr(Database, "write", write)
    threads = [threading.Thread(target=store.insert, args=(rows(envelope()),)) for _ in range(6)]
    threads[0].start()
    assert writing.wait(20)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(store._writer._line) == 5)
    assert all(thread.is_alive() for thread in threads)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert written == [1, 5]
    assert len(stored(path)) == 6


def _insert(store: sqlite.SQLiteStore, one: Envelope, errors: dict[str, Exception]) -> None:
    try:
        store.insert(rows(one))
    except Exception as error:  # noqa: BLE001  # each kind is looked at
        errors[one.queued_id] = error


def _together(
    store: sqlite.SQLiteStore, envelopes: list[Envelope], patch: pytest.MonkeyPatch, until: Until
) -> dict[str, Exception]:
    """Inserts each from its own thread, all of them in the line behind a first one."""
    writing, go_on = threading.Event(), threading.Event()
    original = Database.write

    def write(self: Any, batches: Any) -> None:
        writing.set()
        assert go_on.wait(20)
        original(self, batches)

    errors: dict[str, Exception] = {}
    patch.setattr(Database, "write", write)
    threads = [
        threading.Thread(target=_insert, args=(store, one, errors))
        for one in (envelope(b"Subject: first\r\n\r\n"), *envelopes)
    ]
    threads[0].start()
    assert writing.wait(20)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(store._writer._line) == len(envelopes))
    go_on.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return errors


def test_bad_row_of_one_worker_fails_no_other(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    good = [envelope() for _ in range(4)]
    bad = envelope()
    bad.hashes[:] = ["\ud800"]
    errors = _together(store, [*good[:2], bad, *good[2:]], monkeypatch, until)
    assert list(errors) == [bad.queued_id]
    assert isinstance(errors[bad.queued_id], UnicodeEncodeError)
    assert {one.queued_id for one in good} < {row["queued_id"] for row in stored(path)}


def test_each_worker_gets_its_own_error(
    store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    def fail(row: Row) -> Any:
        raise apsw.BusyError(row.envelope.queued_id)

    monkeypatch.setattr(Row, "values", fail)
    errors = _together(store, [envelope() for _ in range(3)], monkeypatch, until)
    assert len(errors) == 4
    assert len({id(error) for error in errors.values()}) == 4
    assert all(isinstance(error, Unavailable) for error in errors.values())


def test_worker_that_dies_while_it_writes_leaves_none_waiting(
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(row: Row) -> Any:
        raise SystemExit(row.envelope.queued_id)

    monkeypatch.setattr(Row, "values", die)
    with pytest.raises(SystemExit):
        store.insert(rows(envelope()))
    monkeypatch.undo()
    store.insert(rows(envelope()))
    assert subjects(path) == ["hello"]


def test_many_threads_store_everything_once(path: Path) -> None:
    stores = [sqlite.connect(str(path), TABLE) for _ in range(8)]
    envelopes = [
        [envelope(PLAIN, "a@example.com", "b@example.com") for _ in range(25)] for _ in stores
    ]

    def work(store: sqlite.SQLiteStore, mine: list[Envelope]) -> None:
        for one in mine:
            store.insert(rows(one))

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(stores, envelopes, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in stores:
        opened.close()
    ids = [row["queued_id"] for row in stored(path)]
    assert sorted(ids) == sorted(one.queued_id for mine in envelopes for one in mine for _ in "ab")


WRITER = """
import sys
from guerrilla._core import Envelope
from guerrilla.store import rows_of, sqlite
store = sqlite.connect(sys.argv[1], "new_mail")
print("open", flush=True)
sys.stdin.readline()
for _ in range(200):
    one = Envelope.create(b"Subject: theirs\\r\\n\\r\\n", rcpt_to=["a@example.com"])
    store.insert(rows_of(one, "mx.example.com"))
store.close()
"""


def test_two_processes_write_at_the_same_time(path: Path, store: sqlite.SQLiteStore) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        other.stdin.write(b"\n")
        other.stdin.close()
        for _ in range(200):
            store.insert(rows(envelope()))
        assert other.wait() == 0
    found = subjects(path)
    assert found.count("theirs") == found.count("hello") == 200
