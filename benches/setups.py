"""What is simulated, under which load, and what came of it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Store:
    """What a batch costs, µs: `batch` whatever is in it, `mail` for each mail."""

    wait_batch: float = 0.0
    wait_mail: float = 0.0
    """Without a core: a sync, a round trip, a server on another machine."""
    cpu_batch: float = 0.0
    cpu_mail: float = 0.0
    """Of the daemon."""
    behind_batch: float = 0.0
    behind_mail: float = 0.0
    """Of a server behind it on the same cores."""
    after_mail: float = 0.0
    """Of the daemon, after the answer: what is right of `250`."""
    writers: int = 0
    """Batches that it takes at a time, of all processes; 0: any number."""
    python: bool = True
    """Whether its CPU of the daemon needs the lock of Python."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """A daemon and its machine. Costs are CPU µs a message."""

    edge: float
    """Of the I/O thread."""
    stages: float
    """Of stages in Python, the store's part apart."""
    client: float = 0.0
    """Of the client, where it has the same cores; 0: it has others."""
    wake: float = 0.0
    """Of a thread that has slept: µs more for each turn."""
    cores: int = 2
    processes: int = 1
    workers: int = 1
    batch: int = 64
    programs: int = 1
    """Client programs, a thread each."""
    shared: bool = True
    """Connections go to whoever has fewest; else by chance, as by a hash."""
    connections: int = 100
    """At a time; who comes when they are all there hears 421."""
    queue: int = 100_000
    """Mails that are received and not answered; who brings one more hears 452."""
    timeout: float = 30.0
    """Seconds that a mail may wait for its worker; then it hears 451."""
    store: Store = dataclasses.field(default_factory=Store)


@dataclasses.dataclass(frozen=True)
class Load:
    """Who sends. Without any arrivals each connection sends mail after mail."""

    rate: float = 0.0
    """Mails a second that come by chance, each by itself (Poisson)."""
    burst: int = 0
    every: float = 1.0
    """So many at once, every so many seconds; the first after half of them."""

    @property
    def closed(self) -> bool:
        """Each connection sends the next mail when the one before it is answered."""
        return not (self.rate or self.burst)


@dataclasses.dataclass
class Result:
    """What came of it."""

    seconds: float = 0.0
    latencies: list[float] = dataclasses.field(default_factory=list)
    """Of each mail that was answered 250, from its arrival to the answer, in seconds."""
    arrived: int = 0
    refused: dict[int, int] = dataclasses.field(default_factory=lambda: {421: 0, 452: 0, 451: 0})
    batches: int = 0
    most_waiting: int = 0
    computed: float = 0.0
    """Seconds of CPU."""
    area: float = 0.0
    """Mails that waited for a worker, times seconds."""

    @property
    def rate(self) -> float:
        """Mails answered 250 a second."""
        return len(self.latencies) / self.seconds

    @property
    def mean_batch(self) -> float:
        """Mails a batch."""
        return len(self.latencies) / max(1, self.batches)

    @property
    def waiting(self) -> float:
        """Mails that waited for a worker, on average."""
        return self.area / self.seconds

    def quantile(self, part: float) -> float:
        """Of the latencies, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
