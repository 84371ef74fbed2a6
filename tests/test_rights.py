"""Root opens and makes nothing through what `user` can change: logs and the pid file.

What needs root is done where the tests run as root; elsewhere the same with a user's own rights.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from guerrilla.control.client import ask
from guerrilla.logs.output import LogOutput
from guerrilla.running import rights
from guerrilla.running.pidfile import PidFile
from guerrilla.running.privileges import Identity
from guerrilla.running.rights import as_user, is_users, log_opener, with_rights
from tests.running import DaemonError, RunningDaemon
from tests.wire import descriptors, no_more_than, until

IS_ROOT = os.geteuid() == 0
OTHER = pwd.getpwnam("nobody") if IS_ROOT else pwd.getpwuid(os.geteuid())
USER = Identity(
    "user",
    OTHER.pw_name,
    OTHER.pw_uid,
    OTHER.pw_gid,
    tuple(os.getgrouplist(OTHER.pw_name, OTHER.pw_gid)) if IS_ROOT else tuple(os.getgroups()),
)
"""Who the tests can have the rights of: somebody else where they are root, else who they are."""

STRANGER = Identity("user", "stranger", 3_999_999_999, 3_999_999_998, (3_999_999_998,))
"""Nobody's: only for questions."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can look into, unlike pytest's, with one in it that is the user's."""
    made = Path(tempfile.mkdtemp(prefix="guerrilla-"))
    made.chmod(0o755)
    (made / "theirs").mkdir()
    os.chown(made / "theirs", USER.uid, USER.gid)
    yield made
    for path in made.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(made)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of root's, or one that is only asked about."""
    found = tmp_path / "secret"
    found.write_text("secret")
    return found


# Who can change what a path leads to

OURS = os.getgid()
MEMBER = Identity("user", "member", 3_999_999_999, 3_999_999_998, (3_999_999_998, OURS))


def test_what_only_root_can_change_is_not_the_users(tmp_path: Path) -> None:
    assert not is_users(STRANGER, str(tmp_path / "a.log"))
    (tmp_path / "a.log").touch(mode=0o666)
    (tmp_path / "link").symlink_to("a.log")
    (tmp_path / "folder").mkdir()
    for name in ("a.log", "link", "folder/../a.log", "./folder//x", "nowhere/x", "a.log/x"):
        assert not is_users(STRANGER, f"{tmp_path}/{name}"), name
    for path in ("/dev/stdout", "/dev/full", "/dev/null"):
        assert not is_users(STRANGER, path)


def test_a_folder_that_all_can_write_to_is_the_users(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "below").mkdir()
    for name in ("a.log", "below/a.log", "nowhere/a.log"):
        assert is_users(STRANGER, str(tmp_path / name)), name
    tmp_path.chmod(0o755)
    assert not is_users(STRANGER, str(tmp_path / "below" / "a.log"))


def test_so_is_that_of_a_group_with_who_is_in_it(tmp_path: Path) -> None:
    os.chown(tmp_path, -1, OURS)
    tmp_path.chmod(0o775)
    path = str(tmp_path / "a.log")
    assert (is_users(MEMBER, path), is_users(STRANGER, path)) == (True, False)


def test_so_may_be_one_with_a_list_of_who_may_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not asked whom it names: the mode of the group is the most that anybody there has."""
    tmp_path.chmod(0o775)
    monkeypatch.setattr(os, "listxattr", lambda folder: ["system.posix_acl_access"])
    assert is_users(STRANGER, str(tmp_path / "a.log"))
    tmp_path.chmod(0o755)
    assert not is_users(STRANGER, str(tmp_path / "a.log"))


def test_so_is_the_users_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert is_users(USER, str(folder / "theirs" / "a.log"))
    (folder / "theirs").chmod(0o000)
    assert is_users(USER, str(folder / "theirs" / "a.log"))


def test_a_link_on_the_way_is_looked_at_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o777)
    (tmp_path / "there").symlink_to("all")
    (tmp_path / "log").symlink_to("all/a.log")
    (tmp_path / "far").symlink_to(tmp_path / "log")
    # It comes back to where nobody can change anything, and not by a way of which that is true.
    (tmp_path / "all" / "back").symlink_to(tmp_path / "a.log")
    (tmp_path / "round").symlink_to("all/back")
    for name in ("there/a.log", "log", "far", "all/back", "round", "all/../a.log/x"):
        assert is_users(STRANGER, str(tmp_path / name)) == (name != "all/../a.log/x"), name
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert is_users(STRANGER, str(tmp_path / "one"))


def test_what_is_ours_in_a_folder_as_tmp_stays_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    path = tmp_path / "a.log"
    assert is_users(STRANGER, str(path))
    path.touch()
    assert not is_users(STRANGER, str(path))
    # Which anybody might have made, of a file that only root can write to.
    (tmp_path / "b.log").hardlink_to(path)
    assert is_users(STRANGER, str(tmp_path / "b.log"))


def test_a_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_users(STRANGER, "a.log")
    tmp_path.chmod(0o777)
    assert is_users(STRANGER, "a.log")


def test_who_is_the_user_already_asks_for_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for uid in (0, os.geteuid()):
        own = Identity("user", "own", uid, 12, (12,))
        assert not is_users(own, str(tmp_path / "a.log"))


# With the user's rights


def ids() -> tuple[int, int, set[int]]:
    """Of this thread, for files."""
    found = Path("/proc/thread-self/status").read_text().splitlines()
    lines = dict(line.partition(":")[::2] for line in found)
    uid, gid = (int(lines[name].split()[3]) for name in ("Uid", "Gid"))
    return uid, gid, set(map(int, lines["Groups"].split()))


def test_a_call_has_the_users_rights_and_nobody_else_has() -> None:
    before = ids()
    assert as_user(USER, "/a", ids) == (USER.uid, USER.gid, set(USER.groups))
    assert ids() == before


def fail(error: Exception) -> None:
    raise error


def test_what_a_call_raises_is_raised_and_names_the_user() -> None:
    with pytest.raises(ZeroDivisionError):
        as_user(USER, "/a", partial(fail, ZeroDivisionError()))
    with pytest.raises(TimeoutError, match="its own"):
        as_user(USER, "/a", partial(fail, TimeoutError(110, "its own")))
    with pytest.raises(PermissionError) as caught:
        as_user(USER, "/a", partial(fail, PermissionError(13, "Permission denied")))
    assert caught.value.strerror == f"Permission denied for {USER}, who can change its folder"
    assert caught.value.filename == "/a"


def test_rights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        setfsuid = setfsgid = staticmethod(lambda number: 12)

    monkeypatch.setattr("ctypes.CDLL", lambda name: Refusing)
    called: list[int] = []
    with pytest.raises(PermissionError, match=r"rights cannot be had.*/a"):
        as_user(USER, "/a", lambda: called.append(1))
    assert called == []


def test_nothing_waits_for_ever_for_what_the_user_has_put_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rights, "LIMIT", 0.05)
    release, late = threading.Event(), threading.Event()
    found: list[object] = []

    def keep(value: object) -> None:
        found.append(value)
        late.set()

    with pytest.raises(TimeoutError, match=r"has not answered user .* for 0\.05 s: '/a'"):
        as_user(USER, "/a", lambda: release.wait(20), keep)
    release.set()
    assert late.wait(20)
    assert found == [True]  # Which nobody else would close.


@pytest.fixture
def theirs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is looked at as by root, who might become that user."""
    inside = folder / "theirs"
    if not IS_ROOT:
        monkeypatch.setattr(rights, "is_users", lambda who, path: Path(path).parent == inside)
        monkeypatch.setattr(rights, "_has_become", lambda who: False)
    return inside


def opened(path: Path) -> LogOutput:
    return LogOutput(str(path), "debug", opener=log_opener(USER))


def test_a_log_in_the_users_folder_is_opened_with_its_rights(theirs: Path, secret: Path) -> None:
    path = theirs / "a.log"
    output = opened(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (USER.uid, USER.gid)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.unlink()
    if IS_ROOT:
        new = secret.with_name("new")
        path.symlink_to(new)
        with pytest.raises(PermissionError, match="Permission denied for user nobody"):
            output.reopen()
        assert not new.exists()
    output.close()


def test_a_log_in_roots_folder_is_roots_to_make(folder: Path, theirs: Path) -> None:
    path = folder / "a.log"
    output = opened(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (USER.uid, USER.gid)
    path.rename(folder / "a.log.1")
    output.reopen()
    assert (path.stat().st_uid, path.stat().st_gid) == (USER.uid, USER.gid)
    output.close()


def test_a_log_that_the_user_may_not_open_is_told_of(theirs: Path) -> None:
    theirs.chmod(0o555)
    path = theirs / "a.log"
    with pytest.raises(PermissionError) as caught:
        opened(path)
    assert caught.value.strerror == f"Permission denied for {USER}, who can change its folder"
    assert caught.value.filename == str(path)


def test_no_pipe_of_the_users_is_a_log_of_root(theirs: Path) -> None:
    path = theirs / "a.log"
    os.mkfifo(path)
    os.chown(path, USER.uid, USER.gid)
    with pytest.raises(OSError, match="is a pipe that nobody reads: start its reader first"):
        opened(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Who reads it need not, and whoever logs would wait.
        with pytest.raises(OSError, match=r"is no plain file, and user .* can change its folder"):
            opened(path)
    finally:
        os.close(reader)


# The pid file


def test_a_link_in_the_place_of_a_pid_file_is_not_followed(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "a.pid"
    path.symlink_to(secret)
    with pytest.raises(OSError, match="is a link, which is not followed: name the file itself"):
        PidFile(path)
    path.unlink()
    path.symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="is a link"):
        PidFile(path)
    assert secret.read_text() == "secret"
    assert not (tmp_path / "new").exists()


def test_only_a_plain_file_is_a_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"is no plain file: .*a\.pid"):
        PidFile(path)
    before = descriptors()
    with pytest.raises(OSError, match="is no plain file"):
        PidFile("/dev/null")
    no_more_than(before)


def test_a_pid_file_that_became_a_link_is_not_ours(tmp_path: Path) -> None:
    path, moved = tmp_path / "a.pid", tmp_path / "b.pid"
    held = PidFile(path)
    path.rename(moved)
    path.symlink_to(moved)
    held.remove()
    assert path.is_symlink()
    assert moved.exists()


def test_a_pid_file_in_the_users_folder_is_made_with_its_rights(theirs: Path) -> None:
    path = theirs / "a.pid"
    held = PidFile(path, identity=USER)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_uid == USER.uid
    with pytest.raises(FileExistsError):
        PidFile(path, identity=USER)
    held.remove()
    assert not path.exists()


def test_it_is_removed_with_its_rights(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not through a folder that was put in the place of another meanwhile."""
    path = theirs / "a.pid"
    held = PidFile(path, identity=USER)
    seen: list[int] = []
    unlink = Path.unlink

    def look(self: Path) -> None:
        seen.append(ids()[0])
        unlink(self)

    monkeypatch.setattr(Path, "unlink", look)
    held.remove()
    assert seen == [USER.uid]


def test_what_cannot_be_removed_in_time_is_emptied(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = theirs / "a.pid"
    held = PidFile(path, identity=USER)
    release = threading.Event()
    monkeypatch.setattr(rights, "LIMIT", 0.05)
    monkeypatch.setattr(Path, "unlink", lambda self: release.wait(20))
    held.remove()
    release.set()
    assert path.read_bytes() == b""


def test_where_nobody_is_to_be_become_nothing_changes(tmp_path: Path) -> None:
    assert with_rights(None, str(tmp_path), ids) == ids()
    assert with_rights(STRANGER, str(tmp_path / "a"), ids) == ids()


# Real daemons

CONFIG = """
user = "{user}"
processes = {processes}
allowed_hosts = ["."]
log_level = "info"
log_file = "{log}"
control_socket = "{folder}/theirs/control.sock"
{top}
[[servers]]
listen_interface = "127.0.0.1:0"
[backend_config]
save_process = "HeadersParser|SQL"
sql_dsn = "{folder}/theirs/mail.db"
"""

Start = Callable[..., RunningDaemon]
several = pytest.mark.parametrize("processes", [1, 2])


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a daemon that becomes the user, where it can; elsewhere one that is it."""
    made: list[RunningDaemon] = []

    def begin(log: Path, processes: int = 2, top: str = "") -> RunningDaemon:
        user = OTHER.pw_name if IS_ROOT else os.geteuid()
        config = CONFIG.format(user=user, processes=processes, log=log, top=top, folder=folder)
        daemon = RunningDaemon(folder, config=config)
        made.append(daemon)
        return daemon

    yield begin
    for daemon in made:
        daemon.kill()


def asked(daemon: RunningDaemon, command: str) -> dict[str, object]:
    return ask(f"{daemon.folder}/theirs/control.sock", command)


def first_child(daemon: RunningDaemon) -> tuple[str, int | None]:
    result = asked(daemon, "status")["result"]
    assert isinstance(result, dict)
    one = result["processes"][0]
    return one["state"], one["pid"]


def kill_first(daemon: RunningDaemon) -> int:
    """Ends the first child as somebody might who has taken it over."""
    pid = first_child(daemon)[1]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def has_successor(daemon: RunningDaemon, before: int) -> bool:
    state, pid = first_child(daemon)
    return state == "serving" and pid != before


def test_a_successor_opens_its_log_through_no_link_as_root(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    log, new = folder / "theirs" / "all.log", tmp_path / "new"
    tmp_path.chmod(0o755)
    daemon = start(log)
    log.rename(folder / "theirs" / "old.log")
    log.symlink_to(new)
    before = kill_first(daemon)
    if IS_ROOT:
        old = folder / "theirs" / "old.log"
        until(lambda: "process 0 cannot start: " in old.read_text())
        problem = f"log_file: {log}: Permission denied for {USER}, who can change its folder"
        assert problem in old.read_text()
        assert not new.exists()
        log.unlink()
    until(lambda: has_successor(daemon, before))
    assert not IS_ROOT or log.stat().st_uid == USER.uid
    daemon.stop()


def test_a_successor_whose_log_was_moved_away_serves(folder: Path, start: Start) -> None:
    """In a folder where only root may make files, as logs of the system often are."""
    log = folder / "all.log"
    daemon = start(log)
    log.rename(folder / "old.log")
    before = kill_first(daemon)
    until(lambda: has_successor(daemon, before))
    assert (log.stat().st_uid, log.stat().st_gid) == (USER.uid, USER.gid)
    assert "[0] runs as" in log.read_text() or not IS_ROOT
    daemon.stop()


def test_the_parent_makes_the_log_that_was_moved_away(folder: Path, start: Start) -> None:
    log = folder / "all.log"
    daemon = start(log)
    log.rename(folder / "old.log")
    assert asked(daemon, "reopen-logs")["ok"]
    assert (log.stat().st_uid, log.stat().st_gid) == (USER.uid, USER.gid)
    daemon.stop()
    text = log.read_text()
    assert all(f"guerrilla.daemon[{number}] stopped" in text for number in (0, 1))
    assert " guerrilla.processes stopped" in text


@several
def test_a_start_follows_no_link_of_the_users(
    folder: Path, start: Start, tmp_path: Path, processes: int
) -> None:
    log, new = folder / "theirs" / "all.log", tmp_path / "new"
    log.symlink_to(new if IS_ROOT else tmp_path)
    with pytest.raises(DaemonError) as caught:
        start(log, processes)
    said = f"Permission denied for {USER}, who can change its folder" if IS_ROOT else "Is a dir"
    assert f"{folder}/guerrilla.toml: log_file: {log}: {said}" in str(caught.value)
    assert not new.exists()


@several
def test_a_pid_file_is_no_link(folder: Path, start: Start, secret: Path, processes: int) -> None:
    for where in ("all.pid", "theirs/all.pid"):
        (folder / where).symlink_to(secret)
        with pytest.raises(DaemonError) as caught:
            start(folder / "all.log", processes, f'pid_file = "{folder}/{where}"')
        problem = f"pid_file: {folder}/{where}: is a link, which is not followed: name the file"
        assert problem in str(caught.value)
    assert secret.read_text() == "secret"


@several
def test_a_pid_file_in_a_folder_of_the_users(folder: Path, start: Start, processes: int) -> None:
    path = folder / "theirs" / "all.pid"
    daemon = start(folder / "all.log", processes, f'pid_file = "{path}"')
    assert path.read_text() == f"{daemon.pid}\n"
    assert path.stat().st_uid == USER.uid
    daemon.stop()
    assert not path.exists()


@several
def test_a_log_that_is_a_pipe_holds_up_nobody(folder: Path, start: Start, processes: int) -> None:
    log = folder / "theirs" / "all.log"
    os.mkfifo(log)
    os.chown(log, USER.uid, USER.gid)
    problem = f"log_file: {log}: is a pipe that nobody reads: start its reader first"
    with pytest.raises(DaemonError) as caught:
        start(log, processes)
    assert problem in str(caught.value)
    log.unlink()
    daemon = start(log, processes)
    log.rename(folder / "theirs" / "old.log")
    os.mkfifo(log)
    os.chown(log, USER.uid, USER.gid)
    daemon.process.send_signal(signal.SIGUSR1)
    old = folder / "theirs" / "old.log"
    until(lambda: "SIGUSR1: " in old.read_text())
    said = "is a pipe that nobody reads: start its reader first"
    assert said in old.read_text()
    assert str(log) in old.read_text()
    # A reload moves the log to one.
    other = folder / "theirs" / "other.log"
    os.mkfifo(other)
    os.chown(other, USER.uid, USER.gid)
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace(str(log), str(other)))
    answer = asked(daemon, "reload")
    assert f"log_file: {other}: {said}" in str(answer)
    daemon.stop()
