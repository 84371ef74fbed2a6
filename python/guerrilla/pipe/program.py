"""A program in a process of its own, fed and watched by an event loop.

It is the first of a new process group, which is killed whole when it takes too long, and before its
process id can be anybody else's. Its input is a pipe; what it prints is read, so that it never has
to wait for us, and only the beginning is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Ended", "Program", "chunks", "run"]

CHUNK: Final = 65_536
"""Octets that a pipe takes at a time."""
OUTPUT_KEPT: Final = 4_096
"""Octets of what it prints that are kept."""
LINE_LENGTH: Final = 200
"""Characters of its first line that a log has."""
DEATH: Final = 5.0
"""Seconds to wait for a killed one to be gone; after that the kernel holds it."""

_LAST_READS: Final = 16


@dataclass(frozen=True, slots=True)
class Program:
    """How a program is run.

    Attributes:
        path: of the program, absolute.
        environment: all of it.
        folder: where it runs; None for the daemon's.
        timeout: seconds.
        uid: whose it runs as; None for the daemon's.
        gid: likewise.
        groups: the others of that user.
    """

    path: str
    environment: Mapping[str, str]
    folder: str | None
    timeout: float
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended.

    Attributes:
        status: its exit status; negative for a signal; None when it was killed by its time limit.
        line: the first line that it printed, fit for a log.
    """

    status: int | None
    line: str


async def run(
    program: Program, arguments: Sequence[bytes], data: Iterable[bytes | memoryview]
) -> Ended:
    """Runs it to its end.

    Args:
        program: how.
        arguments: but for its name.
        data: its input; what it does not read is dropped.

    Raises:
        OSError: it cannot be started.
        asyncio.CancelledError: it was killed.
    """
    running = _started(program, arguments, data)
    status: int | None = None
    try:
        async with asyncio.timeout(program.timeout):
            await asyncio.shield(running.ended)  # A cancellation is of us, not of what is awaited.
        status = running.process.wait()
    except TimeoutError:
        pass
    finally:
        await running.close()
    return Ended(status, running.line())


def chunks(parts: Iterable[bytes | memoryview], *, as_lf: bool = False) -> Iterator[memoryview]:
    """Input in pieces that a pipe takes; with `as_lf`, each CRLF is LF there."""
    held = b""
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), CHUNK):
            piece = view[start : start + CHUNK]
            if not as_lf:
                yield piece
                continue
            octets = held + piece
            # What follows it is in the next piece.
            held = b"\r" if octets.endswith(b"\r") else b""
            if octets := octets.removesuffix(b"\r").replace(b"\r\n", b"\n"):
                yield memoryview(octets)
    if held:
        yield memoryview(held)


class _Running:
    """One that runs."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: int,
        output: int,
        data: Iterator[bytes | memoryview],
    ) -> None:
        self.process = process
        self._pidfd: int | None = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the process has ended and nobody has asked for its status yet."""
        self._stdin: int | None = stdin
        self._output: int | None = output
        self._data = data
        self._left = memoryview(b"")
        self._kept = bytearray()
        self._is_killed = False
        self._loop.add_reader(self._pidfd, self._note_end)
        self._loop.add_writer(stdin, self._feed)
        self._loop.add_reader(output, self._take)

    def line(self) -> str:
        """The first line with anything in it, without what is no character."""
        text = self._kept.decode("utf-8", "replace")
        lines = ("".join(c for c in line if c.isprintable()).strip() for line in text.splitlines())
        return next(filter(None, lines), "")[:LINE_LENGTH]

    async def close(self) -> None:
        """Kills what runs, then lets go of everything. Idempotent."""
        if self.process.returncode is None:
            # Before its input ends: it must not take half a mail for a whole one.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._is_killed = True
        self._end_input()
        for _ in range(_LAST_READS):
            if self._output is None or not self._take():
                break
        self._end_output()
        if self.process.returncode is None:
            # What is not gone by then, or by a second cancellation, is reaped when it is.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEATH):
                    await asyncio.shield(self.ended)
            self.process.poll()

    def _note_end(self) -> None:
        self._end_watch()
        if self._is_killed:
            self.process.poll()
        if not self.ended.done():
            self.ended.set_result(None)

    def _feed(self) -> None:
        if self._stdin is None:
            return
        if not self._left:
            following = next(self._data, None)
            if following is None:
                self._end_input()
                return
            self._left = memoryview(following)
        try:
            self._left = self._left[os.write(self._stdin, self._left) :]
        except BlockingIOError:
            return
        except OSError:  # It has closed its input, as it may.
            self._end_input()

    def _take(self) -> bool:
        """Whether there may be more."""
        if self._output is None:
            return False
        try:
            octets = os.read(self._output, CHUNK)
        except BlockingIOError:
            return False
        if not octets:
            self._end_output()
        self._kept += octets[: OUTPUT_KEPT - len(self._kept)]
        return bool(octets)

    def _end_input(self) -> None:
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None

    def _end_output(self) -> None:
        if self._output is not None:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = None

    def _end_watch(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


def _started(
    program: Program, arguments: Sequence[bytes], data: Iterable[bytes | memoryview]
) -> _Running:
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as its:
        its_input, our_input = os.pipe()
        its.callback(os.close, its_input)
        ours.callback(os.close, our_input)
        our_output, its_output = os.pipe()
        its.callback(os.close, its_output)
        ours.callback(os.close, our_output)
        os.set_blocking(our_input, False)
        os.set_blocking(our_output, False)
        process = subprocess.Popen(  # no shell, and its arguments are a list  # noqa: S603
            [os.fsencode(program.path), *arguments],
            stdin=its_input,
            stdout=its_output,
            stderr=its_output,
            cwd=program.folder,
            env=dict(program.environment),
            user=program.uid,
            group=program.gid,
            extra_groups=program.groups,
            start_new_session=True,
        )
        try:
            running = _Running(process, our_input, our_output, iter(data))
        except OSError:  # No file is left for the watch.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        ours.pop_all()
        return running
