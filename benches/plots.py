"""Two pictures of what a message costs: by receiver, and by size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guerrilla.bench.svg import SvgCanvas
from load import OURS, SCENARIOS, SINK
from results import RECEIVERS, Results

HERE: Final = Path(__file__).parent
BY_RECEIVER: Final = HERE / "cpu-by-receiver.svg"
BY_SIZE: Final = HERE / "cpu-by-size.svg"
WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 64, 36
COLORS: Final = {SINK: "#6e7781", "aiosmtpd": "#bf8700", "smtp-server": "#1a7f37", OURS: "#2f6fab"}
GRID, INK = "#d8dee4", "#24292f"
TITLES: Final = {
    "a": "4 KiB, a connection each",
    "b": "4 KiB",
    "c": "100 KiB",
    "d": "1 MiB",
}


class Log:
    """A panel whose y axis is a logarithm: from a µs to as much as is needed."""

    def __init__(self, title: str, values: Sequence[float]) -> None:
        self.canvas = SvgCanvas(WIDTH, HEIGHT)
        self.low = 10.0 ** math.floor(math.log10(min(values)))
        self.high = 10.0 ** math.ceil(math.log10(max(values)))
        if self.high == self.low:
            self.high *= 10
        self.canvas.text(LEFT, 24, title, 15)
        value = self.low
        while value <= self.high:
            y = self.y(value)
            self.canvas.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID, 1)
            self.canvas.text(LEFT - 8, y + 4, f"{value:,.0f}", 11, anchor="end")
            value *= 10

    def y(self, value: float) -> float:
        """How far down it is."""
        part = math.log10(value / self.low) / math.log10(self.high / self.low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    def names(self, names: Sequence[str]) -> None:
        """What each colour is."""
        for number, name in enumerate(names):
            x = LEFT + 130 * number
            self.canvas.bar(x, 38, 10, 10, COLORS[name])
            self.canvas.text(x + 15, 47, name, 12)


def measured(told: Results) -> dict[tuple[str, str], float]:
    """CPU µs a message, by scenario and receiver."""
    return {
        (one.name, name): told.samples.median(key)
        for one in SCENARIOS
        for name in RECEIVERS
        if (key := f"{one.name} {name} server µs") in told.samples.of
    }


def by_receiver(told: Results) -> SvgCanvas | None:
    """Bars, a group a scenario; nothing where nothing was measured."""
    values = measured(told)
    if not values:
        return None
    panel = Log("server CPU µs a message, by receiver (logarithmic)", list(values.values()))
    names = [name for name in RECEIVERS if any(name == key[1] for key in values)]
    panel.names(names)
    groups = [one.name for one in SCENARIOS if any(one.name == key[0] for key in values)]
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room * 0.8 / len(names)
    for place, group in enumerate(groups):
        left = LEFT + room * (place + 0.1)
        middle = left + room * 0.4
        panel.canvas.text(middle, HEIGHT - 14, TITLES[group], 12, anchor="middle")
        for number, name in enumerate(names):
            if (value := values.get((group, name))) is None:
                continue
            top, x = panel.y(value), left + width * number
            panel.canvas.bar(x, top, width * 0.92, HEIGHT - BOTTOM - top, COLORS[name])
            panel.canvas.text(x + width * 0.46, top - 4, f"{value:,.0f}", 10, anchor="middle")
    panel.canvas.line([(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], INK, 1)
    return panel.canvas


def by_size(told: Results) -> SvgCanvas | None:
    """A line a receiver over the sizes of messages; nothing where there is only one of them."""
    values = {key: value for key, value in measured(told).items() if key[0] in "bcd"}
    sizes = {
        one.name: one.load.size for one in SCENARIOS if any(one.name == key[0] for key in values)
    }
    if len(sizes) < 2:  # noqa: PLR2004
        return None
    title = "server CPU µs a message, by size, kept connections (both logarithmic)"
    panel = Log(title, list(values.values()))
    low, high = math.log(min(sizes.values())), math.log(max(sizes.values()))

    def x(size: int) -> float:
        return LEFT + 30 + (math.log(size) - low) / (high - low) * (WIDTH - LEFT - RIGHT - 90)

    for group, size in sizes.items():
        panel.canvas.text(x(size), HEIGHT - 14, TITLES[group], 12, anchor="middle")
    names = [name for name in RECEIVERS if any(name == key[1] for key in values)]
    panel.names(names)
    for name in names:
        points = [
            (x(size), panel.y(values[group, name]))
            for group, size in sizes.items()
            if (group, name) in values
        ]
        panel.canvas.line(points, COLORS[name], 2.5)
        for left, top in points:
            panel.canvas.bar(left - 3, top - 3, 6, 6, COLORS[name])
    panel.canvas.line([(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], INK, 1)
    return panel.canvas


def draw(told: Results) -> None:
    """Writes both."""
    for path, canvas in ((BY_RECEIVER, by_receiver(told)), (BY_SIZE, by_size(told))):
        if canvas is not None:
            canvas.write(str(path))
