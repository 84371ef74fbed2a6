"""The pages of the processors, and what a test takes from them."""

from __future__ import annotations

import re
from pathlib import Path

from guerrilla.reference.processors import names_of

FOLDER = Path(__file__).parents[2] / "docs" / "processors"
INDEX = FOLDER / "README.md"

_SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n)*)", re.MULTILINE)
_BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every page but the index."""
    return sorted(path for path in FOLDER.glob("*.md") if path != INDEX)


def files() -> dict[str, str]:
    """Name of a processor in lower case → file of its page."""
    return {
        name.casefold(): path.name
        for path in pages()
        for name in names_of(path.read_text(encoding="utf-8"))
    }


def sections(path: Path) -> dict[str, str]:
    """The sections of a page by their headings, in order."""
    return dict(_SECTION.findall(path.read_text(encoding="utf-8")))


def examples(name: str) -> list[str]:
    """The example configs on the page of a processor, for a test to run, with other addresses."""
    return _BLOCK.findall(sections(FOLDER / files()[name.casefold()])["Example"])
