"""The program is replaced while it serves: nobody is refused, no mail is lost or doubled."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from guerrilla.control.client import NobodyThereError, ask
from tests.running import RunningDaemon
from tests.upgrades import TIMEOUT, Make, Senders, gone, is_there, make, send, subjects
from tests.wire import until

__all__ = ["make"]

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


@several
def test_three_in_a_row(make: Make, processes: int, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    other = f'[[servers]]\nlisten_interface = "unix:{path}"\nhost_name = "mx.example.com"'
    daemon = make(processes, server=other)
    made = path.stat().st_ino
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
    ],
)
def test_one_that_fails_leaves_the_old_one(
    make: Make, processes: int, does: str, said: str
) -> None:
    daemon = make(processes)
    what = daemon.other_does(does)
    limit = daemon.other_does("limit", "2" if does == "hang" else "60")
    assert said in daemon.refused()
    limit.unlink()
    assert daemon.written_pid() == daemon.pid == daemon.asked()["pid"]
    assert "this process goes on" in daemon.log_text()
    send(daemon.port)
    what.unlink()
    assert daemon.upgrade() != daemon.pid
    send(daemon.port)
    assert subjects(daemon) == ["hello", "hello"]



@several
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('log_level = "info"', "log_level = 7", "log_level: "),
        ("allowed_hosts", "allowed_hostss", "allowed_hostss: unknown key"),
        ("|SQL", "|SQLL", "unknown processor 'SQLL'"),
        ("mail.db", "away/mail.db", "sql_dsn: "),
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
