"""`guerrillad check`: what a start or a reload would say of a config, without doing it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guerrilla.commands.common import add_command, add_config, find_config, no_config, shown
from guerrilla.config import AppConfig, load
from guerrilla.config.diff import changes
from guerrilla.config.writing import toml
from guerrilla.errors import ConfigError
from guerrilla.running.checking import Findings, check, effective

if TYPE_CHECKING:
    from guerrilla.commands.common import Subparsers

_MORE: Final = """\
The config with all its defaults goes to standard output as TOML, secrets as ***; warnings and
errors go to standard error. Exit status 1: a start would fail, or --strict and there are warnings.
Run it as the user that starts the daemon, and in the same folder: it looks with that user's eyes.

--connect opens the stages for real: the SQL stage makes its database and table if they are missing.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "check", run, help_="look at a config before it runs", more=_MORE
    )
    add_config(parser)
    parser.add_argument(
        "--connect", action="store_true", help="open and close the stages of the chains too"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 where there are warnings")
    parser.add_argument(
        "--diff",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="print instead the events that a reload from OLD to NEW would publish",
    )


def run(args: argparse.Namespace) -> int:
    """Checks; 0 when a start would come as far, 1 else.

    Raises:
        ConfigError: a file cannot be read, or something in it is wrong.
    """
    if args.diff is not None:
        if args.config is not None or args.connect:
            args.parser.error("--diff takes its two files alone, without -c and --connect")
        return _diff(*args.diff, strict=args.strict)
    path = find_config(args.config)
    if path is None:
        print(f"guerrillad: {no_config()}: these are the defaults", file=sys.stderr)
    config = AppConfig.default() if path is None else load(path)
    found = check(config, path.parent if path is not None else None, connect=args.connect)
    print(toml(effective(config)), end="", flush=True)
    return _tell(found, path, strict=args.strict)


def _diff(old: str, new: str, *, strict: bool) -> int:
    before, after = _load_both(old, new)
    found = check(after, Path(new).parent)
    if not found.problems:
        for change in changes(before, after):
            print(shown(str(change)))
    return _tell(found, new, strict=strict)


def _load_both(old: str, new: str) -> list[AppConfig]:
    """Both configs; what is wrong in either is told at once."""
    configs: list[AppConfig] = []
    problems: list[str] = []
    for path in (old, new):
        try:
            configs.append(load(path))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return configs


def _tell(found: Findings, path: str | Path | None, *, strict: bool) -> int:
    name = "" if path is None else f"{path}: "
    for warning in found.warnings:
        print(f"guerrillad: warning: {name}{shown(warning)}", file=sys.stderr)
    for problem in found.problems:
        print(f"guerrillad: {name}{shown(problem)}", file=sys.stderr)
    return 1 if found.problems or (strict and found.warnings) else 0
