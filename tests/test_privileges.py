"""`user` and `group`: who the daemon becomes, in which order, and what it takes along."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.errors import ConfigError, StartError
from guerrilla.running.pidfile import PidFile
from guerrilla.running.privileges import (
    Identity,
    become,
    give_file,
    give_socket,
    root_warnings,
    wanted_identity,
)
from guerrilla.running.startup import resolve_servers

ROOT = pwd.getpwuid(0)
OTHER = pwd.getpwnam("nobody")
NOBODYS_ID = 3_999_999_999
"""A number that no user and no group has."""


def identity(**keys: Any) -> Identity | None:
    return wanted_identity(from_mapping(keys))


def told(**keys: Any) -> list[str]:
    with pytest.raises(StartError) as caught:
        identity(**keys)
    return list(caught.value.problems)


@pytest.fixture
def run_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes the process look like one of this user and group."""

    def look(uid: int, gid: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(os, "getegid", lambda: gid)

    return look


RunAs = Callable[[int, int], None]


# Who is asked for


@pytest.mark.parametrize("uid", [0, 1000])
def test_nothing_is_asked_for(run_as: RunAs, uid: int) -> None:
    run_as(uid, uid)
    assert identity() is None
    assert identity(user="", group="") is None


@pytest.mark.parametrize("uid", [0, 1000])
def test_an_unknown_name_is_told_with_its_key(run_as: RunAs, uid: int) -> None:
    run_as(uid, uid)
    assert told(user="no-such-user", group="no-such-group") == [
        "user: there is no user 'no-such-user' on this system",
        "group: there is no group 'no-such-group' on this system",
    ]
    for name in ("-1", "4294967295", "99999999999999999999", "1.5", "٣", "0x10"):
        assert told(user=name) == [f"user: there is no user {name!r} on this system"]
        assert told(group=name) == [f"group: there is no group {name!r} on this system"]


@pytest.mark.parametrize("value", [True, -1, 1.5, ["nobody"]])
def test_what_is_neither_a_name_nor_a_number(value: object) -> None:
    with pytest.raises(ConfigError, match="user: expected a text"):
        from_mapping({"user": value})


@pytest.mark.parametrize("user", [OTHER.pw_name, str(OTHER.pw_uid), OTHER.pw_uid])
def test_root_becomes_a_user_with_all_its_groups(run_as: RunAs, user: str | int) -> None:
    run_as(0, 0)
    groups = tuple(os.getgrouplist(OTHER.pw_name, OTHER.pw_gid))
    assert OTHER.pw_gid in groups
    assert identity(user=user) == Identity("user", str(user), OTHER.pw_uid, OTHER.pw_gid, groups)


def test_root_becomes_a_user_in_another_group(run_as: RunAs) -> None:
    run_as(0, 0)
    group = grp.getgrgid(1)
    found = identity(user=OTHER.pw_name, group=group.gr_name)
    assert found is not None
    assert (found.uid, found.gid) == (OTHER.pw_uid, 1)
    assert 1 in found.groups


def test_root_changes_the_group_alone(run_as: RunAs) -> None:
    run_as(0, 0)
    assert identity(group=NOBODYS_ID) == Identity(
        "group", str(NOBODYS_ID), 0, NOBODYS_ID, (NOBODYS_ID,)
    )


def test_a_number_that_no_user_has_needs_a_group(run_as: RunAs) -> None:
    run_as(0, 0)
    assert told(user=NOBODYS_ID) == [
        f"user: {NOBODYS_ID} is no user of this system, so its group is unknown: set group"
    ]
    assert identity(user=NOBODYS_ID, group=12) == Identity(
        "user", str(NOBODYS_ID), NOBODYS_ID, 12, (12,)
    )


def test_only_root_becomes_another(run_as: RunAs) -> None:
    run_as(1000, 1001)
    advice = "start it as root, or as that {}, or remove the key"
    assert told(user=OTHER.pw_name, group=0) == [
        f"user: only root can become 'nobody', and this is user 1000: {advice.format('user')}",
        f"group: only root can become '0', and this is group 1001: {advice.format('group')}",
    ]
    assert len(told(user="root")) == 1


def test_who_one_is_may_always_be_asked_for(run_as: RunAs) -> None:
    run_as(NOBODYS_ID, 12)
    assert identity(user=NOBODYS_ID) is None
    assert identity(user=NOBODYS_ID, group=12) is None
    assert identity(group=12) is None
    # By `sg` or in a container the group is another than the one of the user database.
    run_as(OTHER.pw_uid, 12)
    assert identity(user=OTHER.pw_name) is None
    run_as(0, ROOT.pw_gid)
    assert identity(user="root") is None
    assert identity(group=ROOT.pw_gid) is None


# The change


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The calls that change who the process is, none of which does; it obeys by what they say."""
    calls: list[tuple[str, Any]] = []

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", lambda groups: calls.append(("groups", list(groups))))
    monkeypatch.setattr(os, "setresgid", lambda *gids: calls.append(("gid", gids)))
    monkeypatch.setattr(os, "setresuid", lambda *uids: calls.append(("uid", uids)))
    monkeypatch.setattr(os, "getgroups", lambda: dict(calls)["groups"])
    monkeypatch.setattr(os, "getresgid", lambda: dict(calls)["gid"])
    monkeypatch.setattr(os, "getresuid", lambda: dict(calls)["uid"])
    monkeypatch.setattr(os, "setuid", refuse)
    monkeypatch.setattr(os, "setgid", refuse)
    return calls


SOMEBODY = Identity("user", "somebody", 500, 501, (501, 502))


def test_groups_come_first_and_the_user_last(system: list[tuple[str, Any]]) -> None:
    become(SOMEBODY)
    assert system == [
        ("groups", [501, 502]),
        ("gid", (501, 501, 501)),
        ("uid", (500, 500, 500)),
    ]


def test_roots_group_may_be_kept_on_purpose(
    system: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "setgid", lambda gid: None)  # Who is in it may always choose it.
    become(Identity("user", "somebody", 500, 0, (0,)))
    assert dict(system)["gid"] == (0, 0, 0)


@pytest.mark.parametrize("call", ["setuid", "setgid"])
def test_a_root_that_can_be_regained_stops_the_start(
    system: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, lambda number: None)
    with pytest.raises(StartError, match=r"^user: cannot become user somebody .* for good: "):
        become(SOMEBODY)


@pytest.mark.parametrize(
    ("call", "kept"),
    [("getresuid", (500, 500, 0)), ("getresgid", (0, 501, 501)), ("getgroups", [0])],
)
def test_a_change_that_is_only_half_one_stops_the_start(
    system: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch, call: str, kept: object
) -> None:
    monkeypatch.setattr(os, call, lambda: kept)
    with pytest.raises(StartError, match=r"^user: cannot become user somebody .* keeps "):
        become(SOMEBODY)


@pytest.mark.parametrize("call", ["setgroups", "setresgid", "setresuid"])
def test_a_change_that_the_system_refuses_stops_the_start(
    system: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StartError) as caught:
        become(SOMEBODY)
    assert caught.value.problems == (
        "user: cannot become user somebody (uid 500, gid 501): Operation not permitted",
    )


# What is taken along


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """To whom files were given."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: found.append((uid, gid)))
    return found


def give(path: Path) -> None:
    with path.open("ab") as file:
        give_file(SOMEBODY, file.fileno(), str(path))


def test_a_plain_file_is_given(tmp_path: Path, given: list[tuple[int, int]]) -> None:
    give(tmp_path / "main.log")
    assert given == [(500, 501)]


def test_what_a_link_leads_to_is_not_given(tmp_path: Path, given: list[tuple[int, int]]) -> None:
    """Else the owner of the folder would have root give him any file of the system."""
    secret = tmp_path / "secret"
    secret.touch()
    (tmp_path / "symbolic").symlink_to(secret)
    give(tmp_path / "symbolic")
    (tmp_path / "hard").hardlink_to(secret)
    give(tmp_path / "hard")
    give(Path(os.devnull))
    assert given == []


def test_the_file_of_another_is_not_given(
    tmp_path: Path, given: list[tuple[int, int]], run_as: RunAs
) -> None:
    run_as(NOBODYS_ID, NOBODYS_ID)
    give(tmp_path / "main.log")
    assert given == []


def test_a_file_that_cannot_be_given_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    give(tmp_path / "main.log")
    give_socket(SOMEBODY, str(tmp_path / "nowhere"))
    assert [
        record.message.partition("cannot be given to user somebody")[2] for record in caplog.records
    ] == [
        " (uid 500, gid 501): Operation not permitted",
        " (uid 500, gid 501): No such file or directory",
    ]


def test_only_a_socket_is_given_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: found.append(os.readlink(path)))
    path = tmp_path / "mail.sock"
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        give_socket(SOMEBODY, str(path))
        give_socket(SOMEBODY, str(tmp_path / "file"))
        # That of somebody else, to which the owner of the folder has put another name.
        (tmp_path / "hard.sock").hardlink_to(path)
        give_socket(SOMEBODY, str(tmp_path / "hard.sock"))
    assert found == [str(path)]


def test_a_pid_file_that_may_not_be_removed_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "guerrilla.pid"
    held = PidFile(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        held.remove()
    assert path.read_bytes() == b""
    # It is free: the next one takes it.
    PidFile(path).remove()
    assert not path.exists()


# A warning


def test_root_is_warned_of_on_a_port_that_needs_it(run_as: RunAs) -> None:
    def warned(listen: str, **keys: Any) -> list[str]:
        found = from_mapping({"servers": [{"listen_interface": listen}], **keys})
        return root_warnings(found, resolve_servers(found)[0])

    run_as(0, 0)
    expected = ["user: not set, so mail is received as root: name the user to become instead"]
    assert warned("127.0.0.1:25") == expected
    assert warned("127.0.0.1:25", group=12) == expected
    assert warned("127.0.0.1:25", user="root") == []
    for listen in ("127.0.0.1:2525", "127.0.0.1:0", "unix:/mail.sock"):
        assert warned(listen) == []
    run_as(1000, 1000)
    assert warned("127.0.0.1:25") == []
