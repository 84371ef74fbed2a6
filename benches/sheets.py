"""Arithmetic that is shown: each line gives a figure that the next may take."""

from __future__ import annotations


class Sheet:
    """Lines of which each gives a figure that the next may take."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def measured(self, what: str, value: float, unit: str) -> float:
        """A figure of a bench."""
        return self._line("measured", what, value, unit)

    def assumed(self, what: str, value: float, unit: str) -> float:
        """One to put in for oneself."""
        return self._line("assumed", what, value, unit)

    def gives(self, what: str, value: float, unit: str) -> float:
        """One that comes of those above."""
        return self._line("calculated", what, value, unit)

    def _line(self, kind: str, what: str, value: float, unit: str) -> float:
        shown = number(value)
        self.lines.append(f"{kind:<11} {what:<74} {shown:>13} {unit}".rstrip())
        return float(shown.replace(",", ""))


def number(value: float) -> str:
    """With three digits or more."""
    if value >= 100 or value == round(value):  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004
