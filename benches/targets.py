"""What is aimed at, as a table: what it is called, what it must be, what it is to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from load import OURS, SINK
from measuring import Samples

SINK_US: Final = 62.0
"""What smtp-sink took a message in scenario b, on the machine that absolute limits are for."""
GO_REDIS_US: Final = 372.0
"""What Go-Guerrilla took there with Redis, Redis included: a figure of then, not of this run."""

Value = Callable[[Samples], float]


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure, and its limits if it has any."""

    row: str
    """Of `rows.ROWS`, which measures it."""
    title: str
    unit: str
    value: Value
    must: float | None = None
    goal: float | None = None
    more: bool = False
    """Whether the limits are from below."""
    scales: int = 0
    """1: it is a time, so on a machine twice as slow it is twice as much; -1: half as much. 0 where
    a disk's syncs bound it, too, which no processor makes faster."""

    def on_that_machine(self, samples: Samples) -> float:
        """What it would have been there."""
        return self.value(samples) / slower(samples, self.row) ** self.scales

    def met(self, value: float) -> str:
        """`goal`, `must`, `no`; nothing where there are no limits."""
        for name, limit in (("goal", self.goal), ("must", self.must)):
            if limit is not None and (value >= limit if self.more else value <= limit):
                return name
        return "" if self.must is None else "no"


def of(name: str) -> Value:
    """A median."""
    return lambda samples: samples.median(name)


def ratio(name: str, other: str) -> Value:
    """Of two medians."""
    return lambda samples: samples.ratio(name, other)


def to_sink(scenario: str) -> Value:
    """CPU of ours to that of smtp-sink."""
    return ratio(f"{scenario} {OURS} server µs", f"{scenario} {SINK} server µs")


def gauge(row: str) -> str:
    """Under which name smtp-sink in scenario b was measured right before a row."""
    return f"gauge {row} {SINK}"


def slower(samples: Samples, row: str) -> float:
    """How many times slower this machine was just then than that of the limits; 1 if unknown."""
    for name in (gauge(row), f"b {SINK}"):
        if f"{name} server µs" in samples.of:
            return samples.median(f"{name} server µs") / SINK_US
    return 1.0


def _stages(samples: Samples) -> float:
    return samples.median("three stages server µs") - samples.median("the core alone server µs")


def _redis(samples: Samples) -> float:
    both = samples.median("Redis own µs") + samples.median("Redis behind µs")
    return both / GO_REDIS_US


TO_SINK: Final = "of smtp-sink's"
A_MESSAGE: Final = "server µs a message"
GOALS: Final = (
    Goal("a", "a: a message a connection, 4 KiB", TO_SINK, to_sink("a"), 0.72, 0.62),
    Goal("b", "b: kept connections, 4 KiB", TO_SINK, to_sink("b"), 0.66, 0.55),
    Goal("calls", "b: system calls", "a message", of(f"calls {OURS}"), 11, 9),
    Goal("piped", "b: a client that pipelines", TO_SINK, to_sink("piped"), 0.60, 0.45),
    Goal("c", "c: kept connections, 100 KiB", TO_SINK, to_sink("c"), 0.14, 0.10),
    Goal("d", "d: kept connections, 1 MiB", TO_SINK, to_sink("d"), 0.14, 0.10),
    Goal("stages", "three stages, over the core alone", A_MESSAGE, _stages, 10, 5, scales=1),
    Goal("idle", "10,000 connections after EHLO", "KiB each", of("idle plain KiB"), 2, 1.3),
    Goal("idle", "10,000 connections after EHLO, TLS", "KiB each", of("idle TLS KiB"), 16, 10),
    Goal(
        "tls",
        "EHLO, STARTTLS (P-256), EHLO, QUIT",
        "server µs a session",
        of("session, STARTTLS server µs"),
        350,
        250,
        scales=1,
    ),
    Goal(
        "tls",
        "kept connections, 4 KiB, TLS / plain",
        "of the CPU",
        ratio("kept, TLS server µs", "kept, plain server µs"),
        1.4,
        1.2,
    ),
    Goal("redis", "Redis, both sides / Go-Guerrilla's", "of the CPU", _redis, 0.45, 0.3, scales=1),
    Goal(
        "mariadb",
        "SQL, MariaDB with a sync a commit",
        "messages/s",
        of("SQL, MariaDB messages/s"),
        4_000,
        6_000,
        more=True,
    ),
    Goal(
        "sqlite",
        "SQL, SQLite with synchronous=FULL",
        "messages/s",
        of("SQL, SQLite messages/s"),
        7_500,
        12_000,
        more=True,
    ),
    Goal(
        "spool",
        "spool, a sync before each 250 / null",
        "of the rate",
        ratio("spool 250 messages/s", "spool null messages/s"),
        0.5,
        0.8,
        more=True,
    ),
    Goal(
        "processes",
        "a process a core, chain bound by Python",
        "of what CPU allows",
        of("processes share"),
        0.8,
        0.9,
        more=True,
    ),
    Goal(
        "latency",
        "final dot to 250 at half the peak, p99",
        "ms",
        of("p99 from the final dot ms"),
        10,
        3,
    ),
    Goal(
        "hostile",
        "20 connections beside the hostile / alone",
        "of the rate",
        ratio("20 connections, beside the hostile messages/s", "20 connections, alone messages/s"),
        0.8,
        0.95,
        more=True,
    ),
    Goal("parser", "a command", "ns", of("command_ns"), 250, 100, scales=1),
    Goal("parser", "DATA without dots", "GiB/s", of("data_gib_s"), 3, 10, more=True, scales=-1),
)
"""The goals of the project, in their order."""


def _refused() -> tuple[Goal, ...]:
    kinds = (
        "max_clients",
        "max_connections_per_ip",
        "max_connection_rate_per_ip",
        "proxy_protocol, untrusted",
    )
    accepted = "refused: accepted server µs"
    unit = "server µs a connection"
    return (
        Goal("refused", "accepted, then QUIT", unit, of(accepted)),
        *(
            Goal("refused", f"refused: {kind}", unit, of(f"refused: {kind} server µs"))
            for kind in kinds
        ),
    )


BESIDE: Final = (
    Goal("calls", "b: system calls of smtp-sink", "a message", of(f"calls {SINK}")),
    Goal("piped", "pipelined, smtp-sink", A_MESSAGE, of(f"piped {SINK} server µs")),
    Goal("piped", "pipelined, guerrilla", A_MESSAGE, of(f"piped {OURS} server µs")),
    Goal("piped", "without waiting, smtp-sink", A_MESSAGE, of(f"unwaiting {SINK} server µs")),
    Goal("piped", "without waiting, guerrilla", A_MESSAGE, of(f"unwaiting {OURS} server µs")),
    Goal("stages", "three stages", A_MESSAGE, of("three stages server µs")),
    Goal("stages", "the core alone", A_MESSAGE, of("the core alone server µs")),
    Goal("tls", "EHLO, QUIT", "server µs a session", of("session, plain server µs")),
    Goal("tls", "STARTTLS, resumed", "server µs a session", of("session, resumed server µs")),
    Goal("tls", "kept connections, 4 KiB, plain", A_MESSAGE, of("kept, plain server µs")),
    Goal("tls", "kept connections, 4 KiB, TLS", A_MESSAGE, of("kept, TLS server µs")),
    Goal("redis", "Redis, the daemon's side", A_MESSAGE, of("Redis own µs")),
    Goal("redis", "Redis, its own side", A_MESSAGE, of("Redis behind µs")),
    Goal("spool", "a chain that keeps nothing", "messages/s", of("spool null messages/s")),
    Goal("spool", "the spool", "messages/s", of("spool 250 messages/s")),
    Goal("spool", "the spool behind a stage", "messages/s", of("spool Python, 250 messages/s")),
    Goal("latency", "the peak", "messages/s", of("peak messages/s")),
    Goal("latency", "final dot to 250, p50", "ms", of("p50 from the final dot ms")),
    Goal("latency", "when it was due to 250, p99", "ms", of("p99 from when it was due ms")),
    Goal("hostile", "20 connections, alone", "messages/s", of("20 connections, alone messages/s")),
    Goal(
        "hostile",
        "20 connections, beside the hostile",
        A_MESSAGE,
        of("20 connections, beside the hostile server µs"),
    ),
    Goal(
        "hostile",
        "one connection, beside / alone",
        "of the rate",
        ratio("one connection, beside the hostile messages/s", "one connection, alone messages/s"),
    ),
    *_refused(),
    Goal(
        "log",
        "a line a message as text / silent",
        "of the CPU",
        ratio("log text server µs", "log silent server µs"),
    ),
    Goal(
        "log",
        "a line a message as JSON / silent",
        "of the CPU",
        ratio("log JSON server µs", "log silent server µs"),
    ),
)
"""What stands beside them, without limits."""
