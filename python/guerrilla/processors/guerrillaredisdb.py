"""GuerrillaRedisDB: messages in Redis, what is known of them in a table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final, cast

import pydantic

from guerrilla.errors import GuerrillaError, Unavailable
from guerrilla.processors.redis import entry_of, log_refusals, open_store
from guerrilla.processors.sql import SQL
from guerrilla.redisstore.place import RedisOptions
from guerrilla.store import rows_of
from guerrilla.store.schema import FIELDS
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Envelope
    from guerrilla.redisstore.messages import RedisStore
    from guerrilla.reply import Outcome

__all__ = ["GuerrillaRedisDB"]

log = logging.getLogger("guerrilla.processors.guerrillaredisdb")

IN_REDIS: Final = "redis"
IN_SQL: Final = "gzencode"
"""What the column `body` says of where the message is; Go-Guerrilla's words."""

_LEFT_OUT: Final = frozenset({"message_id", "reply_to", "sender"})


class GuerrillaRedisDB(SQL):
    """Stores messages in Redis, compressed, and a row a recipient in a table: both before the 250.

    It needs no stage before it. While Redis takes nothing, messages are stored in the table too.
    """

    stores: ClassVar[bool] = True
    # What a batch that fails has left in Redis belongs to no row, and is written again.
    atomic: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = tuple(field for field in FIELDS if field not in _LEFT_OUT)

    class Options(SQL.Options, RedisOptions):
        """Keys of `backend_config`."""

        primary_mail_host: str = "localhost"
        """The host of `Delivered-To: USER@HOST`; by default the host name of the receiver."""
        redis_sql_batch_timeout: Seconds = 0.0
        """How long Go-Guerrilla gathers rows; changes nothing: batches form by themselves."""

        @pydantic.field_validator("redis_sql_batch_timeout", mode="before")
        @classmethod
        def _none(cls, value: object) -> object:
            return 0 if value == "" else value

    def __init__(self, options: Options) -> None:
        """Opens nothing."""
        super().__init__(options)
        self._both = options
        self._redis: RedisStore | None = None

    def open(self) -> None:
        """Opens the database, makes the table if it is missing, and connects to Redis.

        Raises:
            ConfigError: one of them cannot be used so.
            StartError: one of them cannot be reached.
        """
        super().open()
        try:
            self._redis = open_store(self._both)
        except GuerrillaError:
            super().close()
            raise

    def close(self) -> None:
        """Closes both."""
        if self._redis is not None:
            self._redis.close()
            self._redis = None
        super().close()

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Stores all messages in Redis, then all rows in one transaction.

        Raises:
            guerrilla.errors.Unavailable: the database cannot be written now.
            Exception: an envelope's own fault; no row of the batch was stored.
        """
        host = self._both.primary_mail_host
        for envelope in envelopes:
            envelope.compute_hashes()
            envelope.make_delivery_header(host)
        kept = self._keep(envelopes)
        rows = [
            row
            for envelope, is_kept in zip(envelopes, kept, strict=True)
            for row in rows_of(envelope, host, IN_REDIS if is_kept else IN_SQL)
        ]
        return self._insert(envelopes, rows)

    def _keep(self, envelopes: Sequence[Envelope]) -> Sequence[bool]:
        """Whether Redis has each of them; why not is logged."""
        store = cast("RedisStore", self._redis)
        entries = [
            entry_of(
                envelope,
                [digest.encode() for digest in envelope.hashes],
                envelope.compressed_for,
            )
            for envelope in envelopes
        ]
        try:
            reasons = store.save(entries)
        except Unavailable as error:
            ids = ", ".join(envelope.queued_id for envelope in envelopes)
            log.error("%s: messages go into the table: %s", error, ids)  # noqa: TRY400
            return [False] * len(envelopes)
        log_refusals(store.name, envelopes, reasons, "stored in the table")
        return [reason is None for reason in reasons]
