"""What an error of MySQL or MariaDB means: a fault of a row, of the place, or of the config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pymysql
from pymysql.constants import CR, ER

from guerrilla.errors import Unavailable
from guerrilla.store.schema import RowTooLargeError, StoreAwayError, StoreError, StoreFullError

if TYPE_CHECKING:
    from guerrilla.store.dsn import MySQLAddress

_ROW_CODES: Final = frozenset(
    {
        ER.TOO_BIG_ROWSIZE,
        ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
        3819,  # a CHECK of MySQL
        4025,  # a CHECK of MariaDB
    }
)
"""Faults of a row, beside those that PyMySQL tells by their class."""

_FULL_CODES: Final = frozenset({ER.DISK_FULL, ER.RECORD_FILE_FULL})
_NO_SPACE: Final = ("errno: 28", "error 28", "errcode: 28", "no space left")
"""How other errors say that the disk is full."""


_REFUSED: Final = (" refuses the user or password", "", "sql_dsn")
_TOO_MANY: Final = (" takes no more connections", "", "sql_dsn")
_NO_RIGHT: Final = ("", ": GRANT the user SELECT and INSERT on the table", "mail_table")
_AT_START: Final = {
    ER.ACCESS_DENIED_ERROR: _REFUSED,
    1698: _REFUSED,  # MariaDB's, where the system says who may log in
    ER.BAD_DB_ERROR: ("", ": make it with CREATE DATABASE, or name another", "sql_dsn"),
    ER.DBACCESS_DENIED_ERROR: ("", ": GRANT the user SELECT, INSERT, CREATE on it", "sql_dsn"),
    ER.TABLEACCESS_DENIED_ERROR: _NO_RIGHT,
    ER.COLUMNACCESS_DENIED_ERROR: _NO_RIGHT,
    CR.CR_CONN_HOST_ERROR: (" cannot be reached", "", "sql_dsn"),
    ER.CON_COUNT_ERROR: _TOO_MANY,
    1203: _TOO_MANY,  # of this user
    1226: _TOO_MANY,  # of this user, by its own limit
}
"""What is said before and after the server's own words, and the key to look at."""

_AWAY: Final = frozenset({ER.CON_COUNT_ERROR, 1203, 1226, ER.SERVER_SHUTDOWN})
"""Errors of a server that will take connections again; those of the client are from 2000 on."""
_CLIENT: Final = range(2000, 3000)


def at_write(error: pymysql.MySQLError, name: str) -> Exception:
    """What `Link.write` raises for an error of the server or the connection."""
    code, text = parts(error)
    if code == ER.NET_PACKET_TOO_LARGE:
        return RowTooLargeError(f"{name}: {text}")
    if code in _FULL_CODES or any(words in text.lower() for words in _NO_SPACE):
        return StoreFullError(f"{name}: no room left ({text})")
    row_classes = (pymysql.DataError, pymysql.IntegrityError)
    if code in _ROW_CODES or isinstance(error, row_classes):
        return error
    return Unavailable(f"{name}: {text}")


def at_start(error: Exception, address: MySQLAddress) -> StoreError:
    """An error of a start, with what to do about it."""
    code, text = parts(error)
    before, after, key = _AT_START.get(code, ("", "", "sql_dsn"))
    if "cryptography" in text:  # A password of MySQL 8 goes encrypted, by TLS or else by RSA.
        after = ": use tls=true or a unix socket"
    is_away = code in _AWAY or code in _CLIENT or isinstance(error, OSError)
    kind = StoreAwayError if is_away else StoreError
    return kind(f"MySQL {address.name}{before}: {text}{after}", key=key)


def parts(error: Exception) -> tuple[int, str]:
    """The number of an error, 0 for none, and its text."""
    match error.args:
        case (int(code), text, *_):
            return code, str(text) or type(error).__name__
        case _:
            return 0, str(error) or type(error).__name__
