"""What `profiler.py` prints, and puts into docs/performance.md with its plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from documents import filled
from measured import HERE
from profile_parts import PARTS
from profile_plots import plots
from profiled import Point, Profile, Spent

DOCUMENT: Final = HERE.parent / "docs" / "performance.md"
LEAST: Final = 0.005
"""Of a call a message: below it is what happens now and then."""
KIB: Final = 1_024


def report(told: Profile) -> list[str]:
    """All tables."""
    lines = [head(told)]
    for places in tables(told).values():
        lines += ["", *places]
    return lines


def head(told: Profile) -> str:
    """What they are of."""
    hurry = "; --quick, which says little" if told.quick else ""
    return f"{told.date}; {told.machine}{hurry}"


def tables(told: Profile) -> dict[str, list[str]]:
    """Each by the name of its place in the document."""
    found: dict[str, list[str]] = {}
    if told.spent:
        found |= {
            "spent": spent(told.spent),
            "parts": parts(told.spent),
            "calls": calls(told.spent),
        }
    makers: dict[str, Callable[[Sequence[Point]], list[str]]] = {
        "size": sizes,
        "connections": connections,
        "recipients": recipients,
        "grid null": grid_of("server_us", "server µs a message, null chain"),
        "grid slow": grid_of("rate", "messages/s, a store of 5 ms a batch + 0.1 ms a mail"),
    }
    for name, make in makers.items():
        if points := told.of(name):
            found[name] = make(points)
    return found


def blocks(told: Profile) -> dict[str, list[str]]:
    """The same, each with what it is of."""
    return {name: [head(told), "", *lines] for name, lines in tables(told).items()}


def write(told: Profile) -> None:
    """Puts them, and the plots, there."""
    text = filled(DOCUMENT.read_text(encoding="utf-8"), blocks(told))
    DOCUMENT.write_text(text, encoding="utf-8")
    for name, canvas in plots(told).items():
        canvas.write(str(DOCUMENT.parent / name))


# --- Where it goes --------------------------------------------------------------------------------


def spent(each: Sequence[Spent]) -> list[str]:
    """What a message costs, by thread and mode."""
    form = "{:<33}{:>11}{:>11}{:>9}{:>9}{:>11}{:>9}"
    lines = [
        form.format("", "messages/s", "server µs", "user", "system", "client µs", "others").rstrip()
    ]
    for one in each:
        user = sum(thread.user_us for thread in one.threads)
        system = sum(thread.system_us for thread in one.threads)
        title = f"{one.name}  {one.title}"
        cells = f"{one.rate:,.0f}", number(one.server_us), number(user), number(system)
        lines.append(form.format(title, *cells, number(one.client_us), f"{one.others:.2f}"))
    form = "{:<33}{:>11}{:>11}{:>9}{:>9}{:>11}"
    lines += ["", form.format("thread", "of a core", "µs", "user", "system", "waits")]
    for one in each:
        for thread in one.threads:
            if thread.cores < LEAST:
                continue
            us = number(thread.user_us + thread.system_us)
            modes = number(thread.user_us), number(thread.system_us)
            name = f"{one.name}  {thread.name}"
            lines.append(
                form.format(name, f"{thread.cores:.2f}", us, *modes, f"{thread.waits:.2f}")
            )
    return lines


def parts(each: Sequence[Spent]) -> list[str]:
    """By part, µs a message and the share."""
    lines = [_row("µs a message, and of all", [one.name for one in each], 15)]
    for part in PARTS:
        costs = [one.parts.get(part, 0.0) for one in each]
        if any(costs):
            lines.append(_row(part, _shared(costs, each), 15))
    for title, begins in (("kernel, all", "kernel"), ("core, all", "core")):
        costs = [_sum(one.parts, begins) for one in each]
        lines.append(_row(title, _shared(costs, each), 15))
    return lines


def _sum(costs: Mapping[str, float], begins: str) -> float:
    return sum(us for part, us in costs.items() if part.startswith(begins))


def _shared(costs: Sequence[float], each: Sequence[Spent]) -> list[str]:
    return [
        f"{number(us)} {us / one.server_us * 100:4.1f} %" if us else ""
        for us, one in zip(costs, each, strict=True)
    ]


def calls(each: Sequence[Spent]) -> list[str]:
    """System calls a message."""
    names = dict.fromkeys(name for one in each for name in one.calls)
    most = {name: max(one.calls.get(name, 0.0) for one in each) for name in names}
    lines = [_row("calls a message", [one.name for one in each], 10)]
    for name in sorted(names, key=lambda one: -most[one]):
        if most[name] >= LEAST:
            cells = (one.calls.get(name, 0.0) for one in each)
            lines.append(_row(name, [f"{count:.2f}" if count else "" for count in cells], 10))
    return [*lines, _row("all", [f"{sum(one.calls.values()):.2f}" for one in each], 10)]


def _row(title: str, cells: Iterable[str], width: int) -> str:
    return (f"{title:<38}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip()


# --- How it grows ---------------------------------------------------------------------------------


def sizes(points: Sequence[Point]) -> list[str]:
    """With the octets of a message."""
    form = "{:>10}{:>13}{:>12}{:>9}{:>11}{:>15}{:>11}{:>14}"
    titles = ("size", "connections", "messages/s", "MiB/s", "server µs", "µs a KiB more")
    lines = [form.format(*titles, "client µs", "resident MiB")]
    before: Point | None = None
    for one in points:
        more = ""
        if before is not None:
            more = f"{(one.server_us - before.server_us) / (one.x - before.x) * KIB:.3f}"
        cells = (
            size(one.x),
            f"{one.connections:,}",
            f"{one.rate:,.0f}",
            f"{one.rate * one.x / KIB**2:,.0f}",
            number(one.server_us),
            more,
            number(one.client_us),
            f"{one.resident_mib:,.0f}",
        )
        lines.append(form.format(*cells))
        before = one
    return lines


def connections(points: Sequence[Point]) -> list[str]:
    """With those that send at a time."""
    form = "{:>12}{:>12}{:>11}{:>11}{:>14}"
    titles = ("connections", "messages/s", "server µs", "client µs", "resident MiB")
    lines = [form.format(*titles)]
    for one in points:
        cells = f"{one.x:,}", f"{one.rate:,.0f}", number(one.server_us), number(one.client_us)
        lines.append(form.format(*cells, f"{one.resident_mib:,.1f}"))
    return lines


def recipients(points: Sequence[Point]) -> list[str]:
    """With those of a message."""
    form = "{:>11}{:>12}{:>11}{:>21}{:>11}"
    titles = ("recipients", "messages/s", "server µs", "µs a recipient more", "client µs")
    lines = [form.format(*titles)]
    before: Point | None = None
    for one in points:
        more = ""
        if before is not None:
            more = f"{(one.server_us - before.server_us) / (one.x - before.x):.2f}"
        cells = f"{one.x:,}", f"{one.rate:,.0f}", number(one.server_us), more
        lines.append(form.format(*cells, number(one.client_us)))
        before = one
    return lines


def grid_of(key: str, title: str) -> Callable[[Sequence[Point]], list[str]]:
    """Workers down, batches across."""

    def make(points: Sequence[Point]) -> list[str]:
        batches = sorted({one.y for one in points})
        found = {(one.x, one.y): getattr(one, key) for one in points}
        lines = [title, _row("save_batch_size:", [f"{batch:,}" for batch in batches], 10)]
        for workers in sorted({one.x for one in points}):
            cells = (f"{found[workers, batch]:,.{int(key != 'rate')}f}" for batch in batches)
            lines.append(_row(f"save_workers_size: {workers}", cells, 10))
        return lines

    return make


def size(octets: int) -> str:
    """As a person writes it."""
    return f"{octets // KIB**2} MiB" if octets >= KIB**2 else f"{octets // KIB} KiB"


def number(us: float) -> str:
    """With as many digits as say something."""
    return f"{us:,.0f}" if us >= KIB else f"{us:.1f}" if us >= 10 else f"{us:.2f}"  # noqa: PLR2004
