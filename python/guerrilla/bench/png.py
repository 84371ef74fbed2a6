"""A picture as PNG, by Pillow: the extra `plot`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PngCanvas"]

_SCALE: Final = 2
"""Pixels of a point."""
_ANCHORS: Final = {"start": "ls", "middle": "ms", "end": "rs"}
"""Pillow's names; `s` is the base line."""


class PngCanvas:
    """As `plot.Canvas`."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), "#ffffff")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        """Draws from point to point."""
        path = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(path, fill=color, width=round(width * _SCALE))

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fills a rectangle."""
        corners = (x * _SCALE, y * _SCALE, (x + width) * _SCALE, (y + height) * _SCALE)
        self._draw.rectangle(corners, fill=color)

    def text(self, x: float, y: float, text: str, size: int, *, anchor: str = "start") -> None:
        """Writes on a base line."""
        font = ImageFont.load_default(size * _SCALE)
        place = (x * _SCALE, y * _SCALE)
        self._draw.text(place, text, fill="#24292f", font=font, anchor=_ANCHORS[anchor])

    def write(self, path: str) -> None:
        """Writes the file."""
        self._image.save(path, "PNG")
