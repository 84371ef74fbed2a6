"""The sync comes before the 250, in an strace of each store, for each of many mails at once."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import starmap
from pathlib import Path
from zlib import crc32

import pytest

from tests.faults import careless
from tests.faults.disk.disk import Disk
from tests.faults.stores import STORES, MailDirs, SQLiteFile, Store
from tests.faults.tally import Tally
from tests.faults.trace import OrderError, Trace, command
from tests.ledger import Ledger, Mail, deliver, wait_for
from tests.running import RunningDaemon

CONNECTIONS = 20
LARGE = 300_000
"""Octets of the mails that a spool has in files."""


def traceable(count: int) -> list[Mail]:
    """Mails whose token is found in whatever page a part of them comes into."""
    mails = []
    for number in range(count):
        token = f"{number:06d}"
        lines = f"X-Ledger: {token}\r\n\r\n" + f"token-{token}\r\n" * (20 + number % 30)
        if number % 20 == 0:
            lines += f"{'x' * 70}\r\n" * (LARGE // 70)
        mails.append(Mail(token, lines.encode()))
    return mails


def traced(
    tmp_path: Path,
    kind: type[Store],
    count: int,
    backend: str = "",
    environment: Mapping[str, str] | None = None,
) -> tuple[Ledger, Trace]:
    """Sends them to a daemon under strace."""
    disk, run, file = tmp_path / "disk", tmp_path / "run", tmp_path / "trace"
    disk.mkdir(exist_ok=True)
    run.mkdir(exist_ok=True)
    by = [*command(file), sys.executable, "-m", "guerrilla"]
    store = kind(disk)
    config = store.config(backend=backend)
    with RunningDaemon(run, config=config, command=by, environment=environment) as daemon:
        sent = deliver(daemon.port, traceable(count), connections=CONNECTIONS)
        wait_for(store.is_drained)
    return sent, Trace(file.read_text(encoding="utf-8", errors="replace"))


def check(trace: Trace, kind: type[Store], folder: Path, mails: Iterable[Mail]) -> None:
    """Asserts the order for each of them."""
    for token, message in mails:
        if kind is MailDirs:
            trace.check_file(f"token-{token}", f"{folder}/to/tmp/", f"{folder}/to/new")
        elif kind is SQLiteFile:
            trace.check_log(f"token-{token}", f"{folder}/mail.db-wal")
        elif len(message) < LARGE:
            trace.check_log(f"token-{token}", f"{folder}/made/spool/0/spool.db-wal")
        else:
            shelf = f"{crc32(trace.name_of(f'token-{token}', '/bodies/new/').encode()) & 0xFF:02x}"
            shown = f"{folder}/made/spool/0/bodies/{shelf}"
            trace.check_file(f"token-{token}", f"{folder}/made/spool/0/bodies/new/", shown)
            trace.check_row(f"token-{token}", f"{folder}/made/spool/0/spool.db-wal")


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_synced_before_the_answer(
    tmp_path: Path, kind: type[Store], full: bool, tally: Callable[[str, str], Tally]
) -> None:
    sent, trace = traced(tmp_path, kind, 1_000 if full else 100)
    disk = tmp_path / "disk"
    check(trace, kind, disk, starmap(Mail, sent.messages.items()))
    tally("order of sync and 250", kind.name).audit(
        sent, kind(disk).stored(), note="in an strace, of each mail"
    )


@pytest.mark.parametrize(
    ("kind", "how", "error"),
    [
        pytest.param(MailDirs, "unsynced_files", "/to/tmp/", id="files"),
        pytest.param(MailDirs, "unsynced_folders", "/to/new", id="folders"),
    ],
)
def test_a_store_that_does_not_sync_is_found_out(
    tmp_path: Path, kind: type[Store], how: str, error: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    careless.write(run, how)
    sent, trace = traced(tmp_path, kind, 20, careless.IMPORT)
    for mail in starmap(Mail, sent.messages.items()):
        with pytest.raises(OrderError, match=f"nobody synced .*{error}|answered before .*{error}"):
            check(trace, kind, tmp_path / "disk", [mail])


@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_without_any_sync_each_mail_is_found_out(
    tmp_path: Path, kind: type[Store], disk_library: Path
) -> None:
    """With a disk in front of the real one, which is never asked to sync anything."""
    sent, trace = traced(tmp_path, kind, 20, environment=Disk(disk_library, tmp_path).environment)
    for mail in starmap(Mail, sent.messages.items()):
        with pytest.raises(OrderError, match="nobody synced"):
            check(trace, kind, tmp_path / "disk", [mail])


CAME = '1 recvfrom(7<TCP:[a->b]>, "X-Ledger: 1\\r\\n", 9, 0, NULL, NULL) = 9'
WROTE = '2 pwrite64(8</d/mail.db-wal>, "X-Ledger: 1", 4096, 0) = 4096'
SYNC = "2 fdatasync(8</d/mail.db-wal>) = 0"
SYNC_BEGINS = "2 fdatasync(8</d/mail.db-wal> <unfinished ...>"
SYNC_ENDS = "2 <... fdatasync resumed>) = 0"
FAILED = "2 fdatasync(8</d/mail.db-wal>) = -1 EIO (Input/output error)"
ANSWERED = '1 sendto(7<TCP:[a->b]>, "250 2.0.0 OK: queued as x", 9, 0, NULL, 0) = 9'
OTHERS_SYNC = "3 fdatasync(8</d/mail.db-wal> <unfinished ...>"
OTHERS_END = "3 <... fdatasync resumed>) = 0"
OTHER = '1 sendto(9<TCP:[a->c]>, "250 2.0.0 OK: queued as x", 9, 0, NULL, 0) = 9'


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([CAME, WROTE, SYNC, ANSWERED], None),
        ([CAME, WROTE, SYNC_BEGINS, OTHER, SYNC_ENDS, ANSWERED], None),
        ([CAME, WROTE, OTHERS_SYNC, SYNC, ANSWERED, OTHERS_END], None),
        ([CAME, WROTE, ANSWERED, SYNC], "answered before"),
        ([CAME, WROTE, SYNC_BEGINS, ANSWERED, SYNC_ENDS], "answered before"),
        ([CAME, SYNC_BEGINS, WROTE, SYNC_ENDS, ANSWERED], "nobody synced"),
        ([CAME, SYNC, WROTE, ANSWERED], "nobody synced"),
        ([CAME, WROTE, FAILED, ANSWERED], "could not be synced"),
        ([CAME, WROTE, SYNC, OTHER], "nobody answered it"),
        ([CAME, SYNC, ANSWERED], "nobody wrote it"),
    ],
)
def test_orders(lines: list[str], error: str | None) -> None:
    trace = Trace("\n".join(lines))
    if error is None:
        trace.check_log("X-Ledger: 1", "mail.db-wal")
        return
    with pytest.raises(OrderError, match=error):
        trace.check_log("X-Ledger: 1", "mail.db-wal")


PIECE = '2 write(8</d/new/a>, "X-Ledger: 1", 11) = 11'
LAST = '2 write(8</d/new/a>, "more", 4) = 4'
FILE_SYNC = "2 fsync(8</d/new/a>) = 0"
RENAMED = '2 rename("/d/new/a", "/d/0f/a") = 0'
FOLDER_SYNC = "2 fsync(9</d/0f>) = 0"
ROW = '2 pwrite64(6</d/mail.db-wal>, "x", 4096, 0) = 4096'
IN_FILE = [CAME, PIECE, LAST, FILE_SYNC, RENAMED, FOLDER_SYNC, ROW, SYNC, ANSWERED]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (IN_FILE, None),
        (
            [CAME, PIECE, FILE_SYNC, LAST, RENAMED, FOLDER_SYNC, ROW, SYNC, ANSWERED],
            "nobody synced",
        ),
        (
            [CAME, PIECE, LAST, RENAMED, FILE_SYNC, FOLDER_SYNC, ROW, SYNC, ANSWERED],
            "renamed before",
        ),
        (
            [CAME, PIECE, LAST, FILE_SYNC, FOLDER_SYNC, RENAMED, ROW, SYNC, ANSWERED],
            "nobody synced",
        ),
        (
            [CAME, PIECE, LAST, FILE_SYNC, RENAMED, FOLDER_SYNC, ROW, ANSWERED, SYNC],
            "answered before",
        ),
        (
            [CAME, PIECE, LAST, FILE_SYNC, RENAMED, FOLDER_SYNC, SYNC, ANSWERED, ROW],
            "nobody synced",
        ),
        ([CAME, PIECE, LAST, FILE_SYNC, RENAMED, FOLDER_SYNC, ANSWERED], "nobody wrote its row"),
    ],
)
def test_orders_of_a_file_and_its_row(lines: list[str], error: str | None) -> None:
    trace = Trace("\n".join(lines))
    with contextlib.nullcontext() if error is None else pytest.raises(OrderError, match=error):
        trace.check_file("X-Ledger: 1", "/d/new/", "/d/0f")
        trace.check_row("X-Ledger: 1", "mail.db-wal")
