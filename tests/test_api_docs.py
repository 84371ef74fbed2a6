"""docs/api.md and docs/testing.md: the examples run, and none of the public names is left out."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from mypy import api as mypy

import guerrilla
import guerrilla.testing
from tests.test_docs import ROOT, blocks

pytest_plugins = "pytester"

API = [code for name, code in blocks("python") if name == "api.md"]
TESTING = [code for name, code in blocks("python") if name == "testing.md"]


def used(code: str) -> set[str]:
    """The names that an example uses beyond importing them."""
    tree = ast.parse(code)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("code", API)
def test_an_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/api.md", "exec", dont_inherit=True), {"__name__": "example"})


def test_the_examples_of_tests_pass(pytester: pytest.Pytester) -> None:
    for number, code in enumerate(TESTING):
        pytester.makepyfile(**{f"test_{number}": code})
    count = sum(code.count("def test_") for code in TESTING)
    assert count >= 3
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=count)


def test_every_public_name_has_an_example() -> None:
    names = set().union(*(used(code) for code in [*API, *TESTING]))
    public = {*guerrilla.__all__, *guerrilla.testing.__all__} - {"Stage"}  # a type of arguments
    assert public - names == set()


def test_the_examples_are_typed(tmp_path: Path) -> None:
    for number, code in enumerate([*API, *TESTING]):
        (tmp_path / f"example_{number}.py").write_text(code, encoding="utf-8")
    arguments = ["--strict", "--config-file", str(ROOT / "pyproject.toml")]
    arguments += ["--python-executable", sys.executable, "--cache-dir", str(ROOT / ".mypy_cache")]
    text, errors, status = mypy.run([*arguments, *map(str, tmp_path.glob("*.py"))])
    assert (status, errors) == (0, ""), text
