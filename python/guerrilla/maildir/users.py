"""Who has a maildir, whose its files are, and where it is."""

from __future__ import annotations

import os
import pwd
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from guerrilla.errors import expected

__all__ = ["KEEP", "USER_MARK", "Owner", "expand", "folded", "parse_users", "place"]

KEEP: Final = -1
"""An id that is left as it is."""

USER_MARK: Final = "[user]"
"""What stands for the user in `maildir_path`."""

_MAX_ID: Final = 2**32 - 2
"""The one above it means "unchanged" to the kernel."""

_ENTRY: Final = re.compile(r"([^=]*)=([^:=]*):([^:=]*)")
_ID: Final = re.compile(r"-1|[0-9]{1,10}")
_FORM: Final = "entries as 'alice=1000:1000' (user=uid:gid) with commas between them"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose files are.

    Attributes:
        uid: a user id, or `KEEP`.
        gid: a group id, or `KEEP`.
    """

    uid: int
    gid: int


def parse_users(text: object) -> dict[str, Owner]:
    """Reads `alice=1000:1000,bob=-1:-1`; blanks and line ends around entries are cut off.

    Returns:
        Owners by user, `folded`.

    Raises:
        ValueError: what was expected, and the entry that is not it.
    """
    if not isinstance(text, str):
        raise expected(_FORM, text)
    users: dict[str, Owner] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise expected(_FORM, entry)
        user = folded(match[1].strip())
        if user in {"", ".", ".."} or "/" in user or not user.isprintable():
            raise expected("a user that can be the name of a folder, before the =", entry)
        if user in users:
            raise expected(f"the user {user!r} once", entry)
        users[user] = Owner(_id(match[2], entry), _id(match[3], entry))
    if not users:
        raise expected(f"at least one user: {_FORM}", text)
    return users


def folded(user: str) -> str:
    """What two spellings of one user have in common: lower case, and NFC (RFC 6532 section 3.1)."""
    return unicodedata.normalize("NFC", user.lower())


def _id(text: str, entry: str) -> int:
    digits = text.strip()
    if not _ID.fullmatch(digits) or int(digits) > _MAX_ID:
        raise expected(f"ids from 0 to {_MAX_ID}, or -1 to leave one as it is", entry)
    return int(digits)


def expand(path: str) -> str:
    """An absolute path with the home of the running user in place of `~`; `[user]` stays.

    Raises:
        ValueError: the running user has no home.
    """
    if path == "~" or path.startswith("~/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            raise ValueError(
                f"~ has no meaning: the user id {os.geteuid()}, as which the daemon runs, "
                "is of no user"
            ) from None
        path = home + path[1:]
    return os.path.abspath(path)


def place(path: str, user: str) -> tuple[str, list[str]]:
    """Where the maildir of a user is.

    Args:
        path: from `expand`.
        user: a key of `parse_users`: never a text that a client sent.

    Returns:
        The folder that has to be there, and the names of those below it, which are the user's own:
        from the first that has `[user]` in it down to the maildir itself.
    """
    names = path.strip("/").split("/")
    own = next((i for i, name in enumerate(names) if USER_MARK in name), len(names) - 1)
    return "/" + "/".join(names[:own]), [name.replace(USER_MARK, user) for name in names[own:]]
