"""Becoming another user: what `user` and `group` ask for, once the ports are bound.

Ports below 1024 need root; receiving mail does not. The change is for good, and for all threads.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla.config import AppConfig, ServerConfig

log = logging.getLogger("guerrilla.privileges")

_ROOT: Final = 0
_MAX_ID: Final = 2**32 - 2
"""The one above it means "unchanged" to the kernel."""
_PRIVILEGED_PORTS: Final = range(1, 1024)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the process is to become.

    Attributes:
        key: of the config, for errors: `user`, or `group` where it stands alone.
        name: of the user, or the group, as the config has it.
        groups: all of them, `gid` included.
    """

    key: str
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def __str__(self) -> str:
        """For a person."""
        return f"{self.key} {self.name} (uid {self.uid}, gid {self.gid})"


def wanted_identity(config: AppConfig) -> Identity | None:
    """Who `user` and `group` ask for; None where there is nothing to change.

    By default the group is the user's own, with all others it is a member of. Changes nothing.

    Raises:
        StartError: nobody has that name, or it is another one than ours and we are not root.
    """
    problems: list[str] = []
    entry, uid = _user(config.user, problems)
    gid = _group(config.group, entry, problems)
    if problems:
        raise StartError(problems)
    if uid is None and gid is None:
        return None
    if os.geteuid() != _ROOT:
        _refuse_others(config, uid, gid)
        return None
    if uid is not None and gid is None:
        raise StartError(
            f"user: {uid} is no user of this system, so its group is unknown: set group"
        )
    new_uid = os.geteuid() if uid is None else uid
    new_gid = os.getegid() if gid is None else gid
    if (new_uid, new_gid) == (os.geteuid(), os.getegid()):
        return None
    groups = (new_gid,) if entry is None else (*os.getgrouplist(entry.pw_name, new_gid),)
    key = "group" if config.user is None else "user"
    return Identity(key, config.user or config.group or "", new_uid, new_gid, groups)


def become(identity: Identity) -> None:
    """Changes user and groups of the process, and looks whether that can be undone.

    Raises:
        StartError: it failed, maybe after a part of it, or the process could become root again.
    """
    uid, gid = identity.uid, identity.gid
    try:
        # In this order: who is no longer root may change neither of the others.
        os.setgroups(identity.groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise StartError(f"{_cannot(identity)}: {error.strerror}") from error
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise StartError(f"{_cannot(identity)}: the system keeps another")
    if not set(os.getgroups()) <= set(identity.groups):
        raise StartError(f"{_cannot(identity)}: the system keeps other groups")
    if (uid != _ROOT and _works(os.setuid)) or (uid != _ROOT != gid and _works(os.setgid)):
        raise StartError(
            f"{_cannot(identity)} for good: the process may still become root; "
            "is it given the capability to?"
        )
    log.info("runs as %s now", identity)


def take_groups(identity: Identity) -> None:
    """Gives a process that stays root the user's groups, so that a thread can have its rights.

    Raises:
        StartError: the system refuses it.
    """
    try:
        os.setgroups(identity.groups)
    except OSError as error:
        raise StartError(f"{_cannot(identity)}: {error.strerror}") from error


def give_file(identity: Identity, fd: int, path: str) -> None:
    """Gives an open file to the new user, who may open it again then.

    Only one of ours, plain and with this one name: whoever can write to the folder could else have
    put a link to a file of the system there, and would be given that.
    """
    try:
        opened, named = os.fstat(fd), os.lstat(path)
        is_plain = stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1
        is_ours = opened.st_uid == os.geteuid()
        if is_plain and is_ours and os.path.samestat(opened, named):
            os.fchown(fd, identity.uid, identity.gid)
    except OSError as error:
        _not_given(path, identity, error)


def give_socket(identity: Identity, path: str) -> None:
    """Gives the file of a unix socket to the new user, whose programs may connect then.

    Only one of ours with this one name, as of files.
    """
    try:
        # By a descriptor: what stands there when it is looked at is what is given.
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            is_ours = found.st_uid == os.geteuid() and found.st_nlink == 1
            if stat.S_ISSOCK(found.st_mode) and is_ours:
                os.chown(f"/proc/self/fd/{fd}", identity.uid, identity.gid)
        finally:
            os.close(fd)
    except OSError as error:
        _not_given(path, identity, error)


def root_warnings(config: AppConfig, servers: Sequence[tuple[ServerConfig, str]]) -> list[str]:
    """A line where mail is received as root, and was meant to be only bound by it.

    The sign is a port that needs root: a trial on a high port in a container is nobody's mistake.
    """
    if os.geteuid() != _ROOT or config.user is not None:
        return []
    if not any(server.address.port in _PRIVILEGED_PORTS for server, _ in servers):
        return []
    return ["user: not set, so mail is received as root: name the user to become instead"]


def _user(name: str | None, problems: list[str]) -> tuple[pwd.struct_passwd | None, int | None]:
    """The entry of a user, where it has one, and its number; (None, None) for no name."""
    if name is None:
        return None, None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        number = _number(name)
        if number is None:
            problems.append(f"user: there is no user {name!r} on this system")
            return None, None
        try:
            entry = pwd.getpwuid(number)
        except KeyError:
            return None, number
    return entry, entry.pw_uid


def _group(name: str | None, user: pwd.struct_passwd | None, problems: list[str]) -> int | None:
    """The number of a group, by default of the user's own."""
    if name is None:
        return None if user is None else user.pw_gid
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        number = _number(name)
        if number is None:
            problems.append(f"group: there is no group {name!r} on this system")
        return number


def _number(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_ID))
    return int(text) if is_number and int(text) <= _MAX_ID else None


def _refuse_others(config: AppConfig, uid: int | None, gid: int | None) -> None:
    """For who is not root: nothing can be changed, so nothing else may be asked for.

    The user's own group is not asked for by name: it may be run under another one, as by `sg`.

    Raises:
        StartError: another user or group.
    """
    problems = []
    if uid not in (None, os.geteuid()):
        problems.append(_only_root("user", config.user, os.geteuid()))
    if config.group is not None and gid != os.getegid():
        problems.append(_only_root("group", config.group, os.getegid()))
    if problems:
        raise StartError(problems)


def _only_root(key: str, name: str | None, ours: int) -> str:
    return (
        f"{key}: only root can become {name!r}, and this is {key} {ours}: "
        f"start it as root, or as that {key}, or remove the key"
    )


def _works(change: Callable[[int], None]) -> bool:
    try:
        change(_ROOT)
    except PermissionError:
        return False
    return True


def _cannot(identity: Identity) -> str:
    return f"{identity.key}: cannot become {identity}"


def _not_given(path: str, identity: Identity, error: OSError) -> None:
    log.warning("%s cannot be given to %s: %s", path, identity, error.strerror)
