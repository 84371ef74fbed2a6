"""A connection to a FastCGI server, kept open from one request to the next."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from guerrilla.fcgi.records import Answer, AnswerReader, ProtocolError, request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Connection", "LostError", "Place"]

Place: TypeAlias = str | tuple[str, int]
"""The path of a unix socket, or host and port."""

SHOWN: Final = 200
"""Octets of an answer that an error repeats."""

_READ: Final = 1 << 16


class LostError(Exception):
    """The server closed the connection before it had answered.

    Attributes:
        untouched: nothing of the request was taken, so that no script has run for it.
        unanswered: there was no word of an answer, so that a script may have run or not.
    """

    def __init__(self, text: str, *, untouched: bool = False, unanswered: bool = False) -> None:
        super().__init__(text)
        self.untouched = untouched
        self.unanswered = unanswered


class Connection:
    """One connection, for one thread.

    Args:
        place: where the server listens.
        timeout: seconds that connecting may take.

    Raises:
        OSError: it cannot be reached.
    """

    def __init__(self, place: Place, timeout: float) -> None:
        if isinstance(place, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.settimeout(timeout)
                self._socket.connect(place)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(place, timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._is_clean = True
        self.is_used = False
        """Whether an answer has come by it: only then is its end a usual thing."""

    def close(self) -> None:
        """Closes it. Idempotent."""
        self._socket.close()

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent: the last one is over, and the server has not closed.

        A server closes a connection after a time, after a number of requests, or when it ends. Then
        there is something to read where nothing is asked for.
        """
        return self._is_clean and not self._poll.poll(0)

    def ask(self, params: Mapping[str, str], content: bytes, timeout: float) -> Answer:
        """Sends a request and reads its answer.

        Args:
            params: as for `records.request`.
            content: likewise.
            timeout: seconds for all of it.

        Raises:
            LostError: the server closed the connection first.
            ProtocolError: it does not speak FastCGI, or refused.
            TimeoutError: the time is over.
            OSError: anything else that happens to a socket.
        """
        self._is_clean = False
        exchange = _Exchange(self._socket, request(params, content), time.monotonic() + timeout)
        answer = exchange.run()
        self._is_clean = exchange.is_over
        self.is_used = True
        return answer


class _Exchange:
    """One request and its answer.

    Both directions at once: a server may speak before it has heard all, and one that is not
    listened to may stop listening.
    """

    def __init__(self, connection: socket.socket, blocks: Iterator[bytes], deadline: float) -> None:
        self._socket = connection
        self._blocks = blocks
        self._deadline = deadline
        self._reader = AnswerReader()
        self._unsent: memoryview | None = memoryview(next(blocks))
        self._sent = 0

    @property
    def is_over(self) -> bool:
        """Whether all was sent, and nothing came behind the answer."""
        return self._unsent is None and not self._reader.has_more

    def run(self) -> Answer:
        """See `Connection.ask`."""
        while True:
            if self._unsent is not None:
                self._send(self._unsent)
            self._wait()
            if (answer := self._read()) is not None:
                if self._unsent is not None:
                    said = (answer.output or answer.errors)[:SHOWN]
                    raise LostError(f"it answered before it had heard all: {said!r}")
                return answer

    def _send(self, block: memoryview) -> None:
        """Sends what there is room for; then it is looked whether the server has spoken."""
        try:
            count = self._socket.send(block)
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._lost(error) from error
        self._sent += count
        if count < len(block):
            self._unsent = block[count:]
            return
        following = next(self._blocks, None)
        self._unsent = None if following is None else memoryview(following)

    def _lost(self, error: OSError) -> LostError:
        """It takes no more. It may have said why before that."""
        with contextlib.suppress(OSError, LostError, ProtocolError):
            while (answer := self._read()) is None and self._is_ready(select.POLLIN, 0):
                pass
            if answer is not None:
                said = (answer.output or answer.errors)[:SHOWN]
                return LostError(f"it closed the connection before it had heard all: {said!r}")
        started = self._reader.started
        text = f"it closed the connection: {error}"
        return LostError(text, untouched=self._sent == 0, unanswered=not started)

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        events = select.POLLIN if self._unsent is None else select.POLLIN | select.POLLOUT
        if left <= 0 or not self._is_ready(events, left):
            raise TimeoutError("no answer in time")

    def _is_ready(self, events: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        return bool(poll.poll(seconds * 1000))

    def _read(self) -> Answer | None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            data, how = b"", str(error)
        else:
            how = "end of file"
        if data:
            return self._reader.feed(data)
        if self._reader.started:
            raise LostError(f"it closed the connection in the middle of its answer: {how}")
        raise LostError(f"it closed the connection without an answer: {how}", unanswered=True)
