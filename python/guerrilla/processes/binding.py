"""Binding one listening socket, with the options that the core gives its own."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from guerrilla.config import parse_address, parse_listen_interface
from guerrilla.control.sockets import identity, remove
from guerrilla.processes.place import Passed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guerrilla.config import ListenAddress

__all__ = [
    "Given",
    "address_of",
    "bind_tcp",
    "bind_unix",
    "handed_over",
    "is_at",
    "passed_socket",
    "share_port",
    "takes_both",
    "tell_rest",
    "turn_away",
]

BACKLOG: Final = 4096
"""Connections that the kernel holds until they are accepted; it caps this at `somaxconn`."""

_TCP: Final = (socket.AF_INET, socket.AF_INET6)

_SO_BINDTOIFINDEX: Final = 62
"""Of Linux; Python 3.11 has no name for it."""

_NOWHERE: Final = 0x7FFF_FFFF
"""The number of an interface that no machine has."""

_GONE: Final = b"421 4.3.2 Not accepting mail here any more, please connect again\r\n"
"""What the core says where a server goes."""


def bind_tcp(address: ListenAddress, *, share: bool = False) -> socket.socket:
    """A socket that listens there.

    Args:
        address: an IP address and a port.
        share: whether there are others already, which share the port (`share_port`). Without it
            somebody else's listener is an error, and not shared in silence.

    Raises:
        OSError: it cannot be bound.
    """
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # A restart must not wait for the last connections' TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            share_port(listener)
        if family == socket.AF_INET6:
            # `[::]:25` beside `0.0.0.0:25` are two listeners.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def share_port(listener: socket.socket) -> None:
    """Lets others of this user be bound to its address, and to those that overlap with it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def turn_away(listener: socket.socket) -> None:
    """Has the kernel bring it no more connections: see `turn_away` of the core.

    Where it cannot be, some come until it is closed.
    """
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NOWHERE)


def tell_rest(listener: socket.socket) -> None:
    """Tells who waits that nobody is there any more, as the core does; reads nothing of theirs."""
    listener.setblocking(False)
    # The kernel queues one more than it was asked; others may come all the time.
    for _ in range(BACKLOG + 1):
        try:
            client, _ = listener.accept()
        except ConnectionAbortedError:
            continue
        except OSError:
            return
        # A socket that refuses is as good as any.
        with client, suppress(OSError):
            client.setblocking(False)
            client.send(_GONE)
            # Else who has said something already is reset, maybe before it has read why.
            client.shutdown(socket.SHUT_WR)


def bind_unix(path: str, mode: int | None) -> socket.socket:
    """A socket that listens at a path, in place of one that nobody listens at any more.

    Args:
        path: of its file.
        mode: of its file; None: what the umask leaves.

    Raises:
        OSError: it is in use, something else is there, or it cannot be made.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        made = identity(path)
        try:
            # Nobody connects before: it does not listen yet.
            if mode is not None:
                _set_mode(path, mode)
            listener.listen(BACKLOG)
        except BaseException:
            remove(path, made)
            raise
    except BaseException:
        listener.close()
        raise
    return listener


def handed_over(fd: int) -> socket.socket:
    """A listening socket that somebody else has bound: a duplicate, its own descriptor stays his.

    Raises:
        ValueError: it is something else; the text says what.
    """
    try:
        copy = os.dup(fd)
        try:
            listener = socket.socket(fileno=copy)
        except BaseException:
            os.close(copy)
            raise
    except OSError as error:
        what = "no socket" if error.errno == errno.ENOTSOCK else error.strerror
        message = f"descriptor {fd}: {what}"
        raise ValueError(message) from error
    problem = _misfit(listener)
    if problem is not None:
        listener.close()
        raise ValueError(problem)
    return listener


def passed_socket(fd: int, name: str) -> Passed:
    """What systemd has passed, whose descriptor is closed in programs that are started.

    Raises:
        ValueError: it is something else than a listening socket; the text says what.
    """
    with handed_over(fd) as listener:
        os.set_inheritable(fd, False)
        return Passed(fd, name, address_of(listener), takes_both(listener))


def address_of(listener: socket.socket) -> str:
    """Where it listens, as `listen_interface` writes it."""
    where = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        # An abstract one, which has no file, is told in bytes.
        return f"unix:{where if isinstance(where, str) else os.fsdecode(where)}"
    host, port = where[:2]
    return f"[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{host}:{port}"


def takes_both(listener: socket.socket) -> bool:
    """Whether it listens on all addresses of IPv6 and takes clients of IPv4 as well."""
    return (
        listener.family == socket.AF_INET6
        and listener.getsockname()[0] == "::"
        and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )


def is_at(listener: socket.socket, address: str) -> bool:
    """Whether it is what a server needs that listens at `address`."""
    bound = address_of(listener)
    if bound == address:
        return True
    wanted = parse_address(address)
    if wanted.kind != "tcp" or listener.family == socket.AF_UNIX:
        return False
    port = listener.getsockname()[1]
    if wanted.port not in (0, port):
        return False
    found = parse_address(bound)
    is_any = wanted.host == "0.0.0.0"  # compared with, not bound  # noqa: S104
    return found.host == wanted.host or (is_any and takes_both(listener))


class Given:
    """Sockets that somebody else has bound, until a server asks for them.

    Args:
        given: of who does not go on with them, as `Core.inherit` takes them.
        kept: of who does, likewise.
    """

    def __init__(
        self, given: Iterable[tuple[str, int]], kept: Iterable[tuple[str, int]] = ()
    ) -> None:
        kept = list(kept)
        self._kept = {address for address, _ in kept}
        self._left = [*given, *kept]
        self._open: list[socket.socket] = []

    def take(self, address: str) -> list[socket.socket]:
        """All that there are of an address; of port 0 those of one port, as the core does.

        Raises:
            ValueError: one is not of it.
        """
        mine: list[socket.socket] = []
        left: list[tuple[str, int]] = []
        for text, fd in self._left:
            if text != address:
                left.append((text, fd))
                continue
            one = handed_over(fd)
            self._open.append(one)
            bound = address_of(one)
            if parse_listen_interface(address).kind != "systemd" and not is_at(one, address):
                message = f"the socket that was handed over is of {bound}"
                raise ValueError(message)
            is_any = parse_listen_interface(address).is_of_the_system
            if is_any and mine and address_of(mine[0]) != bound:
                left.append((text, fd))
            else:
                mine.append(one)
        self._left = left
        self._open = [one for one in self._open if one not in mine]
        return mine

    def is_kept(self, address: str) -> bool:
        """Whether somebody goes on with those of an address."""
        return address in self._kept

    def close(self) -> None:
        """Closes what nobody has taken; not the giver's descriptors."""
        for one in self._open:
            one.close()


def _misfit(listener: socket.socket) -> str | None:
    """Why mail cannot be received over it; None where it can."""
    kind = listener.type
    if kind != socket.SOCK_STREAM:
        names = {socket.SOCK_DGRAM: "a datagram socket", socket.SOCK_SEQPACKET: "one of packets"}
        return f"it is {names.get(kind, 'no stream socket')}: mail needs one of streams"
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it does not listen for connections: one of them is no place for all"
    if listener.family not in (*_TCP, socket.AF_UNIX):
        return "it is neither of TCP nor a unix socket"
    if listener.family == socket.AF_UNIX and not isinstance(listener.getsockname(), str):
        return "it is a unix socket without a file"
    return None


def _remove_stale(path: str) -> None:
    """A socket file of a process that is gone would be "in use" for ever; one that answers is."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "the file exists and is no socket")
    # Not waiting: one that hangs with a full backlog is in use too.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _set_mode(path: str, mode: int) -> None:
    """By a descriptor: who can write to the folder could else put a link to a file there."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise FileExistsError(errno.EEXIST, "the file is no socket")
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
