"""What the tests of maildirs share: stages, and what is in the folders."""

from __future__ import annotations

import mailbox
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerrilla._core import Envelope
from guerrilla.processors.maildir import MailDir

DATA = b"Subject: hello\r\n\r\nbody\r\n"


def envelope(*recipients: str, data: bytes = DATA, **keys: Any) -> Envelope:
    """One with a delivery header, as the stage Header leaves it."""
    made = Envelope.create(
        data, mail_from="a@example.org", rcpt_to=recipients or ("alice@example.com",), **keys
    )
    made.make_delivery_header("example.com")
    return made


def stage(folder: Path, users: str = "alice=-1:-1,bob=-1:-1", **keys: Any) -> MailDir:
    """One whose maildirs are `folder/USER`; not opened."""
    options = {"maildir_path": f"{folder}/[user]", "maildir_user_map": users, **keys}
    return MailDir(MailDir.Options.model_validate(options))


def files(maildir: Path, *places: str) -> list[Path]:
    """What is in these folders of it, `new` by default; by name."""
    found = [path for place in places or ("new",) for path in (maildir / place).iterdir()]
    return sorted(found, key=lambda path: path.name)


def contents(maildir: Path) -> list[bytes]:
    """Every message of `new`, as it is."""
    return [path.read_bytes() for path in files(maildir)]


def read_back(maildir: Path) -> list[bytes]:
    """Every message that Python's `mailbox` finds, with its line ends."""
    box = mailbox.Maildir(os.fspath(maildir), create=False)
    return [box.get_bytes(key) for key in sorted(box.keys())]


def nothing_left(*maildirs: Path) -> bool:
    """Whether no message is to be seen, and no file of a failed delivery either."""
    return not any(files(maildir, "new", "tmp", "cur") for maildir in maildirs)


def replies(outcomes: Sequence[object]) -> list[str]:
    """`452 4.2.2`, or `None`."""
    return [
        "None" if one is None else f"{getattr(one, 'code', 0)} {getattr(one, 'enhanced', '')}"
        for one in outcomes
    ]
