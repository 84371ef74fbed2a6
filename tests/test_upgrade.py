"""The program is replaced while it serves: nobody is refused, no mail is lost or doubled."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import guerrilla
from guerrilla.control.client import NobodyThereError, ask
from tests.certificates import self_signed
from tests.running import RunningDaemon
from tests.upgrades import (
    PROGRAM,
    TIMEOUT,
    Make,
    Senders,
    Upgradable,
    gone,
    is_there,
    make,
    send,
    subjects,
)
from tests.wire import HELLO, TRANSACTION, Wire, until

__all__ = ["make"]

IS_ROOT = os.geteuid() == 0
OTHER = pwd.getpwnam("nobody")
PACKAGE = Path(guerrilla.__file__).parent.parent

LOOKING = """\
import subprocess, sys
from guerrilla.engine.registry import processor

@processor("Looking")
def looking(envelope):
    code = "import os; print(os.environ.get('GUERRILLA_UPGRADE'), os.listdir('/proc/self/fd'))"
    with open("seen", "a") as seen:
        subprocess.run([sys.executable, "-c", code], stdout=seen, check=True)
"""
"""Starts a program, which says what it has of ours."""

SLOW = """\
import os, time
from guerrilla.engine.registry import processor

@processor("Slow")
def slow(envelope):
    while not os.path.exists("go"):
        time.sleep(0.02)
    time.sleep(0.05)
"""

several = pytest.mark.parametrize("processes", [1, 2])


def stored_once(daemon: RunningDaemon, senders: Senders) -> None:
    """All that was answered is there, once, and nobody noticed anything."""
    assert (senders.refused, senders.reset) == (0, [])
    assert sorted(subjects(daemon)) == sorted(senders.sent)


@several
def test_senders_notice_nothing_of_an_upgrade(make: Make, processes: int) -> None:
    daemon = make(processes)
    with Senders(daemon.port) as senders:
        senders.more()
        pid = daemon.upgrade()
        senders.more()
        daemon.ended()
        senders.more()
    stored_once(daemon, senders)
    assert pid != daemon.pid
    assert daemon.written_pid() == pid == daemon.asked()["pid"]
    assert len(daemon.asked().get("processes", [0])) == processes
    assert f"process {pid} (" in daemon.log_text()
    daemon.asked("stop")
    until(gone(pid))
    assert not daemon.pid_file.exists()
    assert not Path(daemon.control).exists()


@pytest.mark.timeout(300)
@several
def test_three_in_a_row(make: Make, processes: int, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    other = f'[[servers]]\nlisten_interface = "unix:{path}"\nhost_name = "mx.example.com"'
    daemon = make(processes, server=other)
    made = path.stat().st_ino
    pid = daemon.pid
    with Senders(daemon.port) as senders:
        for _ in range(3):
            senders.more(20)
            pid = daemon.upgrade()
            assert daemon.written_pid() == pid == daemon.asked()["pid"]
        senders.more(20)
        daemon.ended()
        for before in daemon.pids[:-1]:
            until(gone(before))
        senders.more(20)
    stored_once(daemon, senders)
    assert path.stat().st_ino == made
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        assert client.recv(100).startswith(b"220 ")
    daemon.asked("stop")
    until(gone(pid))
    assert not path.exists()


@several
def test_a_signal_does_it_too(make: Make, processes: int) -> None:
    daemon = make(processes)
    with Senders(daemon.port) as senders:
        senders.more(20)
        daemon.process.send_signal(signal.SIGUSR2)
        daemon.ended()
        senders.more(20)
    stored_once(daemon, senders)
    assert daemon.written_pid() == daemon.asked()["pid"] != daemon.pid


@several
@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("crash", "ended with status 1 before it was ready; it may have said why on stderr"),
        ("hang", "not ready within 2 s"),
        ("dies-ready", "ended with status 9 before it was serving"),
        ("dies-go", "ended with status 9 before it was serving"),
        ("dies-took", "ended with status 9 before it was serving"),
        ("hang-go", "not serving within 0.5 s"),
        ("hang-took", "not serving within 0.5 s"),
    ],
)
def test_one_that_fails_leaves_the_old_one(
    make: Make, processes: int, does: str, said: str
) -> None:
    daemon = make(processes)
    what = daemon.other_does(does)
    limit = daemon.other_does("limit", "2" if does == "hang" else "60")
    taken = daemon.other_does("limit-taken", "0.5" if does.startswith("hang-") else "30")
    with Senders(daemon.port) as senders:
        senders.more(20)
        assert said in daemon.refused()
        senders.more(20)
    stored_once(daemon, senders)
    limit.unlink()
    taken.unlink()
    assert daemon.written_pid() == daemon.pid == daemon.asked()["pid"]
    assert "this process goes on" in daemon.log_text()
    send(daemon.port)
    what.unlink()
    assert daemon.upgrade() != daemon.pid
    send(daemon.port)
    assert sorted(subjects(daemon)) == sorted([*senders.sent, "hello", "hello"])


def test_one_that_fails_with_more_processes_loses_nobody(make: Make) -> None:
    daemon = make(2)
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace("processes = 2", "processes = 4"))
    daemon.other_does("dies-ready")
    with Senders(daemon.port) as senders:
        senders.more(20)
        assert "ended with status 9 before it was serving" in daemon.refused()
        senders.more(20)
    stored_once(daemon, senders)


@pytest.mark.parametrize(
    ("processes", "before", "after", "said"),
    [
        (1, 'log_level = "info"', "log_level = 7", "log_level: "),
        (1, "|SQL", "|SQLL", "unknown processor 'SQLL'"),
        (1, "mail.db", "away/mail.db", "sql_dsn: "),
        (2, "allowed_hosts", "allowed_hostss", "allowed_hostss: unknown key"),
        (2, "mail.db", "away/mail.db", "sql_dsn: "),
    ],
)
def test_a_config_that_cannot_be_is_told(
    make: Make, processes: int, before: str, after: str, said: str
) -> None:
    daemon = make(processes)
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace(before, after))
    told = daemon.refused()
    assert said in told
    assert told.startswith(f"the new program cannot start: {daemon.config_file}: ")
    assert daemon.written_pid() == daemon.pid == daemon.asked()["pid"]
    send(daemon.port)
    daemon.config_file.write_text(text)
    daemon.upgrade()
    daemon.ended()


@several
def test_a_port_that_somebody_else_has_is_told(make: Make, processes: int) -> None:
    daemon = make(processes)
    text = daemon.config_file.read_text()
    with socket.create_server(("127.0.0.2", 0)) as other:
        address = f"127.0.0.2:{other.getsockname()[1]}"
        server = f'[[servers]]\nlisten_interface = "{address}"\nhost_name = "mx.example.com"\n'
        daemon.config_file.write_text(text.replace("[backend_config]", f"{server}[backend_config]"))
        told = daemon.refused()
        assert told.startswith(
            f"the new program cannot start: {daemon.config_file}: servers[1].listen_interface: "
        )
        assert address in told
        assert "Address already in use" in told
        assert daemon.written_pid() == daemon.pid == daemon.asked()["pid"]
        send(daemon.port)
    pid = daemon.upgrade()
    daemon.ended()
    found = daemon.asked()
    assert found["pid"] == pid
    assert [address] in [one["addresses"] for one in found["servers"]]


@several
def test_another_config_is_obeyed(make: Make, processes: int, tmp_path: Path) -> None:
    other = '[[servers]]\nlisten_interface = "127.0.0.2:0"\nhost_name = "mx.example.com"'
    daemon = make(processes, server=other)
    first, second = daemon.addresses
    text = daemon.config_file.read_text()
    text = text.replace("127.0.0.2:0", "127.0.0.3:0").replace("guerrilla.pid", "other.pid")
    daemon.config_file.write_text(text)
    pid = daemon.upgrade()
    daemon.ended()
    found = ask(tmp_path / "daemon0/other.pid.sock", "status")["result"]
    assert found["pid"] == pid == int((tmp_path / "daemon0/other.pid").read_text())
    addresses = [one for server in found["servers"] for one in server["addresses"]]
    assert addresses[0] == first
    assert addresses[1].startswith("127.0.0.3:")
    assert "127.0.0.2:0: no server listens there: what was handed over is closed" in (
        daemon.log_text()
    )
    host, _, port = second.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), TIMEOUT)
    # What was the old one's went with it.
    assert not daemon.pid_file.exists()
    assert not Path(daemon.control).exists()
    daemon.pid_file = tmp_path / "daemon0/other.pid"


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_there_may_be_more_or_fewer_processes(make: Make, before: int, after: int) -> None:
    daemon = make(before)
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace(f"processes = {before}", f"processes = {after}"))
    with Senders(daemon.port) as senders:
        senders.more()
        daemon.upgrade()
        daemon.ended()
        senders.more()
    stored_once(daemon, senders)
    assert len(daemon.asked().get("processes", [0])) == after


@several
def test_one_at_a_time(make: Make, processes: int) -> None:
    daemon = make(processes)
    hang = daemon.other_does("hang")
    first: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: first.append(daemon.ask("upgrade")))
    thread.start()
    until((daemon.folder / "hangs").exists)
    assert daemon.refused() == "another upgrade is under way"
    answer = daemon.ask("reload")
    assert answer["errors"] == ["an upgrade is under way: reload when it has ended"]
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "SIGHUP: an upgrade is under way" in daemon.log_text())
    hanging = int((daemon.folder / "hangs").read_text())
    os.kill(hanging, signal.SIGKILL)
    thread.join(TIMEOUT)
    assert "was killed by SIGKILL before it was ready" in str(first)
    hang.unlink()
    assert daemon.ask("reload")["ok"]
    daemon.upgrade()


@several
def test_a_stop_ends_the_new_one_too(make: Make, processes: int) -> None:
    daemon = make(processes)
    daemon.other_does("hang")
    daemon.process.send_signal(signal.SIGUSR2)
    until((daemon.folder / "hangs").exists)
    new = int((daemon.folder / "hangs").read_text())
    assert is_there(new)
    daemon.stop()
    until(gone(new))
    with pytest.raises(NobodyThereError):
        daemon.ask("status")


@pytest.mark.timeout(150)
@several
def test_what_waits_in_the_spool_is_stored_once(make: Make, processes: int) -> None:
    daemon = make(
        processes,
        module=SLOW,
        chain="HeadersParser|250|Slow|Hasher|Header|SQL",
        top='[spool]\npath = "spool"\nmin_free = 0',
        backend="save_workers_size = 1",
    )
    with Senders(daemon.port) as senders:
        senders.more(100)
    assert subjects(daemon) == []
    daemon.upgrade()
    (daemon.folder / "go").touch()
    daemon.ended()
    assert len(subjects(daemon)) < len(senders.sent)
    send(daemon.port, "last")
    wanted = [*senders.sent, "last"]
    # The folder that the old one leaves is free for 15 s before the new one takes it over.
    until(lambda: len(subjects(daemon)) >= len(wanted), 90)
    assert sorted(subjects(daemon)) == sorted(wanted)


@several
def test_programs_that_it_starts_know_nothing_of_it(make: Make, processes: int) -> None:
    daemon = make(processes, module=LOOKING, chain="HeadersParser|Looking|SQL")
    send(daemon.port)
    daemon.upgrade()
    daemon.ended()
    send(daemon.port)
    before, after = (daemon.folder / "seen").read_text().splitlines()
    assert before.startswith("None ")
    assert after == before


def test_a_session_that_is_open_ends_as_at_a_stop(make: Make) -> None:
    daemon = make()
    with Wire(daemon.port) as idle, Wire(daemon.port) as busy:
        idle.ask(HELLO)
        busy.ask(HELLO)
        busy.send(TRANSACTION)
        assert [busy.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        daemon.upgrade()
        assert idle.reply().startswith("421 ")
        send(daemon.port, "other")
        assert daemon.process.poll() is None
        # Asked for again, it is the new one that answers; this one only ends.
        daemon.process.send_signal(signal.SIGUSR2)
        until(lambda: "upgrade: this process stops already" in daemon.log_text())
        assert busy.ask(b"Subject: late\r\n\r\n.\r\n").startswith("250 ")
    daemon.ended()
    assert sorted(subjects(daemon)) == ["late", "other"]


def test_a_watched_service_goes_on_as_another_process(make: Make, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(tmp_path / "notify"))
        manager.settimeout(TIMEOUT)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": os.fspath(tmp_path / "notify"),
            "WATCHDOG_USEC": "60000000",
        }
        daemon = make(environment=environment)
        assert manager.recv(1000).startswith(b"READY=1\n")
        text = daemon.config_file.read_text()
        daemon.config_file.write_text(text.replace("|SQL", "|SQLL"))
        daemon.refused()  # Of which the manager hears nothing.
        daemon.config_file.write_text(text)
        pid = daemon.upgrade()
        daemon.ended()
        told = [manager.recv(1000).split(b"\n")[0].decode() for _ in range(4)]
        daemon.asked("stop")
        last = manager.recv(1000).split(b"\n")[0].decode()
    # First the process that is believed says who is; one that stops meanwhile says nothing of it.
    assert [line for line in told if line != "WATCHDOG=1"] == [f"MAINPID={pid}", "READY=1"]
    assert told.count("WATCHDOG=1") == 2
    assert last == "STOPPING=1"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can look into, unlike pytest's, with one in it for the new user."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "data").mkdir()
    if IS_ROOT:
        os.chown(made / "data", OTHER.pw_uid, OTHER.pw_gid)
    yield made
    shutil.rmtree(made)


def of_another_user(folder: Path, processes: int = 1, server: str = "") -> Upgradable:
    """A daemon that becomes another user, where it can; elsewhere itself."""
    user = OTHER.pw_name if IS_ROOT else os.geteuid()
    config = f"""
user = "{user}"
processes = {processes}
allowed_hosts = ["."]
log_level = "info"
pid_file = "{folder}/guerrilla.pid"
control_socket = "{folder}/data/guerrilla.sock"
[[servers]]
listen_interface = "127.0.0.1:0"
{server}
[backend_config]
save_process = "HeadersParser|Hasher|Header|SQL"
sql_dsn = "{folder}/data/mail.db"
"""
    # One that the other user may run: that of the tests is maybe in a folder of root's.
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    if not IS_ROOT or not Path(python).exists():
        python = sys.executable
    paths = [os.fspath(PACKAGE), *site.getsitepackages()]
    return Upgradable(
        folder,
        config=config,
        control=folder / "data/guerrilla.sock",
        command=[python, os.fspath(PROGRAM)],
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@several
def test_who_has_become_another_user_hands_on_what_root_has_bound(
    folder: Path, processes: int
) -> None:
    daemon = of_another_user(folder, processes)
    try:
        pid = daemon.upgrade()
        daemon.ended()
        daemon.db = folder / "data/mail.db"
        send(daemon.port)
        assert subjects(daemon) == ["hello"]
        assert (daemon.written_pid(), daemon.asked()["pid"]) == (pid, pid)
        # The parent of several stays root, and so does what comes after it.
        user = OTHER.pw_uid if IS_ROOT and processes == 1 else os.geteuid()
        assert Path(f"/proc/{pid}").stat().st_uid == user
    finally:
        daemon.end()


ASKING = """\
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(b'{"command": "upgrade"}\\n')
print(client.recv(1000).decode())
"""


def test_whom_root_has_given_the_control_socket_may_not_start_programs_of_roots(
    folder: Path,
) -> None:
    daemon = of_another_user(folder, processes=2)
    try:
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        user = OTHER.pw_uid if IS_ROOT else None
        answer = subprocess.run(
            [python, "-c", ASKING, daemon.control], user=user, capture_output=True, check=True
        )
        refused = b"only root may have a program of root's started anew"
        assert (refused in answer.stdout) == IS_ROOT
    finally:
        daemon.end()


def test_what_root_alone_may_read_is_told(folder: Path) -> None:
    pair = self_signed(folder, "mx.example.com")
    key = pair.key
    tls = f'[servers.tls]\nstart_tls_on = true\npublic_key_file = "{pair.certificate}"\n'
    daemon = of_another_user(folder, server=f'{tls}private_key_file = "{key}"')
    try:
        key.chmod(0o600 if IS_ROOT else 0)
        told = daemon.refused().splitlines()
        assert "Permission denied" in told[0]
        assert told[-1].startswith("the new program is started by ")
        assert daemon.written_pid() == daemon.pid
        send(daemon.port)
        key.chmod(0o644)
        daemon.upgrade()
        daemon.ended()
    finally:
        daemon.end()


def test_another_environment_that_stands_in_the_same_place_takes_over(
    make: Make, tmp_path: Path
) -> None:
    for name in ("old", "new"):
        folder = tmp_path / name
        folder.mkdir()
        python, script = folder / "python", folder / "guerrillad"
        python.symlink_to(sys.executable)
        script.write_text(
            f"#!{python}\nimport sys\nfrom guerrilla.cli import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    (link := tmp_path / "now").symlink_to("old")
    paths = os.pathsep.join([os.fspath(PACKAGE), *site.getsitepackages()])
    environment = {**os.environ, "PYTHONPATH": paths}
    daemon = make(command=[os.fspath(link / "guerrillad")], environment=environment)
    link.unlink()
    link.symlink_to("new")
    program = Path(f"/proc/{daemon.upgrade()}/cmdline").read_bytes().split(b"\0")[0]
    assert program == os.fsencode(tmp_path / "new/python")
    daemon.ended()
    send(daemon.port)
