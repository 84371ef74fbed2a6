"""A TCP proxy that does to connections what networks do: slow, in pieces, stalled, reset.

It stands before a server of this machine: before the daemon for its senders, before a database for
the daemon. What it does can be changed at any time, from any thread; connections that are open
have it from their next octets on. Only cuts know what passes: an SMTP client without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, Self, TypeVar

Direction = Literal["up", "down"]
"""To the server, or back from it."""
Cut = Literal["within", "dot", "reply"]
"""Where a connection is reset: in the middle of a message; after its final dot, whatever the server
has done of it by then; when the server has answered it, so that the answer is lost for certain."""

_CHUNK: Final = 65_536
_LONGEST_DOT: Final = 0.03
"""Seconds after a final dot until a reset, at most: about what a save takes."""
_PATIENCE: Final = 20.0

_Result = TypeVar("_Result")


class Proxy:
    """Listens on a port of 127.0.0.1; a context manager.

    Args:
        port: of the server behind it.
        cut: asked with each message that a client begins; None lets it pass.
    """

    def __init__(self, port: int, cut: Callable[[], Cut | None] = lambda: None) -> None:
        self.target = port
        self.cut = cut
        self.delay = 0.0
        """Seconds that octets are on their way, in each direction."""
        self.single = False
        """Each octet is sent in a segment of its own."""
        self.connections = 0
        """That were made."""
        self.cuts = 0
        """That were reset in or behind a message."""
        self.late = 0
        """Pieces that have been on their way for `delay`."""
        self.held = 0
        """Pieces that are held back now."""
        self.port = 0
        self._links: set[_Link] = set()
        self._gates: dict[Direction, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def stall(self, *directions: Direction) -> None:
        """Holds back what goes there, until `go_on`."""
        for direction in directions:
            self._loop.call_soon_threadsafe(self._gates[direction].clear)

    def go_on(self) -> None:
        """Ends `stall`: everything that was held back arrives."""
        for gate in self._gates.values():
            self._loop.call_soon_threadsafe(gate.set)

    def drop(self, *, reset: bool = True) -> int:
        """Ends every connection, with what is on its way; how many there were.

        Args:
            reset: by a reset on both sides, as where a machine is gone; else by a FIN.
        """
        return self._call(self._drop(reset=reset))

    def _call(self, what: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_PATIENCE)

    async def _listen(self) -> int:
        for direction in ("up", "down"):
            self._gates[direction] = asyncio.Event()
            self._gates[direction].set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self._server = server
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        self._server.close()
        await self._drop(reset=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _drop(self, *, reset: bool) -> int:
        links = list(self._links)
        for link in links:
            link.end(reset=reset)
        return len(links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # Cancelled at the end; the callback of asyncio's server would complain of that.
        with contextlib.suppress(asyncio.CancelledError):
            try:
                far = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                _end(writer, reset=True)
                return
            link = _Link(self, (reader, writer), far)
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection, and the one behind it."""

    def __init__(self, proxy: Proxy, near: _Side, far: _Side) -> None:
        self.proxy = proxy
        self.near, self.far = near, far
        self.messages = _Messages(proxy)
        for _, writer in (near, far):
            _socket_of(writer).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Until one side is gone, or both have nothing more to say."""
        tasks = [
            asyncio.ensure_future(one)
            for direction in ("up", "down")
            for one in self._pump(direction)
        ]
        try:
            await asyncio.gather(*tasks)
            self.end(reset=False)
        except (OSError, _Reset):
            self.end(reset=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def end(self, *, reset: bool) -> None:
        """Both sides hear of it at once."""
        for _, writer in (self.near, self.far):
            _end(writer, reset=reset)

    def _pump(self, direction: Direction) -> list[Coroutine[Any, Any, None]]:
        """What reads and what writes: octets that wait for their time do not stop the reading."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        (reader, _), (_, writer) = (
            (self.near, self.far) if direction == "up" else (self.far, self.near)
        )
        return [self._read(reader, way), self._write(writer, way, direction)]

    async def _read(
        self, reader: asyncio.StreamReader, way: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        octets = b"more"
        while octets:
            octets = await reader.read(_CHUNK)
            await way.put((asyncio.get_running_loop().time() + self.proxy.delay, octets))

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        way: asyncio.Queue[tuple[float, bytes]],
        direction: Direction,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, octets = await way.get()
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
                self.proxy.late += 1
            await self._pass(direction)
            if not octets:
                writer.write_eof()
                return
            if direction == "up":
                await self._send(writer, self.messages.allowed(octets))
                await self.messages.sent()
            elif not self.messages.swallow():
                await self._send(writer, octets)

    async def _pass(self, direction: Direction) -> None:
        self.proxy.held += 1
        try:
            await self.proxy._gates[direction].wait()
        finally:
            self.proxy.held -= 1

    async def _send(self, writer: asyncio.StreamWriter, octets: bytes) -> None:
        if not self.proxy.single:
            writer.write(octets)
            await writer.drain()
            return
        for code in octets:
            writer.write(bytes((code,)))
            await writer.drain()
            await asyncio.sleep(0)  # The others' octets go between.


class _Messages:
    """Where a client stands in its messages, and whether it is cut there."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._tail = b""
        self._in_message = False
        self._cut: Cut | None = None
        self._over = False
        """What is to be sent before the reset has been."""
        self._answered = asyncio.Event()

    def allowed(self, octets: bytes) -> bytes:
        """As much of what the client sends as the server shall see."""
        if not self._in_message:
            self._see(octets)
            if self._tail.upper().endswith(b"\nDATA\r\n"):
                self._in_message = True
                self._cut = self._proxy.cut()
            return octets
        self._see(octets)
        ends = self._tail.endswith(b"\r\n.\r\n")
        self._in_message = not ends
        if self._cut == "within":
            self._over = True
            return octets[: random.randrange(1, max(2, len(octets) - 1))]
        self._over = ends and self._cut is not None
        return octets

    async def sent(self) -> None:
        """What was allowed is on its way.

        Raises:
            _Reset: the connection ends here.
        """
        if not self._over:
            return
        if self._cut == "reply":
            await self._answered.wait()
        else:
            await asyncio.sleep(random.uniform(0, _LONGEST_DOT))
        self._proxy.cuts += 1
        raise _Reset

    def swallow(self) -> bool:
        """Whether what the server says now is not to be heard."""
        if self._over:
            self._answered.set()
        return self._over

    def _see(self, octets: bytes) -> None:
        self._tail = (self._tail + octets[-8:])[-8:]


class _Reset(Exception):
    """The connection is to be reset."""


def _socket_of(writer: asyncio.StreamWriter) -> Any:
    return writer.get_extra_info("socket")


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            linger = struct.pack("ii", 1, 0)
            _socket_of(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.close()
