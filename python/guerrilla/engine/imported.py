"""Whether the files of the modules of `import` have changed since: they are imported only once."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SEEN: Final[dict[str, tuple[str, tuple[int, int] | None]]] = {}
"""Of each module its file, and what was seen of it when it had just been imported."""


def note(name: str) -> None:
    """Remembers the files of a module that is imported, and of those within it."""
    for module, file in _files(name):
        if _SEEN.get(module, ("", None))[0] != file:
            _SEEN[module] = file, _see(file)


def changed_modules(names: Iterable[str]) -> list[str]:
    """A warning for each module of `backend_config.import` that runs as it was, unlike its file."""
    return [
        f"backend_config.import: {module}: {file} has changed since it was imported; "
        "a restart takes it over"
        for name in dict.fromkeys(names)
        for module, (file, seen) in list(_SEEN.items())
        if _is_within(module, name) and _see(file) != seen
    ]


def _files(name: str) -> Iterator[tuple[str, str]]:
    for module, found in list(sys.modules.items()):
        if _is_within(module, name) and (file := getattr(found, "__file__", None)):
            yield module, str(file)


def _is_within(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _see(file: str) -> tuple[int, int] | None:
    """Time and size; None while it cannot be seen."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
