"""A picture as SVG: text, so it needs no library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SvgCanvas"]


class SvgCanvas:
    """As `plot.Canvas`."""

    def __init__(self, width: int, height: int) -> None:
        box = f'width="{width}" height="{height}"'
        look = 'font-family="sans-serif" fill="#24292f"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box} {look}>',
            f'<rect {box} fill="#ffffff"/>',
        ]

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        """Draws from point to point."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke={quoteattr(color)} '
            f'stroke-width="{width:g}"/>'
        )

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fills a rectangle."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f"fill={quoteattr(color)}/>"
        )

    def text(self, x: float, y: float, text: str, size: int, *, anchor: str = "start") -> None:
        """Writes on a base line."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def write(self, path: str) -> None:
        """Writes the file."""
        Path(path).write_text("\n".join([*self._parts, "</svg>", ""]), encoding="utf-8")
