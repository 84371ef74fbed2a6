"""`guerrillad password`: makes the line of a user for the file of AuthFile."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from typing import TYPE_CHECKING, Final

from guerrilla.commands.common import CommandError, add_command, ask_password
from guerrilla.passwords.hashes import HashError, make
from guerrilla.passwords.lines import LinesError, check_user, parse, replaced

if TYPE_CHECKING:
    from guerrilla.commands.common import Subparsers

_MODE: Final = 0o600

_MORE: Final = """\
examples:
  guerrillad password --user alice --file users
  pass show mail/alice | guerrillad password --user alice

The password is asked for twice, or is the first line of what is not a terminal. The hash is
argon2id. With --file the line takes the place of the user's old one, or is added; a new file is
readable for its owner alone. A daemon that runs sees the change at the next login.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "password", run, help_="make the line of a user for AuthFile", more=_MORE
    )
    parser.add_argument("--user", metavar="NAME", required=True, help="whose password it is")
    parser.add_argument(
        "--file", metavar="FILE", help="change this file; without it, the line is printed"
    )


def run(args: argparse.Namespace) -> int:
    """Makes the line.

    Raises:
        CommandError: a name or a password that cannot be used, or a file.
    """
    try:
        user = check_user(args.user)
    except HashError as error:
        raise CommandError(f"--user: {error}") from None
    hashed = make(ask_password("Password: ", "The same again: "))
    if args.file is None:
        print(f"{user}:{hashed}")
        return 0
    try:
        was_there = _change(os.path.realpath(args.file), user, hashed)
    except LinesError as error:
        problems = "\n".join(f"{args.file}: {problem}" for problem in error.problems)
        raise CommandError(f"{problems}\nnothing was changed") from None
    except OSError as error:
        raise CommandError(f"{args.file}: {error.strerror or error}") from error
    print(f"{args.file}: {user} {'changed' if was_there else 'added'}")
    return 0


def _change(path: str, user: str, hashed: str) -> bool:
    """Puts a line into a file, of which nobody ever reads half; whether the user was there.

    Raises:
        LinesError: other lines of the file are wrong.
        OSError: it cannot be read or written.
    """
    try:
        with open(path, "rb") as file:
            found: os.stat_result | None = os.fstat(file.fileno())
            before = file.read()
    except FileNotFoundError:
        found, before = None, b""
    after, was_there = replaced(before, user, hashed)
    parse(after)
    folder, name = os.path.split(path)
    fd, fresh = tempfile.mkstemp(prefix=f".{name}.", dir=folder)  # for its owner alone
    try:
        with open(fd, "wb") as file:
            if found is not None and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, found.st_uid, found.st_gid)
            os.fchmod(fd, found.st_mode & 0o777 if found is not None else _MODE)
            file.write(after)
            file.flush()
            os.fsync(fd)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    return was_there
