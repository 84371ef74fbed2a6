"""Whether the simulation comes to what was measured.

What it is told of a machine are measured costs: CPU a message of daemon and client with 100
connections, and the rate of one connection; of a store, CPU and rate at two points. What it then
says of all other points is compared with what was measured there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Final

from measured import Few, Measured, Point, Share, Stored, figure, middle, stored
from setups import Load, Setup, Store
from simulation import TURNS, run

STAGES_US: Final = 8.0
"""Of the µs of the null chain, those in Python: a queue that is pulled from, and three stages."""
SLOW_BATCH_US, SLOW_MAIL_US = 5_000.0, 100.0
"""What the slow store of scaling.py takes: exactly, since it sleeps."""
AT_ONCE: Final = 256
"""Mails that the spool saves in a commit, at most, as far as 100 connections go."""
WORKERS: Final = {
    "SQL, SQLite": 1,
    "SQL, MariaDB": 2,
    "SQL, PostgreSQL": 2,
    "Redis, appendfsync": 1,
}
"""The stores that sync, with as many workers as they were measured with."""
TAKEN: Final = 100
"""The connections with which the costs of a store were measured."""
WAKE_US: Final = 7.0
"""Of a wake-up, where neighbours left nothing to take it from."""
BUSY: Final = 0.15
"""Of the cores, that others may have had: interrupts are some of it on any machine."""
SECONDS: Final = 0.6
"""Of each run."""
STEPS: Final = 9
"""Of looking for a cost: to a five-hundredth."""
HASHED: Final = 9
"""Tries of what falls on processes by chance."""
KEPT_US: Final = 38.1, 35.5
"""Daemon and client a message in scenario b, when the tables of the stores were measured."""
CORES_MEASURED: Final = 2
"""Of the machine that the table of stores was measured on."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A rate that was measured, and what the simulation says."""

    what: str
    measured: float
    simulated: float
    said: str = ""
    """Why this point says nothing: `taken`, where the costs are from, or `busy`."""

    @property
    def error(self) -> float:
        """Of what was measured."""
        return self.simulated / self.measured - 1


def rate(setup: Setup, seconds: float = SECONDS) -> float:
    """Of connections that each send mail after mail."""
    slow = setup.store.wait_batch + setup.batch * setup.store.wait_mail
    # A hundred of the longest batches at least.
    return run(setup, Load(), max(seconds, 50 * slow / 1e6)).rate


def solve(wanted: float, rate_of: Callable[[float], float], most: float) -> float:
    """The cost, from 0 on, with which the rate is the one that is wanted."""
    low, high = 0.0, most
    for _ in range(STEPS):
        middle_us = (low + high) / 2
        if rate_of(middle_us) > wanted:
            low = middle_us
        else:
            high = middle_us
    return (low + high) / 2


# --- The daemon -----------------------------------------------------------------------------------


def point(told: Measured, connections: int, chain: str = "null") -> Point:
    """The one with so many connections."""
    return next(one for one in told.points if (one.chain, one.connections) == (chain, connections))


def null(told: Measured) -> Setup:
    """The null chain, one process, on the machine of `scaling.json`.

    Its costs are those at 100 connections. What a wake-up costs is what one connection takes more.
    """
    many, alone = point(told, TAKEN), point(told, 1)
    base = Setup(
        edge=max(1.0, many.server_us - STAGES_US),
        stages=STAGES_US,
        client=many.client_us,
        cores=told.cores,
        programs=told.cores,
    )
    one = dataclasses.replace(base, connections=1, programs=1)
    if busy(told, alone):
        return dataclasses.replace(base, wake=WAKE_US)
    wake = solve(alone.rate, lambda us: rate(dataclasses.replace(one, wake=us)), 200.0)
    return dataclasses.replace(base, wake=wake)


def of_null(told: Measured, base: Setup) -> Iterator[Comparison]:
    """The chain that stores nothing."""
    for one in (one for one in told.points if one.chain == "null"):
        setup = with_connections(base, one.connections)
        title = f"null chain, {connections(one.connections)}"
        said = busy(told, one) or "taken" * (one.connections == 1)
        yield Comparison(title, one.rate, rate(setup), said)
    share = told.of("null", told.many)
    setup = dataclasses.replace(base, processes=share.processes)
    title = f"null chain, {share.processes} processes"
    yield Comparison(title, share.rate, rate(setup), busy(told, share))


def busy(told: Measured, one: Share | Few | Point) -> str:
    """Neighbours that had too much of the machine are not simulated."""
    return "busy" if one.others > BUSY * told.cores else ""


def with_connections(setup: Setup, count: int) -> Setup:
    """No program without a connection."""
    return dataclasses.replace(setup, connections=count, programs=min(setup.programs, count))


def connections(count: int) -> str:
    """In words."""
    return f"{count} connection{'s' * (count > 1)}"


# --- Python, in one process and in several --------------------------------------------------------


def python(told: Measured, base: Setup) -> Setup:
    """The chain that Python is the limit of: its CPU a message is that of one process."""
    alone = told.of("python", 1)
    stages = max(STAGES_US, alone.server_us - base.edge)
    return dataclasses.replace(base, stages=stages, client=alone.client_us)


def of_python(told: Measured, base: Setup) -> Iterator[Comparison]:
    """The shares, and few connections that fall on processes by chance."""
    setup = python(told, base)
    for share in (told.of("python", count) for count in (1, told.many)):
        title = f"Python chain, {share.processes} process{'es' * (share.processes > 1)}"
        simulated = rate(dataclasses.replace(setup, processes=share.processes), 2 * SECONDS)
        yield Comparison(title, share.rate, simulated, busy(told, share))
    found = (one for one in told.few if one.processes == told.many and not one.shared)
    # With fewer it is a toss-up whether one process has all, and a median says nothing.
    for few in (one for one in found if one.connections >= 2 * told.many):
        title = f"Python chain, {few.processes} processes, {connections(few.connections)}"
        yield Comparison(title, few.rate, by_hash(setup, few), busy(told, few))


def by_hash(setup: Setup, few: Few) -> float:
    """A socket a process: a median, as it was measured."""
    setup = with_connections(setup, few.connections)
    setup = dataclasses.replace(setup, processes=few.processes, shared=False)
    return middle(run(setup, Load(), SECONDS, seed).rate for seed in range(HASHED))


# --- Stores ---------------------------------------------------------------------------------------


def of_slow(told: Measured, base: Setup) -> Iterator[Comparison]:
    """The store that sleeps: all that is told of it is how long."""
    store = Store(wait_batch=SLOW_BATCH_US, wait_mail=SLOW_MAIL_US)
    for one in (one for one in told.points if one.chain == "slow"):
        setup = with_connections(base, one.connections)
        setup = dataclasses.replace(setup, store=store, batch=one.batch, workers=one.workers)
        title = f"slow store, {one.workers} worker{'s' * (one.workers > 1)}, batches of {one.batch}"
        title = f"{title}, {connections(one.connections)}"
        yield Comparison(title, one.rate, rate(setup), busy(told, one))


def of_stores(base: Setup) -> Iterator[Comparison]:
    """Those of benches/README.md that sync before they answer."""
    for name in WORKERS:
        setup = dataclasses.replace(there(base, name), store=of_store(base, name))
        for one in rows_of(name):
            simulated = rate(
                with_connections(dataclasses.replace(setup, batch=one.batch), one.connections)
            )
            title = f"{name}, batches of {one.batch}, {connections(one.connections)}"
            yield Comparison(title, one.rate, simulated, "taken" * (one.connections == TAKEN))


def there(base: Setup, name: str) -> Setup:
    """The daemon that a store was measured with."""
    return dataclasses.replace(of_readme(base), workers=WORKERS[name])


def of_readme(base: Setup) -> Setup:
    """The machine of the tables of stores: what a wake-up costs is all that they do not say."""
    server, client = KEPT_US
    return dataclasses.replace(
        base, edge=server - STAGES_US, client=client, cores=CORES_MEASURED, programs=1
    )


def rows_of(name: str) -> list[Stored]:
    """What was measured of it."""
    return [one for one in stored() if one.store == name]


@functools.cache
def of_store(base: Setup, name: str) -> Store:
    """What a batch and a mail cost in a store of benches/README.md."""
    mine = {(one.batch, one.connections): one for one in rows_of(name)}
    return fitted(there(base, name), mine)


def fitted(setup: Setup, rows: dict[tuple[int, int], Stored]) -> Store:
    """The costs of a store, from what was measured with 100 connections.

    CPU: a mail in a batch by itself has all of a batch to pay, and the I/O thread sleeps before it.
    What it waits: as long as it takes to come to the same rate.
    """
    alone, many = rows[1, TAKEN], rows[64, TAKEN]
    own = max(0.0, alone.server_us - many.server_us - TURNS * setup.wake)
    behind = max(0.0, alone.behind_us - many.behind_us)
    store = Store(
        cpu_batch=own,
        cpu_mail=max(0.0, many.server_us - setup.edge - setup.stages),
        behind_batch=behind,
        behind_mail=many.behind_us,
    )

    def with_waits(batch: int, batch_us: float, mail_us: float) -> float:
        told = dataclasses.replace(store, wait_batch=batch_us, wait_mail=mail_us)
        return rate(dataclasses.replace(setup, batch=batch, store=told))

    most = setup.workers * 1e6 / alone.rate
    both_us = solve(alone.rate, lambda us: with_waits(1, us, 0.0), most)
    mail_us = solve(many.rate, lambda us: with_waits(64, both_us - us, us), both_us)
    return dataclasses.replace(store, wait_batch=both_us - mail_us, wait_mail=mail_us)


def spooled(base: Setup) -> Setup:
    """A sync before the 250: its time is the disk's, its CPU what it costs over the null chain.

    A mail waits besides as it does in the other SQLite, that of the stage. What is done is deleted
    by the commits that save what is new. The stage behind it comes after the answer.
    """
    null_us, spooled_us = (figure(title, "server µs") for title in ("null", "250"))
    store = Store(
        wait_batch=1e6 / figure("4 KiB more in a file, and synced", "a second"),
        wait_mail=of_store(base, "SQL, SQLite").wait_mail,
        cpu_mail=spooled_us - null_us,
        after_mail=STAGES_US,
        python=False,
    )
    return dataclasses.replace(
        base, edge=null_us - STAGES_US, stages=0.0, workers=1, batch=AT_ONCE, store=store
    )


def of_spool(base: Setup) -> Iterator[Comparison]:
    """The spool of benches/README.md."""
    alone = spooled(of_readme(base))
    yield Comparison("spool, 250 alone, 100 connections", figure("250"), rate(alone))
    # A worker that has given its mails to the spool takes the next ones; it commits one by one.
    store = dataclasses.replace(alone.store, writers=1)
    through = dataclasses.replace(alone, stages=STAGES_US, workers=2, store=store)
    title = "spool, a stage before it, 100 connections"
    yield Comparison(title, figure("Python, 250"), rate(through))


@functools.cache
def compare(told: Measured) -> tuple[Comparison, ...]:
    """All of it."""
    base = null(told)
    return (
        *of_null(told, base),
        *of_python(told, base),
        *of_slow(told, base),
        *of_stores(base),
        *of_spool(base),
    )
