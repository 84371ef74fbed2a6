"""What a message costs: guerrillad beside Postfix's smtp-sink, on this machine, in one run.

    python benches/load.py [--scenario a,b,c,idle] [--rounds 3] [--log text,json] [--json FILE]

The client is Postfix's smtp-source: HELO, one recipient, no pipelining. Load and server share the
machine's cores, and the client costs about as much as a fast server does. So the figure to compare
is the server's own CPU time a message, by its process CPU clock, as a ratio to smtp-sink; messages
a second stand beside it. Rounds are interleaved, receivers are started anew for each, the median
counts. Everything is on 127.0.0.1, and bounded in count and time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from postfix import BenchError, Load, Postfix, find_postfix
from receivers import (
    LOGGED,
    START_LIMIT,
    Receiver,
    guerrillad,
    machine,
    raise_file_limit,
    smtp_sink,
)

SETTLE: Final = 1.0
"""Seconds before memory is read: what is freed late should be free."""
WARM_UP: Final = 300
"""Messages before the measured ones: first use of code and memory is not what is compared."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A load, and what is aimed at as a ratio to smtp-sink."""

    name: str
    title: str
    sessions: int
    messages: int
    size: int
    kept: bool
    must: float
    goal: float

    def load(self, messages: int) -> Load:
        """So many messages of it."""
        return Load(self.sessions, messages, self.size, self.kept)


SCENARIOS: Final = (
    Scenario("a", "a message a connection, 4 KiB", 100, 20_000, 4_096, False, 0.72, 0.62),
    Scenario("b", "kept connections, 4 KiB", 100, 50_000, 4_096, True, 0.66, 0.55),
    Scenario("c", "kept connections, 100 KiB", 50, 5_000, 102_400, True, 0.14, 0.10),
)
IDLE: Final = "idle"
IDLE_CONNECTIONS: Final = 1_000
IDLE_MUST_KIB: Final = 2.0
IDLE_GOAL_KIB: Final = 1.3


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measured run. Times are CPU µs a message; the rate is messages a second."""

    scenario: str
    receiver: str
    server_us: float
    client_us: float
    rate: float


@dataclasses.dataclass(frozen=True)
class IdleSample:
    """Resident KiB a connection that has said EHLO and is silent."""

    scenario: str
    receiver: str
    kib: float


# --- Measuring -----------------------------------------------------------------------------------


def measure(postfix: Postfix, scenario: Scenario, name: str, receiver: Receiver) -> Sample:
    """One round of a scenario against a receiver that was just started."""
    postfix.send(receiver.port, scenario.load(WARM_UP))
    before = receiver.cpu_ns()
    wall, client = postfix.send(receiver.port, scenario.load(scenario.messages))
    server_us = (receiver.cpu_ns() - before) / 1_000
    count = scenario.messages
    return Sample(scenario.name, name, server_us / count, client * 1e6 / count, count / wall)


def measure_idle(name: str, receiver: Receiver) -> IdleSample:
    """Memory of connections after EHLO."""
    with contextlib.ExitStack() as held:
        held.enter_context(
            _connect(receiver.port)
        )  # what the first one costs is not a connection's
        before = receiver.resident_kib()
        for _ in range(IDLE_CONNECTIONS):
            held.enter_context(_connect(receiver.port))
        time.sleep(SETTLE)
        grown = receiver.resident_kib() - before
    return IdleSample(IDLE, name, grown / IDLE_CONNECTIONS)


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), START_LIMIT)
    _reply(connection)
    connection.sendall(b"EHLO client.example\r\n")
    _reply(connection)
    return connection


def _reply(connection: socket.socket) -> None:
    """Reads one whole reply, which has to be 2xx."""
    text = b""
    while not (text.endswith(b"\r\n") and text.split(b"\r\n")[-2][3:4] == b" "):
        received = connection.recv(4_096)
        if not received:
            raise BenchError("an idle connection was closed")
        text += received
    if not text.startswith(b"2"):
        raise BenchError(f"an idle connection was refused: {text.decode('ascii', 'replace')}")


# --- The report ----------------------------------------------------------------------------------


def run(
    postfix: Postfix, names: list[str], rounds: int, logs: Sequence[str]
) -> list[Sample | IdleSample]:
    """Measures every scenario, the receivers in turns; `logs` are values of `log_format`."""
    samples: list[Sample | IdleSample] = []
    with tempfile.TemporaryDirectory(prefix="guerrilla-load-") as folder:
        starts: dict[str, Callable[[], contextlib.AbstractContextManager[Receiver]]] = {
            "smtp-sink": lambda: smtp_sink(postfix, IDLE_CONNECTIONS + 100),
            "guerrilla": lambda: guerrillad(Path(folder)),
        }
        for form in logs:
            keys = f'{LOGGED}\nlog_format = "{form}"'
            starts[f"{form} log"] = partial(guerrillad, Path(folder), log=keys)
        for name in names:
            scenario = next((one for one in SCENARIOS if one.name == name), None)
            for number in range(1, rounds + 1):
                for receiver_name, start in starts.items():
                    print(f"{name} {number}/{rounds} {receiver_name}", file=sys.stderr, flush=True)
                    with start() as receiver:
                        samples.append(
                            measure_idle(receiver_name, receiver)
                            if scenario is None
                            else measure(postfix, scenario, receiver_name, receiver)
                        )
    return samples


def table(samples: list[Sample | IdleSample]) -> list[str]:
    """The medians, a line a scenario and receiver."""
    form = "{:34}{:11}{:>11}{:>11}{:>11}{:>8}{:>7}{:>7}"
    lines = [
        form.format(
            "scenario", "receiver", "server µs", "client µs", "messages/s", "ratio", "must", "goal"
        )
    ]
    for scenario in SCENARIOS:
        measured = [
            one for one in samples if isinstance(one, Sample) and one.scenario == scenario.name
        ]
        reference = _median(one.server_us for one in measured if one.receiver == "smtp-sink")
        for name in dict.fromkeys(one.receiver for one in measured):
            mine = [one for one in measured if one.receiver == name]
            cpu = _median(one.server_us for one in mine)
            ours = name == "guerrilla"
            lines.append(
                form.format(
                    f"{scenario.name}  {scenario.title}",
                    name,
                    f"{cpu:.1f}",
                    f"{_median(one.client_us for one in mine):.1f}",
                    f"{_median(one.rate for one in mine):,.0f}",
                    f"{cpu / reference:.2f}",
                    scenario.must if ours else "",
                    scenario.goal if ours else "",
                )
            )
    idle = [one for one in samples if isinstance(one, IdleSample)]
    if idle:
        lines += ["", form.format("", "", "KiB each", "", "", "", "must", "goal")]
    for name in dict.fromkeys(one.receiver for one in idle):
        kib = _median(one.kib for one in idle if one.receiver == name)
        limits = (IDLE_MUST_KIB, IDLE_GOAL_KIB) if name == "guerrilla" else ("", "")
        title = f"{IDLE_CONNECTIONS:,} idle connections"
        lines.append(form.format(title, name, f"{kib:.2f}", "", "", "", *limits))
    return lines


def _median(values: Iterator[float]) -> float:
    return statistics.median(list(values) or [float("nan")])


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*(scenario.name for scenario in SCENARIOS), IDLE]
    parser.add_argument("--scenario", default=",".join(known), help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="of each; the median counts")
    parser.add_argument(
        "--log", default="", metavar="FORMS", help="also with a line a message: text, json or both"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample goes there too")
    args = parser.parse_args()
    names = args.scenario.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no scenario {', '.join(unknown)}: there are {', '.join(known)}")
    raise_file_limit()
    try:
        samples = run(find_postfix(), names, args.rounds, args.log.split(",") if args.log else [])
    except (BenchError, OSError, subprocess.CalledProcessError) as error:
        print(f"load.py: {error}", file=sys.stderr)
        return 1
    print(f"{machine()}; {args.rounds} rounds, medians; ratio: server CPU to smtp-sink's\n")
    print("\n".join(table(samples)))
    if args.json:
        rows = [dataclasses.asdict(sample) for sample in samples]
        args.json.write_text(json.dumps({"machine": machine(), "samples": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
