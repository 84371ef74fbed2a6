"""Envelopes as an async iterator, for those who want no chain.

`Stream` is a backend: workers put what they receive into its queue, and do not wait for the
answers. A consumer takes envelopes on an event loop of its own and answers each, whenever it is
done with it:

    async with Daemon(config, backend=Stream()) as daemon:
        async for envelope in daemon.envelopes():
            envelope.answer(Reply.ok())

Whoever does not answer loses no mail: at its time limit (`gw_save_timeout`, and once more from when
a consumer has it), when it is dropped, and when the daemon stops, an envelope is answered `451
4.3.0`, so that the sender tries again.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

from guerrilla import _core
from guerrilla.reply import TAKEN, TRY_LATER, Outcome, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from types import TracebackType

    from guerrilla._core import Check, Envelope

__all__ = ["AsyncDaemon", "Envelopes", "Stream"]

MAX_WAITING: Final = 1_000
"""Envelopes that wait for a consumer, by default."""

_LOOK: Final = 0.1
"""Seconds between two looks at whether the sender of an envelope without room still waits."""


class Stream:
    """A backend that hands its envelopes to consumers; for `Daemon(config, backend=Stream())`.

    It is one daemon's at a time.

    Args:
        max_waiting: envelopes that wait for a consumer. While there are so many, workers wait, and
            what lies in the core waits with them, each until its time limit.
    """

    stores: Final = False
    """Whoever takes an envelope claims it; one that waits has its time limit as any other."""
    checks_recipients: Final = False
    """It has nothing to say to them: each at an allowed host is taken."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        """Holds nothing; not yet open."""
        if max_waiting < 1:
            message = f"max_waiting: expected at least 1, got {max_waiting}"
            raise ValueError(message)
        self.max_waiting = max_waiting
        self._changed = threading.Condition()
        """Guards all below; workers wait for it, consumers have futures."""
        self._queue: deque[Envelope] = deque()
        self._idle: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        """Consumers that wait, with their loops."""
        self._consumers = 0
        self._begun = False
        """A daemon has it, from its start to its end."""
        self._stopping = False
        self._ended = False

    def __call__(self) -> Stream:
        """The backend of one worker: all have the same queue."""
        return self

    @property
    def waiting(self) -> int:
        """Envelopes that wait for a consumer."""
        return len(self._queue)

    def envelopes(self) -> Envelopes:
        """A new consumer. Several share the envelopes: each gets others."""
        return Envelopes(self)

    # The backend: called by workers.

    def open(self) -> None:
        """Part of `Backend`; a stream has nothing to open."""

    def close(self) -> None:
        """Part of `Backend`; the daemon ends a stream by `end`."""

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Puts a batch into the queue; the consumer answers."""
        for envelope in envelopes:
            self._put(envelope)
        return [TAKEN] * len(envelopes)

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        """Accepts; it is not asked, see `checks_recipients`."""
        return [None] * len(checks)

    # The daemon: called as it starts and stops.

    def begin(self) -> None:
        """The daemon starts.

        Raises:
            RuntimeError: another daemon has it, whose end would be that of this one's mails.
        """
        with self._changed:
            if self._begun:
                message = "this Stream is another daemon's, which still runs: make one for each"
                raise RuntimeError(message)
            self._begun = True
            self._stopping = self._ended = False

    def stop(self) -> None:
        """The daemon stops: consumers go on; where there is none, what waits is answered `451`."""
        with self._changed:
            self._stopping = True
            self._refuse_if_forsaken()

    def end(self) -> None:
        """The daemon has stopped: iterators end, what was not taken is answered `451`."""
        with self._changed:
            self._begun = False
            self._ended = True
            self._refuse_all()
            while self._idle:
                _wake(*self._idle.popleft())

    # The consumers: called by `Envelopes`.

    def attach(self, count: int) -> None:
        """There is one consumer more, or, with -1, one less."""
        with self._changed:
            self._consumers += count
            self._refuse_if_forsaken()

    def take_or_wait(self) -> tuple[Envelope | None, asyncio.Future[None] | None]:
        """The next envelope whose sender waits, or what to await for one; neither at the end.

        The envelope is claimed: its sender waits for a second `gw_save_timeout` from now on.
        """
        loop = asyncio.get_running_loop()
        with self._changed:
            while self._queue:
                envelope = self._queue.popleft()
                self._changed.notify_all()
                if _core.claim((envelope,))[0]:
                    return envelope, None
                envelope.answer(TRY_LATER)  # ends the transaction of a peer that is gone
            if self._ended:
                return None, None
            future: asyncio.Future[None] = loop.create_future()
            self._idle.append((loop, future))
            return None, future

    def give_up(self, future: asyncio.Future[None]) -> None:
        """A consumer waits no more; a wake-up that came too late for it goes to another."""
        with self._changed:
            self._idle = deque(pair for pair in self._idle if pair[1] is not future)
            self._wake_one()

    def _put(self, envelope: Envelope) -> None:
        with self._changed:
            while len(self._queue) >= self.max_waiting and not self._ended:
                self._drop_expired()
                if envelope.expired:
                    return
                self._changed.wait(_LOOK)
            self._queue.append(envelope)
            if self._ended:
                self._refuse_all()
            self._refuse_if_forsaken()
            self._wake_one()

    # The lock is held in what follows.

    def _wake_one(self) -> None:
        """Wakes one consumer, where there is something for it and its loop still runs."""
        while self._queue and self._idle and not _wake(*self._idle.popleft()):
            pass

    def _drop_expired(self) -> None:
        # Their senders have an answer; to keep them would keep out those who have none.
        # A copy, since the end of a consumer, which may come at any time, changes the queue.
        self._queue = deque(item for item in tuple(self._queue) if not item.expired)

    def _refuse_if_forsaken(self) -> None:
        if self._stopping and not self._consumers:
            self._refuse_all()

    def _refuse_all(self) -> None:
        while self._queue:
            self._queue.popleft().answer(TRY_LATER)
        self._changed.notify_all()


class Envelopes:
    """An async iterator over the envelopes of a `Stream`; one consumer.

    It ends when the daemon has stopped. It may be used on any event loop, by one task at a time.
    Envelopes whose time limit has passed are left out, since their senders will send them again.

    A daemon that stops goes on to wait for a consumer until it is closed, or nobody has it any
    more, as after a `break`. One whose wait was cancelled counts again when it waits again.
    """

    def __init__(self, stream: Stream) -> None:
        """Takes part from now on."""
        self._stream = stream
        self._closed = False
        self._attached = False
        self._attach()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        """The next envelope, which the caller answers.

        Raises:
            StopAsyncIteration: the daemon has stopped, or this was closed.
        """
        self._attach()
        while not self._closed:
            envelope, future = self._stream.take_or_wait()
            if envelope is not None:
                return envelope
            if future is None:
                break
            try:
                await future
            except asyncio.CancelledError:
                self._stream.give_up(future)
                self._detach()
                raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends this consumer; what waits is for the others."""
        self._closed = True
        self._detach()

    def __del__(self) -> None:
        # A loop that was left by `break` has no other end.
        if hasattr(self, "_attached"):
            self._detach()

    def _attach(self) -> None:
        if not self._attached and not self._closed:
            self._attached = True
            self._stream.attach(1)

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            self._stream.attach(-1)


class AsyncDaemon(ABC):
    """What a `Daemon` has for programs that run an event loop. Mixed into it."""

    _backend: Any

    @abstractmethod
    def start(self) -> None:
        """See `Daemon`."""

    @abstractmethod
    def shutdown(self, timeout: float | None = None) -> bool:
        """See `Daemon`."""

    def envelopes(self) -> Envelopes:
        """The envelopes of a daemon whose backend is a `Stream`; the caller answers each.

        Raises:
            RuntimeError: the backend is another one, which answers them itself.
        """
        if not isinstance(self._backend, Stream):
            message = "envelopes() needs Daemon(config, backend=guerrilla.Stream())"
            raise RuntimeError(message)  # noqa: TRY004 - no argument is wrong
        return self._backend.envelopes()

    async def __aenter__(self) -> Self:
        """Starts, in a thread, since files and drivers are opened; raises as `start`."""
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await _through(starting)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: it has started by now, unless it failed.
            await _through(asyncio.ensure_future(asyncio.to_thread(self.shutdown)))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops gracefully, in a thread: tasks of the loop can answer what they have meanwhile."""
        await _through(asyncio.ensure_future(asyncio.to_thread(self.shutdown)))


def begin_stream(backend: object, opened: ExitStack) -> None:
    """Begins a backend that is a `Stream`, and ends it with what is `opened`, after the workers."""
    if isinstance(backend, Stream):
        backend.begin()
        opened.callback(backend.end)


def stop_stream(backend: object) -> None:
    """Tells a backend that is a `Stream` of the stop, before sessions are waited for."""
    if isinstance(backend, Stream):
        backend.stop()


async def _through(work: asyncio.Future[Any]) -> None:
    """Waits for `work` to its end; a cancellation is raised only then."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            if cancelled is None:
                raise
    if cancelled is not None:
        raise cancelled


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> bool:
    """Wakes a consumer on its loop; False where that is closed."""
    try:
        loop.call_soon_threadsafe(_resolve, future)
    except RuntimeError:
        return False
    return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
