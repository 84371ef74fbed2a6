"""What goes wrong on purpose, and at which stage of a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeGuard, get_args

from guerrilla.errors import expected

if TYPE_CHECKING:
    from guerrilla._core import Core
    from guerrilla.reply import Reply

__all__ = ["Cut", "Fault", "Faults", "Where"]

CoreStage: TypeAlias = Literal["connect", "helo", "mail", "rcpt", "data"]
"""Those of which only the core knows."""

Where: TypeAlias = Literal["connect", "helo", "mail", "rcpt", "data", "message", "saved"]
"""What misbehaviour answers: the connection, HELO or EHLO, MAIL, RCPT (for each recipient), DATA,
the final dot, and the final dot of a mail that was taken all the same."""

Cut: TypeAlias = Literal["close", "reset"]
"""How a connection ends without a word: by a FIN, or by a RST."""

_OF_THE_CORE: Final = frozenset({"connect", "helo", "mail", "rcpt", "data"})


@dataclass(slots=True)
class Fault:
    """Something that goes wrong: an answer, or the end of the connection, or a delay."""

    at: Where
    left: int | None
    """How often; None: each time."""
    reply: Reply | None = None
    seconds: float = 0.0
    cut: Cut | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether the sender is not told that its mail was taken."""
        return self.reply is not None or self.cut is not None


class Faults:
    """Those that are to come. Its user guards it by a lock.

    Until there is a core, those of its stages wait for it.
    """

    def __init__(self) -> None:
        """None so far."""
        self._core: Core | None = None
        self._waiting: list[Fault] = []
        self._own: list[Fault] = []

    def begin(self, core: Core) -> None:
        """The core runs."""
        self._core = core
        for fault in self._waiting:
            self._plan(core, fault)
        self._waiting.clear()

    def end(self) -> None:
        """The core has stopped."""
        self.clear()
        self._core = None

    def add(self, fault: Fault) -> None:
        """Behind those of the same stage.

        Raises:
            ValueError: a count or a time that is none.
        """
        if fault.at not in get_args(Where):
            stages = ", ".join(get_args(Where))
            message = f"at: {expected(f'one of {stages}', fault.at)}"
            raise ValueError(message)
        if fault.left is not None and fault.left < 1:
            message = f"count: {expected('at least 1, or None', fault.left)}"
            raise ValueError(message)
        if not fault.seconds >= 0:
            message = f"seconds: {expected('a time of 0 or more', fault.seconds)}"
            raise ValueError(message)
        if not _is_of_the_core(fault.at):
            self._own.append(fault)
        elif self._core is None:
            self._waiting.append(fault)
        else:
            self._plan(self._core, fault)

    def clear(self) -> None:
        """Forgets all."""
        self._own.clear()
        self._waiting.clear()
        if self._core is not None:
            self._core.clear_faults()

    def take(self, *stages: Where) -> Fault | None:
        """The next one of the first of these stages that has any; not for those of the core."""
        for stage in stages:
            for fault in self._own:
                if fault.at != stage:
                    continue
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left == 0:
                        self._own.remove(fault)
                return fault
        return None

    def cut(self, queued_id: str, cut: Cut) -> None:
        """The sender of this mail hears nothing of what becomes of it."""
        if self._core is not None:
            self._core.plan_cut(queued_id, cut)

    def _plan(self, core: Core, fault: Fault) -> None:
        if _is_of_the_core(fault.at):
            core.plan_fault(fault.at, fault.left, fault.seconds, fault.reply, fault.cut)


def _is_of_the_core(at: Where) -> TypeGuard[CoreStage]:
    return at in _OF_THE_CORE
