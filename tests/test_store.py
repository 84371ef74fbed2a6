"""The SQLite store: what is written, what is answered when it cannot be, and reading it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from guerrilla._core import Address, Envelope
from guerrilla.errors import Unavailable
from guerrilla.store import Row, StoreError, StoreFullError, database, rows_of, sqlite
from guerrilla.store.database import Database
from guerrilla.store.reader import Reader, purge
from guerrilla.store.schema import COLUMNS, check_table_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = "new_mail"
PLAIN = b"Subject: hello\r\nMessage-ID: <1@example.org>\r\n\r\nbody\r\n"


def envelope(data: bytes = PLAIN, *recipients: str, **more: Any) -> Envelope:
    return Envelope.create(
        data,
        mail_from=more.pop("mail_from", "sender@example.org"),
        rcpt_to=recipients or ("to@example.com",),
        **more,
    )


def rows(*envelopes: Envelope) -> list[Row]:
    return [row for one in envelopes for row in rows_of(one, "mx.example.com")]


def stored(path: Path, table: str = TABLE) -> list[dict[str, Any]]:
    """Every row, read by a connection of its own."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        cursor = connection.execute(f'SELECT * FROM "{table}" ORDER BY mail_id')
        found = cursor.fetchall()
        names = [
            column
            for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        ]
    finally:
        connection.close()
    return [dict(zip([str(name) for name in names], row, strict=True)) for row in found]


def subjects(path: Path) -> list[str]:
    return [row["subject"] for row in stored(path)]


def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread; fails instead of hanging."""
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail.db"


@pytest.fixture
def store(path: Path) -> Iterator[sqlite.SQLiteStore]:
    opened = sqlite.connect(str(path), TABLE)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)


# What a row holds.


def test_row_has_every_column_of_the_envelope(path: Path, store: sqlite.SQLiteStore) -> None:
    data = (
        b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
        b"Content-Type: Multipart/Mixed; boundary=x\r\n"
        b"Message-ID: <m@example.org>\r\n"
        b"Reply-To: Reply <reply@example.org>\r\n"
        b"Sender: sec@example.org\r\n\r\nbody\r\n"
    )
    one = envelope(data, "a@example.com", "b@example.com", received_at=0.9, remote_ip="192.0.2.1")
    one.hashes[:] = ["h1", "h2"]
    store.insert(rows(one))
    first, second = stored(path)
    assert second["recipient"] == second["to"] == "b@example.com"
    assert second["hash"] == "h2"
    assert first.pop("mail_id") == 1
    assert first == {
        "queued_id": one.queued_id,
        "recipient": "a@example.com",
        "date": "1970-01-01 00:00:00",
        "to": "a@example.com",
        "from": "sender@example.org",
        "subject": one.subject,
        "body": "",
        "spam_score": 0,
        "hash": "h1",
        "content_type": "Multipart/Mixed; boundary=x",
        "has_attach": 1,
        "ip_addr": bytes(10) + b"\xff\xff\xc0\x00\x02\x01",
        "return_path": "sender@example.org",
        "is_tls": 0,
        "message_id": "m@example.org",
        "reply_to": "reply@example.org",
        "sender": "sec@example.org",
        "mail": data,
    }


def test_message_of_each_recipient_has_its_own_delivery_header(
    path: Path, store: sqlite.SQLiteStore
) -> None:
    one = envelope(PLAIN, "a@example.com", "b@example.com")
    one.make_delivery_header("mx.example.com")
    store.insert(rows(one))
    mails = [row["mail"] for row in stored(path)]
    assert mails == [one.bytes_for(0), one.bytes_for(1)]
    assert b"Delivered-To: a@mx.example.com\r\n" in mails[0]
    assert b"b@" not in mails[0]


def test_every_byte_of_a_message_is_kept(path: Path, store: sqlite.SQLiteStore) -> None:
    data = b"Subject: bytes\r\n\r\n" + bytes(range(256)) * 50
    store.insert(rows(envelope(data)))
    assert stored(path)[0]["mail"] == data


def test_text_is_cut_between_characters(path: Path, store: sqlite.SQLiteStore) -> None:
    data = "Content-Type: {}\r\n\r\n".format("ü" * 300).encode()
    store.insert(rows(envelope(data)))
    assert stored(path)[0]["content_type"] == "ü" * 255


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("<a@example.org>", "a@example.org"),
        ("  a@example.org ", "a@example.org"),
        ("A B <a@example.org>", "a@example.org"),
        ('"<x>, y" <a@example.org>', "a@example.org"),
        ("", ""),
        ("no address at all", "no address at all"),
        ("<" * 5000, "<" * 255),
    ],
)
def test_address_of_a_field(field: str, address: str) -> None:
    (row,) = rows(envelope(f"Sender: {field}\r\n\r\n".encode()))
    assert dict(zip(COLUMNS, row.values(), strict=True))["sender"] == address


@pytest.mark.parametrize(
    ("ip", "octets"),
    [
        ("", bytes(16)),
        ("127.0.0.1", bytes(10) + b"\xff\xff\x7f\x00\x00\x01"),
        ("2001:db8::1", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
def test_ip_addr_is_16_octets(ip: str, octets: bytes) -> None:
    (row,) = rows(envelope(remote_ip=ip))
    assert dict(zip(COLUMNS, row.values(), strict=True))["ip_addr"] == octets


def test_missing_message_id_is_made_of_the_hash() -> None:
    one = envelope(b"Subject: x\r\n\r\n", "user@example.com")
    one.hashes[:] = ["abc"]
    (row,) = rows(one)
    values = dict(zip(COLUMNS, row.values(), strict=True))
    assert values["message_id"] == "abc.user@mx.example.com"


def test_null_path_is_an_empty_from() -> None:
    (row,) = rows(envelope(mail_from=""))
    assert dict(zip(COLUMNS, row.values(), strict=True))["from"] == ""


def test_recipients_that_only_differ_beyond_the_column_are_refused() -> None:
    host = "h" * 250 + ".example"
    one = Envelope.create(
        PLAIN, rcpt_to=[Address("u" * 20, f"{host}.a"), Address("u" * 20, f"{host}.b")]
    )
    with pytest.raises(ValueError, match="255"):
        rows(one)


# The file and the table.


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
        ("", "sql_dsn is empty"),
        (":memory:", "expected the plain path"),
        ("file:mail.db?mode=rw", "expected the plain path"),
        ("{tmp}/missing/mail.db", "there is no folder"),
        ("{tmp}", "is no file"),
    ],
)
def test_dsn_that_cannot_be(tmp_path: Path, dsn: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        sqlite.connect(dsn.format(tmp=tmp_path), TABLE)


def test_file_that_is_no_database_is_refused_and_untouched(path: Path) -> None:
    path.write_bytes(b"no database\n" * 1000)
    with pytest.raises(StoreError, match="is damaged, or no SQLite database"):
        sqlite.connect(str(path), TABLE)
    assert path.read_bytes() == b"no database\n" * 1000


# Faults while running: the batch fails whole, and the same mail is stored once the cause is gone.


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
    other = sqlite.connect(str(tmp_path / "other.db"), TABLE)
    other.insert(rows(envelope(b"Subject: other\r\n\r\n")))
    other.close()
    store.insert(rows(envelope()))
    (tmp_path / "other.db").replace(path)
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


# Many workers.


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
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
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
    store: sqlite.SQLiteStore, envelopes: list[Envelope], patch: pytest.MonkeyPatch
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
    path: Path, store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [envelope() for _ in range(4)]
    bad = envelope()
    bad.hashes[:] = ["\ud800"]
    errors = _together(store, [*good[:2], bad, *good[2:]], monkeypatch)
    assert list(errors) == [bad.queued_id]
    assert isinstance(errors[bad.queued_id], UnicodeEncodeError)
    assert {one.queued_id for one in good} < {row["queued_id"] for row in stored(path)}


def test_each_worker_gets_its_own_error(
    store: sqlite.SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(row: Row) -> Any:
        raise apsw.BusyError(row.envelope.queued_id)

    monkeypatch.setattr(Row, "values", fail)
    errors = _together(store, [envelope() for _ in range(3)], monkeypatch)
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


# Reading and trimming.


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
