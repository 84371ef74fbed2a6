"""Processors of installed packages: their entry points in the group `guerrilla.processors`."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final

from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS: Final = "guerrilla.processors"


def entry_points() -> dict[str, list[EntryPoint]]:
    """Those of all installed packages, by the name of the processor in lower case."""
    found: dict[str, list[EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name.strip().casefold(), []).append(point)
    return found


def package_of(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that has it; empty where it is of none."""
    return (point.dist.name, point.dist.version) if point.dist is not None else ("", "")


def load(name: str) -> type[Processor] | None:
    """The class that an installed package offers under that name, imported now; None: none does.

    Raises:
        ConfigError: it cannot be imported, is no processor, or two packages offer one. The package,
            the entry point and the reason are named.
    """
    points = entry_points().get(name.strip().casefold(), [])
    if not points:
        return None
    if len(points) > 1:
        offers = " and ".join(_described(point) for point in points)
        raise ConfigError(
            f"processor {name} is offered by more than one package, {offers}: remove one of them"
        )
    [point] = points
    failed = f"processor {name} cannot be loaded from {_described(point)}"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{failed}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Processor)):
        raise ConfigError(f"{failed}: it is no subclass of Processor")
    return found


def _described(point: EntryPoint) -> str:
    name, version = package_of(point)
    return f"{point.value} of the package {name} {version}" if name else point.value
