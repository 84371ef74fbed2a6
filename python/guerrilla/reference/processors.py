"""`docs/processors`: what of the page of a processor, and of their index, is made from the code.

A page has the names of its processors as its title, `# SQL, MySQL`, and for each table of options
a place between two marks, `<!-- options of SQL -->` and `<!-- end of options -->`. The index has
`<!-- index -->` and `<!-- end of index -->`. What stands between them is made here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla.engine import installed
from guerrilla.engine.base import PROCESS, implements
from guerrilla.errors import ConfigError
from guerrilla.processors import TABLE
from guerrilla.reference.keys import built_in, option_keys, options_of, sentence
from guerrilla.reference.page import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guerrilla.engine.base import Processor
    from guerrilla.engine.registry import Origin, Registry
    from guerrilla.reference.keys import Key

_OPTIONS: Final = re.compile(
    r"^<!-- options of (\w+) -->\n.*?^<!-- end of options -->$", re.MULTILINE | re.DOTALL
)
_INDEX: Final = re.compile(r"^<!-- index -->\n.*?^<!-- end of index -->$", re.MULTILINE | re.DOTALL)
_TITLE: Final = re.compile(r"\A# (\w+(?:, \w+)*)$", re.MULTILINE)


def names_of(page: str) -> list[str]:
    """The processors that a page is about: those of its title."""
    found = _TITLE.match(page)
    return found[1].split(", ") if found else []


def readers_of(page: str) -> list[str]:
    """The processors whose options a page has a table of."""
    return _OPTIONS.findall(page)


def written(page: str) -> str:
    """A page with its tables of options made anew."""
    return _OPTIONS.sub(lambda found: _options(found[1]), page)


def index(page: str, pages: Mapping[str, str]) -> str:
    """The index with its table made anew.

    Args:
        page: its text.
        pages: name of a built-in processor in lower case → file of its page.
    """
    lines = ["<!-- index -->", *_rows(pages), "<!-- end of index -->"]
    return _INDEX.sub(lambda _: "\n".join(lines), page)


def summary(processor: type[Processor]) -> str:
    """The first paragraph of its docstring, on one line."""
    return sentence((processor.__doc__ or "").split("\n\n", maxsplit=1)[0])


def chains_of(processor: type[Processor]) -> list[str]:
    """The keys of the chains that it does something in: `save_process` and its like."""
    keys = (key for task, key in PROCESS.items() if implements(processor, task))
    return list(dict.fromkeys(keys))


@dataclass(frozen=True, slots=True)
class Described:
    """A processor that a chain can name.

    Attributes:
        name: as its author writes it.
        origin: where it comes from.
        stores: a mail that it has passed on is saved.
        chains: the keys of those that it does something in.
        meaning: the first paragraph of its docstring.
        keys: of its options.
        problem: why it cannot be used; then what could be told of it only by importing it is empty.
        unused: packages that offer one of this name too, in vain.
    """

    name: str
    origin: Origin
    stores: bool = False
    chains: tuple[str, ...] = ()
    meaning: str = ""
    keys: tuple[Key, ...] = ()
    problem: str = ""
    unused: tuple[str, ...] = ()


def described(name: str, registry: Registry) -> Described:
    """Imports a processor and describes it.

    Raises:
        ConfigError: nobody knows the name.
    """
    origin = registry.origin(name)
    if origin is None:
        registry.find(name)
        raise ConfigError(f"unknown processor {name!r}")  # What `find` says too.
    points = installed.entry_points().get(name.casefold(), [])
    packages = (" ".join(installed.package_of(point)).strip() or point.value for point in points)
    unused = () if origin.kind == "package" else tuple(packages)
    try:
        found = registry.find(name)
        return Described(
            name,
            origin,
            unused=unused,
            stores=bool(found.stores),
            chains=tuple(chains_of(found)),
            meaning=summary(found),
            keys=tuple(option_keys(found.Options)),
        )
    except Exception as error:  # noqa: BLE001 - code of others
        text = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        return Described(name, origin, problem=text, unused=unused)


def _options(name: str) -> str:
    keys = option_keys(options_of(name))
    lines = table(keys) if keys else ["It has none."]
    return "\n".join([f"<!-- options of {name} -->", *lines, "<!-- end of options -->"])


def _rows(pages: Mapping[str, str]) -> Iterator[str]:
    yield from ("| processor | stores | chains | does |", "|---|---|---|---|")
    for name in TABLE.names:
        processor = built_in(name)
        shown = f"`{name}`"
        if name.casefold() in pages:
            shown = f"[{shown}]({pages[name.casefold()]})"
        stores = "yes" if processor.stores else "no"
        chains = ", ".join(f"`{key}`" for key in chains_of(processor))
        yield f"| {shown} | {stores} | {chains} | {summary(processor)} |"
