"""Says in a file how much of the heap of its process is in use: `import` of a daemon under test.

What a process has in memory tells of a leak too late: glibc keeps what is freed, in pieces that the
next message may not fit into. Copied beside the config of the daemon, `FILE` then is there, too.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
import threading
import time
from typing import Final

FILE: Final = "heap"
EVERY: Final = 0.5
"""Seconds."""

_TOTALS: Final = re.compile(
    r'.*</heap>.*type="fast" count="\d+" size="(\d+)".*type="rest" count="\d+" size="(\d+)"'
    r'.*type="mmap" count="\d+" size="(\d+)".*system type="current" size="(\d+)"',
    re.DOTALL,
)


def in_use() -> int:
    """Octets that were allocated and not freed, of all threads."""
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    with tempfile.TemporaryFile() as file:
        stream = ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        file.seek(0)
        found = _TOTALS.match(file.read().decode())
    assert found, "not what glibc says"
    fast, rest, mapped, system = map(int, found.groups())
    return system - fast - rest + mapped


def _tell(folder: str) -> None:
    path = os.path.join(folder, FILE)
    while True:
        with open(f"{path}.part", "w", encoding="ascii") as file:
            file.write(str(in_use()))
        os.replace(f"{path}.part", path)
        time.sleep(EVERY)


def _begin() -> None:
    folder = os.path.dirname(__file__)
    threading.Thread(target=_tell, args=(folder,), name="heap", daemon=True).start()


if __name__ == "heap":  # as a daemon imports it
    _begin()
