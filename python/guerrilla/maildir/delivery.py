"""A batch on its way into maildirs: all copies of all mails are written before the first shows.

A mail of which one copy cannot be stored shows nowhere. It may have been visible for a moment when
the last steps failed, the renaming and the syncing of folders; its copies are removed again then.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guerrilla.errors import QuotaExceeded
from guerrilla.maildir.folder import Folder, base_name
from guerrilla.maildir.quota import usage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guerrilla._core import Envelope
    from guerrilla.maildir.quota import Usage
    from guerrilla.maildir.syncing import Syncer
    from guerrilla.maildir.users import Owner

__all__ = ["Box", "Mail", "store"]

_MOST_FOLDERS = 64
"""Folders that are open at a time, two files each; a mail with more recipients opens its own."""

_MOST_FILES = 128
"""Files that are written before they are synced; likewise."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where the mail of a user goes.

    Attributes:
        path: of the maildir.
        owner: whose the files become.
    """

    path: str
    owner: Owner


@dataclass(slots=True)
class _Copy:
    """The message for one recipient."""

    box: Box
    folder: Folder
    name: str
    size: int
    usage: Usage | None
    """Where room is reserved."""
    temporary: str = ""
    """Its name in `tmp`; empty when it is there no more."""
    descriptor: int | None = None
    """Of the file, until it is synced."""
    is_shown: bool = False
    """It was moved to `new` by us."""

    def let_go(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def undo(self) -> None:
        if self.temporary:
            self.folder.discard(self.temporary)
            self.temporary = ""
        if self.is_shown:
            self.folder.take_back(self.name)
            self.is_shown = False


class Mail:
    """One envelope and what becomes of it.

    Args:
        envelope: what is to be stored.
        boxes: where to, by the index of the recipient.
        may_be_read: an earlier run may have stored it, and a reader may have moved it since.
    """

    def __init__(
        self, envelope: Envelope, boxes: Mapping[int, Box], *, may_be_read: bool = False
    ) -> None:
        self.envelope = envelope
        self.boxes = boxes
        self.error: Exception | None = None
        """Why it is not stored."""
        self.is_stored = False
        self._may_be_read = may_be_read
        self._copies: list[_Copy] = []

    def write(self, folders: _Folders, quota: int) -> None:
        """Writes what is not there yet. `quota`: octets, 0 for no limit."""
        envelope = self.envelope
        data = envelope.data
        for index, box in self.boxes.items():
            head = envelope.added_headers + envelope.delivery_header_for(index)
            size = len(head) + len(data)
            base = base_name(envelope, index)
            folder = folders.get(box)
            name = f"{base},S={size}"
            if folder.has(name) or (self._may_be_read and folder.has_read(base)):
                folders.dirty.add(box)  # Who knows whether that was synced.
                continue
            usage = usage_of(box.path) if quota else None
            if usage is not None and not usage.reserve(size, quota):
                raise QuotaExceeded
            copy = _Copy(box, folder, name, size, usage)
            self._copies.append(copy)
            copy.temporary, copy.descriptor = folder.write((head, data))

    def written(self) -> list[_Copy]:
        """The copies that are to be synced."""
        return list(self._copies)

    def publish(self, folders: _Folders) -> None:
        """Shows every copy."""
        for copy in self._copies:
            folders.dirty.add(copy.box)
            copy.folder.publish(copy.temporary, copy.name)
            copy.temporary, copy.is_shown = "", True

    def end(self) -> None:
        """Undoes what is to be undone, and says how much room it took."""
        for copy in self._copies:
            copy.let_go()
            if not self.is_stored:
                copy.undo()
            if copy.usage is not None:
                copy.usage.settle(copy.size, stored=copy.is_shown)
        self._copies.clear()


class _Folders:
    """The open maildirs of a batch; each is opened at its first use."""

    def __init__(self, opened: contextlib.ExitStack) -> None:
        self.dirty: set[Box] = set()
        """Where something was, or had been, moved to `new`."""
        self._opened = opened
        self._known: dict[Box, Folder | OSError] = {}

    def get(self, box: Box) -> Folder:
        """Raises the error of the first use again."""
        found = self._known.get(box)
        if found is None:
            try:
                found = self._opened.enter_context(Folder(box.path, box.owner))
            except OSError as error:
                found = error
            self._known[box] = found
        if isinstance(found, OSError):
            raise found
        return found


def store(mails: Sequence[Mail], quota: int, syncer: Syncer) -> None:
    """Stores mails, or gives each that is not stored its `error`.

    Args:
        mails: fresh ones.
        quota: octets for each maildir, 0 for no limit.
        syncer: waits for the disk.
    """
    for group in _groups(mails):
        with contextlib.ExitStack() as opened:
            folders = _Folders(opened)
            try:
                _store(group, folders, quota, syncer)
            finally:
                for mail in group:
                    mail.end()


def _store(mails: Sequence[Mail], folders: _Folders, quota: int, syncer: Syncer) -> None:
    for mail in mails:
        with _noted(mail):
            mail.write(folders, quota)
    _sync_files([mail for mail in mails if mail.error is None], syncer)
    for mail in mails:
        if mail.error is None:
            with _noted(mail):
                mail.publish(folders)
    boxes = list(folders.dirty)
    errors = syncer.sync([folders.get(box).fileno() for box in boxes])
    for box, error in zip(boxes, errors, strict=True):
        if error is not None:
            error.filename = os.path.join(box.path, "new")
            for mail in mails:
                if box in mail.boxes.values():
                    mail.error = mail.error or error
    for mail in mails:
        mail.is_stored = mail.error is None


def _sync_files(mails: Sequence[Mail], syncer: Syncer) -> None:
    copies = [(mail, copy) for mail in mails for copy in mail.written()]
    errors = syncer.sync([copy.descriptor for _, copy in copies if copy.descriptor is not None])
    for (mail, copy), error in zip(copies, errors, strict=True):
        copy.let_go()
        if error is not None:
            error.filename = os.path.join(copy.box.path, "tmp", copy.temporary)
            mail.error = mail.error or error
    for mail in mails:
        if mail.error is not None:
            mail.end()


@contextlib.contextmanager
def _noted(mail: Mail) -> Iterator[None]:
    """An error is of this mail alone; at once it takes no more room."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a mail may be strange in any way
        mail.error = error
        mail.end()


def _groups(mails: Sequence[Mail]) -> Iterator[list[Mail]]:
    """The mails in their order, so that a group needs few folders and files at a time."""
    group: list[Mail] = []
    boxes: set[Box] = set()
    copies = 0
    for mail in mails:
        mine = set(mail.boxes.values())
        copies += len(mail.boxes)
        if group and (len(boxes | mine) > _MOST_FOLDERS or copies > _MOST_FILES):
            yield group
            group, boxes, copies = [], set(), len(mail.boxes)
        group.append(mail)
        boxes |= mine
    if group:
        yield group
