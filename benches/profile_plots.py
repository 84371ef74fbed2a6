"""The figures of `profiler.py` as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from guerrilla.bench.svg import SvgCanvas
from profile_parts import PARTS
from profiled import Point, Profile, Spent

WIDTH: Final = 900
INK: Final = "#24292f"
GRID: Final = "#d8dee4"
GROUPS: Final = {
    "kernel: network": ("#2f6fab", ("kernel: send", "kernel: rec", "kernel: wak", "kernel: acc")),
    "kernel: epoll, futex, other": ("#8fb4d6", ("kernel",)),
    "core": ("#c0392b", ("core", "tokio")),
    "crossing and Python": ("#e0a030", ("crossing", "Python")),
    "memmove, allocator, libc": ("#8a8f98", ("memmove", "allocator", "libc")),
}
"""Colour, and how the names of its parts begin; the first that fits counts."""


def plots(told: Profile) -> dict[str, SvgCanvas]:
    """By file name."""
    found = {}
    if any(one.parts for one in told.spent):
        found["performance-parts.svg"] = parts(told.spent)
    if told.points:
        found["performance-growth.svg"] = growth(told)
    return found


def grouped(costs: dict[str, float]) -> dict[str, float]:
    """The groups of the picture."""
    found = dict.fromkeys(GROUPS, 0.0)
    for part in PARTS:
        name = next(name for name, (_, begins) in GROUPS.items() if part.startswith(begins))
        found[name] += costs.get(part, 0.0)
    return found


def parts(each: Sequence[Spent]) -> SvgCanvas:
    """A bar a load, as wide as the others, divided by what it is spent on."""
    canvas = SvgCanvas(WIDTH, 90 + 50 * len(each))
    canvas.text(20, 26, "where the CPU of a message goes", 16)
    left = 20.0
    for name, (color, _) in GROUPS.items():
        canvas.bar(left, 42, 12, 12, color)
        canvas.text(left + 17, 53, name, 12)
        left += 30 + 7 * len(name)
    for number, one in enumerate(each):
        top = 78.0 + 50 * number
        canvas.text(20, top + 20, f"{one.name}  {one.title}", 12)
        left, width = 230.0, WIDTH - 330.0
        whole = sum(one.parts.values()) or 1.0
        for name, us in grouped(one.parts).items():
            part = us / whole * width
            canvas.bar(left, top, part, 32, GROUPS[name][0])
            if part > 40:  # noqa: PLR2004  # room for its figure
                canvas.text(left + part / 2, top + 20, f"{us / whole:.0%}", 11, anchor="middle")
            left += part
        canvas.text(WIDTH - 20, top + 20, f"{one.server_us:,.0f} µs", 12, anchor="end")
    return canvas


def growth(told: Profile) -> SvgCanvas:
    """What a message costs, by size, connections and recipients: all axes logarithmic."""
    canvas = SvgCanvas(WIDTH, 320)
    canvas.text(20, 26, "server CPU µs a message", 16)
    titles = {"size": "octets of a message", "connections": "connections"}
    titles["recipients"] = "recipients of a message"
    for number, (name, title) in enumerate(titles.items()):
        if points := told.of(name):
            curve(canvas, 60.0 + 290 * number, title, points)
    return canvas


def curve(canvas: SvgCanvas, left: float, title: str, points: Sequence[Point]) -> None:
    """One panel."""
    top, width, height = 60.0, 220.0, 200.0
    x_axis = decades(one.x for one in points)
    y_axis = decades(one.server_us for one in points)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_axis[0]) / (x_axis[-1] - x_axis[0])
        up = (math.log10(y) - y_axis[0]) / (y_axis[-1] - y_axis[0])
        return left + across * width, top + (1 - up) * height

    for power in x_axis:
        x, _ = at(10.0**power, 10.0 ** y_axis[0])
        canvas.line([(x, top), (x, top + height)], GRID, 1)
        canvas.text(x, top + height + 16, short(10**power), 10, anchor="middle")
    for power in y_axis:
        _, y = at(10.0 ** x_axis[0], 10.0**power)
        canvas.line([(left, y), (left + width, y)], GRID, 1)
        canvas.text(left - 6, y + 4, short(10**power), 10, anchor="end")
    canvas.line([at(one.x, one.server_us) for one in points], "#2f6fab", 2)
    canvas.text(left + width / 2, top + height + 38, title, 12, anchor="middle")


def decades(values: Iterable[float]) -> list[int]:
    """The powers of ten around them, two at least."""
    logs = [math.log10(one) for one in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return list(range(low, max(high, low + 1) + 1))


def short(value: float) -> str:
    """10k, 1M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            return f"{value // unit:g}{name}"
    return f"{value:g}"
