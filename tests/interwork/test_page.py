"""`docs/interwork.md` names tests that exist, and all of those with other mail servers."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.documents import ROOT, functions, missing

TEXT = (ROOT / "docs" / "interwork.md").read_text(encoding="utf-8")


def test_the_tests_it_names_exist() -> None:
    assert missing(TEXT) == []


def test_it_has_each_test_with_another_mail_server() -> None:
    written = {
        (path.relative_to(ROOT).as_posix(), node.name)
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert len(written) > 10
    assert written - functions(TEXT) == set()
