"""What the spool is asked for and told: the same over the control socket and without a daemon.

Everything is in pages, so that no answer is longer than a request may be, and nobody waits for
somebody who has a million messages to look at.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Protocol

from pydantic import Field

from guerrilla.control.requests import MAX_LINE, Arguments, read_arguments
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from guerrilla._core import Spool, SpoolEntry

MAX_IDS: Final = 1_000
"""Ids in a request: with their quotes they are half of what a line may have."""

MAX_ENTRIES: Final = 500
"""Messages in a page of a list."""

_CHUNK: Final = 45 * 2**10
"""Octets of a message in an answer, which are 60 KiB in base64."""

_PAGE: Final = MAX_LINE - 24 * 2**10
"""Bytes of a list after which nothing is added to it; one entry more is less than what is left."""

_SHOWN_RECIPIENTS: Final = 5
_SHOWN_TEXT: Final = 200
"""Characters of an address or an error in a list: as JSON has them, at most 12 bytes each."""

Id = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]
"""A `queued_id`. Nothing else: files are named so."""


class ListArguments(Arguments):
    """Of `spool-list`."""

    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    max: Annotated[int, Field(ge=1, le=MAX_ENTRIES)] = 100
    failed: bool = False
    backend: str | None = None


class ShowArguments(Arguments):
    """Of `spool-show`."""

    id: Id


class ReadArguments(Arguments):
    """Of `spool-read`."""

    id: Id
    part: Literal["record", "message"]
    offset: Annotated[int, Field(ge=0, lt=2**63)] = 0


class IdsArguments(Arguments):
    """Of `spool-retry` and `spool-replay`."""

    ids: Annotated[list[Id], Field(max_length=MAX_IDS)]


class DropArguments(IdsArguments):
    """Of `spool-drop`."""

    failed: bool = False


class NoSpoolError(Exception):
    """There is no spool to ask about."""


class DeskError(GuerrillaError):
    """It cannot be said now: who would know cannot be asked."""


class Desk(Protocol):
    """What answers one client."""

    def answer(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one of `COMMANDS`; raises as `SpoolDesk` does, or `DeskError`."""

    def close(self) -> None:
        """The client is gone."""


class _Opened(NamedTuple):
    """A message that is read, chunk by chunk."""

    id: str
    entry: SpoolEntry
    parts: Mapping[str, memoryview]


class SpoolDesk:
    """Answers for one client, of which it remembers what message it reads.

    So that a large one is looked up and checked once, and read to its end whatever becomes of it.

    Args:
        spool: gives the spool of now, None where there is none.
    """

    def __init__(self, spool: Callable[[], Spool | None]) -> None:
        self._spool = spool
        self._opened: _Opened | None = None

    def answer(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one of `COMMANDS`, in values of JSON.

        Raises:
            NoSpoolError: there is no spool.
            ValueError: an argument is wrong.
            LookupError: no message has that id.
        """
        kind, run = COMMANDS[command]
        given = read_arguments(kind, arguments)
        return run(self, given)

    def close(self) -> None:
        """Forgets the message that was read."""
        self._opened = None

    def page(self, given: ListArguments) -> dict[str, Any]:
        """Some messages, and `next`: what comes `after` them, None where there are no more."""
        spool = self._now()
        found = spool.list(given.after, given.max, given.failed)
        entries: list[dict[str, Any]] = []
        size, last = 0, None
        for entry in found:
            if size > _PAGE:
                break
            last = entry.id
            if given.backend in (None, entry.backend):
                entries.append(described(entry))
                size += len(json.dumps(entries[-1]))
        else:
            last = last if len(found) == given.max else None
        return {"entries": entries, "next": last, "total": _total(spool, failed=given.failed)}

    def show(self, given: ShowArguments) -> dict[str, Any]:
        """One message, and the sizes of what `read` has of it."""
        opened = self._open(given.id)
        sizes = {f"{part}_size": len(octets) for part, octets in opened.parts.items()}
        return {"entry": described(opened.entry), **sizes}

    def read(self, given: ReadArguments) -> dict[str, Any]:
        """Octets of a message, or of its record, and `next`: the offset of those behind them."""
        octets = self._open(given.id, again=False).parts[given.part]
        end = given.offset + _CHUNK
        return {
            "data": base64.b64encode(octets[given.offset : end]).decode("ascii"),
            "next": end if end < len(octets) else None,
        }

    def retry(self, given: IdsArguments) -> dict[str, Any]:
        """Messages that wait for their next try are due now."""
        return {"count": self._now().retry(given.ids)}

    def drop(self, given: DropArguments) -> dict[str, Any]:
        """Messages are deleted."""
        self._opened = None
        return {"count": self._now().drop(given.ids, given.failed)}

    def replay(self, given: IdsArguments) -> dict[str, Any]:
        """Messages that have failed are in the spool again."""
        self._opened = None
        return {"count": self._now().replay(given.ids)}

    def _now(self) -> Spool:
        spool = self._spool()
        if spool is None:
            raise NoSpoolError
        return spool

    def _open(self, queued_id: str, *, again: bool = True) -> _Opened:
        """The message of that id; looked up `again` by who asks what has become of it."""
        if again or self._opened is None or self._opened.id != queued_id:
            try:
                entry, record, message = self._now().show(queued_id)
            except LookupError:
                raise LookupError(f"{queued_id}: no such message in the spool") from None
            text = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
            parts = {"record": memoryview(text), "message": memoryview(message)}
            self._opened = _Opened(queued_id, entry, parts)
        return self._opened


COMMANDS: Final[dict[str, tuple[type[Arguments], Callable[[SpoolDesk, Any], dict[str, Any]]]]] = {
    "spool-list": (ListArguments, SpoolDesk.page),
    "spool-show": (ShowArguments, SpoolDesk.show),
    "spool-read": (ReadArguments, SpoolDesk.read),
    "spool-retry": (IdsArguments, SpoolDesk.retry),
    "spool-drop": (DropArguments, SpoolDesk.drop),
    "spool-replay": (IdsArguments, SpoolDesk.replay),
}
"""What is asked for by which name, and what it takes."""


def described(entry: SpoolEntry) -> dict[str, Any]:
    """A message in values of JSON, and of a bounded size."""
    return {
        "id": entry.queued_id,
        "backend": entry.backend,
        "received_at": entry.received_at,
        "size": entry.size,
        "attempts": entry.attempts,
        "next_at": entry.next_at,
        "state": entry.state,
        "error": None if entry.error is None else _cut(entry.error),
        "from": _cut(entry.mail_from),
        "to": _first(entry.rcpt_to),
        "recipients": len(entry.rcpt_to),
    }


def _first(recipients: Iterable[str]) -> list[str]:
    return [_cut(one) for one in list(recipients)[:_SHOWN_RECIPIENTS]]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else f"{text[: _SHOWN_TEXT - 1]}…"


def _total(spool: Spool, *, failed: bool) -> int:
    """About how many a list has, for who shows how far it is."""
    figures = spool.stats()
    return int(figures.get("spool_failed_files" if failed else "spool_depth", 0))
