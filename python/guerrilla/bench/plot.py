"""The picture of a load: how long messages took, and how many there were when."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from guerrilla.bench.svg import SvgCanvas
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Canvas", "PlotError", "check_plot", "write_plot"]

WIDTH: Final = 900
HEIGHT: Final = 640

_INK: Final = "#24292f"
_GRID: Final = "#d8dee4"
_BLUE: Final = "#2f6fab"
_RED: Final = "#c0392b"
_BINS: Final = 80
_LEAST_PART: Final = 0.25
"""Of a part that ended early so much is drawn: next to nothing would be a high rate."""
_LEAST_SPAN: Final = 0.3
"""Decades of a histogram whose times are all the same."""


class PlotError(GuerrillaError):
    """No picture can be written; a line for a person."""


class Canvas(Protocol):
    """What can be drawn on: points from the upper left, colours as `#24292f`."""

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        """Draws from point to point."""

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fills a rectangle."""

    def text(self, x: float, y: float, text: str, size: int, *, anchor: str = "start") -> None:
        """Writes on a base line; `anchor` says what is at x: `start`, `middle` or `end`."""

    def write(self, path: str) -> None:
        """Writes the file."""


def check_plot(path: str) -> None:
    """Looks whether a picture can be written there, before anything else is done.

    Raises:
        PlotError: it cannot.
    """
    kind = Path(path).suffix.lower()
    if kind not in (".svg", ".png"):
        raise PlotError(f"--plot: {path}: expected a name that ends with .svg or .png")
    if not Path(path).parent.is_dir():
        raise PlotError(f"--plot: {path}: there is no such folder")
    if kind == ".png" and find_spec("PIL") is None:
        raise PlotError("--plot: PNG needs the extra plot: pip install 'guerrilla[plot]'; or .svg")


def write_plot(path: str, told: Mapping[str, Any]) -> None:
    """Draws what `report.summary` has told.

    Raises:
        OSError: it cannot be written.
    """
    canvas: Canvas
    if path.lower().endswith(".svg"):
        canvas = SvgCanvas(WIDTH, HEIGHT)
    else:
        from guerrilla.bench.png import PngCanvas  # noqa: PLC0415  # whose library is an extra

        canvas = PngCanvas(WIDTH, HEIGHT)
    _draw(canvas, told)
    canvas.write(path)


def _draw(canvas: Canvas, told: Mapping[str, Any]) -> None:
    canvas.text(20, 28, f"guerrillad bench: {told['target']}", 16)
    rate = (
        f"{told['messages_per_second']:,.0f} messages/s, {told['messages']['accepted']:,} accepted"
    )
    canvas.text(WIDTH - 20, 28, rate, 13, anchor="end")
    name, what = (
        ("from_due", "when it was due") if told["loop"] == "open" else ("from_dot", "the final dot")
    )
    _draw_latency(_Panel(canvas, 80, 60, 790, 230), told["latency"][name], what)
    _draw_rate(_Panel(canvas, 80, 370, 790, 210), told["timeline"], told["seconds"])


class _Panel:
    """A part of the picture with axes, in which x and y go from 0 to 1 from the lower left."""

    def __init__(self, canvas: Canvas, x: float, y: float, width: float, height: float) -> None:
        self.canvas = canvas
        self._x, self._y, self._width, self._height = x, y, width, height

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self._x + x * self._width, self._y + (1 - y) * self._height

    def title(self, text: str) -> None:
        self.canvas.text(self._x, self._y - 8, text, 13)

    def axis_x(self, ticks: Iterator[tuple[float, str]]) -> None:
        for x, label in ticks:
            self.canvas.line([self.at(x, 0), self.at(x, 1)], _GRID, 1)
            left, bottom = self.at(x, 0)
            self.canvas.text(left, bottom + 16, label, 11, anchor="middle")
        self.canvas.line([self.at(0, 0), self.at(1, 0)], _INK, 1)

    def axis_y(self, most: float) -> None:
        """Ticks of 0 to `most`."""
        step = _step(most)
        for number in range(int(most / step) + 1):
            y = number * step / most
            self.canvas.line([self.at(0, y), self.at(1, y)], _GRID, 1)
            left, middle = self.at(0, y)
            self.canvas.text(left - 8, middle + 4, f"{number * step:,g}", 11, anchor="end")

    def bar(self, x: float, width: float, height: float, color: str) -> None:
        left, top = self.at(x, height)
        self.canvas.bar(left, top, width * self._width, height * self._height, color)

    def line(self, points: Sequence[tuple[float, float]], color: str) -> None:
        self.canvas.line([self.at(*point) for point in points], color, 2)


def _draw_latency(panel: _Panel, latency: Mapping[str, Any], what: str) -> None:
    panel.title(f"latency from {what} to the reply: messages by time")
    buckets = latency["buckets"]
    if not buckets:
        panel.axis_x(iter(()))
        return
    # Nothing takes no time; and a clock that says so has no logarithm.
    begin = math.log10(max(latency["min"], 1e-7))
    end = max(math.log10(max(latency["max"], 1e-7)), begin + _LEAST_SPAN)
    bins = [0] * _BINS
    for low, high, count in buckets:
        middle = math.log10(max((low + high) / 2, 1e-7))
        place = int((middle - begin) / (end - begin) * _BINS)
        bins[min(max(place, 0), _BINS - 1)] += count
    # Above the bars is room for the names of the percentiles.
    most = max(bins) * 1.3
    panel.axis_y(most)
    panel.axis_x(
        ((math.log10(time) - begin) / (end - begin), _time(time)) for time in _times(begin, end)
    )
    for number, count in enumerate(bins):
        if count:
            panel.bar(number / _BINS, 0.9 / _BINS, count / most, _BLUE)
    for number, name in enumerate(("p50", "p90", "p99", "p99_9")):
        x = (math.log10(max(latency[name], 1e-7)) - begin) / (end - begin)
        label = f"{name.replace('_', '.')} {_time(latency[name])}"
        _mark(panel, min(max(x, 0.0), 1.0), label, number)


def _mark(panel: _Panel, x: float, label: str, row: int) -> None:
    """A line across the panel, with its name."""
    panel.line([(x, 0), (x, 1)], _RED)
    left, top = panel.at(x, 1)
    has_room = x < 0.8  # right of it  # noqa: PLR2004
    edge, anchor = (left + 4, "start") if has_room else (left - 4, "end")
    panel.canvas.text(edge, top + 14 + 14 * row, label, 11, anchor=anchor)


def _draw_rate(panel: _Panel, timeline: Mapping[str, Any], seconds: float) -> None:
    accepted, other, part = timeline["accepted"], timeline["other"], timeline["seconds"]
    what = ", those that were not accepted in red" if any(other) else ""
    panel.title(f"messages a second over time, in seconds{what}")
    if not accepted:
        panel.axis_x(iter(()))
        return
    whole = max(seconds, (len(accepted) - 1) * part + _LEAST_PART * part)
    # The last part may have ended early.
    ends = [min((number + 1) * part, whole) for number in range(len(accepted))]
    lengths = [end - number * part for number, end in enumerate(ends)]
    rates = [
        [count / length for count, length in zip(counts, lengths, strict=True)]
        for counts in (accepted, other)
    ]
    most = max(max(heights) for heights in rates) * 1.05
    panel.axis_y(most)
    step = _step(whole)
    panel.axis_x((n * step / whole, f"{n * step:g}") for n in range(int(whole / step) + 1))
    for heights, color in zip(rates, (_BLUE, _RED), strict=True):
        if any(heights):
            stairs = [
                (x / whole, height / most)
                for number, height in enumerate(heights)
                for x in (number * part, ends[number])
            ]
            panel.line(stairs, color)


def _step(most: float) -> float:
    """A round step, of which some five reach that far."""
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(
        factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999
    )


def _times(begin: float, end: float) -> Iterator[float]:
    """Round times between two logarithms of seconds."""
    for power in range(math.floor(begin), math.ceil(end) + 1):
        for factor in (1, 2, 5):
            time = factor * 10.0**power
            if begin <= math.log10(time) <= end:
                yield time


def _time(seconds: float) -> str:
    # Not µs: the font that Pillow brings has no µ.
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{seconds * 1e3:.3g} ms"  # noqa: PLR2004
