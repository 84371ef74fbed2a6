"""Requests of a parent to its child, and the answers: what each of them says over the wire.

A request is `{"id": 1, "command": "stats", "arguments": {…}}`; its answer has the same id, and
`{"ok": true, "result": …}` or `{"ok": false, "errors": ["…"], "kind": "ValueError"}`. Several may
be under way, and are answered as they are done. The child asks for nothing.

A parent may be root, and its child somebody else who reads what strangers send: the child believes
its parent; what the parent hears is JSON, bounded, and looked at before it is used.
"""

from __future__ import annotations

import base64
import logging
import pickle
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guerrilla._core import __build__, __version__
from guerrilla.config import AppConfig
from guerrilla.errors import ConfigError, GuerrillaError, StartError
from guerrilla.processes.wire import (
    TIMEOUT,
    DescriptorsError,
    Received,
    TooLongError,
    Wire,
    WireError,
    close_all,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    Command = Callable[[Mapping[str, Any], Sequence[int]], object]
    """What answers: arguments, and descriptors that are closed once it has; a value of JSON."""

log = logging.getLogger("guerrilla.processes")

VERSION: Final = f"{__version__} ({__build__})"
"""Of the program: a parent and its children have to be the same."""

MAX_REQUEST: Final = 64 * 2**20
"""Bytes of a request, which may have a config with any number of hosts."""

MAX_ANSWER: Final = 4 * 2**20
"""Bytes of an answer: figures of a thousand servers and stages are less."""

MAX_UNDER_WAY: Final = 64
"""Requests of one child that are not answered yet."""

MAX_LATE: Final = 1_000
"""Requests that nobody waits for any more and that one child may leave unanswered."""

_MAX_ERRORS: Final = 200
_MAX_ERROR: Final = 4_000
"""Characters of an error that is repeated."""


class ChannelError(GuerrillaError):
    """The child is gone, does not answer in time, or not as it should."""


class GoneError(ChannelError):
    """The child has closed its end: it has ended, or is about to."""


class TooLargeError(ChannelError):
    """A request is more than a child takes; it was not sent, and others still can be."""


class RefusedError(GuerrillaError):
    """The child says why it did not do what it was asked.

    Attributes:
        errors: a line each, of printable text.
        kind: the name of the exception's class.
    """

    def __init__(self, errors: Sequence[str], kind: str = "") -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)
        self.kind = kind


class StopsError(GuerrillaError):
    """The child stops by itself, or has: it does nothing more that it is asked for."""


STOPS: Final = StopsError.__name__
"""The kind of what a child refuses because it stops."""


class Asked(NamedTuple):
    """A request that is under way."""

    id: int
    command: str
    answer: Future[Any]


class Asking:
    """The parent's side, and its thread, which takes the answers.

    Args:
        end: of the socket pair; the other one is the child's.
        name: of the child, for the name of the thread and for errors.
        on_end: called by that thread when nothing can be asked any more.
    """

    def __init__(
        self, end: socket.socket, name: str, on_end: Callable[[], object] = lambda: None
    ) -> None:
        """Starts the thread."""
        self._wire = Wire(end, max_line=MAX_ANSWER, max_sent=MAX_REQUEST)
        self._name = name
        self._on_end = on_end
        self._lock = threading.Lock()
        self._last = 0
        self._waiting: dict[int, Future[Any]] = {}
        self._late: set[int] = set()
        """Requests whose answers are for nobody any more, and may still come."""
        self._ended: ChannelError | None = None
        self._thread = threading.Thread(target=self._run, name=f"guerrilla-{name}", daemon=True)
        self._thread.start()

    def ask(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        descriptors: Sequence[int] = (),
        timeout: float = TIMEOUT,
    ) -> Any:
        """Asks for one thing, and waits for the answer: its result, which is to be looked at.

        Raises:
            RefusedError: what the child says against it.
            ChannelError: no answer within `timeout` seconds, or none at all.
        """
        return self.answer(self.begin(command, arguments, descriptors, timeout), timeout)

    def begin(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        descriptors: Sequence[int] = (),
        timeout: float = TIMEOUT,
    ) -> Asked:
        """Asks, and does not wait: to ask several children at once. The descriptors stay ours.

        Raises:
            TooLargeError: it takes no request as large as that.
            ChannelError: the child is gone, or has not read for `timeout` seconds.
        """
        answer: Future[Any] = Future()
        with self._lock:
            if self._ended is not None:
                raise type(self._ended)(str(self._ended))
            if len(self._waiting) >= MAX_UNDER_WAY:
                raise ChannelError(f"{self._name} has {MAX_UNDER_WAY} requests to answer")
            self._last += 1
            asked = Asked(self._last, command, answer)
            self._waiting[asked.id] = answer
        request = {"id": asked.id, "command": command, "arguments": dict(arguments or {})}
        try:
            self._wire.send(request, descriptors, timeout)
        except WireError as error:
            self._forget(asked, was_sent=False)
            kind = TooLargeError if isinstance(error, TooLongError) else ChannelError
            raise kind(f"{self._name} cannot be asked for {command}: {error}") from error
        return asked

    def answer(self, asked: Asked, timeout: float = TIMEOUT, of: float | None = None) -> Any:
        """Waits for the answer to what `begin` has asked; as `ask`.

        Args:
            asked: what was asked.
            timeout: seconds.
            of: how many it had in all, where some of them have passed: for the error.
        """
        try:
            return asked.answer.result(max(0.0, timeout))
        except TimeoutError:
            within = timeout if of is None else of
            what = f"{self._name} has not answered {asked.command} within {within:g} s"
            raise ChannelError(what) from None
        finally:
            self._forget(asked)

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._wire.has_ended

    def end(self) -> None:
        """Ends it: to the child, its parent is gone. What is under way has no answer."""
        self._wire.end()

    def _forget(self, asked: Asked, *, was_sent: bool = True) -> None:
        """An answer that comes late is for nobody."""
        with self._lock:
            if self._waiting.pop(asked.id, None) is not None and was_sent:
                self._late.add(asked.id)
            is_silent = len(self._late) > MAX_LATE
        if is_silent:
            log.error("%s has left %d requests unanswered", self._name, MAX_LATE)
            self._wire.end()

    def _run(self) -> None:
        ended: ChannelError = GoneError(f"{self._name} cannot be asked: it is gone")
        try:
            while (received := self._wire.receive()) is not None:
                self._take(received.value)
        except WireError as error:
            ended = ChannelError(f"{self._name} cannot be asked: {error}")
            log.error("%s does not speak as it should: %s", self._name, error)  # noqa: TRY400
        finally:
            self._wire.end()
            with self._lock:
                self._ended = ended
                waiting, self._waiting = self._waiting, {}
            for answer in waiting.values():
                answer.set_exception(ended)
            self._on_end()
            self._wire.close()

    def _take(self, answer: Mapping[str, Any]) -> None:
        """Gives an answer to who waits for it.

        Raises:
            WireError: it is none, or to a request that was answered.
        """
        number, ok = answer.get("id"), answer.get("ok")
        if type(number) is not int or type(ok) is not bool:
            raise WireError("what came is no answer")
        with self._lock:
            waiting = self._waiting.pop(number, None)
            if waiting is None and number not in self._late:
                raise WireError("what came is no answer to any request")
            self._late.discard(number)
        if waiting is None:
            return
        if ok:
            waiting.set_result(answer.get("result"))
        else:
            kind = answer.get("kind")
            errors = readable_lines(answer.get("errors")) or ["no reason was given"]
            waiting.set_exception(RefusedError(errors, kind if isinstance(kind, str) else ""))


class Request(NamedTuple):
    """What the child is asked for; why it cannot be done, where it came without its descriptors."""

    id: int
    command: str
    arguments: Mapping[str, Any]
    descriptors: tuple[int, ...]
    error: DescriptorsError | None = None


class Answering:
    """The child's side.

    Args:
        end: of the socket pair.
        commands: what answers what; each runs in a thread of its own once `serve` is called, so
            that one that takes its time holds up no other.
    """

    def __init__(self, end: socket.socket, commands: Mapping[str, Command]) -> None:
        self._wire = Wire(end, max_line=MAX_REQUEST, max_sent=MAX_ANSWER, takes_descriptors=True)
        self._commands = commands
        self._places = threading.BoundedSemaphore(MAX_UNDER_WAY)
        self._id: int | None = None
        """Of the request that is answered in place of the one that is done: see `pause`."""

    def take(self) -> Request | None:
        """Waits for a request; None when the parent is gone, or says what cannot be read."""
        lost: DescriptorsError | None = None
        try:
            received = self._wire.receive()
        except DescriptorsError as error:
            received, lost = Received(error.value, ()), error
        except WireError:
            log.exception("the parent cannot be understood")
            return None
        if received is None:
            return None
        value, descriptors = received
        return Request(value["id"], value["command"], value["arguments"], descriptors, lost)

    def run(self, request: Request) -> None:
        """Does what is asked, and answers."""
        try:
            answer = self._done(request) if request.error is None else _bad(request.error)
        finally:
            close_all(request.descriptors)
            number, self._id = request.id if self._id is None else self._id, None
        # Nobody is left to be told; `take` says so too.
        with suppress(WireError):
            try:
                self._wire.send({"id": number, **answer})
            except TooLongError as error:
                self._wire.send({"id": number, **_bad(error)})

    def pause(self, request: Request, result: object, command: str) -> bool:
        """Within what a request asks for, before `serve`: answers it, and waits for another one.

        What the first comes to in the end is the answer to the second.

        Args:
            request: the one that is done.
            result: the answer to it.
            command: of the other one; anything else is refused.

        Returns:
            Whether it has come; the parent is gone where it has not.
        """
        with suppress(WireError):
            self._wire.send({"id": request.id, "ok": True, "result": result})
            while (asked := self.take()) is not None:
                if asked.command == command:
                    self._id = asked.id
                    return True
                close_all(asked.descriptors)
                error = LookupError(f"{asked.command} has to wait for {command}")
                self._wire.send({"id": asked.id, **_bad(error)})
        return False

    def serve(self) -> None:
        """Answers until the parent is gone."""
        while (request := self.take()) is not None:
            self._places.acquire()
            threading.Thread(
                target=self._run_beside,
                args=(request,),
                name=f"guerrilla-{request.command}",
                daemon=True,
            ).start()

    def close(self) -> None:
        """Closes the socket, once nobody takes any more."""
        self._wire.close()

    def _run_beside(self, request: Request) -> None:
        try:
            self.run(request)
        finally:
            self._places.release()

    def _done(self, request: Request) -> dict[str, Any]:
        command = self._commands.get(request.command)
        try:
            if command is None:
                return _bad(LookupError(f"unknown command {request.command!r}"))
            return {"ok": True, "result": command(request.arguments, request.descriptors)}
        except (ConfigError, StartError) as error:
            return _bad(error, *error.problems)
        except (GuerrillaError, ValueError, LookupError) as error:
            return _bad(error, *str(error).splitlines())
        except OSError as error:
            return _bad(error, f"{error.filename or request.command}: {error.strerror or error}")
        except Exception as error:
            log.exception("%s failed", request.command)
            return _bad(error, f"{type(error).__name__}: {error}: the log has more")


def pack(config: AppConfig) -> str:
    """A config as text, for a request: from a parent to its child alone."""
    return base64.b64encode(pickle.dumps(config)).decode("ascii")


def unpack(text: str) -> AppConfig:
    """What `pack` has made; of a parent, whom its child believes."""
    config = pickle.loads(base64.b64decode(text))  # noqa: S301  # see above
    if not isinstance(config, AppConfig):
        raise TypeError("this is no config")
    return config


def readable_lines(value: object) -> list[str]:
    """Lines that a child says, each bounded and printable; what is no text is left out."""
    found = value if isinstance(value, list) else []
    return [
        readable(text, _MAX_ERROR) for text in found[:_MAX_ERRORS] if text and isinstance(text, str)
    ]


def readable(text: str, most: int) -> str:
    """The first so many characters of a text, each of them printable, or escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text[:most])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _bad(error: Exception, *lines: str) -> dict[str, Any]:
    return {"ok": False, "errors": list(lines) or [str(error)], "kind": type(error).__name__}
