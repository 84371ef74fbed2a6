"""`guerrillad processors`: what a chain can name, with options and where it comes from."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

from guerrilla.commands.common import add_command, add_config, find_config, shown
from guerrilla.config import load, mask_value
from guerrilla.config.writing import toml_value
from guerrilla.engine.registry import DECORATED, Registry, import_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guerrilla.commands.common import Subparsers
    from guerrilla.reference.keys import Key
    from guerrilla.reference.processors import Described

_MORE: Final = """\
Those that are built in, those of installed packages (entry points of the group
guerrilla.processors), and with a config file those of the modules that it imports. Of one that
cannot be used the reason is printed in place of its options. Exit status 1: NAME cannot be used, or
a module of the config cannot be imported.
"""

_WIDTH: Final = 98


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "processors", run, help_="list what a chain can name, with options", more=_MORE
    )
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this one, in any case")


def run(args: argparse.Namespace) -> int:
    """Prints them; 1 where one that was asked for cannot be used.

    Raises:
        ConfigError: nobody knows the name, or the config file cannot be read.
    """
    from guerrilla.reference.processors import described  # loads them all  # noqa: PLC0415

    problems = _import(args)
    registry = Registry(DECORATED)
    names = registry.names()
    if args.name is not None:
        wanted = args.name.strip().casefold()
        names = [name for name in names if name.casefold() == wanted] or [args.name]
    found = [described(name, registry) for name in names]
    for index, one in enumerate(found):
        if args.json:
            print(json.dumps(_object(one), ensure_ascii=False))
        else:
            for line in ["", *_text(one)][not index :]:
                print(shown(line))
    sys.stdout.flush()
    for problem in problems:
        print(f"guerrillad: {shown(problem)}", file=sys.stderr)
    is_bad = args.name is not None and any(one.problem for one in found)
    return 1 if problems or is_bad else 0


def _import(args: argparse.Namespace) -> list[str]:
    """Imports the modules of the config file, where there is one; what went wrong."""
    path = find_config(args.config)
    if path is None:
        return []
    config = load(path)
    backends = [config.backend_config, *config.backends.values()]
    modules = dict.fromkeys(name for backend in backends for name in backend.import_)
    return [f"{path}: {problem}" for problem in import_modules(modules, path.parent)]


def _text(one: Described) -> Iterator[str]:
    if one.problem:
        yield f"{one.name}  ({one.origin}; cannot be used)"
        yield from _paragraph(one.problem, "  ")
    else:
        yield from _of_a_sound_one(one)
    for package in one.unused:
        yield f"  The package {package} offers one of this name too, which is not used."


def _of_a_sound_one(one: Described) -> Iterator[str]:
    what = ["stores"] if one.stores else []
    what += one.chains
    yield f"{one.name}  ({'; '.join([str(one.origin), *what])})"
    yield from _paragraph(one.meaning, "  ")
    for key in one.keys:
        default = "required" if key.is_required else ""
        if not key.is_required and key.default is not None:
            default = f"default {toml_value(_default(key))}"
        kind = key.kind.replace("`", "")
        yield f"  {key.name}  ({'; '.join(part for part in (kind, default) if part)})"
        yield from _paragraph(key.meaning, "      ")


def _paragraph(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _default(key: Key) -> object:
    """As a config would write it; what JSON has no form for as a text."""
    masked = mask_value(key.name, key.default)
    return json.loads(json.dumps(masked, default=lambda value: getattr(value, "value", str(value))))


def _object(one: Described) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": one.name,
        "origin": one.origin.kind,
        "module": one.origin.module,
    }
    if one.origin.package:
        found |= {"package": one.origin.package, "version": one.origin.version}
    if one.unused:
        found["unused"] = list(one.unused)
    if one.problem:
        return {**found, "problem": one.problem}
    options = [
        {
            "key": key.name,
            "takes": key.kind.replace("`", ""),
            "default": _default(key),
            "required": key.is_required,
            "secret": key.is_secret,
            "meaning": key.meaning,
        }
        for key in one.keys
    ]
    return {
        **found,
        "stores": one.stores,
        "chains": list(one.chains),
        "meaning": one.meaning,
        "options": options,
    }
