"""MySQL and MariaDB, by PyMySQL: a batch is one INSERT of many rows.

PyMySQL would put the values into the statement one by one; here a statement is made in one pass, as
bytes, so that a message is copied and looked through no more than it must be. Between quotes only
the quote and the backslash mean something, whatever the bytes are: the connection speaks utf8mb4,
in which neither is a part of another character.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

import pymysql
from pymysql.constants import CR, SERVER_STATUS

from guerrilla.errors import Unavailable
from guerrilla.store import mysqlerrors
from guerrilla.store.dsn import MySQLAddress, parse_mysql
from guerrilla.store.fitting import fitted
from guerrilla.store.mysqltable import plan
from guerrilla.store.schema import RowTooLargeError
from guerrilla.store.server import STATEMENT_BYTES, Link, ServerStore
from guerrilla.store.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla.store.rows import Row
    from guerrilla.store.statement import Target

_log = logging.getLogger("guerrilla.store")

SQL_MODE: Final = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
"""Nothing is cut or changed in silence, whatever mode the server starts sessions with."""

_PACKET_MARGIN: Final = 64
"""Bytes of a packet that are not the statement's: more than there are."""


def connect(dsn: str, target: Target, lifetime: float = 0.0) -> ServerStore:
    """Opens the database of a `sql_dsn` and makes the table if it is missing.

    Raises:
        StoreError: the server, database or table cannot be used; the message says why.
    """
    address = parse_mysql(dsn)
    store = ServerStore(
        f"MySQL {address.name}", lambda: MySQLLink(_log_in(address), address, target), lifetime
    )
    store.open()
    return store


def _log_in(address: MySQLAddress) -> pymysql.Connection[pymysql.cursors.Cursor]:
    """A connection on which every statement is a transaction of its own."""
    context = client_context(address)
    try:
        return pymysql.connect(
            user=address.user or None,
            password=address.password,  # as bytes: text would become Latin-1
            host=address.host,
            port=address.port,
            unix_socket=address.socket or None,
            database=address.database,
            charset="utf8mb4",
            sql_mode=SQL_MODE,
            init_command="SET time_zone = '+00:00'",
            connect_timeout=address.connect,
            read_timeout=address.read,
            write_timeout=address.write,
            autocommit=True,
            ssl=context,
            ssl_disabled=address.tls == "false",
            program_name="guerrilla",
        )
    except Exception as error:  # Whatever PyMySQL makes of what is no answer of a server.
        raise mysqlerrors.at_start(error, address) from error


class MySQLLink(Link):
    """A connection, and the statement for its table."""

    def __init__(
        self,
        connection: pymysql.Connection[pymysql.cursors.Cursor],
        address: MySQLAddress,
        target: Target,
    ) -> None:
        """Checks the table, and makes it if it is missing; closes the connection on an error."""
        self._connection = connection
        self._name = f"MySQL {address.name}"
        try:
            self._plan = found = plan(connection, address, target)
        except BaseException as error:
            self.close()
            if isinstance(error, pymysql.MySQLError):
                raise mysqlerrors.at_start(error, address) from error
            raise
        limits = (found.max_packet, address.max_packet or found.max_packet)
        self._longest = min(limits) - _PACKET_MARGIN
        self._pick = found.statement.picker()
        self._head = found.statement.head.encode()
        self._tail = found.statement.tail.encode()

    def write(self, rows: Sequence[Row]) -> None:
        """See `Link`."""
        statements = self._statements(rows)
        try:
            first = next(statements)
            second = next(statements, None)
            if second is None:
                self._query(first)
            else:
                self._transaction(first, second, statements)
        except pymysql.MySQLError as error:
            translated = mysqlerrors.at_write(error, self._name)
            if isinstance(translated, Unavailable):
                self.close()
            raise translated from error

    def socket(self) -> int:
        """See `Link`."""
        found = self._connection._sock  # type: ignore[attr-defined]  # no other way  # noqa: SLF001
        return found.fileno() if found is not None else -1

    def close(self) -> None:
        """See `Link`."""
        with contextlib.suppress(pymysql.MySQLError, OSError):
            self._connection.close()

    def _transaction(self, first: bytes, second: bytes, others: Iterator[bytes]) -> None:
        query = self._query
        query(b"BEGIN")
        try:
            query(first)
            query(second)
            # No longer needed, and as long as a statement may be.
            del first, second
            for statement in others:
                query(statement)
        except BaseException:
            try:
                query(b"ROLLBACK")
            except (pymysql.MySQLError, Unavailable):
                # Else what comes next would go into a transaction that nobody commits.
                self.close()
            raise
        try:
            query(b"COMMIT")
        except pymysql.MySQLError as error:
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, f"COMMIT failed: {error}") from error

    def _query(self, statement: bytes) -> None:
        try:
            self._connection.query(statement)
        except pymysql.MySQLError:
            raise
        except Exception as error:  # No answer of a server: PyMySQL did not understand it.
            self.close()
            raise Unavailable(f"{self._name}: an answer makes no sense ({error!r})") from error
        except BaseException:
            self.close()
            raise

    def _statements(self, rows: Sequence[Row]) -> Iterator[bytes]:
        """As many as the limits of a statement need."""
        limit = min(STATEMENT_BYTES, self._longest)
        fixed = len(self._head) + len(self._tail)
        parts: list[bytes] = [self._head]
        size = fixed
        for row in rows:
            pieces = self._row(row)
            length = sum(map(len, pieces)) + 1
            if fixed + length > self._longest:
                raise RowTooLargeError(
                    f"{self._name}: a mail makes a statement of {fixed + length} bytes, and "
                    f"max_allowed_packet is {self._longest + _PACKET_MARGIN}"
                )
            if len(parts) > 1:
                if size + length > limit:
                    yield b"".join((*parts, self._tail))
                    parts = [self._head]
                    size = fixed
                else:
                    parts.append(b",")
            parts += pieces
            size += length
        yield b"".join((*parts, self._tail))

    def _row(self, row: Row) -> list[bytes]:
        """The text of a row, in pieces of which the messages are some."""
        found = self._plan
        values = fitted(self._pick(row.values()), found.fits)
        quote = self._quote_bytes
        text: list[str] = []
        pieces: list[bytes] = []
        for literal, value in zip(found.statement.literals, values, strict=False):
            text.append(literal)
            if isinstance(value, str):
                text.append(self._quoted(value))
            elif isinstance(value, int):
                text.append(str(value))
            elif len(value) <= 16:  # an address  # noqa: PLR2004
                text.append(f"X'{value.hex()}'")
            else:
                self._check_size(value)
                text.append("_binary'")
                pieces += ("".join(text).encode(), quote(value))
                text = ["'"]
        text.append(found.statement.literals[-1])
        pieces.append("".join(text).encode())
        return pieces

    def _check_size(self, mail: bytes) -> None:
        limit = self._plan.mail_limit
        if limit is not None and len(mail) > limit:
            raise RowTooLargeError(
                f"{self._name}: a mail has {len(mail)} bytes, and its column holds {limit}"
            )

    def _backslash_escapes(self) -> bool:
        """Whether a backslash means something: the server says so with each answer."""
        status = self._connection.server_status  # type: ignore[attr-defined]
        return not status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES

    def _quoted(self, text: str) -> str:
        if "\\" in text and self._backslash_escapes():
            text = text.replace("\\", "\\\\")
        if "'" in text:
            text = text.replace("'", "''")
        return f"'{text}'"

    def _quote_bytes(self, value: bytes) -> bytes:
        if self._backslash_escapes():
            value = value.replace(b"\\", b"\\\\")
        return value.replace(b"'", b"''")
