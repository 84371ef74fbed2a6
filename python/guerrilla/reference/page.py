"""`docs/config.md`: every key of a config in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guerrilla.config.writing import toml_value
from guerrilla.reference.keys import groups, of_processors, remarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guerrilla.reference.keys import Group, Key

_HEAD: Final = """\
# Every key of the config

This page is made from the models that read a config, by the code that makes
`guerrillad config --sample` (a commented config with all of these keys) and
`guerrillad config --schema` (JSON Schema, for editors). Key names match in any case, and an
unknown one is an error.

Sizes are bytes, or texts as `"64 MiB"` (powers of 1024) and `"10MB"` (of 1000); durations are
seconds, or texts as `"1h2m3.5s"` and `"500ms"`. A path that is not absolute begins at the folder
where the daemon is started. A key without a default is not set, or has one of the machine's own,
as its meaning says.
"""


def page() -> str:
    """The text of Markdown."""
    lines = _HEAD.splitlines()
    for group in groups():
        lines += ["", *_section(group)]
    return "\n".join(lines) + "\n"


def _section(group: Group) -> Iterator[str]:
    if group.readers:
        yield f"### Keys of {of_processors(group.readers)}, in `backend_config`"
    elif group.path:
        yield f"## `{group.path}`"
        for paragraph in group.meaning:
            yield from ("", paragraph)
    else:
        yield "## At the top"
    if not group.is_built:
        yield from ("", "**Not built yet**, all of it.")
    yield ""
    yield from table(group.keys)


def table(keys: Iterable[Key]) -> Iterator[str]:
    """The lines of a table of keys."""
    yield from ("| key | takes | default | meaning |", "|---|---|---|---|")
    yield from map(_row, keys)


def _row(key: Key) -> str:
    default = "required" if key.is_required else ""
    if key.default is not None:
        default = f"`{toml_value(key.default)}`"
    meaning = key.meaning + remarks(key).replace("Not built yet.", "**Not built yet.**")
    # Within a code span too a bar would end the cell.
    cells = [text.replace("|", "\\|") for text in (f"`{key.name}`", key.kind, default, meaning)]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")
