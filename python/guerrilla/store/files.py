"""The files of an SQLite database: itself, its log (`-wal`) and the log's index (`-shm`).

The log holds the last mails, and nothing in it says to which file it belongs: SQLite writes it into
whatever file lies beside it, and deletes it beside an empty one. So what became of the files is
looked at here, before SQLite is let near them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import apsw

from guerrilla.store.schema import StoreError

_FILE_MODE: Final = 0o600

_LOG_HEADER: Final = 32

_SERVER: Final = re.compile(r"://|@\w*\(|:[^@]*@/|\bpassw(or)?d\s*=", re.IGNORECASE)
"""What the DSN of a database server has, and hardly a path."""

FileId: TypeAlias = tuple[int, int] | None
"""Device and inode; None for a file that is missing."""


class Files(NamedTuple):
    """Which files a path, its log and the log's index are."""

    main: FileId
    log: FileId
    log_index: FileId


def files_of(path: str) -> Files:
    """Which files they are now."""
    return Files(file_id(path), file_id(f"{path}-wal"), file_id(f"{path}-shm"))


def file_id(path: str) -> FileId:
    """Which file a path is now."""
    try:
        found = os.stat(path)  # Three times before and after a batch: Path takes twice as long.
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def resolve(dsn: str) -> str:
    """The path of a `sql_dsn`, with links resolved.

    Raises:
        StoreError: it is no path of a file; one that may hold a password is not shown.
    """
    wanted = "expected the path of the database file"
    if not dsn:
        msg = f"{wanted}, got ''"
        raise StoreError(msg)
    if _SERVER.search(dsn):
        msg = f"{wanted}, got the address of a database server (not shown: it may hold a password)"
        raise StoreError(msg)
    if dsn == ":memory:" or dsn.startswith("file:"):
        msg = f"expected the plain path of a database file, got {dsn!r}"
        raise StoreError(msg)
    return os.path.realpath(dsn)


def refuse_lone_log(path: str) -> None:
    """Looks for a log whose database is missing or empty: SQLite would delete it.

    Raises:
        StoreError: there is one, with mails in it.
    """
    # The log first: a process that makes both now makes the database first.
    if _size(f"{path}-wal") and not _size(path):
        msg = (
            f"{path} is missing or empty, and {path}-wal holds mails of it: "
            "put it back, or remove that log"
        )
        raise StoreError(msg)


def log_header(path: str) -> bytes:
    """What tells a log from another: it has random numbers in it. Empty without a log.

    An inode would not do: it is given to the next file as soon as a log is deleted.
    """
    try:
        with open(f"{path}-wal", "rb") as log:
            return log.read(_LOG_HEADER)
    except OSError:
        return b""


def make_file(path: str) -> None:
    """Makes an empty file that only its owner may read; SQLite's own would follow the umask.

    A file that is there is never opened here: closing it would drop the POSIX locks that SQLite
    holds on it anywhere in this process.

    Raises:
        StoreError: it cannot be made, or is there and no file.
        apsw.FullError: there is no room for it.
    """
    file = Path(path)
    if not file.parent.is_dir():
        msg = f"{path} cannot be made: there is no folder {file.parent}"
        raise StoreError(msg)
    refuse_lone_log(path)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE))
    except FileExistsError:
        if not file.is_file():
            msg = f"{path} is no file: expected the path of a database file"
            raise StoreError(msg) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise apsw.FullError(str(error)) from error
        msg = f"{path} cannot be made: {error.strerror}"
        raise StoreError(msg) from error


def readers_of(path: str) -> str:
    """What is to be said where others than its owner and group can read the file; else empty.

    One that was there keeps its mode: its owner has chosen it, or has not looked.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return ""
    return (
        f"{path}: every user of this machine can read or write it (mode {mode:03o}): "
        f"chmod o= {path}"
    )


def remove_rest(path: str, old: Files) -> None:
    """Removes the empty log and the index that a database left behind when it was moved away.

    Another process that still has the old database open goes on with them: shared with a new one
    at the same path, each would take the other's pages for its own. To be called while they are
    still open here, so that no new file can have got their inodes.
    """
    if file_id(f"{path}-wal") == old.log and not _size(f"{path}-wal"):
        Path(f"{path}-wal").unlink(missing_ok=True)
    if file_id(f"{path}-shm") == old.log_index:
        Path(f"{path}-shm").unlink(missing_ok=True)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
