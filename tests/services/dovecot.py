"""Dovecot's view of a maildir: what its `doveadm` finds there, with a config of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.base import program

NOBODY = 65534
"""Whose maildirs are where tests run as root: Dovecot opens none of root's."""

MEMORY = "/dev/shm"
"""A file system in memory, which Linux has for everybody; in a container it may be tiny."""
_ROOM = 256 << 20
"""Octets: more than all mails of a ledger."""


def reader_id() -> int:
    """The id to give maildirs to, so that Dovecot can read them; -1 for that of the tests."""
    return NOBODY if os.geteuid() == 0 else -1


@contextmanager
def shared_folder(*, in_memory: bool = False) -> Iterator[Path]:
    """A folder that another user can enter, which he cannot of those that pytest makes.

    Args:
        in_memory: where that can be, so that thousands of syncs wait for no disk.
    """
    place = MEMORY if in_memory and _has_room(MEMORY) else None
    folder = Path(tempfile.mkdtemp(prefix="guerrilla-mail-", dir=place))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def fetch(maildir: Path, fields: str = "text size.physical mailbox") -> list[dict[str, str]]:
    """Every message of the inbox, read as its owner would.

    Returns:
        The `fields` of each, as `doveadm-fetch(1)` names them; `text` has CRLF.
    """
    with shared_folder() as home:
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        config = home / "dovecot.conf"
        config.write_text(
            f"base_dir = {home}/run\n"
            f"mail_location = maildir:{maildir}:INDEX=MEMORY:CONTROL={home}/control\n"
            "first_valid_uid = 1\nfirst_valid_gid = 0\nssl = no\nlog_path = /dev/stderr\n",
            encoding="utf-8",
        )
        who = NOBODY if os.geteuid() == 0 else None
        done = subprocess.run(
            [
                *(program("doveadm"), "-c", os.fspath(config), "-f", "json"),
                *("fetch", fields, "all"),
            ],
            env={"HOME": os.fspath(home), "USER": "alice", "PATH": "/usr/bin:/bin"},
            cwd=home,
            user=who,
            group=who,
            extra_groups=[] if who is not None else None,
            capture_output=True,
            check=False,
            timeout=30,
        )
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def _has_room(place: str) -> bool:
    return os.access(place, os.W_OK) and shutil.disk_usage(place).free > _ROOM
