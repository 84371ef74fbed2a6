"""Where the load goes: addresses that are ours to load."""

from __future__ import annotations

import ipaddress
import resource
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from guerrilla.config import ListenAddress

__all__ = ["Target", "TargetError", "have_descriptors", "resolve"]

OTHERS: Final = 64
"""Descriptors for all that is no connection."""


class TargetError(GuerrillaError):
    """No load can go there; a line for a person."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to load.

    Attributes:
        text: its name, as it was given.
        addresses: of it, as the core takes them.
        host: whose certificate it has to show.
        is_local: whether no network is between.
    """

    text: str
    addresses: tuple[str, ...]
    host: str
    is_local: bool


def resolve(address: ListenAddress) -> Target:
    """Looks it up.

    Raises:
        TargetError: there is no such host, or no port.
    """
    if address.kind == "unix":
        return Target(str(address), (str(address),), "localhost", is_local=True)
    host = address.host or "localhost"
    text = f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
    if address.port == 0:
        raise TargetError(f"--target: {text}: expected a port from 1 to 65535")
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(f"--target: cannot find {host}: {error.strerror or error}") from error
    ips = [ipaddress.ip_address(where[0]) for _, _, _, _, where in found]
    addresses = dict.fromkeys(
        f"[{ip}]:{address.port}" if ip.version == 6 else f"{ip}:{address.port}"  # noqa: PLR2004
        for ip in ips
    )
    return Target(text, tuple(addresses), host, is_local=all(ip.is_loopback for ip in ips))


def have_descriptors(connections: int) -> None:
    """Lets this process, and what it starts, have as many descriptors as it takes.

    Raises:
        TargetError: it may not have so many; says how to raise them.
    """
    need = connections + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise TargetError(
            f"--connections: {connections:,} need {need:,} open files, and this process may have "
            f"{hard:,}; raise that by `ulimit -n {need}` as root, in /etc/security/limits.conf "
            f"(nofile), or by LimitNOFILE= of a unit; or ask for {max(1, hard - OTHERS):,} "
            "connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
