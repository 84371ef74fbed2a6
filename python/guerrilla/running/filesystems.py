"""What a file system is: not everything that looks like a disk keeps what was synced to it."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guerrilla.config import AppConfig

_IN_MEMORY: Final = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}

_ELSEWHERE: Final = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x517B: "SMB",
    0x01021997: "9p",
    0x65735546: "FUSE",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x73757245: "Coda",
    0x0BD00BD0: "Lustre",
    0x786F4256: "vboxsf",
}
"""Those whose locks, shared memory or syncs are another machine's, or a program's."""

_ROOM: Final = 256
"""Bytes; more than any system's `struct statfs`, which begins with the type (statfs(2))."""


def spool_warnings(config: AppConfig) -> Iterator[str]:
    """Where the spool of a config does not keep what it should, a line each."""
    if config.spool is None:
        return
    kind = filesystem_type(config.spool.path)
    if kind in _IN_MEMORY:
        yield (
            f"spool.path: {config.spool.path} is in memory ({_IN_MEMORY[kind]}): a reboot loses "
            "it, with mail that was answered 250; name a folder on a disk"
        )
    elif kind in _ELSEWHERE:
        yield (
            f"spool.path: {config.spool.path} is on {_ELSEWHERE[kind]}, whose locks and syncs "
            "cannot be relied on; name a folder on a local disk"
        )


def filesystem_type(path: str) -> int | None:
    """The magic number of the file system that has a path, or would have it; None: not known."""
    path = os.path.abspath(path)
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    found = ctypes.create_string_buffer(_ROOM)
    try:
        failed = ctypes.CDLL(None).statfs(os.fsencode(path), found)
    except (AttributeError, OSError, ValueError):
        return None
    # As 32 bits: where the field is longer or signed, the numbers are still those.
    return None if failed else ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF
