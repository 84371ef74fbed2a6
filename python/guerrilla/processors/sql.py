"""SQL: stores a mail as one row a recipient."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final, cast

import pydantic

from guerrilla._core import Reply
from guerrilla.base import Processor
from guerrilla.errors import StartError
from guerrilla.store import StoreError, StoreFullError, rows_of
from guerrilla.store.schema import TEXT_LIMIT, check_table_name
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Address, Envelope, Transaction
    from guerrilla.reply import Outcome
    from guerrilla.store import Store

__all__ = ["SQL"]

log = logging.getLogger("guerrilla.processors.sql")

FULL: Final = Reply(452, "4.3.1", "Insufficient system storage")
USER_TOO_LONG: Final = Reply(550, "5.1.1", "User unknown in local recipient table")

_NOT_YET: Final = frozenset({"mysql", "mariadb", "postgres", "postgresql", "pgx"})


class SQL(Processor):
    """Stores envelopes in a table, a batch in one transaction; see `guerrilla.store`.

    A full disk is answered `452 4.3.1`, a database that cannot be written now `451 4.3.0`.
    """

    stores: ClassVar[bool] = True
    atomic: ClassVar[bool] = True

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        sql_driver: str = "sqlite"
        """The database; so far `sqlite`."""
        sql_dsn: str = ""
        """For SQLite the path of the file, made if missing; relative to the working directory."""
        mail_table: str = "new_mail"
        """The table, made if missing."""
        primary_mail_host: str = ""
        """Stands in the `message_id` of a mail that has none."""
        sql_insert: str = ""
        """Go-Guerrilla's own INSERT; not built yet, so it has to be empty."""
        sql_values: str = ""
        """The marks of a row for `sql_insert`; not built yet, so it has to be empty."""
        sql_max_open_conns: int = pydantic.Field(0, ge=0)
        """Limits a pool of connections; SQLite has one connection a file whatever it says."""
        sql_max_idle_conns: int = pydantic.Field(0, ge=0)
        """Limits how many of them wait unused; nothing for SQLite."""
        sql_max_conn_lifetime: Seconds = 0.0
        """After how many seconds a connection is made anew, 0 for never; nothing for SQLite."""

        @pydantic.field_validator("sql_max_conn_lifetime", mode="before")
        @classmethod
        def _no_lifetime(cls, value: object) -> object:
            return 0 if value == "" else value  # How Go-Guerrilla's files say "no limit".

        @pydantic.field_validator("mail_table")
        @classmethod
        def _table(cls, name: str) -> str:
            return check_table_name(name)

    def __init__(self, options: Options) -> None:
        """Opens nothing."""
        super().__init__(options)
        self._options = options
        self._store: Store | None = None

    def open(self) -> None:
        """Opens the database and makes the table if it is missing.

        Raises:
            StartError: the driver is not built, or the database cannot be used.
        """
        options = self._options
        for key in ("sql_insert", "sql_values"):
            if getattr(options, key):
                msg = f"backend_config.{key} is not built yet: expected it to be empty"
                raise StartError(msg)
        driver = options.sql_driver.lower()
        if driver not in {"sqlite", "sqlite3"}:
            state = "is not built yet" if driver in _NOT_YET else "is not known"
            msg = f"backend_config.sql_driver {options.sql_driver!r} {state}: expected 'sqlite'"
            raise StartError(msg)
        # Here, so that a chain without SQL does not need the driver's package.
        try:
            from guerrilla.store import sqlite  # noqa: PLC0415
        except ImportError as error:
            msg = f"sql_driver 'sqlite' needs the Python package apsw ({error})"
            raise StartError(msg) from error
        try:
            self._store = sqlite.connect(options.sql_dsn, options.mail_table)
        except StoreError as error:
            msg = f"backend_config.sql_dsn: {error}"
            raise StartError(msg) from error

    def close(self) -> None:
        """Closes the database; the last chain that does completes the file."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Stores all rows of all envelopes in one transaction, or none of them.

        Raises:
            guerrilla.errors.Unavailable: the database cannot be written now.
            Exception: an envelope's own fault; nothing of the batch was stored.
        """
        store = cast("Store", self._store)  # A chain that is not open is never asked.
        host = self._options.primary_mail_host
        rows = [row for envelope in envelopes for row in rows_of(envelope, host)]
        try:
            store.insert(rows)
        except StoreFullError as error:
            ids = ", ".join(envelope.queued_id for envelope in envelopes)
            log.error("%s: not stored: %s", ids, error)  # no fault of the code  # noqa: TRY400
            return [FULL] * len(envelopes)
        return [None] * len(envelopes)

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Refuses a user that the `recipient` column cannot hold."""
        del transaction
        return USER_TOO_LONG if len(recipient.user) > TEXT_LIMIT else None
