"""What the edge costs: hostile neighbours, idle connections, refused ones.

Every figure is of guerrillad alone; what it is compared with is measured in turns in the same run,
and the median counts. CPU is the daemon's own, all threads and the kernel's part included, by its
process CPU clock. Everything is on 127.0.0.1, and bounded in count and time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import clients
from edge_tls import StartTls
from measuring import WARM_UP, Bench, cpu_us
from postfix import BenchError, Load
from receivers import START_LIMIT, Receiver

HOSTILE: Final = Path(__file__).parent / "hostile.py"
DRIPPERS: Final = 1_000
NEWCOMERS: Final = 200
"""A second."""
LEAST_HOSTILITY: Final = 0.9
"""Of what was asked for: with less the figure would flatter."""
GOOD_LOAD: Final = Load(sessions=20, messages=25_000)
"""As many connections as Postfix opens to one host."""
SINGLE_LOAD: Final = Load(sessions=1, messages=5_000)
"""One, which waits for each reply: what it gets depends most on which core the kernel wakes."""
TURNS: Final = 4
"""Of alone and beside in each round: a rate is less steady than CPU time."""
IDLE_CONNECTIONS: Final = 10_000
IDLE_OF_PEERS: Final = 1_000
"""Some need a quarter of a MiB for each."""
SETTLE: Final = 1.0
"""Seconds before memory is read: what is freed late should be free."""
REFUSED: Final = 500
REFUSED_TURNS: Final = 2


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


def good(bench: Bench) -> None:
    """A good sender alone and beside the hostile, in turns."""
    loads = {"20 connections": GOOD_LOAD, "one connection": SINGLE_LOAD}
    with bench.serve("max_clients = 3000") as receiver:
        bench.postfix.send(receiver.port, dataclasses.replace(GOOD_LOAD, messages=WARM_UP))
        for (name, whole), _ in product(loads.items(), range(TURNS)):
            load = dataclasses.replace(whole, messages=bench.count(whole.messages))
            bench.send(receiver, load, f"{name}, alone")
            with hostility(receiver.port):
                bench.send(receiver, load, f"{name}, beside the hostile")


# --- Idle connections -----------------------------------------------------------------------------


def idle(bench: Bench) -> None:
    """10,000 connections after EHLO; with TLS, after STARTTLS and EHLO. Of others 1,000."""
    for name, secure in (("idle plain", None), ("idle TLS", StartTls())):
        count = bench.count(IDLE_CONNECTIONS)
        keys = f"max_clients = {count + 100}\ntimeout = 600\n{bench.tls}"
        with bench.serve(keys) as receiver:
            bench.samples.add(f"{name} KiB", idle_kib(receiver, count, secure))
    for name, start in bench.peers.items():
        count = bench.count(IDLE_OF_PEERS)
        with start() as receiver:
            bench.samples.add(f"idle {name} KiB", idle_kib(receiver, count, None))


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


def refused(bench: Bench) -> None:
    """Connections that hear 421, beside those that are accepted and say QUIT, in short turns."""
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
        for _, (name, (receiver, one)) in product(range(REFUSED_TURNS), ones.items()):
            each = cpu_us(receiver, partial(clients.repeat, count, one)) / count
            bench.samples.add(f"refused: {name} server µs", each)
