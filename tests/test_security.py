"""What `SECURITY.md` says of the tree: limits are keys, tests are there, `unsafe` is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

_ROW = re.compile(r"^\| (.*) \|$", re.MULTILINE)
_TEST = re.compile(r"`((?:[\w./-]+/)?[\w-]+\.(?:py|rs|smtp))`")
_STRINGS_AND_COMMENTS = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"')


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [row.split(" | ") for row in _ROW.findall(section)]
    assert table, f"no table below {heading}"
    return table[1:]


def place(name: str) -> Path:
    """Of a file that the page names: below `tests` unless it says `rust` or `benches`."""
    return ROOT / name if name.startswith(("rust/", "benches/")) else ROOT / "tests" / name


def keys() -> dict[str, set[str]]:
    """Every key of the config with the defaults that `docs/config.md` has for it."""
    found: dict[str, set[str]] = {}
    prefix = ""
    for line in (ROOT / "docs" / "config.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            prefix = "auth." if line == "## `servers[].auth`" else ""
        elif line.startswith("| `"):
            cells = line.strip("| ").split(" | ")
            found.setdefault(prefix + cells[0].strip("`"), set()).add(cells[2].strip("`"))
    return found


LIMITS = rows("What each limit is for")


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[0])
def test_a_limit_is_a_key_with_that_default_and_its_test_is_about_it(row: list[str]) -> None:
    limit, default, _, test = row
    key = re.match(r"`([\w.]+)`", limit)
    assert key is not None
    assert default.strip("`") in keys()[key[1]]
    ((name,), file) = (_TEST.findall(test), place(test.strip("`")))
    assert file.is_file(), name
    assert key[1].rpartition(".")[2] in file.read_text(encoding="utf-8")


def test_every_limit_of_the_page_of_limits_is_there() -> None:
    known = {re.findall(r"`([\w.]+)`", row[0])[0].rpartition(".")[2] for row in LIMITS}
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    asked = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    manners = {"helo_required", "bare_newline"}
    assert asked - manners - known == set()
    assert len(asked) > 15


def test_the_files_that_it_names_are_there() -> None:
    named = set(_TEST.findall(TEXT))
    assert len(named) > 30
    assert [name for name in sorted(named) if not place(name).is_file()] == []


def test_all_unsafe_code_is_listed() -> None:
    listed = {row[0].strip("`") for row in rows("`unsafe`")}
    found = set()
    for folder in ("rust", "benches", "fuzz", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.rs"):
            code = _STRINGS_AND_COMMENTS.sub("", path.read_text(encoding="utf-8"))
            if re.search(r"\bunsafe\b|\ballow\(unsafe_code\)", code):
                found.add(str(path.relative_to(ROOT)))
    assert found == listed


def test_each_use_of_it_says_why() -> None:
    """Right above, as is the custom; what is `unsafe` to be called is described by its file."""
    for name in (row[0].strip("`") for row in rows("`unsafe`")):
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = text.splitlines()
        assert "`unsafe` is needed here" in text
        for number, line in enumerate(lines):
            if re.search(r"\bunsafe\s*\{", _STRINGS_AND_COMMENTS.sub("", line)):
                assert any("// SAFETY: " in above for above in lines[max(0, number - 4) : number])


def test_only_the_crate_may_allow_it() -> None:
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    assert re.search(r'^unsafe_code = "deny"$', manifest, re.MULTILINE)
