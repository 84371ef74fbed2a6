"""The places of the children: each has one process at a time, and a successor when that has died.

A successor has the same number, and the same sockets, in whose queues connections wait for it.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from guerrilla.errors import StartError
from guerrilla.processes.channel import ChannelError, GoneError, RefusedError, TooLargeError
from guerrilla.processes.lives import Life, ending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from guerrilla.processes.channel import Asked, Asking

log = logging.getLogger("guerrilla.processes")

READY_LIMIT: Final = 600.0
"""Seconds that a start may take: as those of a reload, which opens the same."""

MAX_EARLY: Final = 5
"""Deaths in a row before it was ready, after which the next would be no better."""

QUICK: Final = 60.0
"""Seconds; who dies sooner has to wait for its successor, longer each time."""

DELAYS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until the successor of the first that dies so, of the second, and so on."""

_STOP_TIMEOUT: Final = 2.0
"""Seconds that one has to take the request to stop."""


class State(StrEnum):
    """What a place is doing."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    WAITING = "waiting to be started again"
    ENDED = "ended"


class Hub(Protocol):
    """What a child needs of the parent. All may be called from any thread."""

    @property
    def changing(self) -> AbstractContextManager[object]:
        """Held while the config of now is another one, and all that serve are asked to obey it."""

    def begin_start(self, number: int, asking: Asking) -> tuple[Asked, int]:
        """Asks for `start`, with the config of now; its generation."""

    def is_current(self, generation: int) -> bool:
        """Whether that is the config of now."""

    def has_ended(self, number: int) -> None:
        """The process of a child has ended: what it held is to be given back."""

    def give_up(self, cause: str) -> None:
        """There is no use in another try: all have to stop."""

    def patience(self) -> float:
        """Seconds that one may take to end."""


class Child:
    """One place, with a thread of its own once it has begun.

    Args:
        number: from 0.
        hub: the parent.
    """

    def __init__(self, number: int, hub: Hub) -> None:
        """Starts nothing."""
        self.number = number
        self.starts = 0
        """Processes that it has had."""
        self.graceful = True
        """Whether the last one ended as it was asked to."""
        self.first: Future[Mapping[str, Any]] = Future()
        """What the first start comes to: its answer, or a `StartError`."""
        self.serves: Future[Mapping[str, Any]] = Future()
        """The answer of the first process that serves."""
        self._go = threading.Event()
        self._go.set()
        self._hub = hub
        self._lock = threading.Lock()
        self._state = State.STARTING
        self._away_since: float | None = time.monotonic()
        self._life: Life | None = None
        self._limit: float | None = None
        """When its process has to have ended, where it is to."""
        self._ending = threading.Event()
        self._timeout: float | None = None
        """Of the stop."""
        self._early = 0
        """Deaths in a row before it was ready."""
        self._quick = 0
        """Deaths in a row within `QUICK`."""
        self._replaced = False
        """The process was asked to end, so that another begins."""
        self._thread = threading.Thread(
            target=self._run, name=f"guerrilla-child-{number}", daemon=True
        )

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def away(self) -> float:
        """Seconds since it has last served; 0 while it does."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def is_starting(self) -> bool:
        """Whether it has a process that is to serve soon."""
        return self.starts > 0 and self._state is State.STARTING

    @property
    def life(self) -> Life | None:
        """Its process, where it has one."""
        return self._life

    @property
    def asking(self) -> Asking | None:
        """The channel to its process, while that serves."""
        with self._lock:
            if self._state is not State.SERVING or self._life is None:
                return None
            asking = self._life.asking
            return None if asking.has_ended else asking

    def hold(self) -> None:
        """Before it begins: a process that is ready serves nobody until `release`."""
        self._go.clear()

    def release(self) -> None:
        """Lets it serve."""
        self._go.set()

    def begin(self, life: Life | None = None) -> None:
        """Starts the first process, or has this one, which has not been asked to start."""
        self._life = life
        self._thread.start()

    def stop(self, timeout: float | None) -> None:
        """Asks the process to stop, and starts none any more; does not wait for that."""
        with self._lock:
            self._ending.set()
            self._timeout = timeout
            life, state = self._life, self._state
            if life is not None:
                self._enter(State.STOPPING)
        # Not twice: a second signal would end it at once.
        if life is not None and state is not State.STOPPING:
            self._ask_to_stop(life, served=state is State.SERVING)
        self._go.set()

    def replace(self) -> None:
        """Asks the process to stop gracefully, and starts another as soon as it has.

        It has as long for that as at a stop of all: see `end_if_late`.
        """
        with self._lock:
            life = self._life
            if life is None or not self._leave(life):
                return
            self._replaced = True
        self._ask_to_stop(life, served=True)

    def leaves(self, life: Life) -> None:
        """The process says that it stops: somebody else has told it so. It has as long for that."""
        with self._lock:
            self._leave(life)

    def end_if_late(self) -> None:
        """Kills the process where it was to end, and has had its time."""
        with self._lock:
            life, limit = self._life, self._limit
            if life is None or limit is None or time.monotonic() < limit:
                return
            self._limit = None
        what = f"process {self.number} (pid {life.pid})"
        log.critical("%s was to end, and has not in time: it is killed", what)
        life.kill()

    def kill(self) -> None:
        """Ends the process at once; a signal handler may call it."""
        life = self._life
        if life is not None:
            life.kill()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until it has ended, after `stop`; False when `timeout` seconds passed first."""
        if self._thread.ident is None:
            return True
        self._thread.join(None if timeout is None else max(0.0, timeout))
        return not self._thread.is_alive()

    def _leave(self, life: Life) -> bool:
        """One that serves is to end by itself, and then has a successor; whether it is one."""
        if life is not self._life or self._state is not State.SERVING:
            return False
        self._enter(State.STOPPING)
        self._limit = time.monotonic() + self._hub.patience()
        return True

    def _enter(self, state: State) -> None:
        self._state = state
        if state is State.SERVING:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = time.monotonic()

    def _ask_to_stop(self, life: Life, *, served: bool) -> None:
        if served:
            with suppress(ChannelError):
                arguments = {"timeout": self._timeout}
                life.asking.begin("stop", arguments, timeout=_STOP_TIMEOUT)
                return
        life.terminate()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                delay = self._live()
                if delay is None:
                    return
                self._ending.wait(delay)
        except Exception:
            log.exception("process %d cannot be looked after", self.number)
            self._hub.give_up(f"process {self.number} cannot be looked after")
        finally:
            self._enter(State.ENDED)
            if not self.first.done():
                self.first.set_exception(StartError("stopped before it had started"))

    def _live(self) -> float | None:
        """One process; seconds until the next, None for none."""
        try:
            life = self._begin()
        except (OSError, RuntimeError) as error:
            return self._not_begun(getattr(error, "strerror", None) or str(error))
        problems, is_ready, cause = self._start(life)
        status = life.wait()
        with self._lock:
            self._life = self._limit = None
            self._enter(State.WAITING)
        self._hub.has_ended(self.number)
        how = ending(status)
        if self._ending.is_set():
            self.graceful = status == 0 or not is_ready
            if not self.graceful:
                log.error("process %d (pid %d) %s as all stop", self.number, life.pid, how)
            return None
        if self._replaced:
            self._replaced = False
            level = logging.CRITICAL if status else logging.INFO
            what = f"process {self.number} (pid {life.pid}), which is replaced, {how}"
            log.log(level, "%s; another takes its place at once", what)
            return 0.0
        if problems:
            return self._refused(problems, life.uptime)
        if not is_ready:
            # By our hand, where there is more to be told of it.
            by_us = cause and status == -signal.SIGKILL
            return self._died_early(f"{how} ({cause})" if by_us else how)
        self._early = 0
        delay = self._delay(life.uptime)
        what = f"process {self.number} (pid {life.pid}) {how} after {life.uptime:.1f} s"
        log.critical("%s; another takes its place %s", what, _when(delay))
        return delay

    def _begin(self) -> Life:
        with self._lock:
            life = self._life or Life(self.number, self._hub.patience)
            self.starts += 1
            self._life = life
            self._enter(State.STARTING)
            is_late = self._ending.is_set()
        if is_late:
            life.terminate()
        return life

    def _start(self, life: Life) -> tuple[Sequence[str], bool, str]:
        """Has it start; the problems that it tells, whether it serves, why it cannot be asked."""
        try:
            asked, generation = self._hub.begin_start(self.number, life.asking)
            answer = self._let_go(life, life.asking.answer(asked, READY_LIMIT))
        except RefusedError as error:
            return error.errors, False, ""
        except TooLargeError as error:
            life.kill()
            return [too_large(error)], False, ""
        except ChannelError as error:
            life.kill()  # It is dead already, or has no use.
            return (), False, "" if isinstance(error, GoneError) else str(error)
        # Between two reloads: it has the config of the last, and is asked along with the next.
        with self._hub.changing, self._lock:
            is_current = self._hub.is_current(generation)
            is_late = self._ending.is_set()
            self._enter(State.STOPPING if is_late else State.SERVING)
        if is_late:
            self._ask_to_stop(life, served=True)
        elif not self.serves.done():
            self.serves.set_result(answer)
            if not self.first.done():
                self.first.set_result(answer)
        else:
            log.warning("process %d (pid %d) serves", self.number, life.pid)
        if not is_current:
            self.replace()  # A reload came between: another one starts with what it has brought.
        return (), True, ""

    def _let_go(self, life: Life, answer: object) -> Mapping[str, Any]:
        """Has one serve that is ready, as soon as that may be; its last answer.

        Raises:
            RefusedError: what it says against it.
            ChannelError: it is gone.
        """
        found = answer if isinstance(answer, dict) else {}
        if found.get("held") is not True:
            return found
        if not self.first.done():
            self.first.set_result(found)
        self._go.wait()
        answer = life.asking.ask("go", timeout=READY_LIMIT)
        return answer if isinstance(answer, dict) else {}

    def _refused(self, problems: Sequence[str], lived: float) -> float | None:
        """It has said why it cannot start."""
        if not self.first.done():
            self.first.set_exception(StartError(problems))
            return None
        delay = self._delay(lived)
        for problem in problems:
            log.error("process %d cannot start: %s", self.number, problem)
        log.error("process %d is started again %s", self.number, _when(delay))
        return delay

    def _not_begun(self, why: str) -> float | None:
        """The system gives no process, thread or descriptor: no fault of what is to be started."""
        if not self.first.done():
            return self._died_early(f"cannot be started: {why}")
        delay = self._delay(0.0)
        what = f"process {self.number} cannot be started: {why}"
        log.critical("%s; it is tried again %s", what, _when(delay))
        return delay

    def _died_early(self, how: str) -> float | None:
        """It has ended before it was ready, and has not said why."""
        self._early += 1
        what = f"process {self.number} {how} before it was ready"
        if self._early >= MAX_EARLY:
            cause = f"{what}, {self._early} times in a row"
            if self.first.done():
                self._hub.give_up(cause)
            else:
                self.first.set_exception(StartError(cause))
            return None
        delay = self._delay(0.0)
        log.critical("%s; it is started again %s", what, _when(delay))
        return delay

    def _delay(self, lived: float) -> float:
        """Seconds until the next."""
        quick = 0 if lived >= QUICK else self._quick
        self._quick = quick + 1
        return DELAYS[min(quick, len(DELAYS) - 1)]


def too_large(error: TooLargeError) -> str:
    """What is wrong with a config that cannot be given to a child."""
    return f"the config is too large for several processes: {error}"


def _when(delay: float) -> str:
    return "at once" if delay == 0 else f"in {delay:g} s"
