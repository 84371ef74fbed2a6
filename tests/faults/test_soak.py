"""The soak: most of what it can take, for minutes, with faults now and then; nothing grows."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import apsw
import pytest

from tests.certificates import self_signed
from tests.faults import heap
from tests.faults.daemons import descriptors, hang_up, mails_in, stats, threads
from tests.faults.pace import Messages, Pace, Taken, quantile, slope
from tests.faults.tally import Tally
from tests.ledger import Ledger
from tests.running import RunningDaemon
from tests.wire import Wire, anonymous_memory, until

SHARE: Final = 0.7
"""Of the rate that it reaches when everybody sends as fast as it goes."""
PEAK: Final = {False: 2.0, True: 5.0}
"""Seconds in which that is measured."""
LENGTH: Final = {False: 15.0, True: 300.0}
"""Seconds of the soak, short and full; with the peak, the start and the verdict 20 s are short."""
KEPT: Final = {False: 0.5, True: 0.8}
"""Of that pace, at least: the machine may be busier than when the peak was measured."""
WARM: Final = {False: 5.0, True: 60.0}
"""Seconds of it that are not looked at: caches, pools and the allocator fill up."""
EVERY: Final = {False: 2.0, True: 5.0}
"""Seconds from one fault to the next."""
LOOK: Final = 0.25
"""Seconds between two samples."""
MIB: Final = 2**20
UNITS: Final = {"heap": "MiB", "memory": "MiB", "descriptors": "", "threads": "", "latency": "ms"}
LIMITS: Final = {
    False: {"heap": 30, "memory": 60, "descriptors": 60, "threads": 30, "latency": 3_000},
    True: {"heap": 2, "memory": 8, "descriptors": 2, "threads": 1, "latency": 20},
}
"""By how much each may grow a minute, short and full.

- heap, what is allocated: measured +0.01 MiB a minute over five, which were 420,000 mails. What
  leaks 32 octets a mail grows by 2 MiB a minute, at a thousand mails a second.
- memory, what the process has: more, as the allocator keeps what is freed, in pieces into which
  the next messages do not fit. Measured: 3.6 and 4.2 MiB a minute over five, with a flat heap.
- descriptors: one that leaks with each reload, or with each client that is gone, is 4 a minute.
- threads: a reload takes a worker away or brings it back; one that stays each time is 4 a minute.
- latency, the median of each second: a tenth of a second over five minutes, half of one over ten
  seconds. A machine that others use as well moves it by so much; a queue that grows does by more.

The short form looks at ten seconds, in which a worker more at the end, or a few large messages, are
a slope already: it finds what leaks with each mail, and the full one what leaks now and then.
"""


@dataclass
class Flat:
    """What may not grow, as samples of it."""

    name: str
    unit: str
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Minutes, and what was measured then."""

    def slope(self) -> float:
        """How much it has grown a minute, by least squares."""
        return slope(self.samples)

    def __str__(self) -> str:
        values = [value for _, value in self.samples]
        return (
            f"{self.name}: {self.slope():+.2f} {self.unit} a minute, "
            f"from {min(values):.1f} to {max(values):.1f}"
        )


class Weather:
    """A fault now and then, each in turn."""

    def __init__(self, daemon: RunningDaemon, every: float) -> None:
        self.faults = 0
        self._daemon = daemon
        self._every = every
        self._config = daemon.config_file.read_text(encoding="utf-8")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for fault in itertools.cycle([self.reload, self.lock, self.reset]):
            if self._ending.wait(self._every):
                return
            fault()
            self.faults += 1

    def reload(self) -> None:
        """Other workers with other chains, in the place of those who work."""
        workers = 1 + self.faults % 2
        text = self._config.replace("save_workers_size = 2", f"save_workers_size = {workers}")
        fresh = self._daemon.config_file.with_suffix(".part")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._daemon.config_file)
        hang_up(self._daemon)

    def lock(self) -> None:
        """The store is away for a second: another process has it to itself."""
        with closing(apsw.Connection(os.fspath(self._daemon.db))) as connection:
            connection.set_busy_timeout(10_000)
            connection.execute("BEGIN IMMEDIATE")
            self._ending.wait(1.0)
            connection.execute("ROLLBACK")

    def reset(self) -> None:
        """Clients are gone in the midst of their message."""
        for _ in range(5):
            wire = Wire(self._daemon.port).begin()
            wire.send(b"Subject: half\r\n\r\nof a message")
            wire.reset()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def medians(taken: Sequence[Taken], began: float) -> list[tuple[float, float]]:
    """Of the mails of each second: the minute, and the milliseconds that half of them took at most.

    So a fault, which is over within a second, is one sample of many, and not thousands.
    """
    seconds: dict[int, list[float]] = {}
    for one in taken:
        seconds.setdefault(int(one.when - began), []).append(one.seconds * 1000)
    return [(second / 60, statistics.median(found)) for second, found in sorted(seconds.items())]


def start(folder: Path) -> RunningDaemon:
    shutil.copy(heap.__file__, folder)
    return RunningDaemon(
        folder,
        server=f"[servers.tls]\nstart_tls_on = true\n{self_signed(folder).toml()}",
        backend='save_workers_size = 2\nimport = ["heap"]',
    )


def sample(daemon: RunningDaemon, grown: Mapping[str, Flat], at: float) -> None:
    """Looks at the process once, so many seconds after the begin."""
    for name, value in {
        "heap": int((daemon.folder / heap.FILE).read_text()) / MIB,
        "memory": anonymous_memory(daemon.pid) / MIB,
        "descriptors": descriptors(daemon.pid),
        "threads": len(threads(daemon.pid)),
    }.items():
        grown[name].samples.append((at / 60, value))


@pytest.mark.alone
def test_nothing_grows(
    tmp_path: Path,
    full: bool,
    tally: Callable[[str, str], Tally],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger = Ledger([])
    ledger.messages = Messages()
    numbers = itertools.count()
    grown = {name: Flat(name, unit) for name, unit in UNITS.items()}
    with start(tmp_path) as daemon:
        idle = descriptors(daemon.pid)
        peak = fastest(daemon, ledger, numbers, PEAK[full])
        pace = Pace(daemon.port, ledger, numbers, SHARE * peak)
        began = time.monotonic()
        pace.start()
        with Weather(daemon, EVERY[full]) as weather:
            while (at := time.monotonic() - began) < LENGTH[full]:
                if at > WARM[full]:
                    sample(daemon, grown, at)
                time.sleep(LOOK)
        pace.end()
        until(lambda: stats(daemon)["connections_open"] == 0)
        # The control socket has its own for each question.
        until(lambda: descriptors(daemon.pid) <= idle + 1)
        found = stats(daemon)
    taken = [one for one in pace.taken if one.when - began > WARM[full]]
    grown["latency"].samples = medians(taken, began)
    times = f"p50 {quantile(taken, 0.5) * 1000:.1f} ms, p99 {quantile(taken, 0.99) * 1000:.1f} ms"
    with capsys.disabled():
        print(f"\npeak {peak:,.0f} mails a second; {len(pace.taken):,} at {SHARE:.0%}; {times}")  # noqa: T201
        for name, one in grown.items():
            print(f"{one}; at most {LIMITS[full][name]:+g}")  # noqa: T201
    assert {name: one for name, one in grown.items() if one.slope() > LIMITS[full][name]} == {}
    assert len(taken) > KEPT[full] * SHARE * peak * (LENGTH[full] - WARM[full]), "it lost its pace"
    assert (found["memory_used"], found["queue_depth"], found["panics"]) == (0, 0, 0)
    mails = mails_in(tmp_path / "mail.db")
    faults = weather.faults
    tally("soak", "SQLite").audit(ledger, mails, rounds=faults, tls=faults, note=times)


def fastest(daemon: RunningDaemon, ledger: Ledger, numbers: Iterator[int], seconds: float) -> float:
    """Mails a second, when everybody sends as fast as it goes."""
    pace = Pace(daemon.port, ledger, numbers)
    began = time.monotonic()
    pace.start()
    time.sleep(seconds)
    pace.end()
    return len(pace.taken) / (time.monotonic() - began)
