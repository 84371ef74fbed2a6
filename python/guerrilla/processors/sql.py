"""SQL: stores a mail as one row a recipient."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final, cast

import pydantic

from guerrilla._core import Reply
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, StartError, expected
from guerrilla.store import RowTooLargeError, StoreError, StoreFullError, Target, rows_of
from guerrilla.store.drivers import connect
from guerrilla.store.schema import COLUMNS, TEXT_LIMIT, StoreAwayError, check_table_name
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Address, Envelope, Transaction
    from guerrilla.reply import Outcome
    from guerrilla.store import Row, Store

__all__ = ["SQL", "MySQL"]

log = logging.getLogger("guerrilla.processors.sql")

FULL: Final = Reply(452, "4.3.1", "Insufficient system storage")
USER_TOO_LONG: Final = Reply(550, "5.1.1", "User unknown in local recipient table")
TOO_LARGE: Final = Reply(552, "5.3.4", "Message size exceeds what the storage takes")


class SQL(Processor):
    """Stores envelopes in a table, a batch in one transaction; see `guerrilla.store`.

    A full disk is answered `452 4.3.1`, a database that cannot be written now `451 4.3.0`, a mail
    that is too large for the database `552 5.3.4`.
    """

    stores: ClassVar[bool] = True
    atomic: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = COLUMNS
    """Of its table."""

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        sql_driver: str = "sqlite"
        """The database: `mysql` (or `mariadb`), `postgresql` (`postgres`, `pgx`), `sqlite`."""
        sql_dsn: str = ""
        """Where it is. MySQL: `user:password@tcp(127.0.0.1:3306)/database`, or a URL. PostgreSQL: a
        URL, or `host=… dbname=…`. SQLite: the path of the file, made if missing; relative to the
        working directory."""
        mail_table: str = "new_mail"
        """The table, made if missing."""
        primary_mail_host: str = ""
        """Stands in the `message_id` of a mail that has none."""
        sql_insert: str = ""
        """An INSERT of one's own, up to its first row; empty for one into `mail_table`."""
        sql_values: str = ""
        """One row of it, with a mark for each value; empty for the columns of `mail_table`."""
        sql_max_open_conns: int = pydantic.Field(0, ge=0)
        """Limits a pool of connections; changes nothing: each worker has one, SQLite one a file."""
        sql_max_idle_conns: int = pydantic.Field(0, ge=0)
        """Limits how many of them wait unused; changes nothing, as above."""
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
            ConfigError: the driver is unknown or not installed, or the database cannot be used so.
            StartError: the database cannot be reached, or not be used now.
        """
        options = self._options
        target = Target(options.mail_table, self.columns, options.sql_insert, options.sql_values)
        try:
            self._store = connect(
                options.sql_driver, options.sql_dsn, target, options.sql_max_conn_lifetime
            )
        except StoreError as error:
            kind = StartError if isinstance(error, StoreAwayError) else ConfigError
            raise kind(f"backend_config.{error.key}: {error}") from error

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
        host = self._options.primary_mail_host
        rows = [row for envelope in envelopes for row in rows_of(envelope, host)]
        return self._insert(envelopes, rows)

    def _insert(self, envelopes: Sequence[Envelope], rows: Sequence[Row]) -> Sequence[Outcome]:
        """As `save_batch`, of the rows of these envelopes."""
        store = cast("Store", self._store)  # A chain that is not open is never asked.
        try:
            store.insert(rows)
        except StoreFullError as error:
            ids = ", ".join(envelope.queued_id for envelope in envelopes)
            log.error("%s: not stored: %s", ids, error)  # no fault of the code  # noqa: TRY400
            return [FULL] * len(envelopes)
        except RowTooLargeError as error:
            if len(envelopes) > 1:
                raise  # The chain asks for one at a time then, and finds out which it is.
            log.error("%s: not stored: %s", envelopes[0].queued_id, error)  # noqa: TRY400
            return [TOO_LARGE]
        return [None] * len(envelopes)

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Refuses a user that the `recipient` column cannot hold."""
        del transaction
        return USER_TOO_LONG if len(recipient.user) > TEXT_LIMIT else None


class MySQL(SQL):
    """SQL with MySQL or MariaDB, by the name that Go-Guerrilla has for it."""

    class Options(SQL.Options):
        """Keys of `backend_config`."""

        sql_driver: str = "mysql"
        """The database: `mysql`, or `mariadb`, which is the same; for others name SQL."""

        @pydantic.field_validator("sql_driver")
        @classmethod
        def _is_mysql(cls, name: str) -> str:
            if name.lower() not in {"mysql", "mariadb"}:
                raise expected("'mysql', or the processor SQL in the chain", name)
            return name
