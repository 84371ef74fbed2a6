"""What takes the syncs from a store, in a daemon: tests have to find out that they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

IMPORT: Final = 'import = ["careless"]'
"""The line of `backend_config` that does it."""

_MODULE: Final = """\
import os
import stat

from guerrilla.store import database

fsync = os.fsync
opened = database._open


def unsynced_database():
    def careless(path):
        connection = opened(path)
        connection.pragma("synchronous", "OFF")
        return connection

    database._open = careless


def unsynced_files():
    os.fsync = lambda fd: fsync(fd) if stat.S_ISDIR(os.stat(fd).st_mode) else None


def unsynced_folders():
    os.fsync = lambda fd: None if stat.S_ISDIR(os.stat(fd).st_mode) else fsync(fd)
"""


def write(folder: Path, how: str) -> None:
    """Puts the module beside the config of a daemon.

    Args:
        folder: where the config is.
        how: the name of what is called in the module.
    """
    (folder / "careless.py").write_text(f"{_MODULE}\n\n{how}()\n")
