"""How far it goes, calculated line by line from what was measured and what is assumed.

    python benches/capacity.py [NAME=VALUE ...]

prints the sheets of docs/scaling.md, with other values where such are given: `cores=16 size_kib=8`.
`--list` names them all. Each line says whether its figure was measured, is assumed, or calculated
from the lines above it; what is calculated goes on with the figure as it is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from measured import FILE, LARGE_KIB, SMALL_KIB, Measured, figure, stored
from sheets import Sheet, number

SEGMENT: Final = 1_448
"""Octets of TCP in a packet of Ethernet."""
FRAME: Final = 78
"""Octets of Ethernet, IP and TCP around them, with the gap between two packets."""
TURNS: Final = 12
"""Packets each way of a session with STARTTLS and one mail, the mail itself apart."""


@dataclasses.dataclass(frozen=True)
class Given:
    """All that the sheets begin with."""

    python_us: float
    """CPU µs a message of the chain that parses with `email` (scaling.py)"""
    large_us: float
    """of the same chain with mails of 50 KiB"""
    share: float
    """of cores / (CPU a message) that several processes reached"""
    session_us: float
    """of a message a connection (load.py, a)"""
    kept_us: float
    """of a message of the null chain on a kept connection (load.py, b)"""
    tls_us: float
    """of a session with STARTTLS and without a mail (edge_tls.py)"""
    plain_us: float
    """of the same without STARTTLS"""
    tls_kib: float
    """memory of a connection with TLS"""
    own_mib: float
    """memory that a process has for itself, under load"""
    common_mib: float
    """memory that they have in common, the parent's with it"""
    syncs: float
    """syncs a second of the disk"""
    sqlite: float
    """messages/s into one SQLite file (processors.py)"""
    mariadb_us: float
    """CPU µs a message of MariaDB itself"""
    redis_us: float
    """of Redis with appendfsync"""
    spool: float
    """messages/s of one spool with a sync before 250 (spool.py)"""
    cores: float = 64
    """cores of the machine"""
    spare: float = 8
    """of them, for interrupts of the network, the log, the parent"""
    size_kib: float = 50
    """a message"""
    messages: float = 1
    """on a connection"""
    session_s: float = 2
    """seconds that a connection lasts: ten round trips and the mail"""
    link_gbit: float = 25
    """the network card"""
    packets: float = 1_000_000
    """a second that one core of the kernel takes"""
    disk_mib: float = 3_000
    """a second that the disk takes, written in one piece after the other"""
    machines: float = 10
    """of them"""
    peak: float = 3
    """the busiest second, against the average of a day"""

    @classmethod
    def of(cls, told: Measured, **others: float) -> Given:
        """What was measured, but for these."""
        alone, many = told.of("python", 1), told.of("python", told.many)
        children = many.load[: told.many]
        own = sum(one.own for one in children) / len(children)
        common = sum(one.pss for one in many.load) - len(children) * own
        full = {one.store: one for one in stored() if (one.batch, one.connections) == (64, 100)}
        found = {
            "python_us": alone.server_us,
            "large_us": told.of("large", 1).server_us,
            "share": min(1.0, many.share),
            "session_us": figure("a  a message a connection, 4 KiB  guerrilla"),
            "kept_us": figure("b  kept connections, 4 KiB        guerrilla"),
            "tls_us": figure("EHLO, STARTTLS (P-256), EHLO, QUIT"),
            "plain_us": figure("EHLO, QUIT"),
            "tls_kib": figure("10,000 connections after EHLO, TLS"),
            "own_mib": own / 1024,
            "common_mib": common / 1024,
            "syncs": figure("4 KiB more in a file, and synced"),
            "sqlite": full["SQL, SQLite"].rate,
            "mariadb_us": full["SQL, MariaDB"].behind_us,
            "redis_us": full["Redis, appendfsync"].behind_us,
            "spool": figure("250"),
        }
        return cls(**(found | others))


# --- The sheets -----------------------------------------------------------------------------------


def message(sheet: Sheet, given: Given) -> float:
    """CPU of a message with all that is around it."""
    work = parsed(sheet, given)
    long, kept = round(given.session_us, 1), round(given.kept_us, 1)
    connection = sheet.measured(
        f"a connection of its own: {long} - {kept}", max(0.0, long - kept), "µs"
    )
    secure, plain = round(given.tls_us), round(given.plain_us)
    tls = sheet.measured(f"its STARTTLS: {secure} - {plain}", max(0.0, secure - plain), "µs")
    count = sheet.assumed("messages a connection", given.messages, "")
    each = work + (connection + tls) / count
    text = f"{number(work)} + ({number(connection)} + {number(tls)}) / {number(count)}"
    return sheet.gives(f"all of it, a message: {text}", each, "µs")


def parsed(sheet: Sheet, given: Given) -> float:
    """CPU of the chain that parses, for a message of the size that is asked for."""
    small = sheet.measured(
        f"CPU a message, parsed by email, {SMALL_KIB} KiB", given.python_us, "µs"
    )
    large = sheet.measured(f"the same, {LARGE_KIB} KiB", given.large_us, "µs")
    size = sheet.assumed("a message", given.size_kib, "KiB")
    text = f"({number(large)} - {number(small)}) / ({LARGE_KIB} - {SMALL_KIB})"
    more = sheet.gives(text, max(0.0, large - small) / (LARGE_KIB - SMALL_KIB), "µs each KiB more")
    work = small + (size - SMALL_KIB) * more
    text = f"{number(small)} + ({number(size)} - {SMALL_KIB}) * {number(more)}"
    return sheet.gives(text, max(1.0, work), "µs")


def core(given: Given) -> list[str]:
    """What one core takes."""
    sheet = Sheet()
    null = sheet.measured("CPU a message, null chain, 4 KiB, kept connections", given.kept_us, "µs")
    sheet.gives(f"1,000,000 / {number(null)}", 1e6 / null, "messages/s on one core")
    all_of_it = message(sheet, given)
    one = sheet.gives(f"1,000,000 / {number(all_of_it)}", 1e6 / all_of_it, "messages/s on one core")
    sheet.gives(f"{number(one)} * 86,400", one * 86_400, "a day")
    return sheet.lines


def _rate(sheet: Sheet, given: Given) -> float:
    """What the cores of one machine come to."""
    cores = sheet.assumed("cores", given.cores, "")
    spare = sheet.assumed(
        "of them for the kernel's interrupts, the log, the parent", given.spare, ""
    )
    mail = sheet.gives(f"{number(cores)} - {number(spare)}: processes", max(1, cores - spare), "")
    share = sheet.measured(
        "share of what CPU allows that several processes reached", given.share, ""
    )
    each = message(sheet, given)
    text = f"{number(mail)} * {number(share)} * 1,000,000 / {number(each)}"
    return sheet.gives(text, mail * share * 1e6 / each, "messages/s by CPU")


def machine(given: Given) -> list[str]:
    """What one machine takes, of CPU and memory."""
    sheet = Sheet()
    rate = _rate(sheet, given)
    peak = sheet.assumed("the busiest second, against the average of a day", given.peak, "")
    sheet.gives(f"{number(rate)} * 86,400 / {number(peak)}", rate * 86_400 / peak, "a day")
    processes = max(1, given.cores - given.spare)
    own = sheet.measured("memory of a process that no other has", given.own_mib, "MiB")
    common = sheet.measured("memory of all in common, and of the parent", given.common_mib, "MiB")
    text = f"{number(processes)} * {number(own)} + {number(common)}"
    sheet.gives(text, processes * own + common, "MiB before the first mail waits")
    lasts = sheet.assumed("a connection lasts", given.session_s, "s")
    there = sheet.gives(
        f"{number(rate)} * {number(lasts)} / {number(given.messages)}",
        rate * lasts / given.messages, "connections at a time: max_clients",
    )  # fmt: skip
    kib = sheet.measured("memory of a connection with TLS", given.tls_kib, "KiB")
    sheet.gives(f"{number(there)} * {number(kib)} / 1,024", there * kib / 1_024, "MiB")
    size = sheet.assumed("a message", given.size_kib, "KiB")
    sheet.gives(
        f"{number(there)} * {number(size)} / 1,024: all at DATA", there * size / 1_024,
        "MiB of max_memory",
    )  # fmt: skip
    return sheet.lines


def network(given: Given) -> list[str]:
    """What that asks of the network and the kernel."""
    sheet = Sheet()
    _packets(sheet, given)
    return sheet.lines


def _packets(sheet: Sheet, given: Given) -> float:
    """The lines of `network`; messages a second that the card takes."""
    rate = sheet.gives("one machine, by CPU", cpu_rate(given), "messages/s")
    size = sheet.assumed("a message", given.size_kib, "KiB")
    segments = sheet.gives(
        f"{number(size)} * 1,024 / {SEGMENT:,}",
        math.ceil(size * 1_024 / SEGMENT),
        "packets of it, rounded up",
    )
    turns = sheet.assumed("packets of the session each way, STARTTLS and one mail", TURNS, "")
    came = sheet.gives(
        f"{number(rate)} * ({number(segments)} + {number(turns)})", rate * (segments + turns),
        "packets/s in",
    )  # fmt: skip
    went = sheet.gives(
        f"{number(rate)} * ({number(segments)} / 2 + {number(turns)})",
        rate * (segments / 2 + turns), "packets/s out",
    )  # fmt: skip
    bits = rate * (size * 1_024 + (segments + turns) * FRAME) * 8 / 1e9
    text = f"{number(rate)} * ({number(size)} * 1,024 + {number(segments + turns)} * {FRAME}) * 8"
    gbit = sheet.gives(f"{text} / 10^9", bits, "Gbit/s in")
    link = sheet.assumed("the network card", given.link_gbit, "Gbit/s")
    card = sheet.gives(
        f"{number(link)} / {number(gbit)} * {number(rate)}", link / gbit * rate,
        "messages/s by the card",
    )  # fmt: skip
    takes = sheet.assumed("packets that one core of the kernel takes", given.packets, "a second")
    sheet.gives(
        f"({number(came)} + {number(went)}) / {number(takes)}", (came + went) / takes,
        "cores for packets: of those to spare",
    )  # fmt: skip
    return card


def kernel(given: Given) -> list[str]:
    """Connections: how many new ones, and what remembers them."""
    sheet = Sheet()
    rate = sheet.gives("one machine, by CPU", cpu_rate(given), "messages/s")
    count = sheet.assumed("messages a connection", given.messages, "")
    new = sheet.gives(f"{number(rate)} / {number(count)}", rate / count, "new connections a second")
    processes = max(1, given.cores - given.spare)
    each = sheet.gives(
        f"{number(new)} / {number(processes)}", new / processes, "a second a process to accept"
    )
    sheet.gives(f"4,096 / {number(each)}", 4_096 / each, "s that a full queue holds out")
    sheet.gives(f"{number(new)} * 120 s", new * 120, "entries of conntrack that wait for their end")
    sheet.gives(f"{number(new)} * 60 s", new * 60, "sockets in TIME_WAIT")
    lasts = sheet.assumed("a connection lasts", given.session_s, "s")
    ports = sheet.assumed("ports that an address has for its own connections", 28_232, "")
    text = f"{number(ports)} / {number(lasts)}"
    sheet.gives(text, ports / lasts, "new connections a second from one balancer's address")
    sheet.gives(f"{number(ports)} / 60 s", ports / 60, "of them where it closes first")
    return sheet.lines


def stores(given: Given) -> list[str]:
    """What each store allows."""
    sheet = Sheet()
    rate = sheet.gives("one machine, by CPU", cpu_rate(given), "messages/s")
    sheet.measured("one SQLite file, one writer, whatever the cores", given.sqlite, "messages/s")
    mariadb = sheet.measured(
        "MariaDB, flush at commit: its own CPU a message", given.mariadb_us, "µs"
    )
    text = f"{number(rate)} * {number(mariadb)} / 1,000,000"
    sheet.gives(text, rate * mariadb / 1e6, "cores of the database")
    redis = sheet.measured("Redis, appendfsync always: its own CPU a message", given.redis_us, "µs")
    sheet.gives(f"1,000,000 / {number(redis)}", 1e6 / redis, "messages/s of one Redis, a thread")
    syncs = sheet.measured("syncs of the disk", given.syncs, "a second")
    sheet.gives(
        f"{number(rate)} / {number(syncs)}", rate / syncs, "messages that have to share a sync"
    )
    spool = sheet.measured("one spool, of one process on the two cores", given.spool, "messages/s")
    text = f"{number(rate)} / {number(spool)}"
    sheet.gives(text, math.ceil(rate / spool), "spools, rounded up: a process has one")
    size = sheet.assumed("a message", given.size_kib, "KiB")
    disk = sheet.assumed("what the disk takes", given.disk_mib, "MiB/s")
    sheet.gives(
        f"{number(disk)} * 1,024 / (2 * {number(size)}): each is written twice",
        disk * 1_024 / (2 * size), "messages/s by the disk",
    )  # fmt: skip
    return sheet.lines


def ten(given: Given) -> list[str]:
    """Several machines."""
    sheet = Sheet()
    rate = sheet.gives("one machine, by CPU", cpu_rate(given), "messages/s")
    card = sheet.gives("one machine, by its network card", link_rate(given), "messages/s")
    least = sheet.gives("the smaller of both", min(rate, card), "messages/s")
    machines = sheet.assumed("machines", given.machines, "")
    left = sheet.gives(f"{number(machines)} - 1: one is always away", max(1, machines - 1), "")
    all_ = sheet.gives(f"{number(left)} * {number(least)}", left * least, "messages/s")
    peak = sheet.assumed("the busiest second, against the average of a day", given.peak, "")
    sheet.gives(f"{number(all_)} * 86,400 / {number(peak)}", all_ * 86_400 / peak, "a day")
    size = sheet.assumed("a message", given.size_kib, "KiB")
    sheet.gives(
        f"{number(all_)} * {number(size)} * 1,024 * 8 / 10^9", all_ * size * 1_024 * 8 / 1e9,
        "Gbit/s that no balancer takes alone",
    )  # fmt: skip
    sqlite = sheet.measured("one SQLite file, one writer", given.sqlite, "messages/s")
    text = f"{number(all_)} / {number(sqlite)}"
    sheet.gives(text, math.ceil(all_ / sqlite), "stores like that, rounded up")
    return sheet.lines


def cpu_rate(given: Given) -> float:
    """Messages a second of one machine, by its cores."""
    return _rate(Sheet(), given)


def link_rate(given: Given) -> float:
    """The same by its network card."""
    return _packets(Sheet(), given)


SHEETS: Final[Mapping[str, Callable[[Given], list[str]]]] = {
    "core": core,
    "machine": machine,
    "network": network,
    "kernel": kernel,
    "stores": stores,
    "ten": ten,
}


# --- The command ----------------------------------------------------------------------------------


def others(texts: Sequence[str]) -> dict[str, float]:
    """`NAME=VALUE` of each.

    Raises:
        ValueError: no such name, or no number above 0; the text says which there are.
    """
    names = [field.name for field in dataclasses.fields(Given)]
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in names:
            raise ValueError(f"{text}: no figure {name!r}; there are {', '.join(names)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f"{text}: {value!r} is no number") from None
        if not (math.isfinite(found[name]) and found[name] > 0):
            raise ValueError(f"{text}: has to be above 0")
    return found


def main() -> int:
    """Prints; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE", help="in place of those there")
    parser.add_argument("--list", action="store_true", help="the names, with their values")
    parser.add_argument("--from", dest="source", type=Path, default=FILE, metavar="FILE")
    args = parser.parse_args()
    try:
        given = Given.of(Measured.read(args.source), **others(args.values))
    except (OSError, ValueError, LookupError) as error:
        print(f"capacity.py: {error}", file=sys.stderr)
        return 1
    if args.list:
        for name, value in dataclasses.asdict(given).items():
            print(f"{name}={value:g}")
        return 0
    for name, lines in SHEETS.items():
        print("\n".join([name, "", *lines(given), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
