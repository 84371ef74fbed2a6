"""A daemon in small: senders, processes, workers, batches that form by themselves, a store.

What is in it, and takes time or has an end:

    client program -> I/O thread -> queue -> worker -> store -> answer
                     (a process)            (has the lock of Python while it computes)

All that computes has a core meanwhile, of which there are so many, in the order in which they ask.
A thread that has slept and finds a core free costs `wake` more for each turn of the dialogue; where
all are busy it is woken while it waits. A worker takes what waits,
at most `batch`, and never waits for more. What waits for a disk or a network has no core.

Times are seconds here, and costs µs.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from setups import Load, Result, Setup

TURNS: Final = 4
"""Of a dialogue without pipelining: MAIL, RCPT, DATA, the message."""
SLICE: Final = 0.001
"""Seconds that a thread has a core for which others wait."""
WARM: Final = 0.1
"""Of the time, from the begin, that is not counted."""
MOST_ARRIVALS: Final = 1_000_000

Then = Callable[[], None]


def run(setup: Setup, load: Load, seconds: float, seed: int = 1) -> Result:
    """So many seconds of it; the same each time for the same seed."""
    return _Run(setup, load, seconds, seed).result()


# --- What computes, and what there is only so many of ---------------------------------------------


class _Clock:
    """What happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._count = 0

    def after(self, seconds: float, then: Then) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, then))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, then = heapq.heappop(self._events)
            then()
        self.now = until


class _Places:
    """So many places, given out in the order in which they are asked for: cores, locks, writers."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Then] = deque()

    def take(self, then: Then) -> None:
        if self._free:
            self._free -= 1
            then()
        else:
            self._waiting.append(then)

    @property
    def free(self) -> bool:
        return self._free > 0

    def give(self) -> None:
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class _Thread:
    """Does one thing after the other, on a core that it keeps for a while if there is more to do.

    What comes to it while it sleeps costs more.
    """

    def __init__(self, run: _Run, wake: float) -> None:
        self._run, self._wake = run, wake
        self._work: deque[tuple[float, Then]] = deque()
        self._busy = False
        self._until = 0.0

    def do(self, cost: float, then: Then) -> None:
        self._work.append((cost, then))
        if not self._busy:
            self._busy = True
            self._run.take_core(self._begin, self._wake)

    def _begin(self, wake: float = 0.0) -> None:
        self._until = self._run.clock.now + SLICE
        self._next(wake)

    def _next(self, wake: float) -> None:
        cost, then = self._work.popleft()

        def done() -> None:
            then()
            if self._work and self._run.clock.now < self._until:
                self._next(0.0)
                return
            self._busy = bool(self._work)
            if self._busy:
                self._run.take_core(self._begin)
            self._run.give_core()

        self._run.spend(cost + wake, done)


# --- A daemon -------------------------------------------------------------------------------------


class _Process:
    """An I/O thread, a queue, and workers."""

    def __init__(self, run: _Run, setup: Setup) -> None:
        self._run, self._setup, self._store = run, setup, setup.store
        self.open = 0
        """Connections with a mail."""
        self.held = 0
        """Mails received and not answered."""
        self._edge = _Thread(run, TURNS * setup.wake)
        self._later = _Thread(run, setup.wake)
        self._lock = _Places(1)
        self._waiting: deque[tuple[float, Then]] = deque()
        self._sleeping = setup.workers
        self._room = max(1, setup.queue // setup.processes)

    def receive(self, since: float, answered: Then) -> None:
        """A mail comes in."""
        self._edge.do(self._setup.edge, lambda: self._received(since, answered))

    def _received(self, since: float, answered: Then) -> None:
        if self.held >= self._room:
            self._run.refuse(452)
            answered()
            return
        self.held += 1
        self._waiting.append((since, answered))
        self._run.wait_for_worker(1)
        if self._sleeping:
            self._sleeping -= 1
            self._work(self._setup.wake)

    def _work(self, wake: float) -> None:
        batch: list[tuple[float, Then]] = []
        while self._waiting and len(batch) < self._setup.batch:
            since, answered = self._waiting.popleft()
            self._run.wait_for_worker(-1)
            if self._run.clock.now - since > self._setup.timeout:
                self.held -= 1
                self._run.refuse(451)
                answered()
            else:
                batch.append((since, answered))
        if not batch:
            self._sleeping += 1
            return
        self._compute(batch, wake)

    def _compute(self, batch: list[tuple[float, Then]], wake: float) -> None:
        """With the lock of Python, which is given back before the store is waited for."""
        store, count = self._store, len(batch)
        cost = store.cpu_batch + count * store.cpu_mail
        stages = count * self._setup.stages
        run = self._run

        def ask() -> None:
            run.writers.take(lambda: self._ask(batch, 0.0 if store.python else cost))

        def computed() -> None:
            self._lock.give()
            ask()

        if stages or store.python:
            total = stages + (cost if store.python else 0.0)
            self._lock.take(lambda: run.compute(total, computed, wake))
        else:
            ask()

    def _ask(self, batch: list[tuple[float, Then]], cost: float) -> None:
        store, run, count = self._store, self._run, len(batch)
        behind = cost + store.behind_batch + count * store.behind_mail
        waits = (store.wait_batch + count * store.wait_mail) / 1e6

        def done() -> None:
            run.writers.give()
            self._answer(batch)

        run.compute(behind, lambda: run.clock.after(waits, done))

    def _answer(self, batch: list[tuple[float, Then]]) -> None:
        self._run.note_batch()
        self.held -= len(batch)
        # It goes on before those that it has answered come again.
        self._work(0.0)
        if self._store.after_mail:
            self._later.do(len(batch) * self._store.after_mail, lambda: None)
        for since, answered in batch:
            self._run.note(since)
            answered()


class _Run:
    """One run of a daemon under a load."""

    def __init__(self, setup: Setup, load: Load, seconds: float, seed: int) -> None:
        self._setup, self._load, self._end = setup, load, seconds
        self._begin = WARM * seconds
        self._random = random.Random(seed)
        self.clock = _Clock()
        self._cores = _Places(setup.cores)
        self.writers = _Places(setup.store.writers or MOST_ARRIVALS)
        self._result = Result(seconds=seconds - self._begin)
        self._waiting, self._changed = 0, 0.0
        self._programs = [_Thread(self, TURNS * setup.wake) for _ in range(setup.programs)]
        self._processes = [_Process(self, setup) for _ in range(setup.processes)]
        self._open = 0

    def result(self) -> Result:
        if self._load.closed:
            for number in range(self._setup.connections):
                self._send_again(number, self._process())
        if self._load.rate:
            self._arrive()
        if self._load.burst:
            self._burst(self._load.every / 2)
        self.clock.run(self._end)
        self.wait_for_worker(0)
        return self._result

    # Who sends.

    def _process(self) -> _Process:
        """The one that a connection comes to."""
        if self._setup.shared:
            found = min(self._processes, key=lambda one: one.open)
        else:
            found = self._random.choice(self._processes)
        found.open += 1
        return found

    def _send_again(self, number: int, process: _Process) -> None:
        since = self.clock.now

        def sent() -> None:
            process.receive(since, lambda: self._send_again(number, process))

        if self._setup.client:
            self._programs[number % len(self._programs)].do(self._setup.client, sent)
        else:
            sent()

    def _arrive(self) -> None:
        def come() -> None:
            self._come()
            self._arrive()

        self.clock.after(self._random.expovariate(self._load.rate), come)

    def _burst(self, wait: float) -> None:
        def come() -> None:
            for _ in range(self._load.burst):
                self._come()
            self._burst(self._load.every)

        self.clock.after(wait, come)

    def _come(self) -> None:
        if self.clock.now >= self._begin:
            self._result.arrived += 1
        if self._open >= self._setup.connections:
            self.refuse(421)
            return
        self._open += 1
        process, since = self._process(), self.clock.now

        def answered() -> None:
            self._open -= 1
            process.open -= 1

        process.receive(since, answered)

    # What the processes use and tell.

    def take_core(self, then: Callable[[float], None], wake: float = 0.0) -> None:
        """A core, as soon as there is one; `wake` is passed on where one is free."""
        woken = wake * self._cores.free
        self._cores.take(lambda: then(woken))

    def give_core(self) -> None:
        """It is another's."""
        self._cores.give()

    def spend(self, cost: float, then: Then) -> None:
        """So many µs of a core that one has."""
        seconds = cost / 1e6
        if self.clock.now >= self._begin:
            self._result.computed += seconds
        self.clock.after(seconds, then)

    def compute(self, cost: float, then: Then, wake: float = 0.0) -> None:
        """So many µs of a core that one has not; `wake` more for a thread that has slept."""
        if cost <= 0:
            then()
            return

        def done() -> None:
            self._cores.give()
            then()

        self.take_core(lambda woken: self.spend(cost + woken, done), wake)

    def refuse(self, code: int) -> None:
        """A mail, or a connection, that has to come again."""
        if self.clock.now >= self._begin:
            self._result.refused[code] += 1

    def note(self, since: float) -> None:
        """A mail was answered 250."""
        if self.clock.now >= self._begin:
            self._result.latencies.append(self.clock.now - since)

    def note_batch(self) -> None:
        """A batch was saved."""
        self._result.batches += self.clock.now >= self._begin

    def wait_for_worker(self, more: int) -> None:
        """So many more mails wait, or fewer."""
        now = self.clock.now
        if now > self._begin:
            self._result.area += self._waiting * (now - max(self._changed, self._begin))
        self._waiting += more
        self._changed = now
        self._result.most_waiting = max(self._result.most_waiting, self._waiting)
