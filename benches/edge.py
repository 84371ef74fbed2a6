"""What the edge costs: hostile neighbours, idle connections, refused ones, TLS.

    python benches/edge.py [--scenario good,idle,refused,tls] [--rounds 3] [--json FILE]

Every figure is of guerrillad alone; what it is compared with is measured in turns in the same run,
and the median counts. CPU is the daemon's own, all threads and the kernel's part included, by its
process CPU clock. Everything is on 127.0.0.1, and bounded in count and time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import clients
from edge_tls import StartTls, tls
from measuring import WARM_UP, Bench, Figure, Samples, cpu_us, table
from postfix import BenchError, Load, find_postfix
from receivers import START_LIMIT, Receiver, guerrillad, machine, raise_file_limit, starttls

HOSTILE: Final = Path(__file__).parent / "hostile.py"
DRIPPERS: Final = 1_000
NEWCOMERS: Final = 200
"""A second."""
LEAST_HOSTILITY: Final = 0.9
"""Of what was asked for: with less the figure would flatter."""
GOOD_LOAD: Final = Load(sessions=20, messages=40_000)
"""As many connections as Postfix opens to one host."""
SINGLE_LOAD: Final = Load(sessions=1, messages=10_000)
"""One, which waits for each reply: what it gets depends most on which core the kernel wakes."""
TURNS: Final = 3
"""Of alone and beside in each round: a rate is less steady than CPU time."""
IDLE_CONNECTIONS: Final = 10_000
SETTLE: Final = 1.0
"""Seconds before memory is read: what is freed late should be free."""
REFUSED: Final = 500
REFUSED_TURNS: Final = 5


# --- A good sender beside hostile ones ------------------------------------------------------------


@contextlib.contextmanager
def hostility(port: int) -> Iterator[None]:
    """Beside it: `DRIPPERS` connections that drip, and `NEWCOMERS` a second that are no better."""
    command = [sys.executable, str(HOSTILE), str(port), str(DRIPPERS), str(NEWCOMERS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise BenchError("the hostile load did not start")
        try:
            yield
        finally:
            told, _ = process.communicate(timeout=START_LIMIT)
    done = json.loads(told)
    rates = done["dripped"] / DRIPPERS, done["came"] / NEWCOMERS
    print(f"  {told.strip()}", file=sys.stderr, flush=True)
    if min(rates) < LEAST_HOSTILITY:
        raise BenchError(f"the machine is too busy for the hostile load: it only came to {told}")


def good(bench: Bench) -> list[Figure]:
    """A good sender alone and beside the hostile, in turns."""
    samples = Samples()
    loads = {"20 connections": GOOD_LOAD, "one connection": SINGLE_LOAD}
    postfix = find_postfix()

    def send(name: str, load: Load, receiver: Receiver) -> None:
        load = dataclasses.replace(load, messages=bench.count(load.messages))
        before = receiver.cpu_ns()
        seconds, _ = postfix.send(receiver.port, load)
        samples.add(f"{name} rate", load.messages / seconds)
        samples.add(f"{name} cpu", (receiver.cpu_ns() - before) / 1_000 / load.messages)

    with bench.serve("max_clients = 3000") as receiver:
        postfix.send(receiver.port, dataclasses.replace(GOOD_LOAD, messages=WARM_UP))
        for _ in bench.turns("good"):
            for (name, load), _ in product(loads.items(), range(TURNS)):
                send(f"{name} alone", load, receiver)
                with hostility(receiver.port):
                    send(f"{name} beside", load, receiver)
    figures = []
    for name, load in loads.items():
        must, goal = (0.8, 0.95) if load is GOOD_LOAD else (None, None)
        ratio = samples.ratio(f"{name} beside rate", f"{name} alone rate")
        for beside in ("alone", "beside"):
            title = f"{name}, {beside}{' the hostile' if beside == 'beside' else ''}"
            figures += [
                Figure(title, "messages/s", samples.median(f"{name} {beside} rate")),
                Figure(title, "server µs a message", samples.median(f"{name} {beside} cpu")),
            ]
        figures.append(Figure(f"{name}, beside / alone", "of the rate", ratio, must, goal))
    return figures


# --- Idle connections -----------------------------------------------------------------------------


def idle(bench: Bench) -> list[Figure]:
    """10,000 connections after EHLO; with TLS, after STARTTLS and EHLO."""
    samples = Samples()
    count = bench.count(IDLE_CONNECTIONS)
    for _ in bench.turns("idle"):
        for name, secure in (("plain", None), ("tls", StartTls())):
            keys = f"max_clients = {count + 100}\ntimeout = 600\n{bench.tls}"
            with bench.serve(keys) as receiver:
                samples.add(name, idle_kib(receiver, count, secure))
    title = f"{count:,} connections after EHLO"
    return [
        Figure(title, "KiB each", samples.median("plain"), 2.0, 1.3),
        Figure(f"{title}, TLS", "KiB each", samples.median("tls"), 16.0, 10.0),
    ]


def idle_kib(receiver: Receiver, count: int, secure: clients.Secure | None) -> float:
    """Resident memory of each."""
    # What the first one costs is not a connection's.
    with clients.held(receiver.port, 1, secure):
        before = receiver.resident_kib()
        with clients.held(receiver.port, count, secure):
            time.sleep(SETTLE)
            return (receiver.resident_kib() - before) / count


# --- Refused connections --------------------------------------------------------------------------

REFUSALS: Final = {
    "max_clients": "max_clients = 1",
    "max_connections_per_ip": "max_connections_per_ip = 1",
    "max_connection_rate_per_ip": "max_connection_rate_per_ip = 1",
    "proxy_protocol, untrusted": 'proxy_protocol = true\ntrusted_proxies = ["192.0.2.1"]',
}
"""What a daemon refuses all connections for, but for one that stands in the way of the others."""


def refused(bench: Bench) -> list[Figure]:
    """Connections that hear 421, beside those that are accepted and say QUIT, in short turns."""
    samples = Samples()
    count = bench.count(REFUSED)
    with contextlib.ExitStack() as open_:
        ones = {}
        for name, server in {"accepted": "", **REFUSALS}.items():
            receiver = open_.enter_context(bench.serve(f"timeout = 600\n{server}"))
            in_the_way = 0 if "untrusted" in name else 1
            open_.enter_context(clients.held(receiver.port, in_the_way))
            do = clients.quit_at_once if name == "accepted" else clients.refused
            ones[name] = receiver, partial(do, receiver.port)
            clients.repeat(bench.count(WARM_UP), ones[name][1])
        for _ in bench.turns("refused"):
            for _, (name, (receiver, one)) in product(range(REFUSED_TURNS), ones.items()):
                samples.add(name, cpu_us(receiver, partial(clients.repeat, count, one)) / count)
    unit = "server µs a connection"
    figures = [Figure("accepted, then QUIT", unit, samples.median("accepted"))]
    for reason in REFUSALS:
        figures += [
            Figure(f"refused: {reason}", unit, samples.median(reason)),
            Figure("  / accepted", "", samples.ratio(reason, "accepted")),
        ]
    return figures


# --- The report -----------------------------------------------------------------------------------

SCENARIOS: Final[dict[str, Callable[[Bench], list[Figure]]]] = {
    "good": good,
    "idle": idle,
    "refused": refused,
    "tls": tls,
}


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", default=",".join(SCENARIOS), help="which, with commas")
    parser.add_argument("--rounds", type=int, default=3, help="of each; the median counts")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures go there too")
    args = parser.parse_args()
    names = args.scenario.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}: there are {', '.join(SCENARIOS)}")
    raise_file_limit()
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="guerrilla-edge-") as path:
            folder = Path(path)
            bench = Bench(
                lambda keys: guerrillad(folder, keys), starttls(folder), args.rounds, args.scale
            )
            for name in names:
                figures += SCENARIOS[name](bench)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"edge.py: {error}", file=sys.stderr)
        return 1
    print(f"{machine()}; {args.rounds} rounds, medians\n")
    print("\n".join(table(figures)))
    if args.json:
        rows = [dataclasses.asdict(figure) for figure in figures]
        args.json.write_text(json.dumps({"machine": machine(), "figures": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
