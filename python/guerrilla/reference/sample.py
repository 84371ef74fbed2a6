"""`guerrillad config --sample`: a config to begin with, every key in it at its default."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from guerrilla.config.writing import toml_value
from guerrilla.reference.keys import EXAMPLES, groups, of_processors, remarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guerrilla.reference.keys import Group, Key

_WIDTH: Final = 98

_HEAD: Final = """\
A config of guerrilla with every key. A line without # is the key's default: to leave it out
changes nothing. A line that begins with # and a key or a table is an example: the key is not set
by default, or its default is the machine's own. JSON with the same keys is equal.

Sizes are bytes, or texts as "64 MiB" or "10MB"; times are seconds, or texts as "1h2m3.5s". A path
that is not absolute begins at the folder where the daemon is started."""


def sample() -> str:
    """The text of TOML; it loads, and equals the config without a file."""
    lines = [*_prose(_HEAD.split("\n\n"))]
    for group in groups():
        lines += ["", *_group(group)] if group.path else _group(group)
    return "\n".join(lines) + "\n"


def _group(group: Group) -> Iterator[str]:
    if group.readers:  # Their keys stand in the backend's table, which is open already.
        yield from _prose([f"Keys of {of_processors(group.readers)}, in `backend_config`:"])
    elif group.path:
        more = () if group.is_built else ("Not built yet.",)
        yield from _prose((*group.meaning, *more))
        mark = "" if group.is_default else "#"
        name = group.path.replace("[]", "")
        yield f"{mark}[[{name}]]" if group.path.endswith("[]") else f"{mark}[{name}]"
    for key in group.keys:
        yield ""
        yield from _key(key, is_set=group.is_default and not group.readers)


def _key(key: Key, *, is_set: bool) -> Iterator[str]:
    yield from _prose([key.meaning + remarks(key)])
    value, mark = key.initial, "" if is_set else "#"
    if value is None:
        value, mark = EXAMPLES[key.path], "#"
    yield f"{mark}{key.name} = {toml_value(value)}"


def _prose(paragraphs: Iterable[str]) -> Iterator[str]:
    for index, paragraph in enumerate(paragraphs):
        if index:
            yield "#"
        for line in textwrap.wrap(
            paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False
        ):
            yield f"# {line}"
