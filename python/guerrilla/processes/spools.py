"""The spools of all children, asked as one: each child has a folder of its own.

Of a message only the child knows that has it, so all are asked. One that is just being started
again is waited for, and where it does not come that is said: what it has is not gone. What a child
answers is looked at before it is passed on.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guerrilla.control.requests import MAX_LINE, read_arguments
from guerrilla.control.spool import (
    COMMANDS,
    MAX_ENTRIES,
    DeskError,
    ListArguments,
    NoSpoolError,
    ShowArguments,
    SpoolDesk,
)
from guerrilla.processes.channel import ChannelError, RefusedError
from guerrilla.processes.merging import merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from guerrilla._core import Spool
    from guerrilla.control.requests import Arguments
    from guerrilla.control.spool import IdsArguments, ReadArguments
    from guerrilla.processes.channel import Asked, Asking
    from guerrilla.processes.children import Child
    from guerrilla.processes.parent import Parent

    Begun = dict[Future[Any], tuple[int, Asking, Asked]]

ANSWER_LIMIT: Final = 320.0
"""Seconds for an answer: a little more than the spool gives a disk that hardly answers."""

PATIENCE: Final = 10.0
"""Seconds for a child that is being started again to serve."""

_PAUSE: Final = 0.05
_MAX_DESKS: Final = 16
"""Desks of a child: more than the control socket has clients."""

Text = Annotated[str, Field(max_length=1_000)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Said(BaseModel):
    """What a child says: a subclass has its fields, and nothing else is passed on."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


class Entry(_Said):
    """A message, as `guerrilla.control.spool.described` has it."""

    id: Text
    backend: Text
    received_at: float
    size: Count
    attempts: Count
    next_at: float | None
    state: Text
    error: Text | None
    sender: Text = Field(alias="from")
    to: Annotated[list[Text], Field(max_length=10)]
    recipients: Count


class Page(_Said):
    """Of `spool-list`."""

    entries: Annotated[list[Entry], Field(max_length=MAX_ENTRIES)]
    next: Count | None


class Shown(_Said):
    """Of `spool-show`."""

    entry: Entry
    record_size: Count
    message_size: Count


class Chunk(_Said):
    """Of `spool-read`."""

    data: Annotated[str, Field(max_length=MAX_LINE, pattern="^[0-9A-Za-z+/]*={0,2}$")]
    next: Count | None


class Done(_Said):
    """Of what is done to messages."""

    count: Count


_ANSWERS: Final[dict[str, type[_Said]]] = {
    "spool-list": Page,
    "spool-show": Shown,
    "spool-read": Chunk,
    "spool-retry": Done,
    "spool-drop": Done,
    "spool-replay": Done,
}


class FamilyDesk:
    """Answers for one client of the control socket, as `SpoolDesk` does of one spool.

    Args:
        parent: whose children are asked.
        number: of the client; no other one has it.
    """

    def __init__(self, parent: Parent, number: int) -> None:
        """Asks nobody."""
        self._parent = parent
        self._children: Sequence[Child] = parent.children
        self._number = number
        self._totals: dict[bool, int] = {}
        self._holder: tuple[str, int] | None = None
        """A message that is read, and the child that has it."""
        self._commands: dict[str, Callable[[Any], dict[str, Any]]] = {
            "spool-list": self._page,
            "spool-show": self._show,
            "spool-read": self._read,
            "spool-retry": lambda given: self._act("spool-retry", given),
            "spool-drop": lambda given: self._act("spool-drop", given),
            "spool-replay": lambda given: self._act("spool-replay", given),
        }

    def answer(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """As `SpoolDesk.answer`; `next` of a list names the child too.

        Raises:
            DeskError: a child that may have what is asked for cannot be asked.
        """
        kind, _ = COMMANDS[command]
        given = read_arguments(kind, arguments)
        if self._parent.config.spool is None:
            raise NoSpoolError
        return self._commands[command](given)

    def close(self) -> None:
        """Lets the children forget what they have opened for the client."""
        for child in self._children:
            asking = child.asking
            if asking is not None:
                with suppress(ChannelError):
                    asking.begin("spool-close", {"desk": self._number}, timeout=_PAUSE)

    def _page(self, given: ListArguments) -> dict[str, Any]:
        """Messages of one child, one child after the other.

        One that cannot be asked is passed by, with an error beside what there is.
        """
        count = len(self._children)
        behind, number = divmod(given.after, count)
        errors: list[str] = []
        page = None
        try:
            page = self._of(number, "spool-list", given.model_copy(update={"after": behind}))
        except DeskError as error:
            errors += [f"{line}: its messages are not shown" for line in str(error).splitlines()]
        onward = None if page is None else page.next
        if onward is not None and (onward <= behind or onward * count + number >= 2**63):
            raise DeskError(f"process {number} does not answer as it should: its list goes back")
        if onward is not None:
            following: int | None = onward * count + number
        else:
            following = number + 1 if number + 1 < count else None
        return {
            "entries": [] if page is None else [_as_json(entry) for entry in page.entries],
            "next": following,
            "total": self._total(failed=given.failed, again=given.after == 0),
            **({"errors": errors} if errors else {}),
        }

    def _show(self, given: ShowArguments) -> dict[str, Any]:
        for number, found in self._each("spool-show", given):
            if found is not None:
                self._holder = (given.id, number)
                return _as_json(found)
        raise LookupError(f"{given.id}: no such message in the spool")

    def _read(self, given: ReadArguments) -> dict[str, Any]:
        found = self._chunk(given)
        if found is None:
            # Nobody was asked for it, or another one has it meanwhile.
            self._show(ShowArguments(id=given.id))
            found = self._chunk(given)
        if found is None:
            raise LookupError(f"{given.id}: no such message in the spool")
        if found.next is not None and found.next <= given.offset:
            raise DeskError("a process does not answer as it should: its message goes back")
        return _as_json(found)

    def _chunk(self, given: ReadArguments) -> Any:
        if self._holder is None or self._holder[0] != given.id:
            return None
        return self._of(self._holder[1], "spool-read", given)

    def _act(self, command: str, given: IdsArguments) -> dict[str, Any]:
        """Has each child do it to those of the messages that it has."""
        self._holder = None
        wanted, count = len(set(given.ids)), 0
        try:
            for _, found in self._each(command, given):
                count += 0 if found is None else min(found.count, wanted - count)
                if count >= wanted:
                    break  # Others may be asked in vain.
        except DeskError as error:
            raise DeskError(f"{error}\nit was done to {count} of {wanted} messages") from error
        return {"count": count}

    def _total(self, *, failed: bool, again: bool) -> int:
        """About how many a list has; counted at its begin."""
        if again or failed not in self._totals:
            figures = merge_stats(self._parent.ask_all("stats").values())
            name = "spool_failed_files" if failed else "spool_depth"
            self._totals[failed] = int(figures.get(name, 0))
        return self._totals[failed]

    def _of(self, number: int, command: str, given: Arguments) -> Any:
        """What one child answers; None where it has no such thing."""
        return next(found for _, found in self._each(command, given, [self._children[number]]))

    def _each(
        self, command: str, given: Arguments, children: Iterable[Child] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Asks children at the same time; the number of each and its answer, as they come.

        None is the answer of one that has no such message, or no spool.

        Raises:
            DeskError: one cannot be asked, after all others have answered.
        """
        arguments = {"desk": self._number, "command": command, "arguments": given.model_dump()}
        left = {child.number: child for child in children or self._children}
        patience = time.monotonic() + PATIENCE
        problems: list[str] = []
        while left and time.monotonic() < patience:
            for number, answer in self._round(left.values(), arguments):
                del left[number]
                try:
                    found = _checked(number, command, answer)
                except DeskError as error:
                    problems.append(str(error))
                else:
                    yield number, found
            time.sleep(_PAUSE if left else 0)
        problems += _absent(left)
        if problems:
            raise DeskError("\n".join(problems))

    def _round(
        self, children: Iterable[Child], arguments: Mapping[str, Any]
    ) -> Iterator[tuple[int, object]]:
        """Asks those that serve; what they answer, a `RefusedError` too. None of who dies then."""
        begun: Begun = {}
        limit = time.monotonic() + ANSWER_LIMIT
        for child in [*children]:
            if (asking := child.asking) is not None:
                with suppress(ChannelError):
                    asked = asking.begin("spool", arguments)
                    begun[asked.answer] = (child.number, asking, asked)
        while begun:
            done, _ = wait(begun, max(0.0, limit - time.monotonic()), FIRST_COMPLETED)
            if not done:
                return
            for future in done:
                number, asking, asked = begun.pop(future)
                try:
                    answer: object = asking.answer(asked)
                except RefusedError as error:
                    answer = error
                except ChannelError:
                    continue
                yield number, answer


class ChildDesks:
    """A child's side: a desk for each client of its parent.

    Args:
        spool: gives the spool of now, None where there is none.
    """

    def __init__(self, spool: Callable[[], Spool | None]) -> None:
        """Opens nothing."""
        self._spool = spool
        self._lock = Lock()
        self._desks: OrderedDict[int, SpoolDesk] = OrderedDict()

    def answer(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        """As `SpoolDesk.answer`, as `result`; that is None where there is no such thing here."""
        del descriptors
        desk = self._desk(arguments["desk"])
        try:
            return {"result": desk.answer(arguments["command"], arguments["arguments"])}
        except (NoSpoolError, LookupError):
            return {"result": None}

    def close(self, arguments: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """A client is gone."""
        del descriptors
        with self._lock:
            self._desks.pop(arguments["desk"], None)

    def _desk(self, number: int) -> SpoolDesk:
        with self._lock:
            desk = self._desks.setdefault(number, SpoolDesk(self._spool))
            self._desks.move_to_end(number)
            while len(self._desks) > _MAX_DESKS:
                self._desks.popitem(last=False)
            return desk


def _checked(number: int, command: str, answer: object) -> _Said | None:
    """What a child answers, looked at.

    Raises:
        DeskError: it says why not, or something that is no answer.
    """
    if isinstance(answer, RefusedError):
        raise DeskError("\n".join(f"process {number}: {line}" for line in answer.errors))
    wrong = f"process {number} does not answer {command} as it should"
    if not isinstance(answer, dict) or "result" not in answer:
        raise DeskError(wrong)
    if answer["result"] is None:
        return None
    try:
        return _ANSWERS[command].model_validate(answer["result"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step)[:60] for step in first["loc"])
        raise DeskError(f"{wrong}: {where}: {first['msg']}") from None


def _as_json(said: _Said) -> dict[str, Any]:
    return said.model_dump(by_alias=True)


def _absent(children: Mapping[int, Child]) -> list[str]:
    """Says of children why they cannot be asked, a line each."""
    return [
        f"process {number} cannot be asked now ({child.state})"
        if child.asking is None
        else f"process {number} has not answered in time"
        for number, child in sorted(children.items())
    ]
