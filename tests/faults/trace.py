"""The calls that a daemon made to the system, by strace: the order of those that keep a mail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_CALLS: Final = (
    "read,recvfrom,recvmsg,write,sendto,sendmsg,writev,pwrite64,pwritev,pwritev2,"
    "fsync,fdatasync,rename,renameat,renameat2"
)
_SYNCS: Final = frozenset({"fsync", "fdatasync"})
_RENAMES: Final = frozenset({"rename", "renameat", "renameat2"})
_RECEIVES: Final = frozenset({"read", "recvfrom", "recvmsg"})
_STRINGS: Final = 8_192
"""Octets of data that are shown: more than a page of a database."""

_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_OBJECT: Final = re.compile(r"\d+<((?:->|[^<>]|<[^<>]*>)*)>")
_UNFINISHED: Final = " <unfinished ...>"
_QUEUED: Final = re.compile(r"queued as (\w+)")


def command(file: Path) -> list[str]:
    """What a daemon is run by, so that its calls come into the file; its pid stays its own."""
    return [
        *("strace", "-D", "-f", "--seccomp-bpf", "-qqq", "-yy", "-s", str(_STRINGS)),
        *("--signal=none", "-e", f"trace={_CALLS}", "-o", str(file)),
    ]


class Call(NamedTuple):
    """One call: when it began and ended, in lines of the trace."""

    begin: int
    end: int
    name: str
    objects: tuple[str, ...]
    """Its descriptors: the path of a file, the addresses of a connection."""
    text: str
    """All its arguments, and its result."""


class OrderError(AssertionError):
    """Something was answered that was not synced."""


class Trace:
    """All calls of one life.

    Args:
        text: what strace wrote.
    """

    def __init__(self, text: str) -> None:
        self.calls = sorted(_calls(text))

    def check_log(self, token: str, log: str) -> None:
        """A mail was written to a log, and that synced, before its answer: as SQLite does it.

        Raises:
            OrderError: it was not.
        """
        answer = self._answer(token)
        wrote = self._first(token, "wrote it to the log", lambda call: _writes(call, token, log))
        self._synced(token, log, after=wrote, before=answer)

    def check_row(self, token: str, log: str) -> None:
        """The row of a mail that is in a file was synced before its answer: it has the queued id.

        Raises:
            OrderError: it was not.
        """
        answer = self._answer(token)
        found = _QUEUED.search(answer.text)
        assert found is not None, answer.text
        queued = found[1]
        wrote = self._first(token, "wrote its row", lambda call: _writes(call, queued, log))
        self._synced(token, log, after=wrote, before=answer)

    def check_file(self, token: str, written: str, shown: str) -> None:
        """A mail was written, synced, renamed, and its new folder synced, before its answer.

        Args:
            token: of the mail.
            written: the folder that it is written in.
            shown: how the folder ends that it is renamed into.

        Raises:
            OrderError: it was not.
        """
        answer = self._answer(token)
        wrote = self._first(token, "wrote its file", lambda call: _writes(call, token, written))
        name = wrote.objects[0]
        # Behind its last piece: nobody else writes there.
        pieces = (call for call in self.calls if _writes(call, "", name))
        last = max(pieces, key=lambda call: call.end)
        synced = self._synced(token, name, after=last, before=answer)
        base = name.rpartition("/")[2]
        renamed = self._first(
            token, "renamed it", lambda call: call.name in _RENAMES and f'{base}"' in call.text
        )
        _expect(synced.end < renamed.begin, token, "renamed before its file was synced")
        self._synced(token, shown, after=renamed, before=answer)

    def name_of(self, token: str, folder: str) -> str:
        """Of the file of a mail, in a folder that has this in its path."""
        wrote = self._first(token, "wrote its file", lambda call: _writes(call, token, folder))
        return wrote.objects[0].rpartition("/")[2]

    def _answer(self, token: str) -> Call:
        """What told the sender 250."""
        came = self._first(
            token, "received it", lambda call: call.name in _RECEIVES and token in call.text
        )
        peer = came.objects[0]
        return self._first(
            token,
            "answered it",
            lambda call: (
                call.begin > came.end
                and call.name not in _RECEIVES
                and peer in call.objects
                and "queued as" in call.text
            ),
        )

    def _synced(self, token: str, name: str, *, after: Call, before: Call) -> Call:
        """The sync of a file that began after one call and ended before another."""
        begun = [
            call
            for call in self.calls
            if call.name in _SYNCS and call.begin > after.end and call.objects[0].endswith(name)
        ]
        _expect(bool(begun), token, f"nobody synced {name}")
        done = [call for call in begun if " = 0" in call.text]
        _expect(bool(done), token, f"{name} could not be synced")
        # Several threads may sync it at the same time: any of these syncs covers the call.
        first = min(done, key=lambda call: call.end)
        _expect(first.end < before.begin, token, f"answered before {name} was synced")
        return first

    def _first(self, token: str, what: str, wanted: Callable[[Call], bool]) -> Call:
        for call in self.calls:
            if wanted(call):
                return call
        raise OrderError(f"{token}: nobody {what}")


def _writes(call: Call, token: str, name: str) -> bool:
    return (
        call.name not in _RECEIVES | _SYNCS | _RENAMES
        and bool(call.objects)
        and name in call.objects[0]
        and token in call.text
    )


def _expect(is_so: bool, token: str, what: str) -> None:
    if not is_so:
        raise OrderError(f"{token}: {what}")


def _calls(text: str) -> Iterator[Call]:
    """A call that another one came between has two lines: the second has what it returned."""
    begun: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(text.splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, resumed, name, rest = found.groups()
        if resumed:
            begin, name, before = begun.pop(thread, (number, resumed, ""))
            rest = before + rest
        elif rest.endswith(_UNFINISHED):
            begun[thread] = (number, name, rest.removesuffix(_UNFINISHED))
            continue
        else:
            begin = number
        # Descriptors come before any data, which may hold anything.
        head = rest.partition('"')[0] if name not in _RENAMES else ""
        yield Call(begin, number, name, tuple(_OBJECT.findall(head)), rest)
