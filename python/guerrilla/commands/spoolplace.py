"""Where `guerrillad spool` finds the spool: at the daemon that runs, or in the folders it left."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from guerrilla._core import Spool
from guerrilla.commands.common import CommandError, find_config, no_config, shown
from guerrilla.commands.control import looked_at, sockets_by
from guerrilla.config import load
from guerrilla.control.client import Connection, NobodyThereError
from guerrilla.control.server import TIMEOUT
from guerrilla.control.spool import SpoolDesk
from guerrilla.running.privileges import Identity, become

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    Ask = Callable[[str, Mapping[str, Any]], dict[str, Any]]
    """Asks for one of `guerrilla.control.spool.COMMANDS`; its result, or a `CommandError`."""


_PATIENCE: Final = 330.0
"""Seconds for an answer: a little more than the spool gives a disk that hardly answers."""

_IDLE: Final = TIMEOUT / 2
"""Seconds without a question, then it is connected anew: the daemon hangs up after twice that.

Whoever reads a list in a pager may stop for longer.
"""


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Ask]:
    """The spool that the command line means.

    Raises:
        CommandError: there is none, or it cannot be had.
        ControlError: the daemon does not answer as it should.
        ConfigError: a bad config file.
    """
    socket: str | None = args.socket
    path = None if socket is not None else find_config(args.config)
    places: Sequence[str]
    if socket is not None:
        places = [socket]
    elif path is not None:
        places = sockets_by(path)
    else:
        msg = f"{no_config()}: name one with -c, or the daemon's control socket with --socket"
        raise CommandError(msg)
    daemon = _connection(places)
    if daemon is not None:
        with _Asking(daemon) as ask:
            yield ask
    elif path is None:
        raise NobodyThereError(f"no daemon answers at {looked_at(places)}: is it running?")
    else:
        with _folders(path, places) as spool:
            yield _looking(SpoolDesk(lambda: spool))


def _connection(places: Sequence[str]) -> Connection | None:
    """To the daemon at the first of these where one answers."""
    for place in places:
        try:
            return Connection(place, _PATIENCE)
        except NobodyThereError:
            continue
    return None


class _Asking:
    """Asks a daemon: over another connection where it may have ended the last one meanwhile.

    Args:
        daemon: a connection, which is closed with this.
    """

    def __init__(self, daemon: Connection) -> None:
        self._daemon = daemon
        self._answered_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.__exit__()

    def __call__(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if time.monotonic() - self._answered_at > _IDLE:
            self._daemon.__exit__()
            self._daemon = Connection(self._daemon.path, _PATIENCE)
        answer = self._daemon.ask(command, arguments)
        self._answered_at = time.monotonic()
        if not answer["ok"]:
            lines = answer.get("errors", ["failed"])
            raise CommandError("\n".join(shown(str(line)) for line in lines))
        result: dict[str, Any] = answer["result"]
        return result


def _looking(desk: SpoolDesk) -> Ask:
    def ask(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return desk.answer(command, arguments)
        except (ValueError, LookupError) as error:
            raise CommandError(shown(str(error))) from error

    return ask


@contextmanager
def _folders(path: Path, places: Sequence[str]) -> Iterator[Spool]:
    """The folders of the spool that a config names, which no process has."""
    config = load(path)
    if config.spool is None:
        raise CommandError(f"{path}: spool is not set, so there is no spool")
    folder = config.spool.path
    nobody = f"no daemon answers at {looked_at(places)}" if places else "its control_socket is off"
    try:
        _become_owner(folder)
        spool = Spool(folder, _warn)
    except FileNotFoundError:
        raise CommandError(f"{folder}: there is no spool yet, and {nobody}") from None
    except BlockingIOError:
        raise CommandError(
            f"{folder}: a process has it, and {nobody}: stop it, or say where its socket is "
            "with --socket"
        ) from None
    except PermissionError as error:
        who = f"this is done as user {os.geteuid()}, whose it is: of a unit see docs/deploy.md"
        raise CommandError(f"{shown(str(error))} ({who})") from error
    except ValueError as error:
        raise CommandError(shown(str(error))) from error
    try:
        yield spool
    finally:
        spool.close()


def _warn(line: str) -> None:
    """What a daemon would have logged: mails that are missing, a folder that is not taken over."""
    print(f"guerrillad: {shown(line)}", file=sys.stderr)


def _become_owner(folder: str) -> None:
    """Root becomes the user whose spool it is: the daemon could not open what root makes there."""
    if os.geteuid() != 0:
        return
    # That of a process: the one above it may have been made by hand.
    own = sorted(entry.path for entry in os.scandir(folder) if entry.name.isdecimal())
    found = os.stat(own[0] if own else folder)
    if found.st_uid != 0:
        uid, gid = found.st_uid, found.st_gid
        become(Identity("user", str(uid), uid, gid, (gid,)))
