"""A backend of one's own, in place of the chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from guerrilla.engine.base import Processor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import Check, Envelope, Login
    from guerrilla.reply import Outcome, Reply

__all__ = ["Backend", "BackendFactory", "BackendStage", "backend_name", "backend_stage"]


class Backend(Protocol):
    """What saves mails and checks recipients; every worker has its own.

    Errors are dealt with as those of a `Processor` that stores and is not atomic. Two attributes
    may say otherwise: `stores = False` of the backend, where it claims envelopes itself, later;
    and `checks_recipients = False` of its factory, where it has nothing to say to recipients.

    It checks who a client is where its factory has `authenticates = True`, or is a class that has
    `authenticate_batch(logins)`: one outcome a login, as `Processor.authenticate` gives it. Whom
    else a client may act as is for it to decide then, by `credentials.authorization_identity`.
    """

    def open(self) -> None:
        """Connects and checks; an error stops the start."""

    def close(self) -> None:
        """Undoes `open`."""

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Saves; one outcome a mail, None when it is durably saved."""

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        """Looks at recipients; one outcome a check, None when it is accepted."""


BackendFactory: TypeAlias = "Callable[[], Backend]"
"""Makes a backend; called once for each worker, in its thread."""


class BackendStage(Processor):
    """The only stage of a chain: hands everything to a backend."""

    stores = True
    authorizes = True

    def __init__(self, backend: Backend) -> None:
        """Opens nothing."""
        super().__init__(self.Options())
        self._backend = backend

    def open(self) -> None:
        """Opens the backend."""
        self._backend.open()

    def close(self) -> None:
        """Closes the backend."""
        self._backend.close()

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """See `Backend`."""
        return self._backend.save_batch(envelopes)

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        """See `Backend`."""
        return self._backend.validate_batch(checks)

    def authenticate_batch(self, logins: Sequence[Login]) -> Sequence[Reply | None]:
        """See `Backend`; asked only where its factory says that it has this method."""
        ask: Callable[[Sequence[Login]], Sequence[Reply | None]]
        ask = self._backend.authenticate_batch  # type: ignore[attr-defined]
        return ask(logins)


class _HandingOn(BackendStage):
    """The stage of a backend that does not store yet when it is asked."""

    stores = False


def backend_stage(backend: Backend) -> BackendStage:
    """The stage that hands everything to `backend`."""
    return BackendStage(backend) if getattr(backend, "stores", True) else _HandingOn(backend)


def backend_name(backend: BackendFactory) -> str:
    """What a person calls it by: the name of its class or function."""
    return str(getattr(backend, "__name__", type(backend).__name__))
