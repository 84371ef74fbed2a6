"""The table of mails: its columns, and what each database's SQL says about them."""

from __future__ import annotations

import re
from typing import Final, Protocol

from guerrilla.errors import GuerrillaError

TEXT_LIMIT: Final = 255
"""Characters a text column holds: VARCHAR(255), as Go-Guerrilla's table."""

COLUMNS: Final = (
    "queued_id",
    "recipient",
    "date",
    "to",
    "from",
    "subject",
    "body",
    "spam_score",
    "hash",
    "content_type",
    "has_attach",
    "ip_addr",
    "return_path",
    "is_tls",
    "message_id",
    "reply_to",
    "sender",
    "mail",
)
"""The columns of a row in the order of `Row.values()`.

The message comes last: SQLite reads a row from its start, so a listing never touches it.
"""

KEY: Final = ("queued_id", "recipient")
"""Unique together: what makes storing the same envelope again a no-op."""

_TABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class StoreError(GuerrillaError):
    """A database that cannot be used as it is; the message says why and what was expected."""


class StoreFullError(StoreError):
    """No room left where the database is; nothing of the batch was stored."""


class Dialect(Protocol):
    """What differs between the databases. Columns are always given by their plain names."""

    def create_table(self, table: str) -> str:
        """The DDL that makes the table where there is none."""

    def insert(self, table: str, columns: tuple[str, ...], *, skip_repeats: bool) -> str:
        """The INSERT of one row; a repeat is passed over by `KEY` alone when it is to be."""


def check_table_name(name: str) -> str:
    """Gives back a name that can stand in SQL.

    Raises:
        ValueError: not a letter or `_`, then up to 62 letters, digits and `_`; or SQLite's own.
    """
    if _TABLE_NAME.fullmatch(name) is None:
        msg = (
            f"{name!r} cannot name a table: expected a letter or '_', "
            "then up to 62 letters, digits or '_'"
        )
        raise ValueError(msg)
    if name.lower().startswith("sqlite_"):
        msg = f"{name!r} cannot name a table: names that begin with 'sqlite_' are reserved"
        raise ValueError(msg)
    return name


class SQLiteDialect:
    """SQLite's SQL."""

    def create_table(self, table: str) -> str:
        """DDL; `AUTOINCREMENT` so that a purged `mail_id` never means another mail later."""
        return f"""
            CREATE TABLE IF NOT EXISTS "{table}" (
                mail_id INTEGER PRIMARY KEY AUTOINCREMENT,
                queued_id VARCHAR(255) NOT NULL,
                recipient VARCHAR(255) NOT NULL,
                "date" DATETIME NOT NULL,
                "to" VARCHAR(255) NOT NULL DEFAULT '',
                "from" VARCHAR(255) NOT NULL DEFAULT '',
                subject VARCHAR(255) NOT NULL DEFAULT '',
                body VARCHAR(255) NOT NULL DEFAULT '',
                spam_score FLOAT NOT NULL DEFAULT 0,
                hash VARCHAR(255) NOT NULL DEFAULT '',
                content_type VARCHAR(255) NOT NULL DEFAULT '',
                has_attach INTEGER NOT NULL DEFAULT 0,
                ip_addr BLOB NOT NULL,
                return_path VARCHAR(255) NOT NULL DEFAULT '',
                is_tls INTEGER NOT NULL DEFAULT 0,
                message_id VARCHAR(255) NOT NULL DEFAULT '',
                reply_to VARCHAR(255) NOT NULL DEFAULT '',
                sender VARCHAR(255) NOT NULL DEFAULT '',
                mail BLOB NOT NULL,
                UNIQUE (queued_id, recipient)
            )
        """

    def insert(self, table: str, columns: tuple[str, ...], *, skip_repeats: bool) -> str:
        """INSERT with a conflict clause that names the key: any other conflict is an error.

        `OR ABORT` overrules an existing table's own `ON CONFLICT IGNORE` or `REPLACE`, by which
        this mail, or the one it meets, would vanish.
        """
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        # The table's name was checked (`check_table_name`), the columns are ours.
        statement = f'INSERT OR ABORT INTO "{table}" ({names}) VALUES ({marks})'  # noqa: S608
        if skip_repeats:
            statement += f" ON CONFLICT ({', '.join(KEY)}) DO NOTHING"
        return statement
