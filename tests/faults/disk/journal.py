"""What a power failure leaves of a folder, by the journal of the library (`disk.h` has its form).

A model of what POSIX promises, and no more: the data of a file is on disk once a sync of the file
has returned that began after it was written, a name once its folder was synced in that way. Of the
rest may be there what wants: no disk is asked to forget it either.
"""

from __future__ import annotations

import random
import shutil
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("=IBBHHHI3Qq")
_PAGE: Final = 4_096
"""What of a write may be there without the rest of it: a page of the cache."""


class ProblemError(AssertionError):
    """The process did what the model does not know."""


class _Record(NamedTuple):
    position: int
    kind: str
    first: str
    second: str
    parent: int
    inode: int
    other: int
    number: int
    data: memoryview


class _Write(NamedTuple):
    offset: int
    data: bytes | memoryview


class _Resize(NamedTuple):
    size: int


class _Entry(NamedTuple):
    name: str
    node: _Node | None
    """None: it is removed."""


_Change = _Write | _Resize | _Entry


@dataclass
class _Node:
    """A file or a folder: as it is on disk, and what is not there yet."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    entries: dict[str, _Node] = field(default_factory=dict)
    waiting: list[tuple[int, _Change]] = field(default_factory=list)
    """With the position of each in the journal."""
    unwritable: list[tuple[int, _Change]] = field(default_factory=list)
    """Whose sync has failed: no later sync writes it."""

    def sync(self, until: int) -> None:
        """What came before is on disk now."""
        for position, change in self.waiting:
            if position < until:
                self.apply(change)
        self._drop(until)

    def fail(self, until: int) -> None:
        """What came before is forgotten, although a reader still finds it in memory.

        But for names: a file system that cannot write its journal writes nothing any more.
        """
        lost = [one for one in self.waiting if one[0] < until and not isinstance(one[1], _Entry)]
        self.unwritable += lost
        self.waiting = [one for one in self.waiting if one not in lost]

    def apply(self, change: _Change) -> None:
        match change:
            case _Write(offset, data):
                self._grow(offset)
                self.data[offset : offset + len(data)] = data
            case _Resize(size):
                self._grow(size)
                del self.data[size:]
            case _Entry(name, None):
                self.entries.pop(name, None)
            case _Entry(name, node):
                assert node is not None
                self.entries[name] = node

    def _grow(self, size: int) -> None:
        if len(self.data) < size:
            self.data.extend(bytes(size - len(self.data)))

    def _drop(self, until: int) -> None:
        self.waiting = [one for one in self.waiting if one[0] >= until]


class Model:
    """A folder whose every change is in a journal.

    Args:
        folder: as it is before the journal begins: all of it is on disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: dict[int, _Node] = {}
        self._made: list[_Node] = []
        self._root = self._read(folder)

    def leave(self, journal: Path, chance: random.Random | None) -> None:
        """Makes of the folder what a power failure leaves of it.

        Args:
            journal: of the library, from the time on at which this was made.
            chance: what of the rest survives; None for nothing at all.

        Raises:
            ProblemError: the journal has what cannot be judged.
        """
        modes = {path.stat().st_ino: path.stat().st_mode for path in self._folder.rglob("*")}
        with journal.open("rb") as file:
            octets = memoryview(file.read())
        for record in _records(octets):
            self._replay(record)
        for inode, mode in modes.items():
            if inode in self._nodes:
                self._nodes[inode].mode = mode
        if chance is not None:
            self._survive(chance)
        for path in self._folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _write(self._root, self._folder)

    def _read(self, path: Path) -> _Node:
        found = path.stat()
        node = self._nodes[found.st_ino] = _Node(found.st_mode)
        self._made.append(node)
        if stat.S_ISDIR(found.st_mode):
            node.entries = {
                one.name: self._read(one) for one in path.iterdir() if one.is_dir() or one.is_file()
            }
        else:
            node.data = bytearray(path.read_bytes())
        return node

    def _replay(self, record: _Record) -> None:
        position, number = record.position, record.number
        match record.kind:
            case "W":
                self._wait(record.inode, position, _Write(number, record.data))
            case "T":
                self._wait(record.inode, position, _Resize(number))
            case "C":
                node = self._create(record.inode, number)
                self._wait(record.parent, position, _Entry(record.first, node))
            case "A":
                self._create(record.inode, number)
            case "L":
                self._wait(record.parent, position, _Entry(record.first, self._node(record.inode)))
            case "U":
                self._wait(record.parent, position, _Entry(record.first, None))
            case "R":
                self._wait(record.parent, position, _Entry(record.first, None))
                self._wait(record.other, position, _Entry(record.second, self._node(record.inode)))
            case "S" | "E":
                for node in [self._node(record.inode)] if record.inode else self._made:
                    (node.sync if record.kind == "S" else node.fail)(number)
            case _:
                raise ProblemError(f"{record.first} {record.second}")

    def _create(self, inode: int, mode: int) -> _Node:
        node = self._nodes[inode] = _Node(mode)
        self._made.append(node)
        return node

    def _node(self, inode: int) -> _Node:
        if inode not in self._nodes:
            raise ProblemError(f"inode {inode} came from nowhere")
        return self._nodes[inode]

    def _wait(self, inode: int, position: int, change: _Change) -> None:
        self._node(inode).waiting.append((position, change))

    def _survive(self, chance: random.Random) -> None:
        """Of data any pages; of names all up to some moment, as file systems have a journal."""
        share = chance.random()
        names = {
            position
            for node in self._made
            for position, change in node.waiting
            if isinstance(change, _Entry)
        }
        moment = chance.choice([0, *sorted(names)]) if names else 0
        for node in self._made:
            for position, change in sorted(node.unwritable + node.waiting, key=lambda one: one[0]):
                if isinstance(change, _Entry):
                    if position <= moment:
                        node.apply(change)
                elif isinstance(change, _Write):
                    for page in _pages(change):
                        if chance.random() < share:
                            node.apply(page)
                elif chance.random() < share:
                    node.apply(change)


def _pages(change: _Write) -> Iterator[_Write]:
    begin, end = change.offset, change.offset + len(change.data)
    while begin < end:
        until = min(begin // _PAGE * _PAGE + _PAGE, end)
        yield _Write(begin, change.data[begin - change.offset : until - change.offset])
        begin = until


def _records(octets: memoryview) -> Iterator[_Record]:
    position = 0
    while position + _HEAD.size <= len(octets):
        total, kind, _, first, second, _, _, parent, inode, other, number = _HEAD.unpack_from(
            octets, position
        )
        if position + total > len(octets):
            return  # The process ended within it.
        at = position + _HEAD.size
        names = bytes(octets[at : at + first + second])
        yield _Record(
            position,
            chr(kind),
            names[:first].decode(),
            names[first:].decode(),
            parent,
            inode,
            other,
            number,
            octets[at + first + second : position + total],
        )
        position += total


def _write(node: _Node, path: Path) -> None:
    """Without SQLite's indexes of logs: nobody syncs them, and who comes next makes them anew."""
    for name, child in node.entries.items():
        below = path / name
        if stat.S_ISDIR(child.mode):
            below.mkdir()
            _write(child, below)
        elif name.endswith("-shm"):
            continue
        else:
            below.write_bytes(child.data)
        below.chmod(stat.S_IMODE(child.mode))
