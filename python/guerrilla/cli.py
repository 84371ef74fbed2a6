"""The command line: `guerrillad`."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING

from guerrilla import _core
from guerrilla.commands import mail, send, serve
from guerrilla.commands.common import add_command, add_verbose, drop_output
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla.commands.common import Subparsers

_EXIT_INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; every error is one clear line a problem on stderr.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit status: 0 done, 1 an error, 130 interrupted.

    Raises:
        SystemExit: 2 for wrong arguments, 0 after `--help`.
    """
    _fill_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(arguments)
    try:
        status: int = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()  # Whoever read has seen enough, as `| head`.
        return 1
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except Exception as error:  # the last place: each becomes a line  # noqa: BLE001
        _report(error, verbose=args.verbose)
        return 1
    return status


def _fill_standard_streams() -> None:
    """Opens those that were closed, as by `>&-`, to nowhere.

    Else a database or a socket would get their number, and what is meant for stderr.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It takes the lowest number that is free: this one.


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="guerrillad",
        description="An SMTP daemon that stores each mail before it says OK.",
        epilog="'guerrillad COMMAND --help' tells more about a command.",
    )
    add_verbose(parser, default=False)
    commands: Subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    serve.add(commands)
    mail.add(commands)
    send.add(commands)
    add_command(commands, "version", _version, help_="print version and build")
    return parser


def _version(args: argparse.Namespace) -> int:
    del args
    print(f"guerrillad {_core.__version__} ({_core.__build__})")
    return 0
