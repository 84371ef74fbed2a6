"""What several commands share: finding the config, the store it names, safe output."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from guerrilla.config import chain_stages, load
from guerrilla.engine.backends import backends_of, path_of
from guerrilla.engine.chain import read_options
from guerrilla.errors import GuerrillaError
from guerrilla.processors.sql import SQL, MySQL
from guerrilla.store.schema import check_table_name
from guerrilla.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from guerrilla.config import AppConfig, BackendConfig

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # no other name  # noqa: SLF001

CONFIG_NAMES: Final = ("goguerrilla.conf.json", "guerrilla.json", "guerrilla.toml")
"""Looked for in the working directory, in this order."""

_LONG_UNITS: Final = {"d": 86_400.0, "w": 7 * 86_400.0}
_LONG_DURATION: Final = re.compile(r"([0-9]{1,5})([dw])")


class CommandError(GuerrillaError):
    """A command that cannot do what it was asked; the message is one line for a person."""


class StorePlace(NamedTuple):
    """Where mails are stored."""

    path: str
    table: str


def add_command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help_: str,
    more: str = "",
) -> argparse.ArgumentParser:
    """Adds a command with `-v`; `help_` is its line in the list, `more` what stands at its end."""
    parser = commands.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=more or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_verbose(parser, argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_verbose(parser: argparse.ArgumentParser, default: object) -> None:
    """Adds `-v`, which may stand before or after the command."""
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default,
        help="log at debug level; show tracebacks of errors in the program",
    )


def add_config(parser: argparse.ArgumentParser, default: object = argparse.SUPPRESS) -> None:
    """Adds `-c`, which may stand before or after a command that takes it."""
    parser.set_defaults(takes_config=default is argparse.SUPPRESS)
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default=default,
        help=f"config file (default: the first of {', '.join(CONFIG_NAMES)} in this folder)",
    )


def find_config(given: str | None) -> Path | None:
    """The config file to use: the one given, else the first that is here, else None."""
    if given is not None:
        return Path(given)
    return next((path for name in CONFIG_NAMES if (path := Path(name)).exists()), None)


def no_config() -> str:
    """What is said where `find_config` finds none."""
    return f"no config file here ({', '.join(CONFIG_NAMES)})"


def sql_options(backend: BackendConfig) -> SQL.Options | None:
    """The options of the chain's first SQL stage; None where it has none.

    Raises:
        ConfigError: a bad value; a line each.
    """
    return next((options for _, options in _sql_stages(backend, "backend_config")), None)


def _sql_stages(backend: BackendConfig, where: str) -> Iterator[tuple[str, SQL.Options]]:
    """The SQL stages of a chain, by name."""
    kinds = {"sql": SQL, "mysql": MySQL}
    for stage in chain_stages(backend.save_process):
        kind = kinds.get(stage.processor.lower())
        if kind is not None:
            options = read_options(stage.name, kind, backend.values(), where=where)
            yield stage.name, cast("SQL.Options", options)


def find_store(
    config: str | None, database: str | None, table: str | None, backend: str | None = None
) -> StorePlace:
    """The store of the command line, or else of the config file.

    That is the first SQLite one of the backend, or where none is named, of any, the default first.

    Raises:
        CommandError: no config file, or one that stores nothing in SQLite.
        ConfigError: a bad config file.
    """
    if database is not None:
        return StorePlace(database, table or SQL.Options().mail_table)
    path = find_config(config)
    if path is None:
        msg = f"{no_config()}: name one with -c, or a database with --db"
        raise CommandError(msg)
    try:
        options = _sqlite_options(_backends(load(path), backend))
    except CommandError as error:
        raise CommandError(f"{path}: {error}") from None
    return StorePlace(options.sql_dsn, table or options.mail_table)


def _backends(config: AppConfig, wanted: str | None) -> dict[str, BackendConfig]:
    """Those that are searched for a store."""
    found = backends_of(config)
    if wanted is None:
        return found
    names = [name for name in found if name.lower() == wanted.lower()]
    if not names:
        msg = f"--backend: expected one of {', '.join(found)}, got {wanted!r}"
        raise CommandError(msg)
    return {name: found[name] for name in names}


def _sqlite_options(backends: Mapping[str, BackendConfig]) -> SQL.Options:
    """The options of the first SQL stage that keeps its mails in a file."""
    problem = ""
    for name, backend in backends.items():
        where = path_of(name)
        for stage, options in _sql_stages(backend, where):
            if options.sql_driver.lower() not in {"sqlite", "sqlite3"}:
                what = f"{where}.sql_driver {options.sql_driver!r}: only 'sqlite' can be read"
            elif not options.sql_dsn:
                what = f"{where}.sql_dsn: expected the path of the database file, got ''"
            else:
                return options
            problem = problem or f"{what} ({stage})"
    raise CommandError(problem or _no_sql_stage(backends))


def _no_sql_stage(backends: Mapping[str, BackendConfig]) -> str:
    for name, backend in backends.items():
        for stage in chain_stages(backend.save_process):
            if stage.processor.lower() in {"guerrillaredisdb", "guerrilladbredis"}:
                return (
                    f"{path_of(name)}.save_process: {stage.name} keeps its mails in Redis, and "
                    "only those of an SQL stage can be read"
                )
    where = " and ".join(f"{path_of(name)}.save_process" for name in backends)
    return f"{where}: no SQL stage, so there is no mail to read"


def duration(text: str) -> float:
    """Seconds of an argument such as `30d`, `2w`, `36h` or `90m`.

    Raises:
        argparse.ArgumentTypeError: no duration.
    """
    found = _LONG_DURATION.fullmatch(text.strip())
    if found is not None:
        return int(found[1]) * _LONG_UNITS[found[2]]
    try:
        return parse_seconds(text)
    except ValueError as error:
        msg = f"expected a duration such as 30d, 2w, 36h or 90m, got {text!r}"
        raise argparse.ArgumentTypeError(msg) from error


def elapsed(seconds: float) -> str:
    """A time for a person: of days, hours, minutes and seconds the two largest are enough."""
    parts: list[str] = []
    left = int(seconds)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def table_name(text: str) -> str:
    """An argument that names a table.

    Raises:
        argparse.ArgumentTypeError: it cannot be one.
    """
    try:
        return check_table_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def ask_password(*questions: str) -> str:
    """Asks for a password, once a question, or takes the first line of what is no terminal.

    Raises:
        CommandError: there is none, it is not UTF-8, or not the same each time.
    """
    try:
        if sys.stdin.isatty():
            found = _asked(questions)
        else:
            found = sys.stdin.buffer.readline().decode().removesuffix("\n").removesuffix("\r")
        # What a terminal sent that is not UTF-8 may have been read as lone surrogates.
        found.encode()
    except UnicodeError:
        raise CommandError("the password is not UTF-8") from None
    if not found or "\0" in found:
        # Neither can be sent (RFC 4616 section 2).
        raise CommandError("expected a password of at least one character, and no NUL in it")
    return found


def _asked(questions: Sequence[str]) -> str:
    """Asks at the terminal.

    Raises:
        CommandError: it is not the same each time, or nobody answers.
    """
    try:
        found, *again = [getpass.getpass(question) for question in questions]
    except EOFError:
        raise CommandError("no password was given; nothing was changed") from None
    if any(other != found for other in again):
        raise CommandError("these were two passwords; nothing was changed")
    return found


def program() -> str:
    """What a shell of this folder runs this program by, arguments excepted."""
    started = sys.argv[0]
    if os.path.basename(started) == "__main__.py":
        return f"{_runnable(sys.executable)} -m guerrilla"
    # Else another program runs the commands, as a test does.
    return _runnable(started) if os.path.basename(started) == "guerrillad" else "guerrillad"


def _runnable(path: str) -> str:
    """The name alone where PATH leads to it, else the shortest path."""
    path = os.path.abspath(path)
    name = os.path.basename(path)
    found = shutil.which(name)
    # Links are not followed: a venv's Python is a link, and another Python where it points.
    if found is not None and os.path.abspath(found) == path:
        return shlex.quote(name)
    near = os.path.relpath(path)
    if os.sep not in near:
        near = os.path.join(os.curdir, near)  # A name alone is looked up in PATH.
    return shlex.quote(min(near, path, key=len))


def drop_output() -> None:
    """Sends stdout nowhere, with what is still unwritten: another try would fail as the last."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def shown(text: str) -> str:
    r"""Text of a stranger's mail that a terminal can be given: controls as `\x1b` and the like.

    Everything that is not printable is escaped, so that no mail moves the cursor, turns the
    direction of text, or adds a line.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def column(text: str, width: int) -> str:
    """Text for a column of a table, cut where it is longer."""
    safe = shown(text)
    return safe if len(safe) <= width else f"{safe[: width - 1]}~"


def as_json(values: Mapping[str, Any]) -> str:
    """One line of JSON that any terminal can be given."""
    # ASCII, so that it is safe in any terminal and any locale; DEL is the one control it leaves.
    return json.dumps(values).replace("\x7f", "\\u007f")


def write_message(data: bytes | memoryview, *, raw: bool = False) -> None:
    """Writes a message to stdout: byte for byte, but on a terminal with its controls escaped."""
    if raw or not sys.stdout.isatty():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.writelines(_safe_lines(bytes(data)))


def _safe_lines(data: bytes) -> Iterator[str]:
    for line in data.decode("utf-8", "backslashreplace").replace("\r\n", "\n").split("\n"):
        yield "\t".join(shown(part) for part in line.split("\t")) + "\n"
