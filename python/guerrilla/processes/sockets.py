"""The listening sockets of several processes: bound, kept open and given out by the one above them.

It holds each of them as long as its address is in the config: what waits in the queue of a process
that dies waits for its successor, which is given the same ones.
"""

from __future__ import annotations

import errno
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from guerrilla.config import parse_listen_interface
from guerrilla.control.sockets import identity as file_identity
from guerrilla.control.sockets import remove
from guerrilla.errors import StartError
from guerrilla.processes.activation import tell_unserved
from guerrilla.processes.binding import (
    Given,
    address_of,
    bind_tcp,
    bind_unix,
    share_port,
    tell_rest,
    turn_away,
)
from guerrilla.processes.place import passed_for
from guerrilla.running.privileges import give_socket
from guerrilla.running.settings import place

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.processes.place import Passed
    from guerrilla.running.privileges import Identity

__all__ = ["ListeningSockets", "SocketChange"]

log = logging.getLogger("guerrilla.processes")

NOT_PASSED: Final = (
    "no socket of that name was handed over; is it the FileDescriptorName of a socket unit?"
)
_UNIX: Final = "unix:"

Sockets: TypeAlias = list[tuple[str, int]]
"""Addresses with a descriptor each, as `Core.inherit` takes them."""

Servers: TypeAlias = "Sequence[tuple[ServerConfig, str]]"
"""As `resolve_servers` gives them."""


@dataclass(slots=True, eq=False)
class _Held:
    """The sockets of a server at one of its addresses."""

    server: str
    """Its name."""
    address: str
    """As `resolve_servers` gives it."""
    sockets: list[socket.socket]
    file: tuple[int, int] | None = None
    """What tells the file of a unix socket, where it is ours."""
    kept: bool = False
    """Somebody else has them too, and goes on with them: systemd."""

    @property
    def key(self) -> tuple[str, str]:
        return self.server, self.address

    @property
    def path(self) -> str:
        """Of its unix socket."""
        return self.address.removeprefix(_UNIX)

    def by_port(self) -> list[list[socket.socket]]:
        """Those of the same address together: the sockets of one name may be of several."""
        groups: dict[str, list[socket.socket]] = {}
        for one in self.sockets:
            groups.setdefault(address_of(one), []).append(one)
        return list(groups.values())

    def is_at(self, address: str) -> bool:
        """Whether a server that listens at `address` needs these, whatever they are for now."""
        return self.address == address or all(address_of(one) == address for one in self.sockets)

    def turn_away(self) -> None:
        """Nobody comes to them any more; who waits in their queues still does."""
        # The file first: nobody finds it once the socket is closed.
        remove(self.path, self.file)
        self.file = None
        for one in self.sockets:
            turn_away(one)

    def close(self) -> None:
        remove(self.path, self.file)
        for one in self.sockets:
            one.close()


class ListeningSockets:
    """Bound sockets by the addresses of servers, for so many processes.

    Each process has a socket of its own of an address, which the kernel gives its share of the
    connections (`SO_REUSEPORT`). Unix sockets are shared by all, and so is what was handed over
    where it are too few.

    Args:
        processes: how many; of the socket of number n of an address, process n is served.
        shared: one socket an address, shared by all: for few connections, which hashing spreads
            unevenly.
        identity: who gets the files of unix sockets.
        passed: what systemd has passed, whose descriptors stay open: a server may come back to it.

    Nothing here waits. Who changes it, or takes sockets of it, holds `changing` of the parent.
    """

    def __init__(
        self,
        processes: int,
        *,
        shared: bool = False,
        identity: Identity | None = None,
        passed: Sequence[Passed] = (),
    ) -> None:
        """Binds nothing."""
        self._processes = processes
        self._shared = shared
        self._identity = identity
        self._passed = passed
        self._held: list[_Held] = []
        self._silent: set[str] = set()

    def open(
        self,
        config: AppConfig,
        servers: Servers,
        given: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Binds what is neither given nor passed.

        Args:
            config: whose servers they are, for errors.
            servers: each with each of its addresses.
            given: sockets that the process before this one has bound, as `Core.inherit` takes
                them, and does not go on with; their descriptors stay the giver's. All of an address
                are served. One whose address no server has is not taken, and warned of.

        Raises:
            StartError: what cannot be bound, by the place it has in the config; nothing is then.
        """
        given = list(given)
        change = self._change(config, servers, given)
        asked = [address for _, address in servers]
        for address in dict.fromkeys(address for address, _ in given):
            if address not in asked:
                log.warning("%s: no server listens there: what was handed over is closed", address)
        tell_unserved(self._passed, asked)
        change.commit()

    def change(self, config: AppConfig, servers: Servers) -> SocketChange:
        """Binds what is new, and closes nothing yet.

        Raises:
            StartError: as `open`; nothing has changed then.
        """
        return self._change(config, servers, ())

    def for_child(self, number: int) -> Sockets:
        """Those of a process, whose descriptors stay ours."""
        return self.shares(self._held, number)

    def ours(self) -> list[str]:
        """The addresses whose sockets nobody else has: see `own_addresses`."""
        return own_addresses(self._held)

    def all(self) -> Sockets:
        """All of them, for who comes after us; the descriptors stay ours."""
        return [(held.address, one.fileno()) for held in self._held for one in held.sockets]

    def addresses(self) -> list[str]:
        """Where it listens, in the order of the servers, with real ports."""
        found = [address_of(one) for held in self._held for one in held.sockets]
        return list(dict.fromkeys(found))

    def addresses_of(self, server: str) -> list[str]:
        """Where a server listens, with real ports."""
        mine = [held for held in self._held if held.server == server]
        return list(dict.fromkeys(address_of(one) for held in mine for one in held.sockets))

    def leave_files(self) -> list[str]:
        """As `Core.leave_files`: files of unix sockets stay at the end; their addresses."""
        left = [held for held in self._held if held.file is not None]
        for held in left:
            held.file = None
        return [f"{_UNIX}{held.path}" for held in left]

    def own_files(self, addresses: Iterable[str]) -> None:
        """As `Core.own_files`: files of unix sockets are removed at the end."""
        wanted = set(addresses)
        for held in self._held:
            if held.address in wanted and held.address.startswith(_UNIX):
                held.file = file_identity(held.path)

    def close(self) -> None:
        """Closes all, for good; files that are not ours stay."""
        # First: a reload that a stop does not wait for may just ask where it listens.
        closed, self._held = self._held, []
        for held in closed:
            held.close()

    def shares(self, held: Iterable[_Held], number: int) -> Sockets:
        """What of these is for a process."""
        return [
            (one.address, socket.fileno())
            for one in held
            for group in one.by_port()
            for socket in self._share(group, number)
        ]

    def _share(self, group: list[socket.socket], number: int) -> list[socket.socket]:
        """Of sockets of the same address. Each of them is in the share of some process."""
        if self._shared:
            return group
        if len(group) < self._processes:
            return [group[number % len(group)]]
        return group[number :: self._processes]

    def commit(self, change: SocketChange) -> None:
        """See `SocketChange.commit`."""
        silent = self._silent
        self._held, self._silent = change.held, change.silent
        for held in change.gone:
            # They wait for a process that is just not there; the others have told their own.
            for one in [] if held.kept or held.server in silent else held.sockets:
                tell_rest(one)
            held.close()

    def _change(
        self, config: AppConfig, servers: Servers, given: Sequence[tuple[str, int]]
    ) -> SocketChange:
        wanted = {(server.name, address) for server, address in servers}
        gone = [held for held in self._held if held.key not in wanted]
        kept = passed_for(self._passed, [address for _, address in servers])
        silent = {server.name for server, _ in servers if server.tls.tls_always_on}
        change, there = SocketChange(self, gone, silent), Given(given, kept)
        with ExitStack() as undo:
            undo.callback(change.abandon)
            problems = self._find_all(change, config, servers, there)
            there.close()
            if problems:
                raise StartError(dict.fromkeys(problems))
            undo.pop_all()
        return change

    def _find_all(
        self, change: SocketChange, config: AppConfig, servers: Servers, there: Given
    ) -> list[str]:
        """Sockets for all servers, and what is wrong where there are none."""
        problems: list[str] = []
        for server, address in servers:
            try:
                self._find(change, server, address, there)
            except (OSError, ValueError) as error:
                what = error.strerror if isinstance(error, OSError) else None
                problems.append(
                    f"{place(config, server.name)}.listen_interface: {server.name}: "
                    f"cannot listen: {what or error}"
                )
        return problems

    def _find(self, change: SocketChange, server: ServerConfig, address: str, there: Given) -> None:
        """The sockets of a server at an address: those it has, what is there, or new ones."""
        key = (server.name, address)
        same = next((held for held in self._held if held.key == key), None)
        if same is not None:
            change.held.append(same)
            return
        before = next((held for held in change.gone if held.is_at(address)), None)
        if before is not None:
            # Who waits in its queue notices nothing.
            change.gone.remove(before)
            change.held.append(replace(before, server=server.name, address=address))
            return
        sockets = there.take(address)
        if sockets:
            # However few: who waits in one that is new beside them would be lost where an upgrade
            # fails, and with systemd's at each restart.
            change.add(_Held(server.name, address, sockets, kept=there.is_kept(address)))
            return
        change.add(self._bind(server, address, change.gone))

    def _bind(self, server: ServerConfig, address: str, gone: list[_Held]) -> _Held:
        where = parse_listen_interface(address)
        if where.kind == "systemd":
            raise OSError(errno.ENOENT, NOT_PASSED)
        if where.kind == "unix":
            mode = None if server.unix_mode is None else int(server.unix_mode, 8)
            held = _Held(server.name, address, [bind_unix(where.path, mode)])
            held.file = file_identity(where.path)
            if self._identity is not None:
                give_socket(self._identity, where.path)
            return held
        try:
            first = bind_tcp(where)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _allow_beside(gone, where.port):
                raise
            # One of all addresses is in the way of one of a single one, until it is closed.
            first = bind_tcp(where, share=True)
        held = _Held(server.name, address, [first])
        try:
            if self._processes > 1 and not self._shared:
                # Not before it listens: somebody else's listener would be shared in silence.
                share_port(first)
                bound = parse_listen_interface(address_of(first))
                for _ in range(self._processes - 1):
                    held.sockets.append(bind_tcp(bound, share=True))
        except BaseException:
            held.close()
            raise
        return held


def own_addresses(held: Sequence[_Held]) -> list[str]:
    """Where a process that stops serving may turn away who connects, for all who have the socket.

    Not where systemd has one of the address: it goes on with it.
    """
    kept = {one.address for one in held if one.kept}
    return list(dict.fromkeys(one.address for one in held if one.address not in kept))


@dataclass(slots=True)
class SocketChange:
    """What is bound for another config, and what is to be closed: `commit` or `abandon` it."""

    sockets: ListeningSockets
    gone: list[_Held]
    silent: set[str]
    """Servers that can say nothing to who has just come: TLS is first."""
    held: list[_Held] = field(default_factory=list)
    """What there is to be, in the order of the servers."""
    fresh: list[_Held] = field(default_factory=list)
    """What of it is new."""

    def add(self, held: _Held) -> None:
        """Something new."""
        self.held.append(held)
        self.fresh.append(held)

    def for_child(self, number: int) -> Sockets:
        """What is new for a process, for `Core.inherit`; the descriptors stay ours.

        Where a server is called otherwise and listens where another one has, there is nothing new:
        the core goes on with what it has.
        """
        return self.sockets.shares(self.fresh, number)

    def ours(self) -> list[str]:
        """As `ListeningSockets.ours`, of what there is to be."""
        return own_addresses(self.held)

    def turn_away(self) -> None:
        """It will be in force: who comes from now on comes to what is new.

        Before the processes let go of what is gone, each in its own time: of sockets that share a
        port the kernel picks one by a hash as long as any of them takes clients. Who comes to one
        that takes none gets no answer, and asks again after a second.
        """
        ours = own_addresses(self.gone)
        for held in self.gone:
            if held.address in ours:
                held.turn_away()

    def commit(self) -> None:
        """It is in force: what is gone closes. After the processes have let go of it."""
        self.sockets.commit(self)

    def abandon(self) -> None:
        """Nothing has changed."""
        for held in self.fresh:
            held.close()


def _allow_beside(gone: list[_Held], port: int) -> bool:
    """Lets others be bound on the port of what is to be closed; whether there is any such."""
    found = False
    for held in gone:
        # One of systemd's stays as it is: it would go on listening, and nobody be served there.
        for one in held.sockets if not held.kept else ():
            if address_of(one).endswith(f":{port}") and not held.address.startswith(_UNIX):
                share_port(one)
                found = True
    return found
