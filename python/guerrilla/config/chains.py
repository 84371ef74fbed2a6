"""A chain as a config writes it: names of processors split at `|`, with aliases or without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from guerrilla.errors import ConfigError

SPOOL: Final = "250"
"""The stage that stands for the spool: all behind it comes after the answer."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a chain.

    Attributes:
        name: as the chain has it, `Redis:hot`: what logs, figures and errors call it.
        processor: what stands before the colon, `Redis`.
        alias: what stands behind it, `hot`; empty where there is none.
    """

    name: str
    processor: str
    alias: str = ""

    @property
    def table(self) -> str:
        """The table below `processors` with options of its own: of its alias, else its name."""
        return (self.alias or self.processor).lower()

    def own_options(self, values: Mapping[str, object]) -> Mapping[str, Any]:
        """What its table has; empty where there is none.

        Args:
            values: the keys of a backend, with its `processors`; all lower case.
        """
        tables = values.get("processors")
        found = tables.get(self.table) if isinstance(tables, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def chain_names(text: str) -> list[str]:
    """The stages of a chain: `"HeadersParser | SQL"` gives `["HeadersParser", "SQL"]`.

    An empty text is an empty chain.

    Raises:
        ConfigError: a stage has no name, as in `"Header||SQL"`, or half of one, as `Redis:`.
    """
    return [stage.name for stage in chain_stages(text)]


def chain_stages(text: str) -> list[Stage]:
    """The stages of a chain, with their aliases.

    Raises:
        ConfigError: as `chain_names`.
    """
    if not text.strip():
        return []
    names = [name.strip() for name in text.split("|")]
    if "" in names:
        at = names.index("") + 1
        raise ConfigError(f"stage {at} of the chain {text[:60]!r} has no name")
    return [stage_of(name) for name in names]


def spool_problems(chains: Mapping[str, str], *, has_spool: bool) -> Iterator[str]:
    """What is wrong with the spool in the chains of a backend, one line each.

    Args:
        chains: by their keys.
        has_spool: whether the config has the section `spool`.
    """
    for key, chain in chains.items():
        names = [stage.name for stage in chain_stages(chain) if stage.processor == SPOOL]
        if not names:
            continue
        if key != "save_process":
            yield f"{key}: {SPOOL} stands for the spool, which is for mails: save_process alone"
        elif names[0] != SPOOL:
            yield f"{key}: {SPOOL} takes no alias: there is one spool"
        elif len(names) > 1:
            yield f"{key}: {SPOOL} stands there {len(names)} times; a mail is answered once"
        elif not has_spool:
            yield f"{key}: {SPOOL} needs a spool: add the section spool with a path"


def stage_of(name: str) -> Stage:
    """The stage that a chain calls so.

    Raises:
        ConfigError: nothing stands before its colon, or behind it, or there are two of them.
    """
    plain = name.strip()
    if ":" not in plain:
        return Stage(plain, plain)
    processor, _, alias = (part.strip() for part in plain.partition(":"))
    if not processor or not alias or ":" in alias:
        raise ConfigError(f"the stage {plain[:60]!r} is no name with an alias: expected NAME:ALIAS")
    return Stage(plain, processor, alias)


def alias_oddities(
    chains: Iterable[str], tables: Mapping[str, Mapping[str, object]]
) -> Iterator[str]:
    """What is hardly meant and works: a table of no stage, an alias without a table.

    Args:
        chains: all of a backend.
        tables: its `processors`, by lower-case names.
    """
    stages = [stage for chain in chains for stage in chain_stages(chain)]
    named = {stage.table for stage in stages}
    for name in tables:
        if name not in named:
            yield f"processors.{name}: no chain names it, as PROCESSOR:{name}"
    aliases = {stage.table: stage for stage in reversed(stages) if stage.alias}
    for name, stage in reversed(aliases.items()):
        if name not in tables:
            yield f"processors.{name}: no such table: {stage.name} has the backend's options alone"
