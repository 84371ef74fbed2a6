"""The start of a daemon that becomes another user, as it looks from outside.

What needs root is done where the tests run as root; elsewhere the same daemon becomes who it is.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guerrilla.errors import StartError
from guerrilla.running import opening, rights
from guerrilla.running.privileges import Identity
from tests.daemons import Keeper, Make, Until, config, problems, send, where
from tests.running import DaemonError, RunningDaemon

IS_ROOT = os.geteuid() == 0
OTHER = pwd.getpwnam("nobody")
SOMEBODY = Identity("user", "somebody", 500, 501, (501, 502))


@pytest.fixture
def becoming(monkeypatch: pytest.MonkeyPatch, make: Make) -> list[Identity]:
    """Daemons of the test think that they are to become somebody."""
    found: list[Identity] = []
    monkeypatch.setattr("guerrilla.running.parts.wanted_identity", lambda config: SOMEBODY)
    monkeypatch.setattr(opening, "become", found.append)
    for name in ("fchown", "chown"):
        monkeypatch.setattr(os, name, lambda *_: None)
    return found


def test_it_binds_then_becomes_another_then_opens_its_chains(
    make: Make, keeper: type[Keeper], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order: list[str] = []
    path = tmp_path / "mail.sock"

    def look(who: Identity) -> None:
        order.append(f"become {who.name}")
        # It is bound and nobody answers yet: the connection waits in the kernel.
        early.connect(str(path))
        early.setblocking(False)
        with pytest.raises(BlockingIOError):
            early.recv(1)
        early.setblocking(True)
        assert keeper.did == []

    monkeypatch.setattr("guerrilla.running.parts.wanted_identity", lambda config: SOMEBODY)
    monkeypatch.setattr(opening, "become", look)
    for module in (opening, rights):
        monkeypatch.setattr(
            module, "give_file", lambda who, fd, path: order.append(Path(path).name)
        )
    monkeypatch.setattr(opening, "give_socket", lambda who, path: order.append(Path(path).name))
    raw = config()
    own = str(tmp_path / "own.log")
    raw["servers"] = [{"listen_interface": f"unix:{path}", "log_file": own}]
    files = {"log_file": str(tmp_path / "main.log"), "pid_file": str(tmp_path / "main.pid")}
    with socket.socket(socket.AF_UNIX) as early:
        early.settimeout(20)
        with make(raw, **files):
            assert early.recv(4) == b"220 "
    assert order == ["main.log", "own.log", "main.pid", "mail.sock", "become somebody"]
    assert keeper.did == ["open", "close"]


def test_who_cannot_bind_stays_who_it_is(
    make: Make, keeper: type[Keeper], becoming: list[Identity]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        raw = config()
        raw["servers"][0]["listen_interface"] = f"127.0.0.1:{taken.getsockname()[1]}"
        assert len(problems(make(raw))) == 1
    assert becoming == []
    assert keeper.did == []


def test_a_stage_that_does_not_open_afterwards_undoes_the_rest(
    make: Make, becoming: list[Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Keeper) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Keeper, "open", refuse)
    path, pid_file = tmp_path / "mail.sock", tmp_path / "main.pid"
    raw = config()
    raw["servers"] = [{"listen_interface": f"unix:{path}"}]
    (problem,) = problems(make(raw, pid_file=str(pid_file)))
    assert problem == "Keeper: PermissionError: [Errno 13] Permission denied"
    assert becoming == [SOMEBODY]
    assert not path.exists()
    assert not pid_file.exists()


def test_a_change_that_fails_undoes_the_rest(
    make: Make, keeper: type[Keeper], monkeypatch: pytest.MonkeyPatch, becoming: list[Identity]
) -> None:
    def refuse(who: Identity) -> None:
        raise StartError("user: cannot become somebody")

    monkeypatch.setattr(opening, "become", refuse)
    daemon = make()
    assert problems(daemon) == ("user: cannot become somebody",)
    assert keeper.did == []


def test_an_unknown_user_is_told_with_all_else_that_is_wrong(make: Make) -> None:
    found = problems(make(user="no-such-user", processes=2))
    assert [line.partition(":")[0] for line in found] == ["processes", "user"]


def test_who_it_is_already_it_may_be_asked_to_become(make: Make) -> None:
    with make(user=os.geteuid(), group=os.getegid()) as daemon:
        assert send(daemon)[0] == 250
        assert where(daemon)[1] > 0


# A real one

SPY = """
import os
import guerrilla, guerrilla.store.sqlite  # while everything can still be read

@guerrilla.processor("Spy")
class Spy(guerrilla.Processor):
    def open(self):
        ids = (os.getuid(), os.geteuid(), os.getgid(), os.getegid())
        with open("data/seen", "w") as seen:
            seen.write(repr(ids))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can look into, unlike pytest's, with one in it for the new user."""
    made = Path(tempfile.mkdtemp())
    try:
        made.chmod(0o755)
        (made / "data").mkdir()
        if IS_ROOT:
            os.chown(made / "data", OTHER.pw_uid, OTHER.pw_gid)
        (made / "spy.py").write_text(SPY, encoding="utf-8")
        yield made
    finally:
        made.chmod(0o755)
        shutil.rmtree(made)


def real(folder: Path) -> RunningDaemon:
    """A daemon that has become another user, where it can; elsewhere itself."""
    user = OTHER.pw_name if IS_ROOT else os.geteuid()
    text = f"""
user = "{user}"
allowed_hosts = ["."]
log_level = "info"
log_file = "{folder}/main.log"
pid_file = "{folder}/main.pid"
[[servers]]
listen_interface = "127.0.0.1:0"
[[servers]]
listen_interface = "unix:{folder}/mail.sock"
log_file = "{folder}/own.log"
[backend_config]
import = ["spy"]
save_process = "HeadersParser|Spy|Hasher|Header|SQL"
save_workers_size = 2
sql_dsn = "{folder}/data/mail.db"
"""
    return RunningDaemon(folder, config=text)


def ids() -> tuple[int, int]:
    return (OTHER.pw_uid, OTHER.pw_gid) if IS_ROOT else (os.geteuid(), os.getegid())


def status_of(path: Path) -> dict[str, list[int]]:
    """The numbers of a thread: `Uid`, `Gid`, `Groups`."""
    found = {}
    for line in (path / "status").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key in {"Uid", "Gid", "Groups"}:
            found[key] = [int(number) for number in value.split()]
    return found


def test_all_threads_and_all_they_open_are_the_users(folder: Path) -> None:
    uid, gid = ids()
    groups = os.getgrouplist(OTHER.pw_name, gid) if IS_ROOT else os.getgroups()
    with real(folder) as daemon:
        client = socket.create_connection(("127.0.0.1", daemon.port), 20)
        client.close()
        threads = list(Path(f"/proc/{daemon.pid}/task").iterdir())
        assert len(threads) >= 5  # main, I/O, log, supervisor, two workers
        for thread in threads:
            found = status_of(thread)
            assert found["Uid"] == [uid] * 4
            assert found["Gid"] == [gid] * 4
            assert set(found["Groups"]) == set(groups)
        for name in ("main.log", "own.log", "main.pid", "mail.sock", "data/mail.db", "data/seen"):
            about = (folder / name).stat()
            assert (about.st_uid, about.st_gid) == (uid, gid), name
        assert (folder / "data" / "seen").read_text() == repr((uid, uid, gid, gid))
    assert f"(uid {uid}, gid {gid})" in (folder / "main.log").read_text() or not IS_ROOT


def test_a_folder_that_the_user_may_not_write_to(folder: Path, until: Until) -> None:
    log, pid_file = folder / "main.log", folder / "main.pid"
    moved = folder / "main.log.1"
    with real(folder) as daemon:
        log.rename(moved)
        folder.chmod(0o555)
        daemon.process.send_signal(signal.SIGUSR1)
        until(lambda: "SIGUSR1" in moved.read_text())
        (line,) = [line for line in moved.read_text().splitlines() if "SIGUSR1" in line]
        assert line.endswith(f"Permission denied: '{log}': the old log stays open")
        # A file of the user's own is one it can open: what logrotate makes by its `create`.
        folder.chmod(0o755)
        log.touch()
        os.chown(log, *ids())
        folder.chmod(0o555)
        daemon.process.send_signal(signal.SIGUSR1)
        opened = Path(f"/proc/{daemon.pid}/fd")
        until(lambda: str(log) in {os.path.realpath(one) for one in opened.iterdir()})
        daemon.stop()
    # The last records of the core may come behind it.
    assert "guerrilla.daemon stopped\n" in log.read_text()
    assert pid_file.read_bytes() == b""


def test_the_next_start_takes_what_the_last_one_left(folder: Path) -> None:
    with real(folder):
        folder.chmod(0o555)
    assert (folder / "mail.sock").exists()
    folder.chmod(0o755)
    with real(folder) as daemon:
        assert (folder / "main.pid").read_text() == f"{daemon.pid}\n"
        assert daemon.addresses[1] == f"unix:{folder}/mail.sock"


def test_what_the_user_may_not_open_is_a_start_that_fails(folder: Path) -> None:
    data = folder / "data"
    os.chown(data, os.geteuid(), os.getegid())
    data.chmod(0o555)
    with pytest.raises(DaemonError, match=r"guerrilla\.toml: Spy: PermissionError: .*data/seen"):
        real(folder)
    data.chmod(0o755)
    assert not (folder / "mail.sock").exists() or IS_ROOT
    assert not (folder / "main.pid").exists() or (folder / "main.pid").read_bytes() == b""
