"""What every stage of a chain is, and what a given one does."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import pydantic

from guerrilla.config.masking import mask_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guerrilla._core import Address, Check, Credentials, Envelope, Login, Transaction
    from guerrilla.reply import Outcome, Reply

TaskName = Literal["save", "spooled", "validate", "authenticate"]
"""What a chain is for: saving mails, working on those that were spooled and answered, checking
recipients or checking who a client is."""

PROCESS: Final[dict[TaskName, str]] = {
    "save": "save_process",
    "spooled": "save_process",
    "validate": "validate_process",
    "authenticate": "auth_process",
}
"""The key of the chain for each task."""

OF_MAILS: Final = frozenset({"save", "spooled"})
"""The tasks that are about whole mails."""

_METHODS: Final[dict[TaskName, str]] = {
    "save": "save",
    "spooled": "save",
    "validate": "validate",
    "authenticate": "authenticate",
}
"""What a stage is asked for each task."""


class Processor:
    """One stage of a chain; every worker has its own instance, so it may own a connection.

    A subclass overrides what it does: `save` or `save_batch` for mails, `validate` or
    `validate_batch` for recipients, `authenticate` or `authenticate_batch` for clients that log in.
    Each may be `async def`; it then runs on the worker's own event loop, `save_concurrency` mails
    at a time, each until its time limit.
    """

    stores: ClassVar[bool] = False
    """True: when it passes an envelope on, the mail is durably saved."""
    atomic: ClassVar[bool] = False
    """True: when `save_batch` raises, nothing of the batch was saved."""
    authorizes: ClassVar[bool] = False
    """True: it decides about `credentials.authorization_identity` too. Otherwise a client that it
    accepts may act as nobody but `credentials.username`."""

    class Options(pydantic.BaseModel):
        """The keys of `backend_config` it reads; a text below a key is what is said of it.

        Neither `repr` nor an error shows what is a secret by its key or its form, as a password in
        a URL.
        """

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

        def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
            """The fields for `repr` and `str`, secrets masked."""
            for name, value in super().__repr_args__():
                yield name, mask_value(name or "", value)

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
        """Connects and checks. What it raises stops the start; it cleans up after itself then.

        Right of `250` an `OSError`, an `Unavailable` or a `StartError` says that something is away:
        the daemon starts, and opens it again later, as another instance.
        """

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

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply | None:
        """Looks at what a client logs in with (RFC 4954).

        `guerrilla.AUTHENTICATED`, or any 2xx, accepts; a 4xx or 5xx refuses; None passes it on. Who
        is passed on by all stages is refused: `535 5.7.8`. What it raises is answered `454 4.7.0`.
        """
        del transaction, credentials
        return None

    def authenticate_batch(self, logins: Sequence[Login]) -> Sequence[Reply | None]:
        """Takes those of several sessions; by default `authenticate` for each."""
        return [self.authenticate(login.transaction, login.credentials) for login in logins]


def implements(processor: Processor | type[Processor], task: TaskName) -> bool:
    """Whether it does anything for that task."""
    name = _METHODS[task]
    return _overrides(processor, name) or _overrides(processor, f"{name}_batch")


def takes_batches(processor: Processor, task: TaskName) -> bool:
    """Whether it wants the whole batch rather than one item at a time."""
    return _overrides(processor, f"{_METHODS[task]}_batch")


def method(processor: Processor, task: TaskName) -> Callable[..., Any]:
    """The method that is called for that task."""
    name = _METHODS[task] + ("_batch" if takes_batches(processor, task) else "")
    found: Callable[..., Any] = getattr(processor, name)
    return found


def is_async(processor: Processor) -> bool:
    """Whether it needs an event loop: any method of the contract is `async def`."""
    tasks = [name for plain in _METHODS.values() for name in (plain, f"{plain}_batch")]
    return any(
        inspect.iscoroutinefunction(getattr(processor, name, None))
        for name in ("open", "close", *tasks)
    )


def _overrides(processor: Processor | type[Processor], name: str) -> bool:
    """Whether class or instance has its own; a custom backend need not derive from `Processor`."""
    own = getattr(processor, name, None)
    return own is not None and getattr(own, "__func__", own) is not getattr(Processor, name)
