"""Sockets that systemd has bound and passes to the service: sd_listen_fds(3).

It keeps them while the service restarts: who connects meanwhile waits, and nobody is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla.errors import StartError
from guerrilla.processes.binding import address_of, handed_over, takes_both
from guerrilla.running.startup import resolve_servers

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from pathlib import Path

    from guerrilla.config import AppConfig

__all__ = ["Passed", "for_servers", "passed_sockets", "take_passed"]

_FIRST: Final = 3
"""The descriptor of the first."""

_MOST: Final = 1000
"""Sockets; nobody has so many, and each takes a look."""

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


@dataclass(frozen=True, slots=True)
class Passed:
    """A socket that was passed.

    Attributes:
        fd: its descriptor.
        name: its `FileDescriptorName`; by default the name of the socket unit.
        address: where it listens.
        takes_both: it listens on all addresses of IPv6, and takes clients of IPv4 as well.
    """

    fd: int
    name: str
    address: str
    takes_both: bool = False

    def __str__(self) -> str:
        """For errors."""
        return f"{self.name!r} of {self.address}"


def passed_sockets(
    config: AppConfig,
    file: Path | None = None,
    environment: MutableMapping[str, str] | None = None,
) -> list[tuple[str, int]]:
    """What systemd has passed, by the addresses of the servers it is for, as `Place` has it.

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
        return for_servers(config, take_passed(variables))
    except StartError as error:
        prefix = "" if file is None else f"{file}: "
        raise StartError(f"{prefix}{problem}" for problem in error.problems) from error


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
            found.append(_look_at(fd, name))
        except ValueError as error:
            problems.append(f"systemd has passed {name!r}, which cannot be used: {error}")
    if problems:
        raise StartError(problems)
    return found


def for_servers(config: AppConfig, passed: Sequence[Passed]) -> list[tuple[str, int]]:
    """Each with the addresses of servers that it is for: by its name, else by where it listens.

    Raises:
        StartError: one is for no server, or a server asks for one that is not there.
    """
    if not passed and all(server.address.kind != "systemd" for server in config.servers):
        return []
    servers, _ = resolve_servers(config)  # What is wrong with names is told by the start.
    asked = list(dict.fromkeys(address for _, address in servers))
    found: list[tuple[str, int]] = []
    problems: list[str] = []
    for one in passed:
        mine = _addresses(one, asked)
        found += [(address, one.fd) for address in mine]
        if not mine:
            problems.append(
                f"systemd has passed the socket {one}, and no server listens there, but on "
                f"{', '.join(asked) or 'nothing'}: give one that listen_interface, or "
                f"'systemd:{one.name}'"
            )
    there = {address for address, _ in found}
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
    return found


def _addresses(one: Passed, asked: Sequence[str]) -> list[str]:
    """Of those that servers listen at: which it is for."""
    name = f"systemd:{one.name}"
    if name in asked:
        return [name]
    if one.address not in asked:
        return []
    v4 = f"0.0.0.0:{one.address.rpartition(':')[2]}"
    # `:25` asks for both, and `ListenStream=25` is both in one.
    return [one.address, v4] if one.takes_both and v4 in asked else [one.address]


def _look_at(fd: int, name: str) -> Passed:
    """What was passed.

    Raises:
        ValueError: no socket that listens.
    """
    with handed_over(fd) as listener:
        os.set_inheritable(fd, False)
        return Passed(fd, name, address_of(listener), takes_both(listener))


def _number(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise StartError(f"{variable}: expected a number, as systemd sets it, got {text[:40]!r}")
    return int(text)
