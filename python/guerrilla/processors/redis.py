"""Redis: stores a mail under the hash of each recipient."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, cast

from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError
from guerrilla.processors.compressor import stored_form
from guerrilla.processors.hasher import Hasher
from guerrilla.redisstore.place import TOO_LONG, Entry, RedisOptions
from guerrilla.reply import TRY_LATER, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import Envelope
    from guerrilla.redisstore.messages import RedisStore
    from guerrilla.reply import Outcome

__all__ = ["VALUE", "Redis", "entry_of", "log_refusals", "open_store"]

log = logging.getLogger("guerrilla.processors.redis")

VALUE: Final = "redis"
"""The key of `envelope.values` that it sets, and its value: SQL after it keeps no message."""
TOO_LARGE: Final = Reply(552, "5.3.4", "Message too big for the store")
_HEADERS: Final = 64 << 10
"""More octets than the added fields and the delivery header have."""


class Redis(Processor):
    """Stores a mail in Redis, one key a recipient: its hash; a batch in one pipeline.

    Where Compressor comes before it, the value is the zlib form. A mail of several recipients is
    stored under all their hashes or under none.
    """

    stores: ClassVar[bool] = True

    class Options(RedisOptions):
        """Keys of `backend_config`."""

    def __init__(self, options: Options) -> None:
        """Opens nothing."""
        super().__init__(options)
        self._options = options
        self._store: RedisStore | None = None

    def misplaced(self, before: Sequence[Processor]) -> str:
        """It needs hashes; a stage of somebody else may make them too."""
        return "" if any(map(_may_hash, before)) else "needs Hasher before it"

    def open(self) -> None:
        """Connects.

        Raises:
            ConfigError: it cannot be used so, or Redis does not let us in.
            StartError: Redis cannot be reached.
        """
        self._store = open_store(self._options)

    def close(self) -> None:
        """Disconnects."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Stores each under its hashes; one that Redis refuses fails alone.

        Raises:
            guerrilla.errors.Unavailable: Redis cannot be reached, or its answer is not known.
        """
        store = cast("RedisStore", self._store)  # A chain that is not open is never asked.
        outcomes: list[Outcome] = [TRY_LATER] * len(envelopes)
        wanted: list[tuple[int, Envelope, Entry]] = []
        for index, envelope in enumerate(envelopes):
            if (entry := _entry(envelope)) is not None:
                wanted.append((index, envelope, entry))
        reasons = store.save([entry for _, _, entry in wanted]) if wanted else []
        for (index, envelope, _), reason in zip(wanted, reasons, strict=True):
            if reason is None:
                envelope.values[VALUE] = VALUE
                outcomes[index] = None
            elif reason == TOO_LONG:
                outcomes[index] = TOO_LARGE
        log_refusals(store.name, [envelope for _, envelope, _ in wanted], reasons, "not stored")
        return outcomes


def open_store(options: RedisOptions) -> RedisStore:
    """Connects; the client library is imported only now.

    Raises:
        ConfigError: it is not installed, or Redis does not let us in.
        StartError: Redis cannot be reached.
    """
    try:
        from guerrilla.redisstore.messages import RedisStore  # noqa: PLC0415
    except ImportError as error:
        msg = f"Redis needs the Python package redis: install guerrilla[redis] ({error})"
        raise ConfigError(msg) from error
    store = RedisStore(options)
    store.open()
    return store


def log_refusals(
    name: str, envelopes: Sequence[Envelope], reasons: Sequence[str | None], fate: str
) -> None:
    """One line a reason: when Redis is full, that is one for the whole batch."""
    refused: dict[str, list[str]] = {}
    for envelope, reason in zip(envelopes, reasons, strict=True):
        if reason is not None:
            refused.setdefault(reason, []).append(envelope.queued_id)
    for reason, ids in refused.items():
        log.error("%s refused: %s: %s: %s", name, reason, fate, ", ".join(ids))


def _entry(envelope: Envelope) -> Entry | None:
    """What is stored of it; None where it has not a hash for each recipient."""
    hashes = envelope.hashes
    if len(hashes) != len(envelope.rcpt_to) or not all(hashes):
        log.error(
            "%s: not stored: it has not one hash a recipient; put Hasher before Redis",
            envelope.queued_id,
        )
        return None
    try:
        keys = [digest.encode() for digest in hashes]
    except (AttributeError, UnicodeError) as error:
        log.error("%s: not stored: a hash that is no text: %s", envelope.queued_id, error)  # noqa: TRY400
        return None
    return entry_of(envelope, keys, partial(stored_form, envelope))


def entry_of(envelope: Envelope, keys: Sequence[bytes], form: Callable[[int], bytes]) -> Entry:
    """The forms of its recipients under these keys, in order."""
    return Entry(keys, form, envelope.size + _HEADERS)


def _may_hash(stage: Processor) -> bool:
    """Whether it makes hashes, or is of somebody else, who may know how."""
    return isinstance(stage, Hasher) or not type(stage).__module__.startswith("guerrilla.")
