"""What `scaling.py` prints, and puts into the documents: between `<!-- NAME -->` and its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from capacity import SHEETS, Given
from documents import filled
from measured import (
    HERE,
    LARGE_KIB,
    README,
    SMALL_KIB,
    Balance,
    Few,
    Measured,
    Memory,
    Share,
    by_chance,
)
from simulate import bursts, comparison, slower

DOCUMENT: Final = HERE.parent / "docs" / "scaling.md"
MUST, GOAL = 0.8, 0.9
"""Of cores / (server + client CPU a message), of the chain that Python is the limit of."""


def report(told: Measured) -> list[str]:
    """The figures of a run."""
    return [head(told), "", *shares(told), "", *memory(told), "", *balance(told), "", *few(told)]


def head(told: Measured) -> str:
    """What they are of."""
    hurry = "; --quick, which says little" if told.quick else ""
    return f"{told.date}; {told.machine}{hurry}"


def shares(told: Measured) -> list[str]:
    """One process against many."""
    form = "{:<9}{:>10}{:>12}{:>10}{:>11}{:>11}{:>11}{:>8}{:>8}{:>6}{:>6}"
    titles = "chain", "processes", "messages/s", "slowest", "server µs", "client µs", "CPU allows"
    lines = [form.format(*titles, "others", "share", "must", "goal")]
    for one in told.shares:
        allows = told.cores * 1e6 / (one.server_us + one.client_us)
        limits = (MUST, GOAL) if one.chain == "python" and one.processes > 1 else ("", "")
        cells = (
            one.chain,
            one.processes,
            f"{one.rate:,.0f}",
            f"{one.slowest:,.0f}",
            f"{one.server_us:.1f}",
            f"{one.client_us:.1f}",
            f"{allows:,.0f}",
            f"{one.others:.2f}",
            f"{one.share:.2f}",
        )
        lines.append(form.format(*cells, *limits).rstrip())
    for chain in ("python", "null"):
        times = told.of(chain, told.many).rate / told.of(chain, 1).rate
        text = f"{chain}: {told.many} processes take {times:.2f} times what one takes"
        lines += [text] if chain == "null" else ["", text]
    text = f"large: the python chain with mails of {LARGE_KIB} KiB in place of {SMALL_KIB}"
    return [*lines, text]


def memory(told: Measured) -> list[str]:
    """MiB of each process, of the chain that needs most."""
    form = "{:<34}{:>8}{:>8}{:>8}{:>11}{:>8}{:>8}"
    head_ = form.format("MiB, python chain", "RSS", "PSS", "own", "load: RSS", "PSS", "own")
    lines = [head_]
    for processes in (1, told.many):
        one = told.of("python", processes)
        for title, rest, load in rows(one):
            cells = (f"{kib / 1024:.1f}" for kib in (*rest, *load))
            lines.append(form.format(title, *cells))
    return lines


def rows(one: Share) -> Iterable[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    """Each process, the parent, and all of them."""
    served = one.processes
    for number in range(served):
        title = f"process {number} of {served}" if served > 1 else "one process"
        yield title, kib_of(one.rest[number]), kib_of(one.load[number])
    if len(one.rest) > served:
        yield "their parent", kib_of(one.rest[-1]), kib_of(one.load[-1])
        yield f"all {len(one.rest)}", added(one.rest), added(one.load)


def kib_of(one: Memory) -> tuple[float, ...]:
    """In the order of the table."""
    return one.rss, one.pss, one.own


def added(each: Iterable[Memory]) -> tuple[float, ...]:
    """Of all of them."""
    return tuple(map(sum, zip(*map(kib_of, each), strict=True)))


def balance(told: Measured) -> list[str]:
    """How connections fall."""
    spreads = sorted({one.processes for one in told.balance})
    found = {(one.connections, one.processes, one.shared): one for one in told.balance}
    lines = [
        "the busiest of N processes, against an even share: median (worst)",
        "{:<12}".format("connections")
        + "".join(
            f"{f'N = {n}: a socket each':>24}{'by chance':>11}{'one shared':>14}" for n in spreads
        ),
    ]
    for connections in sorted({one.connections for one in told.balance}):
        line = f"{connections:<12}"
        for processes in spreads:
            each = found[connections, processes, False]
            shared = found[connections, processes, True]
            chance = f"{by_chance(connections, processes):.2f}"
            line += f"{pair(each):>24}{chance:>11}{pair(shared):>14}"
        lines.append(line)
    return lines


def pair(one: Balance) -> str:
    """Median and worst."""
    return f"{one.busiest:.2f} ({one.worst:.2f})"


def few(told: Measured) -> list[str]:
    """What few connections come to."""
    form = "{:<12}{:>12}{:>12}{:>10}{:>9}{:>12}{:>10}{:>9}"
    many = told.many
    lines = [
        f"messages/s of the python chain: one process; {many} with a socket each, or one shared",
        form.format(
            "connections",
            "one",
            f"{many}, each",
            "slowest",
            "busiest",
            "shared",
            "slowest",
            "busiest",
        ),
    ]
    found: Mapping[tuple[int, int, bool], Few] = {
        (one.connections, one.processes, one.shared): one for one in told.few
    }
    for connections in sorted({one.connections for one in told.few}):
        line = [f"{connections}", f"{found[connections, 1, False].rate:,.0f}"]
        for shared in (False, True):
            one = found[connections, many, shared]
            line += [f"{one.rate:,.0f}", f"{one.slowest:,.0f}", f"{one.busiest:.2f}"]
        lines.append(form.format(*line))
    return lines


# --- The documents --------------------------------------------------------------------------------


def blocks(told: Measured) -> dict[Path, dict[str, list[str]]]:
    """What stands in each document, by the name of its place."""
    given = Given.of(told)
    sheets = {f"sheet {name}": make(given) for name, make in SHEETS.items()}
    simulated = {
        "simulation": comparison(told),
        "slower": slower(told),
        "bursts": bursts(told),
    }
    measured = {
        "shares": shares(told),
        "memory": memory(told),
        "few": [*balance(told), "", *few(told)],
    }
    measured = {name: [head(told), "", *lines] for name, lines in measured.items()}
    return {README: {"scaling": report(told)}, DOCUMENT: measured | sheets | simulated}


def write(told: Measured) -> None:
    """Puts them there."""
    for path, places in blocks(told).items():
        path.write_text(filled(path.read_text(encoding="utf-8"), places), encoding="utf-8")
