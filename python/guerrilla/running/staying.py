"""What of a new config is not obeyed by a daemon that runs, and what there is in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from guerrilla.config import AppConfig, ServerConfig


AT_START: Final = ("user", "group", "control_socket", "processes", "shared_sockets")
"""Keys that a running process cannot obey any more."""


def kept_until_start(old: AppConfig, new: AppConfig, left: int = 0) -> tuple[AppConfig, list[str]]:
    """The config as far as a daemon that runs can obey it, and a line for each key that it cannot.

    Args:
        old: what is in force.
        new: what was asked for.
        left: messages in the spool, which stays where it is.
    """
    problems = []
    kept: dict[str, Any] = {}
    for key in AT_START:
        if getattr(old, key) != getattr(new, key):
            problems.append(f"{key}: takes effect at the next start")
            kept[key] = getattr(old, key)
    was, spool = old.spool, new.spool
    if was is not None and (spool is None or spool.path != was.path):
        problems.append(
            f"spool{'' if spool is None else '.path'}: takes effect at the next start"
            + (f"; {left} mails in {was.path} are not moved" if left else "")
        )
        kept["spool"] = was if spool is None else spool.model_copy(update={"path": was.path})
    return new.model_copy(update=kept), problems


def servers_in_force(
    old: AppConfig, new: AppConfig, problems: Sequence[str], listening: Collection[str]
) -> tuple[ServerConfig, ...]:
    """The servers of `new`, but with what was there before where the core could not obey.

    A server whose TLS does not load keeps that section as it was. One that cannot listen is left
    out; where it stands in the place of one that is gone, as one that has moved does, that one
    stays.

    Args:
        old: what was in force.
        new: what was asked for.
        problems: of `Core.reload`, a line each.
        listening: the names of the servers that listen now.
    """
    return tuple(_kept(old, new, problems, listening))


def _kept(
    old: AppConfig, new: AppConfig, problems: Sequence[str], listening: Collection[str]
) -> Iterator[ServerConfig]:
    before = {server.name: server for server in old.servers}
    names = {server.name for server in new.servers}
    for index, server in enumerate(new.servers):
        name = server.name
        was = before.get(name)
        in_its_place = old.servers[index] if index < len(old.servers) else None
        if server.is_enabled and name not in listening:
            if was is not None:
                yield was  # it was to be enabled
            elif in_its_place is not None and in_its_place.name not in names:
                yield in_its_place
        elif was is not None and _says(problems, name, "tls."):
            yield server.model_copy(update={"tls": was.tls})
        else:
            yield server


def _says(problems: Sequence[str], name: str, key: str) -> bool:
    return any(line.startswith(f"{name}: {key}") for line in problems)
