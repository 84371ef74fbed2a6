"""Where a server listens: from `listen_interface` to addresses that can be bound."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guerrilla.config import ListenAddress

__all__ = ["resolve"]


def resolve(address: ListenAddress) -> list[str]:
    """The concrete addresses of a `listen_interface`, in the form the core takes.

    A unix socket stays as it is, and so does a name of systemd's; `:25` is every address of both
    families; a host name is every address it has, looked up now.

    Raises:
        OSError: the host has no address, or the name service did not answer; the message is whole.
    """
    if address.kind != "tcp":
        return [str(address)]
    if not address.host:
        every = [f"0.0.0.0:{address.port}"]
        return [*every, f"[::]:{address.port}"] if _has_ipv6() else every
    return _lookup(address.host, address.port)


def _lookup(host: str, port: int) -> list[str]:
    """Every address of a host; a literal is its own only one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"host {host!r} does not resolve: {error.strerror}"
        raise OSError(message) from error
    except UnicodeError:
        message = f"host {host!r} does not resolve: it is no host name"
        raise OSError(message) from None
    v4 = [f"{where[0]}:{port}" for family, *_, where in found if family == socket.AF_INET]
    v6 = [f"[{where[0]}]:{port}" for family, *_, where in found if family == socket.AF_INET6]
    # On machines without IPv6, /etc/hosts often has `::1 localhost` all the same.
    if v4 and v6 and not _has_ipv6():
        v6 = []
    return list(dict.fromkeys(v4 + v6))


def _has_ipv6() -> bool:
    """Whether an IPv6 socket can be bound on this machine."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
