"""What every stage of a chain is, and what a given one does."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pydantic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import Address, Check, Envelope, Transaction
    from guerrilla.reply import Outcome, Reply

TaskName = Literal["save", "validate"]
"""What a chain is for: saving mails or checking recipients."""


class Processor:
    """One stage of a chain; every worker has its own instance, so it may own a connection.

    A subclass overrides what it does: `save` or `save_batch` for mails, `validate` or
    `validate_batch` for recipients. Each may be `async def`; it then runs on the worker's own event
    loop, `save_concurrency` mails at a time, each until its time limit.
    """

    stores: ClassVar[bool] = False
    """True: when it passes an envelope on, the mail is durably saved."""
    atomic: ClassVar[bool] = False
    """True: when `save_batch` raises, nothing of the batch was saved."""

    class Options(pydantic.BaseModel):
        """The keys of `backend_config` it reads; a text below a key is what is said of it."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    def __init__(self, options: pydantic.BaseModel) -> None:
        """`options` is of this class's own `Options`, checked; nothing is opened yet."""
        self.options = options

    def misplaced(self, before: Sequence[Processor]) -> str:
        """What is wrong with a `save_process` that has these stages before it; empty when nothing.

        Said at start, as "NAME " and this text.
        """
        del before
        return ""

    def open(self) -> None:
        """Connects and checks. What it raises stops the start; it cleans up after itself then."""

    def close(self) -> None:
        """Undoes `open`; called once when `open` succeeded."""

    def save(self, envelope: Envelope) -> Outcome:
        """Takes one mail: a `Reply` (or `Replies`) answers it, None passes it on."""
        del envelope
        return None

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Takes a batch and gives as many outcomes; by default `save` of each."""
        return [self.save(envelope) for envelope in envelopes]

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Looks at a recipient when it is named: a `Reply` answers, None passes the question on."""
        del transaction, recipient
        return None

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        """Takes questions of several sessions; by default `validate` for each."""
        return [self.validate(check.transaction, check.recipient) for check in checks]

    def authenticate(self, transaction: Transaction, credentials: object) -> Reply | None:
        """Looks at what a client logs in with (RFC 4954): a `Reply` answers, None passes it on.

        It is asked only once AUTH is offered, which no version does yet; the type of `credentials`
        becomes narrower then.
        """
        del transaction, credentials
        return None


def implements(processor: Processor | type[Processor], task: TaskName) -> bool:
    """Whether it does anything for that task."""
    return _overrides(processor, task) or _overrides(processor, f"{task}_batch")


def takes_batches(processor: Processor, task: TaskName) -> bool:
    """Whether it wants the whole batch rather than one item at a time."""
    return _overrides(processor, f"{task}_batch")


def method(processor: Processor, task: TaskName) -> Callable[..., Any]:
    """The method that is called for that task."""
    name = f"{task}_batch" if takes_batches(processor, task) else task
    found: Callable[..., Any] = getattr(processor, name)
    return found


def is_async(processor: Processor) -> bool:
    """Whether it needs an event loop: any method of the contract is `async def`."""
    names = ("open", "close", "save", "save_batch", "validate", "validate_batch", "authenticate")
    return any(inspect.iscoroutinefunction(getattr(processor, name, None)) for name in names)


def _overrides(processor: Processor | type[Processor], name: str) -> bool:
    """Whether class or instance has its own; a custom backend need not derive from `Processor`."""
    own = getattr(processor, name, None)
    return own is not None and getattr(own, "__func__", own) is not getattr(Processor, name)
