"""Several processes start, and what keeps them from it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from guerrilla.control.client import ask
from tests.families import (
    DYING,
    QUICKLY,
    TIMEOUT,
    Make,
    asked,
    is_there,
    make,
    pids,
    replaced,
    send,
)
from tests.running import DaemonError, RunningDaemon
from tests.wire import Wire, until

__all__ = ["make"]


def test_a_child_that_dies_at_every_start_stops_the_start(make: Make, tmp_path: Path) -> None:
    module = DYING.replace('pathlib.Path("die").exists()', "True")
    with pytest.raises(DaemonError) as caught:
        make(module=module, chain="Dying|SQL", command=[sys.executable, "-c", QUICKLY])
    lines = str(caught.value).splitlines()
    assert lines[-1] == (
        "guerrillad: process 0 was killed by SIGSEGV before it was ready, 5 times in a row"
    )
    assert sum("it is started again" in line for line in lines) == 4
    assert not list(tmp_path.rglob("*.sock"))


def test_children_that_die_at_every_start_stop_the_daemon(make: Make) -> None:
    command = [sys.executable, "-c", QUICKLY]
    daemon = make(module=DYING, chain="Dying|SQL", command=command)
    first, second = pids(daemon)
    (daemon.folder / "die").touch()
    os.kill(first, signal.SIGKILL)
    assert daemon.process.wait(TIMEOUT) == 1
    assert not is_there(second)
    log = daemon.log_text()
    cause = "process 0 was killed by SIGSEGV before it was ready, 5 times in a row"
    assert f"{cause}: all stop" in log
    assert log.splitlines()[-1] == f"guerrillad: {cause}"
    assert "[1] SIGTERM" not in log


SMALL = "from guerrilla.processes import channel\nchannel.MAX_REQUEST = 1_000\n"


def test_a_config_that_no_child_can_be_given_stops_the_start(make: Make) -> None:
    with pytest.raises(DaemonError) as caught:
        make(command=[sys.executable, "-c", SMALL + QUICKLY])
    (line,) = str(caught.value).splitlines()
    problem = "the config is too large for several processes: process 0 cannot be asked for check"
    assert f"guerrilla.toml: {problem}: a line would have more than 1000 bytes" in line


def test_a_successor_that_cannot_start_is_tried_again(make: Make) -> None:
    refusing = DYING.replace(
        "os.kill(os.getpid(), signal.SIGSEGV)", 'raise LookupError("no driver")'
    )
    command = [sys.executable, "-c", QUICKLY.replace("0.0", "0.1")]
    daemon = make(module=refusing, chain="Dying|SQL", command=command)
    first, _ = pids(daemon)
    (daemon.folder / "die").touch()
    os.kill(first, signal.SIGKILL)
    until(lambda: daemon.log_text().count("process 0 is started again in 0.1 s") > 2)
    assert "process 0 cannot start: " in daemon.log_text()
    assert "no driver" in daemon.log_text()
    # What connects to it waits.
    with ExitStack() as stack:
        waiting = [stack.enter_context(Wire(daemon.port, greeted=False)) for _ in range(16)]
        (daemon.folder / "die").unlink()
        for client in waiting:
            assert client.reply().startswith("220 ")
    daemon.stop()


WRONG = """\
processes = {processes}
allowed_hosts = ["."]
pid_file = "gone/a.pid"

[[servers]]
listen_interface = "127.0.0.1:0"
{server}

[backend_config]
save_process = "{chain}"
sql_dsn = "mail.db"
"""


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        ("chain", {"chain": "Nobody|SQL"}),
        ("pid file", {"chain": "SQL"}),
        ("files", {"chain": "SQL", "pid_file": ""}),
        ("port", {"chain": "SQL", "pid_file": "", "port": "taken"}),
        ("store", {"chain": "SQL", "pid_file": "", "store": "gone/mail.db"}),
        ("user", {"chain": "SQL", "pid_file": "", "user": "nobody-of-that-name"}),
    ],
)
def test_what_cannot_start_says_the_same_as_one_process(
    make: Make, what: str, keys: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if "port" in keys else 0
        server = (
            'tls = { start_tls_on = true, private_key_file = "k", public_key_file = "c" }'
            if what in ("files", "port")
            else ""
        )
        text = WRONG.format(processes="%d", server=server, chain=keys["chain"])
        text = text.replace("127.0.0.1:0", f"127.0.0.1:{port}")
        if "pid_file" in keys:
            text = text.replace('pid_file = "gone/a.pid"', "")
        text = text.replace("mail.db", keys.get("store", "mail.db"))
        if "user" in keys:
            text = f'user = "{keys["user"]}"\n{text}'
        said = []
        for processes in (1, 3):
            with pytest.raises(DaemonError) as caught:
                make(config=text % processes)
            said.append(errors(str(caught.value)))
        assert said[0] == said[1], what
        assert said[0]


def errors(text: str) -> list[str]:
    """What a daemon that has not started says, without the folder it is in."""
    lines = [line for line in text.splitlines() if line.startswith("guerrillad: ")]
    return [line.replace("/daemon1/", "/daemon0/") for line in lines]


def test_a_successor_leaves_nothing_open(make: Make) -> None:
    daemon = make()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    # Before it is asked for anything, which takes one for a while.
    before = descriptors()
    first = pids(daemon)[0]
    for _ in range(8):
        assert send(daemon)[0] == 250
    counted = asked(daemon, "stats")
    os.kill(first, signal.SIGKILL)
    replaced(daemon, 0, first)
    until(lambda: descriptors() == before)
    # What was counted stays so; what was held is given back.
    now = asked(daemon, "stats")
    assert now["messages_accepted"] == counted["messages_accepted"] == 8
    assert now["connections_open"] == 0
    daemon.stop()


def test_children_become_the_user_and_the_parent_stays(tmp_path: Path) -> None:
    who = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    # Not pytest's own, where nobody else may look.
    folder = Path(tempfile.mkdtemp(prefix="guerrilla-"))
    try:
        folder.chmod(0o777)
        logs = folder / "logs"
        logs.mkdir()
        logs.chmod(0o777)
        socket_path = folder / "mail.sock"
        top = f'processes = 2\nuser = "{who.pw_name}"\nlog_file = "{logs}/all.log"'
        server = f'unix_mode = "0600"\nlisten_interface = "unix:{socket_path}"'
        config = OF_A_USER.format(top=top, server=server, db=folder / "mail.db")
        with RunningDaemon(folder, config=config) as daemon:
            first, second = pids(daemon)
            found = {uid_of(pid) for pid in (first, second)}
            assert (found, uid_of(daemon.pid)) == ({who.pw_uid}, os.geteuid())
            for path in (logs / "all.log", socket_path, Path(f"{daemon.config_file}.sock")):
                assert path.stat().st_uid == who.pw_uid, path
            os.kill(first, signal.SIGKILL)
            replaced(daemon, 0, first)
            assert uid_of(pids(daemon)[0]) == who.pw_uid
            (logs / "all.log").rename(logs / "old.log")
            asked(daemon, "reopen-logs")
            assert (logs / "all.log").stat().st_uid == who.pw_uid
            # What a user could not write to is not opened for it, though the parent is root.
            secret = tmp_path / "secret"
            secret.touch(mode=0o600)
            (logs / "all.log").unlink()
            (logs / "all.log").symlink_to(secret)
            answer = ask(f"{daemon.config_file}.sock", "reopen-logs")
            assert answer["ok"] is (os.geteuid() != 0), answer
        assert secret.read_text() == "" or os.geteuid() != 0
    finally:
        shutil.rmtree(folder)


OF_A_USER = """\
allowed_hosts = ["."]
{top}

[[servers]]
host_name = "mx.example.com"
{server}

[backend_config]
save_process = "HeadersParser|SQL"
sql_dsn = "{db}"
"""


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid
