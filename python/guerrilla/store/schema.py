"""The table of mails: its columns, and the errors of a store. `dialects` says them in SQL."""

from __future__ import annotations

import re
from typing import Final

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
"""The columns of the table.

The message comes last: SQLite reads a row from its start, so a listing never touches it.
"""

FIELDS: Final = (*COLUMNS[:-1], "charset", COLUMNS[-1])
"""Everything that a row has a value for, in the order of `Row.values()`: a table may have less.

`charset` is a column of Go-Guerrilla's older tables, and of those of GuerrillaRedisDB.
"""

KEY: Final = ("queued_id", "recipient")
"""Unique together: what makes storing the same envelope again a no-op."""

_TABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class StoreError(GuerrillaError):
    """A database that cannot be used as it is; the message says why and what was expected.

    Attributes:
        key: of `backend_config`, the one to look at.
    """

    def __init__(self, message: str, *, key: str = "sql_dsn") -> None:
        """The message holds no secret."""
        super().__init__(message)
        self.key = key


class StoreAwayError(StoreError):
    """A database that cannot be used now, and may be later without anybody's doing."""


class StoreFullError(StoreError):
    """No room left where the database is; nothing of the batch was stored."""


class RowTooLargeError(StoreError):
    """A row that the database never takes, since its mail is too large; nothing was stored."""


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
