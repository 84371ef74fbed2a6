"""The stores that faults are tried with: how a daemon stores into each, and what is there."""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import apsw


class Store(ABC):
    """One kind of store, in a folder of its own.

    Args:
        folder: an empty folder, which is the whole disk of the store.
    """

    name: ClassVar[str]
    """As the table has it."""
    chain: ClassVar[str]
    answers: ClassVar[str] = ""
    """What the path of each file has in it on which an answer depends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self, *, top: str = "", server: str = "", backend: str = "") -> str:
        """Of a daemon that stores here; more lines of TOML for its parts."""
        return f"""\
allowed_hosts = ["."]
log_level = "info"
{self.top()}
{top}

[[servers]]
listen_interface = "127.0.0.1:0"
host_name = "mx.example.com"
max_clients = 200
{server}

[backend_config]
save_process = {json.dumps(self.chain)}
save_workers_size = 2
{self.backend()}
{backend}
"""

    def top(self) -> str:
        """Lines of the top level."""
        return ""

    @abstractmethod
    def backend(self) -> str:
        """Lines of `backend_config`."""

    @abstractmethod
    def stored(self) -> Iterator[bytes]:
        """Every message, once no daemon runs."""

    def is_drained(self) -> bool:
        """Whether everything is where `stored` looks, while a daemon runs."""
        return True

    @abstractmethod
    def check(self) -> None:
        """Asserts that it is whole, once no daemon runs."""


class SQLiteFile(Store):
    """A database file."""

    name = "SQLite"
    chain = "HeadersParser|Hasher|Header|SQL"

    @property
    def file(self) -> Path:
        """The database."""
        return self.folder / "mail.db"

    def backend(self) -> str:
        return f'sql_driver = "sqlite"\nsql_dsn = {json.dumps(os.fspath(self.file))}'

    def stored(self) -> Iterator[bytes]:
        yield from messages(self.file)

    def check(self) -> None:
        check_database(self.file)


class MailDirs(Store):
    """A maildir."""

    name = "MailDir"
    chain = "Header|MailDir"

    def backend(self) -> str:
        path = json.dumps(f"{self.folder}/[user]")
        return f'maildir_path = {path}\nmaildir_user_map = "to=-1:-1"'

    def stored(self) -> Iterator[bytes]:
        for path in (self.folder / "to" / "new").iterdir():
            yield path.read_bytes()

    def check(self) -> None:
        assert list((self.folder / "to" / "cur").iterdir()) == []


class Spooled(Store):
    """The spool, which answers, and a database behind it, which takes a mail once by its id.

    What is left in the spool has to come into the database before it is looked at: see `drained`.
    """

    name = "spool"
    chain = "250|HeadersParser|Hasher|Header|SQL"
    answers = "/spool/"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # In a folder of its own, lest a sync of its name made that of the spool last as well.
        self.behind.parent.mkdir(exist_ok=True)

    @property
    def root(self) -> Path:
        """Of the spool; the daemon makes the folder above it, too."""
        return self.folder / "made" / "spool"

    @property
    def database(self) -> Path:
        """Of the spool."""
        return self.root / "0" / "spool.db"

    @property
    def behind(self) -> Path:
        """Where the mails come in the end."""
        return self.folder / "behind" / "mail.db"

    def top(self) -> str:
        path = json.dumps(os.fspath(self.root))
        return f"[spool]\npath = {path}\nmin_free = 0"

    def backend(self) -> str:
        return f'sql_driver = "sqlite"\nsql_dsn = {json.dumps(os.fspath(self.behind))}'

    def stored(self) -> Iterator[bytes]:
        yield from messages(self.behind)

    def is_drained(self) -> bool:
        return count(self.database, "msg") == 0

    def check(self) -> None:
        check_database(self.database)
        check_database(self.behind)
        assert count(self.database, "msg") == 0
        left = self.root / "0"
        for folder in ("bodies", "failed", "damaged"):
            assert [path for path in (left / folder).rglob("*") if path.is_file()] == []


def count(database: Path, table: str) -> int:
    """Rows of a table."""
    flags = apsw.SQLITE_OPEN_READONLY
    with contextlib.closing(apsw.Connection(os.fspath(database), flags=flags)) as connection:
        connection.set_busy_timeout(5_000)
        number: int = connection.execute(f'SELECT count(*) FROM "{table}"').get
        return number


def messages(database: Path) -> Iterator[bytes]:
    """The mails of `new_mail`, one at a time."""
    with contextlib.closing(apsw.Connection(os.fspath(database))) as connection:
        for (mail,) in connection.execute("SELECT mail FROM new_mail"):
            yield bytes(mail)


def check_database(database: Path) -> None:
    """Asserts that a database file is whole."""
    with contextlib.closing(apsw.Connection(os.fspath(database))) as connection:
        assert connection.pragma("integrity_check") == "ok"


STORES = (SQLiteFile, MailDirs, Spooled)
