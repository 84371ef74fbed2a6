"""MailDir: stores a mail as one file a recipient."""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import pydantic

from guerrilla._core import Reply
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, StartError, expected
from guerrilla.maildir import folder
from guerrilla.maildir.delivery import Box, Mail, store
from guerrilla.maildir.quota import usage_of
from guerrilla.maildir.syncing import Syncer
from guerrilla.maildir.users import KEEP, expand, folded, parse_users, place
from guerrilla.reply import TRY_LATER, reply_for
from guerrilla.units import Bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Address, Envelope, Transaction
    from guerrilla.maildir.users import Owner
    from guerrilla.reply import Outcome

__all__ = ["MailDir"]

log = logging.getLogger("guerrilla.processors.maildir")

NO_USER: Final = Reply(550, "5.1.1", "User unknown in local recipient table")
DISK_FULL: Final = Reply(452, "4.3.1", "Insufficient system storage")
OVER_QUOTA: Final = Reply(452, "4.2.2", "Quota exceeded")
NOT_THERE: Final = Reply(451, "4.3.0", "Storage not available")

_REPLIES: Final = {errno.ENOSPC: DISK_FULL, errno.EFBIG: DISK_FULL, errno.EDQUOT: OVER_QUOTA}
_MOST_PROBLEMS: Final = 5
_MOST_SYNCS: Final = 64
"""Maildirs that are synced one by one; for more, one sync of all file systems takes less time."""

_PATH: Final = "a path such as '/home/[user]/Maildir' or '~/Maildir'"


class MailDir(Processor):
    """Stores one file a recipient in that user's maildir, as `maildir(5)` says.

    A user is the local part of a recipient in lower case and NFC, whatever the host; one that
    `maildir_user_map` does not have is refused with `550 5.1.1`, when it is named where
    `validate_process` has MailDir too, else with the whole mail. No room is `452`, a folder that
    cannot be written now `451 4.3.0`; nothing of the mail is to be seen then.
    """

    stores: ClassVar[bool] = True
    atomic: ClassVar[bool] = True

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        maildir_path: Annotated[str, pydantic.Field(validate_default=True)] = ""
        """Where maildirs are, with `[user]` in place of the user, as `/home/[user]/Maildir`. `~/`
        at its start is the home of the user that the daemon runs as. A chain that names MailDir
        needs it."""
        maildir_user_map: Annotated[str, pydantic.Field(validate_default=True)] = ""
        """Who gets mail, and whose the files become: `alice=1000:1000,bob=-1:-1`, each
        `user=uid:gid`, where -1 leaves the id as it is. A chain that names MailDir needs it."""
        maildir_quota: Bytes = 0
        """How much may be in one maildir; 0 for no limit."""

        @pydantic.field_validator("maildir_path", mode="before")
        @classmethod
        def _path(cls, value: object) -> str:
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                raise expected(_PATH, value)
            if value.startswith("~") and not value.startswith("~/"):
                raise expected(_PATH, value)
            return value

        @pydantic.field_validator("maildir_user_map", mode="before")
        @classmethod
        def _map(cls, value: object) -> object:
            parse_users(value)
            return value

    def __init__(self, options: Options) -> None:
        """Opens nothing."""
        super().__init__(options)
        self._options = options
        self._boxes: dict[str, Box] = {}
        self._opened_at = 0.0
        self._syncer = Syncer()

    def open(self) -> None:
        """Makes the maildirs that are missing, tries to write each, and tidies them.

        Raises:
            ConfigError: a path that cannot be one.
            StartError: those that cannot be used.
        """
        problems = []
        path = self._expanded()
        boxes = {}
        made = []
        for user, owner in parse_users(self._options.maildir_user_map).items():
            parent, names = place(path, user)
            boxes[user] = box = Box(os.path.join(parent, *names), owner)
            try:
                if folder.make(parent, names, owner):
                    made.append((parent, names))
                removed = folder.remove_stale(box.path, owner)
            except OSError as error:
                problems.append(_problem(user, box, error))
                continue
            if removed:
                log.info("%s: %d files of failed deliveries removed from tmp", box.path, removed)
        if problems:
            raise StartError(_fewer(problems))
        _sync(made)
        self._boxes = boxes
        self._opened_at = time.time()

    def close(self) -> None:
        """Ends its threads."""
        self._syncer.close()

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Stores all copies of each envelope, or none of them."""
        mails = [self._mail(envelope) for envelope in envelopes]
        wanted = [mail for mail in mails if mail is not None]
        store(wanted, self._options.maildir_quota, self._syncer)
        return [NO_USER if mail is None else _outcome(mail) for mail in mails]

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        """Refuses a user that has no maildir, or whose maildir is full or not there."""
        box = self._boxes.get(folded(recipient.user))
        if box is None:
            return NO_USER
        quota = self._options.maildir_quota
        try:
            os.stat(os.path.join(box.path, "new"))
            if quota and not usage_of(box.path).has_room(_size_of(transaction), quota):
                return OVER_QUOTA
        except OSError as error:
            log.error("%s: %s: answered 451", box.path, error.strerror)  # noqa: TRY400
            return NOT_THERE
        return None

    def _expanded(self) -> str:
        try:
            return expand(self._options.maildir_path)
        except ValueError as error:
            raise ConfigError(f"backend_config.maildir_path: {error}") from None

    def _mail(self, envelope: Envelope) -> Mail | None:
        """None: a recipient has no maildir."""
        boxes: dict[int, Box] = {}
        known: set[Address] = set()
        for index, recipient in enumerate(envelope.rcpt_to):
            box = self._boxes.get(folded(recipient.user))
            if box is None:
                log.info(
                    "%s: not stored: %r is not in maildir_user_map",
                    envelope.queued_id,
                    recipient.user,
                )
                return None
            if recipient not in known:
                known.add(recipient)
                boxes[index] = box
        # Only a mail from before may have been stored, and even read, in an earlier life.
        return Mail(envelope, boxes, may_be_read=envelope.received_at < self._opened_at)


def _fewer(problems: list[str]) -> list[str]:
    left = len(problems) - _MOST_PROBLEMS
    more = [f"backend_config.maildir_path: {left} more like these"] if left > 0 else []
    return [*problems[:_MOST_PROBLEMS], *more]


def _sync(made: Sequence[tuple[str, list[str]]]) -> None:
    if len(made) > _MOST_SYNCS:
        os.sync()
        return
    try:
        for parent, names in made:
            folder.sync_made(parent, names)
    except OSError as error:
        raise StartError(f"backend_config.maildir_path: {error}") from error


def _outcome(mail: Mail) -> Outcome:
    if mail.is_stored:
        return None
    error = mail.error
    queued_id = mail.envelope.queued_id
    if isinstance(error, OSError):
        reply = _REPLIES.get(error.errno or 0, TRY_LATER)
        log.error("%s: not stored: %s: answered %d", queued_id, error, reply.code)
        return reply
    reply = reply_for(error or RuntimeError())
    trace = error if reply is TRY_LATER else None
    log.warning("%s: not stored: %s: answered %d", queued_id, error, reply.code, exc_info=trace)
    return reply


def _size_of(transaction: Transaction) -> int:
    """What the client says of the size (RFC 1870), or the least that a mail has."""
    said = transaction.parameters.get("SIZE") or ""
    return max(int(said), 1) if said.isascii() and said.isdigit() else 1


def _problem(user: str, box: Box, error: OSError) -> str:
    where = error.filename or box.path
    text = f"{where}: {error.strerror}"
    if error.errno == errno.EPERM and os.geteuid() != 0 and _is_given(box.owner):
        entry = f"{user}={box.owner.uid}:{box.owner.gid}"
        return (
            f"backend_config.maildir_user_map: {entry}: {text}: only root can give files to "
            f"another user; write {user}=-1:-1, or let the daemon run as root or as that user"
        )
    return f"backend_config.maildir_path: {text} (for the user {user})"


def _is_given(owner: Owner) -> bool:
    return owner.uid not in {KEEP, os.geteuid()} or owner.gid not in {
        KEEP,
        os.getegid(),
    }
