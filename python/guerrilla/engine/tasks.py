"""The tasks of a chain, saving mails, checking recipients and logins: what differs between them."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, TypeVar

from guerrilla import _core
from guerrilla.reply import (
    AUTHENTICATED,
    LOG_IN_LATER,
    NOT_AUTHENTICATED,
    TAKEN,
    TRY_LATER,
    Replies,
    Reply,
    fold,
    reply_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import Check, Envelope, Login, StageTimer
    from guerrilla.engine.base import TaskName

log = logging.getLogger("guerrilla.chain")
_mail_log = logging.getLogger("guerrilla.mail")

Item = TypeVar("Item", bound="Envelope | Check | Login")
"""What a chain is asked about."""


@dataclass(frozen=True, slots=True)
class Asker(Generic[Item]):
    """One stage as its segment sees it."""

    name: str
    """The name it has in the chain, for logs."""
    ask: Callable[[Any], Any]
    """One item, or a sequence of them; its outcome, or what to await for it."""
    timer: StageTimer
    """Where it counts what it was asked, how long that took and what it failed for."""
    repeatable: bool = False
    """A batch that raised can be asked again one by one: nothing of it was done."""
    stores: bool = False
    """It saves mails: a 451 of it says that what it saves them in is away."""
    discards: bool = False
    """A 2xx from here means that the mail is stored nowhere."""
    authorizes: bool = False
    """It decides whom else a client may act as."""


class Task(Protocol[Item]):
    """What differs between saving mails, checking recipients and checking logins."""

    later: ClassVar[Reply]
    """The answer to every failure of ours."""
    end: ClassVar[Reply | None]
    """The answer to what all stages have passed on; None accepts it."""

    def reply_for(self, error: BaseException) -> Reply:
        """The answer to an item that a stage raised something for."""

    def label(self, item: Item) -> str:
        """What a log line calls the item."""

    def settle(self, item: Item, outcome: object, asker: Asker[Item]) -> None:
        """Answers with the outcome of a stage, or `451 4.3.0` when that is no valid outcome."""

    def time_left(self, item: Item) -> float:
        """Seconds until the sender is answered without us."""

    def is_timed(self) -> bool:
        """Whether the log tells how long stages took: then each is to be entered and left."""

    @property
    def enter(self) -> Callable[[Item, str], None]:
        """Tells an item the name of the stage that begins with it."""

    @property
    def leave(self) -> Callable[[Item], None]:
        """Tells an item that the stage has ended, and the next one begins later."""


class _OfMails:
    """What saving mails and checking recipients have in common."""

    later: ClassVar[Reply] = TRY_LATER
    end: ClassVar[Reply | None] = None

    def reply_for(self, error: BaseException) -> Reply:
        """See `Task`."""
        return reply_for(error)


class SaveTask(_OfMails):
    """Saving mails."""

    def __init__(self, timeout: float) -> None:
        """`timeout` is `gw_save_timeout` in seconds."""
        self.timeout = timeout

    def label(self, item: Envelope) -> str:
        """The queued id."""
        return item.queued_id

    def settle(self, item: Envelope, outcome: object, asker: Asker[Envelope]) -> None:
        """Answers one envelope; see `Task`."""
        if type(outcome) is Reply:
            if asker.discards and outcome.is_success:
                log.warning("%s: %s accepted it unsaved: discarded", item.queued_id, asker.name)
            if asker.stores and outcome.code == TRY_LATER.code:
                asker.timer.defer(1)
            item.answer(outcome)
        elif isinstance(outcome, Replies) and len(outcome) == len(item.rcpt_to) > 0:
            if asker.discards and _tells_success(item, outcome):
                log.warning("%s: %s accepted it unsaved: discarded", item.queued_id, asker.name)
            if asker.stores and fold(outcome).code == TRY_LATER.code:
                asker.timer.defer(1)
            item.answer(outcome)
        elif outcome is not TAKEN:
            _nonsense(asker, outcome, item.queued_id)
            item.answer(TRY_LATER)

    def time_left(self, item: Envelope) -> float:
        """Until `timeout` after the final dot; the whole of it where no deadline answers any more.

        So it is for a mail that came from no socket, however old, and for one that is being stored
        when its sender goes. Never more than that: the time of day may be set back meanwhile.
        """
        left = item.received_at + self.timeout - time.time()
        return min(left, self.timeout) if left > 0 or item.expired else self.timeout

    def is_timed(self) -> bool:
        """Where the line of a message is made."""
        return _mail_log.isEnabledFor(logging.INFO)

    # Methods of the core, without a call of Python's around them.
    enter: ClassVar = staticmethod(_core.Envelope.enter)
    leave: ClassVar = staticmethod(_core.Envelope.leave)


class SpooledTask(SaveTask):
    """Working on mails that were answered before, and come from the spool.

    What a stage answers decides what becomes of the mail: 2xx is the end of it, 4xx is tried again,
    5xx sets it aside.
    """

    def time_left(self, item: Envelope) -> float:
        """The whole of it: nobody waits, however old it is."""
        del item
        return self.timeout

    def is_timed(self) -> bool:
        """The line of a message was made when it was answered."""
        return False


class CheckTask(_OfMails):
    """Checking recipients."""

    def __init__(self, timeout: float) -> None:
        """`timeout` is `gw_val_rcpt_timeout` in seconds."""
        self.timeout = timeout

    def label(self, item: Check) -> str:
        """The recipient and the client who names it."""
        recipient = item.recipient
        return f"recipient {recipient.user}@{recipient.host} of client {item.transaction.client_id}"

    def settle(self, item: Check, outcome: object, asker: Asker[Check]) -> None:
        """Answers one check; see `Task`."""
        if type(outcome) is Reply:
            item.answer(outcome)
        else:
            _nonsense(asker, outcome, self.label(item))
            item.answer(TRY_LATER)

    def time_left(self, item: Check) -> float:
        """The whole time limit: a check does not say when it was asked."""
        del item
        return self.timeout

    def is_timed(self) -> bool:
        """A check has no line of its own."""
        return False

    def enter(self, item: Check, stage: str) -> None:
        """Never called."""

    def leave(self, item: Check) -> None:
        """Never called."""


class LoginTask:
    """Checking who a client is."""

    later: ClassVar[Reply] = LOG_IN_LATER
    end: ClassVar[Reply | None] = NOT_AUTHENTICATED

    def __init__(self, timeout: float) -> None:
        """`timeout` is `gw_auth_timeout` in seconds."""
        self.timeout = timeout

    def reply_for(self, error: BaseException) -> Reply:
        """One for all: the reply of an error about mails would say who is known here."""
        del error
        return LOG_IN_LATER

    def label(self, item: Login) -> str:
        """The client. Not the name it gave, which may be a password in the wrong field."""
        return login_label(item)

    def settle(self, item: Login, outcome: object, asker: Asker[Login]) -> None:
        """Answers one login; see `Task`."""
        if type(outcome) is not Reply:
            _nonsense(asker, outcome, self.label(item), LOG_IN_LATER)
            item.answer(LOG_IN_LATER)
        elif not outcome.is_success:
            item.answer(outcome)
        elif asker.authorizes or _acts_as_itself(item):
            item.answer(AUTHENTICATED)
        else:
            log.info("%s: refused, it wants to act as another: answered 535", self.label(item))
            item.answer(NOT_AUTHENTICATED)

    def time_left(self, item: Login) -> float:
        """The whole time limit, as for a check."""
        del item
        return self.timeout

    def is_timed(self) -> bool:
        """A login has no line of its own."""
        return False

    def enter(self, item: Login, stage: str) -> None:
        """Never called."""

    def leave(self, item: Login) -> None:
        """Never called."""


LATER: Final[dict[TaskName, Reply]] = {
    "save": SaveTask.later,
    "spooled": SpooledTask.later,
    "validate": CheckTask.later,
    "authenticate": LoginTask.later,
}
"""The answer to every failure of ours, by task."""


def _tells_success(item: Envelope, replies: Replies) -> bool:
    """Whether anybody hears 2xx: by LMTP each recipient has a reply of its own."""
    if item.protocol == "LMTP":
        return any(reply.is_success for reply in replies)
    return fold(replies).is_success


def harmless(items: Sequence[Any], error: BaseException) -> BaseException | None:
    """An error of a stage as it may be logged.

    None where what it says, or what its causes say, has the password of a login in it: libraries
    word their errors as they like.
    """
    logins = [item.credentials for item in items if hasattr(item, "credentials")]
    secrets = {login.password for login in logins} - {""}
    text = "".join(traceback.format_exception(error)) if secrets else ""
    found = any(secret in text or repr(secret)[1:-1] in text for secret in secrets)
    return None if found else error


def login_label(login: Login) -> str:
    """What a log line calls a login."""
    return f"{login.credentials.mechanism} login of client {login.transaction.client_id}"


def label_of(item: Any) -> str:
    """What a log line calls an item of any task."""
    if hasattr(item, "credentials"):
        return login_label(item)
    return getattr(item, "queued_id", None) or f"recipient {item.recipient}"


def _acts_as_itself(login: Login) -> bool:
    """Whether it names nobody else to act as (RFC 4616 section 2)."""
    credentials = login.credentials
    return credentials.authorization_identity in ("", credentials.username)


def _nonsense(asker: Asker[Any], outcome: object, label: str, answered: Reply = TRY_LATER) -> None:
    asker.timer.fail(1)
    what = type(outcome).__name__
    if isinstance(outcome, Replies):
        what = f"{len(outcome)} replies for another number of recipients"
    log.error("%s: %s gave no outcome but %s: answered %d", label, asker.name, what, answered.code)
