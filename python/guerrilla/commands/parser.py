"""The commands of `guerrillad`: parses the arguments, runs one, and says what went wrong."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from guerrilla import _core
from guerrilla.commands import (
    bench,
    cert,
    check,
    config,
    control,
    mail,
    password,
    processors,
    schema,
    send,
    serve,
    spool,
)
from guerrilla.commands.common import (
    add_command,
    add_config,
    add_verbose,
    drop_output,
    shown,
)
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla.commands.common import Subparsers


def run(arguments: Sequence[str] | None) -> int:
    """Runs a command, as `guerrilla.cli.main` says.

    Raises:
        SystemExit: 1 for wrong arguments, 0 after `--help`.
        KeyboardInterrupt: Ctrl-C ended it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = _parse(arguments)
    try:
        status: int = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()  # Whoever read has seen enough, as `| head`.
        return 1
    except Exception as error:  # the last place: each becomes a line  # noqa: BLE001
        _report(error, verbose=args.verbose)
        return 1
    return status


def _report(error: Exception, *, verbose: bool) -> None:
    if isinstance(error, GuerrillaError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    elif verbose:
        traceback.print_exc()
        return
    else:
        text = (
            f"{type(error).__name__}: {error}\nthis is an error in guerrilla itself: "
            "run it again with -v and report what it prints"
        )
    for line in text.splitlines():
        print(f"guerrillad: {line}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """One whose errors are a line, as all others; its commands have parsers of this kind too."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {shown(message)}; see {self.prog} --help\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    args, unknown = _parser().parse_known_args(arguments)
    if unknown:
        # By argparse itself the program would say this, and not the command.
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.config is not None and not args.takes_config:
        args.parser.error("it takes no -c")
    return args


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="guerrillad",
        description="An SMTP daemon that stores each mail before it says OK.",
        epilog="'guerrillad COMMAND --help' tells more about a command.",
    )
    add_verbose(parser, default=False)
    add_config(parser, default=None)
    commands: Subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    serve.add(commands)
    check.add(commands)
    config.add(commands)
    processors.add(commands)
    control.add(commands)
    mail.add(commands)
    spool.add(commands)
    schema.add(commands)
    send.add(commands)
    bench.add(commands)
    cert.add(commands)
    password.add(commands)
    add_command(commands, "version", _version, help_="print version and build")
    return parser


def _version(args: argparse.Namespace) -> int:
    del args
    print(f"guerrillad {_core.__version__} ({_core.__build__})")
    return 0
