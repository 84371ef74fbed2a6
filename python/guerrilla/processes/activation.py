"""Sockets that systemd has bound and passes to the service: sd_listen_fds(3).

It keeps them while the service restarts: who connects meanwhile waits, and nobody is refused.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

from guerrilla.errors import StartError
from guerrilla.processes.binding import passed_socket
from guerrilla.processes.place import passed_for
from guerrilla.running.startup import named, resolve_servers

if TYPE_CHECKING:
    from collections.abc import Collection, MutableMapping, Sequence
    from pathlib import Path

    from guerrilla.config import AppConfig
    from guerrilla.processes.place import Passed

__all__ = ["check_servers", "passed_sockets", "take_passed", "tell_unserved"]

log = logging.getLogger("guerrilla.processes")

_FIRST: Final = 3
"""The descriptor of the first."""

_MOST: Final = 1000
"""Sockets; nobody has so many, and each takes a look."""

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def passed_sockets(
    config: AppConfig,
    file: Path | None = None,
    environment: MutableMapping[str, str] | None = None,
) -> list[Passed]:
    """What systemd has passed, all of which servers listen at.

    Args:
        config: whose servers they are for.
        file: of the config, for errors.
        environment: where systemd says what it has passed; by default that of the process. It is
            removed there: no program that is started later is to take it for its own.

    Raises:
        StartError: something was passed that no mail can be received over, a socket that no server
            listens at, or none of a name that one asks for.
    """
    variables = os.environ if environment is None else environment
    try:
        passed = take_passed(variables)
        check_servers(config, passed)
    except StartError as error:
        raise StartError(named(file, error.problems)) from error
    return passed


def tell_unserved(passed: Sequence[Passed], addresses: Collection[str]) -> None:
    """Warns of those that no server listens at: a start refuses that, a reload and who follows not.

    Args:
        passed: what systemd has passed.
        addresses: of all servers.
    """
    for one in passed:
        if not one.addresses(addresses):
            log.warning("%s: no server listens at what systemd has passed: clients wait there", one)


def take_passed(environment: MutableMapping[str, str]) -> list[Passed]:
    """What is passed to this process; nothing where it is meant for another one.

    Raises:
        StartError: what is said is no number, or something else than a listening socket was passed.
    """
    said = {name: environment.pop(name, "") for name in _VARIABLES}
    if not said["LISTEN_PID"]:
        return []
    if _number("LISTEN_PID", said["LISTEN_PID"]) != os.getpid():
        return []
    count = _number("LISTEN_FDS", said["LISTEN_FDS"])
    if count > _MOST:
        raise StartError(f"LISTEN_FDS: at most {_MOST} sockets are taken, not {count}")
    names = said["LISTEN_FDNAMES"].split(":") if said["LISTEN_FDNAMES"] else ["unknown"] * count
    if len(names) != count:
        raise StartError(
            f"LISTEN_FDNAMES: has {len(names)} names, and LISTEN_FDS says that {count} sockets "
            "were passed"
        )
    found: list[Passed] = []
    problems: list[str] = []
    for fd, name in enumerate(names, _FIRST):
        try:
            found.append(passed_socket(fd, name))
        except ValueError as error:
            problems.append(f"systemd has passed {name!r}, which cannot be used: {error}")
    if problems:
        raise StartError(problems)
    return found


def check_servers(config: AppConfig, passed: Sequence[Passed]) -> None:
    """Each has to be for a server, by its name, else by where it listens; and each name be there.

    Raises:
        StartError: one is for no server, or a server asks for one that is not there.
    """
    if not passed and all(server.address.kind != "systemd" for server in config.servers):
        return
    servers, _ = resolve_servers(config)  # What is wrong with names is told by the start.
    asked = list(dict.fromkeys(address for _, address in servers))
    there = {address for address, _ in passed_for(passed, asked)}
    problems = [
        f"systemd has passed the socket {one}, and no server listens there, but on "
        f"{', '.join(asked) or 'nothing'}: give one that listen_interface, or "
        f"'systemd:{one.name}'"
        for one in passed
        if not one.addresses(asked)
    ]
    problems += [
        f"servers[{index}].listen_interface: {server.listen_interface}: systemd has passed no "
        f"socket of that name, but {', '.join(map(str, passed)) or 'none at all'}"
        for index, server in enumerate(config.servers)
        if server.is_enabled
        and server.address.kind == "systemd"
        and str(server.address) not in there
    ]
    if problems:
        raise StartError(problems)


def _number(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise StartError(f"{variable}: expected a number, as systemd sets it, got {text[:40]!r}")
    return int(text)
