"""What `goals.py` measures, row by row: most of it by what the other programs here are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import family
import processors
import scaling
import spool
from calls import calls
from edge import good, idle, refused
from edge_tls import tls
from load import SCENARIOS, logging, messages, piped, stages
from measuring import Bench
from postfix import BenchError
from receivers import guerrillad, telling
from stores import STORES

ROOT: Final = Path(__file__).parent.parent
CONNECTIONS: Final = 100
BATCH: Final = 64
BUILDING: Final = 900.0
"""Seconds that the benchmarks in Rust may take to be built."""

# --- What stores ---------------------------------------------------------------------------------

SECONDS: Final = 2.0
"""Of each run."""


def stored(name: str, bench: Bench) -> None:
    """The load of b into a store."""
    store = STORES[name](bench.places)
    folder = bench.places.folder("guerrillad")
    with guerrillad(folder, backend=store.backend(BATCH)) as receiver:
        send = processors.by_postfix(bench.postfix)
        seconds = SECONDS * bench.scale
        found = processors.measure(store, receiver, CONNECTIONS, send, seconds)
    _, rate, own, behind = found
    bench.samples.add(f"{name} messages/s", rate)
    bench.samples.add(f"{name} own µs", own)
    bench.samples.add(f"{name} behind µs", behind)


def spooled(bench: Bench) -> None:
    """A sync before each 250, and none."""
    send = processors.by_postfix(bench.postfix)
    for chain in spool.CHAINS:
        with tempfile.TemporaryDirectory(prefix="guerrilla-spool-") as path:
            seconds = SECONDS * bench.scale
            found = spool.measure(chain, send, CONNECTIONS, seconds, Path(path))
        bench.samples.add(f"spool {chain} messages/s", found.rate)
        bench.samples.add(f"spool {chain} server µs", found.server_us)


def processes(bench: Bench) -> None:
    """As many processes as cores, and a chain that Python is the limit of."""
    cores = len(os.sched_getaffinity(0))
    plan = scaling.Plan(cores, seconds=SECONDS * bench.scale, settle=0.5)
    start = family.by_postfix(bench.postfix)
    inner = scaling.Bench(plan, start, bench.folder, cores)
    window = scaling.one_round(inner, "python", cores).window
    spent = window.server_us + window.client_us
    bench.samples.add("processes share", window.rate * spent / 1e6 / cores)
    bench.samples.add("processes messages/s", window.rate)
    bench.samples.add("processes others", window.others)


# --- Latency -------------------------------------------------------------------------------------


LEAST_LOAD: Final = 0.95
"""Of what was asked for: under less load it is answered sooner."""


def latency(bench: Bench) -> None:
    """Half as many messages a second as it takes at most, by `guerrillad bench`."""
    peak = loaded(bench, SECONDS)["messages_per_second"]
    told = loaded(bench, 2 * SECONDS, "--rate", f"{peak / 2:.0f}")
    if (reached := told["messages_per_second"]) < LEAST_LOAD * peak / 2:
        raise BenchError(f"half the peak was not kept up: {reached:.0f} of {peak / 2:.0f} a second")
    bench.samples.add("peak messages/s", peak)
    for name, key in (("the final dot", "from_dot"), ("when it was due", "from_due")):
        for part in ("p50", "p99"):
            bench.samples.add(f"{part} from {name} ms", told["latency"][key][part] * 1e3)


def loaded(bench: Bench, seconds: float, *more: str) -> dict[str, Any]:
    """What `guerrillad bench` says of a daemon of its own."""
    command = [sys.executable, "-m", "guerrilla", "bench", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{max(1.0, seconds * bench.scale):.1f}s", "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"guerrillad bench: {done.stderr.strip()[-300:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


# --- The core by itself --------------------------------------------------------------------------


@cache
def core() -> str:
    """Builds the benchmarks in Rust: their program."""
    command = ["cargo", "bench", "--profile", "release", "--locked", "--bench", "core"]
    command += ["--no-run", "--message-format=json"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=BUILDING
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:]
        raise BenchError(f"cargo bench: {' '.join(said)}") from error
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if told.get("executable") and told["target"]["kind"] == ["bench"]:
            return str(told["executable"])
    raise BenchError("cargo bench --bench core made no program")


def three_stages(bench: Bench) -> None:
    """A chain of three, over the core whose mails a thread in Rust answers."""
    stages(bench, partial(telling, [core(), "serve"], bench.folder))


def parser(bench: Bench) -> None:
    """By its own clock: ns a command, GiB/s of a message without dots."""
    done = subprocess.run([core(), "timed"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"core timed: {done.stderr.strip()[-300:]}")
    for name, value in json.loads(done.stdout.strip().splitlines()[-1]).items():
        if isinstance(value, float):
            bench.samples.add(name, value)


ROWS: Final[Mapping[str, Callable[[Bench], None]]] = {
    **{one.name: partial(messages, scenario=one) for one in SCENARIOS},
    "piped": piped,
    "calls": calls,
    "stages": three_stages,
    "idle": idle,
    "tls": tls,
    "redis": partial(stored, "Redis"),
    "mariadb": partial(stored, "SQL, MariaDB"),
    "sqlite": partial(stored, "SQL, SQLite"),
    "spool": spooled,
    "processes": processes,
    "latency": latency,
    "hostile": good,
    "parser": parser,
    "refused": refused,
    "log": logging,
}
"""What can be measured, by what `--rows` calls it."""
