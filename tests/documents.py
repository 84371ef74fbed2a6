"""What documents say of tests: the names in their tables, and whether there is such a test."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
CONVERSATIONS: Final = ROOT / "tests" / "conversations"

CONVERSATION: Final = re.compile(r"`([a-z0-9-]+\.smtp)`")
TEST: Final = re.compile(r"`([\w/.]+\.(?:py|rs))::(\w+)`")


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without the heads."""
    lines = text.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not after.startswith("|---")
    ]


def conversations(text: str) -> set[str]:
    """The conversations that a text names."""
    return set(CONVERSATION.findall(text))


def functions(text: str) -> set[tuple[str, str]]:
    """The tests that it names: file and function."""
    return set(TEST.findall(text))


def missing(text: str) -> list[str]:
    """What it names and is not there."""
    files = [name for name in conversations(text) if not (CONVERSATIONS / name).exists()]
    gone = [f"{file}::{name}" for file, name in functions(text) if name not in _tests_of(file)]
    return sorted(files + gone)


@cache
def _tests_of(file: str) -> frozenset[str]:
    """The tests in a file of pytest or of Rust."""
    path = ROOT / file
    if not path.exists():
        return frozenset()
    source = path.read_text(encoding="utf-8")
    if file.endswith(".rs"):
        # In `proptest!` a test has its attribute as well.
        return frozenset(re.findall(r"#\[test\]\s+(?:#\[[^\]]*\]\s+)*fn (\w+)", source))
    nodes = ast.parse(source).body
    found = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return frozenset(node.name for node in found if node.name.startswith("test_"))
