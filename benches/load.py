"""What a message costs: guerrillad beside other receivers, in turns, under the same load.

The client is Postfix's smtp-source: HELO, one recipient, no pipelining. Load and server share the
machine's cores, and the client costs about as much as a fast server does. So the figure to compare
is the server's own CPU time a message, by its process CPU clock, as a ratio to smtp-sink; messages
a second stand beside it. Receivers are started anew each time. Everything is on 127.0.0.1, and
bounded in count and time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import clients
from measuring import WARM_UP, Bench, Start, cpu_us
from postfix import RUN_LIMIT, BenchError, Load
from receivers import LOGGED, Receiver, guerrillad

OURS: Final = "guerrilla"
SINK: Final = "smtp-sink"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A load, with as many messages as a fast receiver takes in two seconds."""

    name: str
    title: str
    load: Load
    fewer: Mapping[str, float]
    """Of them for receivers that would take far longer."""


def _fewer(aiosmtpd: float) -> dict[str, float]:
    """smtp-server is compiled as it runs: few messages would show it slower than it is."""
    return {"aiosmtpd": aiosmtpd, "smtp-server": 0.5}


SCENARIOS: Final = (
    Scenario("a", "a message a connection, 4 KiB", Load(100, 12_000, kept=False), _fewer(0.15)),
    Scenario("b", "kept connections, 4 KiB", Load(100, 40_000), _fewer(0.1)),
    Scenario("c", "kept connections, 100 KiB", Load(50, 30_000, 102_400), _fewer(0.05)),
    Scenario("d", "kept connections, 1 MiB", Load(10, 1_700, 1_048_576), _fewer(0.1)),
)
"""As many connections and octets as the targets have."""


def chosen(
    parser: argparse.ArgumentParser, line: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[Scenario]]:
    """Arguments of a command line, scenarios and rounds among them, and those scenarios."""
    parser.add_argument("--scenarios", default="a,b,c,d", help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="of each; the median counts")
    args = parser.parse_args(line)
    known = {one.name: one for one in SCENARIOS}
    if unknown := [name for name in args.scenarios.split(",") if name not in known]:
        parser.error(f"no scenario {', '.join(unknown)}: there are {', '.join(known)}")
    return args, [known[name] for name in args.scenarios.split(",")]


def receivers(bench: Bench) -> Iterator[tuple[str, Start]]:
    """All that are there; ours right behind the one that it is compared with."""
    others = dict(bench.peers)
    if SINK in others:
        yield SINK, others.pop(SINK)
    yield OURS, bench.serve
    yield from others.items()


def messages(bench: Bench, scenario: Scenario) -> None:
    """A load, each receiver in turn."""
    whole = at_most(scenario.load, bench.count(scenario.load.messages))
    for name, start in receivers(bench):
        part = scenario.fewer.get(name, 1.0)
        load = at_most(whole, max(1, round(whole.messages * part)))
        with start() as receiver:
            bench.postfix.send(receiver.port, at_most(whole, warm_up(whole)))
            bench.send(receiver, load, f"{scenario.name} {name}")


def warm_up(load: Load) -> int:
    """Messages before those that count, as many for each receiver."""
    return max(1, min(WARM_UP, load.messages // 10))


def at_most(load: Load, count: int) -> Load:
    """So many messages of it, at most."""
    return dataclasses.replace(load, messages=min(load.messages, count))


# --- Pipelining -----------------------------------------------------------------------------------

PIPED: Final = 20_000
PIPED_CONNECTIONS: Final = 100


def piped(bench: Bench) -> None:
    """MAIL, RCPT and DATA in one write, as RFC 2920 allows it; and whole messages at once."""
    count = bench.count(PIPED)
    for name in (SINK, OURS):
        start = bench.peers[name] if name != OURS else bench.serve
        with start() as receiver:
            loaded(receiver.port, WARM_UP)
            used = cpu_us(receiver, partial(loaded, receiver.port, count))
            bench.samples.add(f"piped {name} server µs", used / count)
            with contextlib.closing(clients.Piped(receiver.port, PIPED_CONNECTIONS)) as kept:
                kept.send(WARM_UP)
                used = cpu_us(receiver, partial(kept.send, count))
                bench.samples.add(f"unwaiting {name} server µs", used / count)


def loaded(port: int, count: int) -> None:
    """Sends so many messages by `guerrillad bench --pipelining`."""
    command = [sys.executable, "-m", "guerrilla", "bench", "--target", f"127.0.0.1:{port}"]
    command += ["--connections", str(PIPED_CONNECTIONS), "--messages", str(count), "--pipelining"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT, check=False)
    if done.returncode:
        raise BenchError(f"guerrillad bench: {(done.stderr or done.stdout).strip()[-300:]}")


# --- The line of a message ------------------------------------------------------------------------

LOGGING: Final = {
    "silent": None,
    "text": f'{LOGGED}\nlog_format = "text"',
    "JSON": f'{LOGGED}\nlog_format = "json"',
}


def logging(bench: Bench) -> None:
    """The load of b with a line a message, and without."""
    load = SCENARIOS[1].load
    for name, keys in LOGGING.items():
        more = {} if keys is None else {"log": keys}
        with guerrillad(bench.folder, **more) as receiver:
            bench.postfix.send(receiver.port, at_most(load, WARM_UP))
            bench.send(receiver, at_most(load, bench.count(20_000)), f"log {name}")


# --- Three stages, and none -----------------------------------------------------------------------

STAGES_TURNS: Final = 3
STAGES: Final = 15_000


def stages(bench: Bench, alone: Start) -> None:
    """The chain of three stages, and the core without Python, in short turns."""
    load = SCENARIOS[1].load
    with contextlib.ExitStack() as open_:
        both: dict[str, Receiver] = {
            "three stages": open_.enter_context(bench.serve()),
            "the core alone": open_.enter_context(alone()),
        }
        for receiver in both.values():
            bench.postfix.send(receiver.port, at_most(load, WARM_UP))
        for _ in range(STAGES_TURNS):
            for name, receiver in both.items():
                bench.send(receiver, at_most(load, bench.count(STAGES)), name)
