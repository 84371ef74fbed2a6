"""Lines of JSON between two processes of ours, and descriptors that come with them.

A line says by its member `descriptors` how many belong to it. They travel beside the octets
(`SCM_RIGHTS`, unix(7)) and are there before the last octet of their line is.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_LINE: Final = 2**20
"""Bytes of a line of somebody who is not believed: many times what the longest answer has."""

TIMEOUT: Final = 30.0
"""Seconds that the other side has to read what is sent to it."""

DESCRIPTORS: Final = "descriptors"
"""The member of a line that says how many come with it."""

_READ: Final = 2**16
_AT_ONCE: Final = 250
"""Descriptors of one message: Linux takes 253."""
_MAX_WAITING: Final = 40
"""Messages with descriptors whose line has not come whole: for thousands of servers."""
_INT: Final = array.array("i").itemsize


class WireError(GuerrillaError):
    """What came is no line, it took too long, or the other side is gone: it is of no use now."""


class TooLongError(WireError):
    """A line that the other side would not take; it was not sent, and others still can be."""


class DescriptorsError(WireError):
    """A line came without its descriptors: this process may have no more. Others can still come.

    Attributes:
        value: the line's members.
    """

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__(
            "descriptors that were sent cannot be taken: this process has reached its limit of "
            "them (ulimit -n, LimitNOFILE= of a unit)"
        )
        self.value = value


class Received(NamedTuple):
    """A line.

    Attributes:
        value: its members, of any kind that JSON has.
        descriptors: the receiver's, which has to close them.
    """

    value: dict[str, Any]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Closes the descriptors."""
        close_all(self.descriptors)


class _Message(NamedTuple):
    """Descriptors that came at once; not all of them where this process may have no more."""

    descriptors: array.array[int]
    is_whole: bool


class Wire:
    """One end of it. `send` may be called by several threads, `receive` by one at a time.

    Args:
        end: of a stream socket between unix processes; the wire's from now on.
        max_line: bytes of a line that comes.
        max_sent: bytes of a line that is sent.
        takes_descriptors: those that come are wanted. Where they are not, the kernel closes them.
    """

    def __init__(
        self,
        end: socket.socket,
        *,
        max_line: int = MAX_LINE,
        max_sent: int = MAX_LINE,
        takes_descriptors: bool = False,
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._max_line = max_line
        self._max_sent = max_sent
        self._takes_descriptors = takes_descriptors
        self._sending = threading.Lock()
        self._data = bytearray()
        self._searched = 0
        """Octets of the data that have no line end."""
        self._waiting: deque[_Message] = deque()
        """Those whose line has not come whole."""
        self.has_ended = False
        """Nothing can be sent any more, by either side."""

    def fileno(self) -> int:
        """Of the socket; -1 once it is closed."""
        return self._end.fileno()

    def send(
        self,
        value: Mapping[str, Any],
        descriptors: Sequence[int] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        """Sends a line; the descriptors stay the caller's.

        Raises:
            TooLongError: it is longer than the other side takes; nothing was sent.
            WireError: the other side is gone or does not read; nothing can be sent any more.
        """
        line = {**value, DESCRIPTORS: len(descriptors)} if descriptors else value
        # JSON escapes the line ends within texts; what is none of its values becomes a text.
        data = memoryview(json.dumps(line, default=str).encode("ascii") + b"\n")
        if len(data) > self._max_sent:
            raise TooLongError(f"a line would have more than {self._max_sent} bytes")
        limit = time.monotonic() + timeout
        if not self._sending.acquire(timeout=timeout):
            raise WireError(f"nothing was read for {timeout:g} s")
        try:
            for first in range(0, len(descriptors), _AT_ONCE):
                # With an octet each, of which a line has more than it can have messages.
                self._write(data[:1], descriptors[first : first + _AT_ONCE], limit)
                data = data[1:]
            while data:
                data = data[self._write(data, (), limit) :]
        except BaseException as error:
            self.end()  # Part of a line may be on its way: what follows would be behind it.
            if isinstance(error, OSError):
                raise WireError(str(error.strerror or error)) from error
            raise
        finally:
            self._sending.release()

    def receive(self, timeout: float | None = None) -> Received | None:
        """The next line; None at the end, also where that is in the middle of a line.

        Args:
            timeout: seconds for it to come whole; endless by default.

        Raises:
            DescriptorsError: it came without its descriptors; the next line can be had.
            WireError: what came is no line, or it took too long.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while (line := self._line()) is None:
            if not self._read(limit):
                return None
        return self._parsed(line)

    def end(self) -> None:
        """Ends it for both sides; who waits in `receive` has None. The socket is still open."""
        self.has_ended = True
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket, when nobody receives any more, and what came and was not asked for."""
        with self._sending:
            self._end.close()
        while self._waiting:
            close_all(self._waiting.popleft().descriptors)

    def _line(self) -> bytes | None:
        found = self._data.find(b"\n", self._searched)
        if max(found, len(self._data) if found < 0 else 0) > self._max_line:
            raise WireError(f"a line has more than {self._max_line} bytes")
        if found < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:found])
        del self._data[: found + 1]
        self._searched = 0
        return line

    def _read(self, limit: float | None) -> bool:
        """Takes what is there, or waits for it; False at the end."""
        while True:
            self._wait(select.POLLIN, limit)
            try:
                data = self._take()
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return False  # It ended without having read all.
            except OSError as error:
                raise WireError(str(error.strerror or error)) from error
            self._data += data
            return bool(data)

    def _take(self) -> bytes:
        if not self._takes_descriptors:
            return self._end.recv(_READ)
        room = socket.CMSG_SPACE(_AT_ONCE * _INT)
        data, beside, flags, _ = self._end.recvmsg(_READ, room, socket.MSG_CMSG_CLOEXEC)
        found = array.array("i")
        for level, kind, octets in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(octets[: len(octets) - len(octets) % _INT])
        is_whole = not flags & socket.MSG_CTRUNC
        if found or not is_whole:
            self._waiting.append(_Message(found, is_whole))
        if len(self._waiting) > _MAX_WAITING:
            raise WireError("more descriptors came than any line has")
        return data

    def _parsed(self, line: bytes) -> Received:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise WireError("a line is no object of JSON")
        count = value.pop(DESCRIPTORS, 0)
        # As many to a message as `send` has put there.
        messages = -(-count // _AT_ONCE) if type(count) is int else -1
        if not 0 <= messages <= len(self._waiting):
            raise WireError("a line has not the descriptors that it speaks of")
        came = [self._waiting.popleft() for _ in range(messages)]
        found = tuple(descriptor for message in came for descriptor in message.descriptors)
        if len(found) == count:
            return Received(value, found)
        close_all(found)
        if all(message.is_whole for message in came):
            raise WireError("a line has not the descriptors that it speaks of")
        raise DescriptorsError(value)

    def _write(self, data: memoryview, descriptors: Sequence[int], limit: float) -> int:
        """Sends some octets; how many."""
        beside = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            if descriptors
            else []
        )
        while True:
            self._wait(select.POLLOUT, limit)
            with suppress(BlockingIOError):
                return self._end.sendmsg([data], beside, socket.MSG_NOSIGNAL)

    def _wait(self, event: int, limit: float | None) -> None:
        if self._end.fileno() < 0:
            raise WireError("it is closed")
        poll = select.poll()
        poll.register(self._end, event)
        left = None if limit is None else max(0.0, limit - time.monotonic())
        if not poll.poll(None if left is None else left * 1000):
            raise WireError("the other side took too long")


def close_all(descriptors: Iterable[int]) -> None:
    """Closes them; what is none is left."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
