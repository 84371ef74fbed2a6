"""A folder as a disk that fails at a word, and forgets what was not synced.

The library in C beside this is loaded into the process that writes there: `disk.c` says how.
"""

from __future__ import annotations

import enum
import errno
import mmap
import os
import random
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.faults.disk.journal import Model
from tests.wire import until

_SOURCES: Final = Path(__file__).parent
_ORDERS: Final = struct.Struct("=8I100s")
"""`struct orders` of disk.h."""
_COUNTS: Final = struct.Struct("=II")
_COUNTS_AT: Final = 24


class Fault(enum.IntFlag):
    """What fails, as in disk.h."""

    OPENING = 1
    """Opening a file to write, or making one."""
    NAMING = 2
    """Making folders and links, renaming, removing."""
    WRITING = 4
    """Writing, cutting off and reserving."""
    SYNCING = 8
    """`fsync` and `fdatasync`."""


FULL: Final = Fault.OPENING | Fault.WRITING
"""What a full disk does not do; it removes and renames."""
READ_ONLY: Final = Fault.OPENING | Fault.NAMING | Fault.WRITING
"""What a file system that is read-only does not do."""


def build(folder: Path) -> Path:
    """Compiles the library; its path."""
    library = folder / "disk.so"
    sources = sorted(_SOURCES.glob("*.c"))
    assert sources
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, *sources],
        check=True,
        timeout=60,
    )
    return library


class Disk:
    """One such folder.

    Args:
        library: the compiled library.
        folder: a folder for this; the disk is `folder/disk`.
    """

    def __init__(self, library: Path, folder: Path) -> None:
        self.folder = (folder / "disk").resolve()
        self.folder.mkdir()
        self._library = library
        self._journal = folder / "journal"
        self._journal.touch()
        orders = folder / "orders"
        orders.write_bytes(bytes(_ORDERS.size))
        with orders.open("r+b") as file:
            self._orders = mmap.mmap(file.fileno(), _ORDERS.size)
        # Large messages are received into files without a name, which a store may take over.
        temporary = self.folder / "received"
        temporary.mkdir()
        self.environment = {
            **os.environ,
            "LD_PRELOAD": os.fspath(library),
            "FAULTS_FOLDER": os.fspath(self.folder),
            "FAULTS_JOURNAL": os.fspath(self._journal),
            "FAULTS_ORDERS": os.fspath(orders),
            "TMPDIR": os.fspath(temporary),
        }
        self._slow_ms = 0
        self._lies = False
        self._model: Model | None = None

    def fail(
        self, what: Fault, error: int, *, after: int = 0, times: int = 0, match: str = ""
    ) -> None:
        """From now on these operations fail.

        Args:
            what: which.
            error: their errno.
            after: how many of them succeed first.
            times: how many fail then; 0 for all.
            match: only those whose path has this in it.
        """
        self._order(what, error, after, times, match)

    def heal(self) -> None:
        """Nothing fails any more, and nothing is slow or lies."""
        self._slow_ms = 0
        self._lies = False
        self._order(Fault(0), 0, 0, 0, "")

    def slow(self, seconds: float) -> None:
        """From now on each sync takes that long."""
        self._slow_ms = round(seconds * 1_000)
        self._order(Fault(0), 0, 0, 0, "")

    def lie(self) -> None:
        """From now on a sync does nothing, and says that it did."""
        self._lies = True
        self._order(Fault(0), 0, 0, 0, "")

    @property
    def failed(self) -> int:
        """Operations that have failed since the last order."""
        count: int = _COUNTS.unpack_from(self._orders, _COUNTS_AT)[1]
        return count

    def wait_for_failures(self, count: int = 1) -> None:
        """Waits until so many operations have failed."""
        until(lambda: self.failed >= count)

    def wait_until_quiet(self) -> None:
        """Waits until nothing is written for a moment.

        A process that is killed within a change leaves half a record of it in the journal, or none,
        and another one that goes on there writes behind that.
        """
        before, size = -1, self._journal.stat().st_size
        while size != before:
            time.sleep(0.2)
            before, size = size, self._journal.stat().st_size

    def begin(self) -> None:
        """All that is there now is on disk. To be called before the process starts."""
        self._journal.write_bytes(b"")
        self._model = Model(self.folder)

    def cut(self, chance: random.Random | None) -> None:
        """The power fails: the folder is what is left of it, and begins anew.

        Args:
            chance: what survives of what was not synced; None for nothing at all.
        """
        assert self._model is not None, "begin() comes first"
        self._model.leave(self._journal, chance)
        (self.folder / "received").mkdir(exist_ok=True)
        self.begin()

    def close(self) -> None:
        """Lets go of the orders."""
        self._orders.close()

    def _order(self, what: Fault, error: int, after: int, times: int, match: str) -> None:
        assert not what or error in errno.errorcode
        # Not by halves: off, then everything else, then on.
        struct.pack_into("=I", self._orders, 0, 0)
        rest = (error, after, times, self._slow_ms, int(self._lies), 0, 0, match.encode())
        self._orders[4:] = _ORDERS.pack(0, *rest)[4:]
        struct.pack_into("=I", self._orders, 0, int(what))
