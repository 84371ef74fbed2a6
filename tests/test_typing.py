"""tests/typing is what users write; `make lint` has type checkers read it. Here: is it complete?"""

from __future__ import annotations

import ast
from pathlib import Path

import guerrilla
import guerrilla.testing

MODULES = sorted((Path(__file__).parent / "typing").glob("*.py"))


def imported(path: Path) -> set[str]:
    """What a module imports of the public names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guerrilla")
        for alias in node.names
    }


def test_every_public_name_is_read_by_type_checkers() -> None:
    names = set().union(*map(imported, MODULES))
    decorators = {"authenticator", "processor", "validator"}  # used as attributes of the package
    assert {*guerrilla.__all__, *guerrilla.testing.__all__} - names == decorators


def test_every_lazy_name_is_public_and_found() -> None:
    assert set(guerrilla._LAZY) <= set(guerrilla.__all__)
    assert all(getattr(guerrilla, name) is not None for name in guerrilla.__all__)
    assert set(guerrilla.__all__) <= set(dir(guerrilla))
