"""`guerrillad serve` with several processes, as it looks from outside."""

from __future__ import annotations

import itertools
import json
import os
import pwd
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guerrilla.control.client import ask
from tests.running import DaemonError, RunningDaemon
from tests.wire import HELLO, TRANSACTION, Wire, until

TIMEOUT = 30.0

QUICKLY = (
    "import sys\n"
    "from guerrilla.processes import children\n"
    "children.DELAYS = (0.0,) * 7\n"
    "from guerrilla.cli import main\n"
    "sys.exit(main())\n"
)
"""A parent that waits for nothing before it starts a successor."""

Make = Callable[..., RunningDaemon]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts daemons of several processes, each in a folder of its own; ends what is left."""
    made: list[RunningDaemon] = []
    numbers = itertools.count()

    def start(processes: int = 2, *, top: str = "", module: str = "", **keys: Any) -> RunningDaemon:
        folder = tmp_path / f"daemon{next(numbers)}"
        folder.mkdir(mode=0o755)
        if module:
            (folder / "own_stages.py").write_text(module)
            keys["backend"] = 'import = ["own_stages"]'
        daemon = RunningDaemon(folder, top=f"processes = {processes}\n{top}", **keys)
        made.append(daemon)
        return daemon

    yield start
    for daemon in made:
        children = pids_of(daemon) if daemon.process.poll() is None else []
        daemon.kill()
        for pid in children:
            until(partial(is_gone, pid))


def asked(daemon: RunningDaemon, command: str = "status") -> dict[str, Any]:
    answer = ask(f"{daemon.config_file}.sock", command)
    assert answer["ok"], answer
    return dict(answer["result"] or {})


def processes(daemon: RunningDaemon) -> list[dict[str, Any]]:
    return list(asked(daemon)["processes"])


def pids(daemon: RunningDaemon) -> list[int]:
    """Of the children that serve, by their numbers."""
    found = processes(daemon)
    assert all(one["state"] == "serving" for one in found), found
    return [one["pid"] for one in found]


def pids_of(daemon: RunningDaemon) -> list[int]:
    """Its children, also of one that does not answer."""
    found: list[int] = []
    with suppress(OSError):
        # By whichever thread has started them.
        for file in Path(f"/proc/{daemon.pid}/task").glob("*/children"):
            found += map(int, file.read_text().split())
    return found


def is_there(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False


def is_gone(pid: int) -> bool:
    return not is_there(pid)


def send(daemon: RunningDaemon, subject: str = "hello") -> tuple[int, bytes]:
    """One mail on a connection of its own; the answer to its data."""
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=TIMEOUT) as client:
        client.ehlo("client.example.org")
        client.mail("from@example.org")
        client.rcpt("to@example.com")
        return client.data(f"Subject: {subject}\r\n\r\nbody\r\n".encode())


def replaced(daemon: RunningDaemon, number: int, before: int) -> None:
    """Waits until another process has the place of one."""

    def is_another() -> bool:
        one = processes(daemon)[number]
        return bool(one["state"] == "serving" and one["pid"] != before)

    until(is_another)


@pytest.mark.parametrize("count", [2, 4])
def test_every_mail_is_stored_and_counted(make: Make, count: int) -> None:
    daemon = make(count)
    assert len(daemon.addresses) == 1
    assert f"  processes  {count}" in daemon.printed
    for number in range(48):
        assert send(daemon, f"mail {number}")[0] == 250
    assert sorted(row["subject"] for row in daemon.rows()) == sorted(
        f"mail {number}" for number in range(48)
    )
    status, stats = asked(daemon), asked(daemon, "stats")
    until(lambda: asked(daemon, "stats")["messages_accepted"] == 48)
    assert stats["messages_received"] == status["stats"]["messages_received"] == 48
    (saved,) = [one for one in stats["stages"] if one["stage"] == "SQL"]
    assert (saved["count"], saved["errors"], saved["buckets"]["+Inf"]) == (48, 0, saved["calls"])
    each = status["processes"]
    assert [one["number"] for one in each] == [*range(count)]
    assert len({one["pid"] for one in each} | {daemon.pid}) == count + 1
    assert sum(one["messages"] for one in each) == 48
    # That one of them gets none of 48 is less likely than once in a million.
    assert all(one["messages"] and one["memory"] > 2**20 for one in each)
    assert all((one["state"], one["starts"]) == ("serving", 1) for one in each)
    assert (status["pid"], status["chain"]) == (daemon.pid, "HeadersParser|Hasher|Header|SQL")
    assert [server["addresses"] for server in status["servers"]] == [daemon.addresses]
    daemon.stop()


def test_who_waits_for_a_child_that_dies_is_served_by_its_successor(make: Make) -> None:
    """By a signal that leaves it no moment: else it would take some of those who wait with it."""
    daemon = make()
    first, second = pids(daemon)
    with ExitStack() as stack:
        served = [stack.enter_context(Wire(daemon.port)) for _ in range(24)]
        on_first, on_second = (one["clients"] for one in processes(daemon))
        assert on_first + on_second == 24
        os.kill(first, signal.SIGSTOP)
        # About half of them are in the queue of the one that does not run.
        waiting = [stack.enter_context(Wire(daemon.port, greeted=False)) for _ in range(24)]
        os.kill(first, signal.SIGKILL)
        for client in waiting:
            assert client.reply().startswith("220 ")
        alive = [client for client in served if answers(client)]
        assert len(alive) == on_second
        replaced(daemon, 0, first)
        assert pids(daemon)[1] == second
        assert [one["starts"] for one in processes(daemon)] == [2, 1]
        clients = [one["clients"] for one in processes(daemon)]
        assert (sum(clients), clients[1] >= on_second) == (24 + on_second, True)
    log = daemon.log_text()
    assert f"process 0 (pid {first}) was killed by SIGKILL after " in log
    assert "another takes its place at once" in log
    assert send(daemon)[0] == 250
    daemon.stop()


def answers(client: Wire) -> bool:
    """Whether its session goes on."""
    with suppress(ConnectionResetError, BrokenPipeError):
        return client.ask(b"NOOP\r\n").startswith("250 ")
    return False


def test_a_child_that_is_told_to_stop_does_so_gracefully(make: Make) -> None:
    daemon = make(top="shutdown_timeout = 20")
    first, _ = pids(daemon)
    with ExitStack() as stack:
        clients = [stack.enter_context(Wire(daemon.port)) for _ in range(16)]
        for client in clients:
            client.send(HELLO)
            client.reply()
            client.send(TRANSACTION)
            assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        os.kill(first, signal.SIGTERM)
        until(lambda: "guerrilla.daemon[0] stopping" in daemon.log_text())
        # Some of them come to the one that stops, and wait for the next.
        waiting = [stack.enter_context(Wire(daemon.port, greeted=False)) for _ in range(16)]
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
        assert [client.reply()[:4] for client in waiting] == ["220 "] * 16
    replaced(daemon, 0, first)
    assert f"process 0 (pid {first}) ended with status 0 after" in daemon.log_text()
    assert len(daemon.rows()) == 16
    daemon.stop()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_of_the_parent_are_nothing_to_a_child(make: Make, number: signal.Signals) -> None:
    daemon = make()
    before = pids(daemon)
    for pid in before:
        os.kill(pid, number)
    for _ in range(8):
        assert send(daemon)[0] == 250
    assert pids(daemon) == before
    daemon.stop()


CRASHING = """\
import ctypes, os, pathlib, guerrilla

@guerrilla.processor("Crashing")
def crashing(envelope):
    if envelope.subject == "crash":
        flag = pathlib.Path("crashed")
        if not flag.exists():
            flag.touch()
            ctypes.string_at(0)
    return None
"""


def test_a_crash_of_a_stage_costs_the_mails_of_its_process_alone(make: Make) -> None:
    daemon = make(module=CRASHING, chain="HeadersParser|Crashing|SQL")
    before = pids(daemon)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        send(daemon, "crash")
    # Its sender keeps it, and tries again.
    assert send(daemon, "crash")[0] == 250
    until(lambda: all(one["state"] == "serving" for one in processes(daemon)))
    assert len({*before} & {*pids(daemon)}) == 1
    assert [row["subject"] for row in daemon.rows()] == ["crash"]
    assert "was killed by SIGSEGV" in daemon.log_text()
    daemon.stop()


DYING = """\
import os, pathlib, signal, guerrilla

if pathlib.Path("die").exists():
    os.kill(os.getpid(), signal.SIGSEGV)

@guerrilla.processor("Dying")
def dying(envelope):
    return None
"""


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


def test_a_stop_under_load_loses_nothing(make: Make) -> None:
    daemon = make()
    saved: list[int] = []
    stopping = threading.Event()

    def sender(name: int) -> None:
        for number in range(10_000):
            with suppress(OSError, smtplib.SMTPException):
                if send(daemon, f"{name} {number}")[0] == 250:
                    saved.append(1)
                    continue
            if stopping.is_set():
                return

    threads = [threading.Thread(target=sender, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(saved) > 50)
    stopping.set()
    daemon.stop()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(daemon.rows()) >= len(saved)


def in_data(client: Wire) -> None:
    """Brings a session into the middle of a message."""
    client.send(HELLO)
    client.reply()
    client.send(TRANSACTION)
    assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]


def test_a_second_signal_ends_all_at_once(make: Make) -> None:
    daemon = make()
    children = pids(daemon)
    with ExitStack() as stack:
        clients = [stack.enter_context(Wire(daemon.port)) for _ in range(8)]
        for client in clients:
            in_data(client)
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: daemon.log_text().count("guerrilla.daemon[") > 2 and refused(daemon))
        assert all(map(is_there, children))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(TIMEOUT) == 1
        until(lambda: not any(map(is_there, children)))
    assert "guerrillad: stopped at once" in daemon.log_text()


def refused(daemon: RunningDaemon) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", daemon.port), 5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def test_what_takes_too_long_is_cut_off_by_its_own_process(make: Make) -> None:
    daemon = make(top="shutdown_timeout = 1")
    with Wire(daemon.port) as client:
        in_data(client)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(TIMEOUT) == 1
    log = daemon.log_text()
    assert "sessions were cut off after 1 s" in log
    assert "it is killed" not in log
    assert log.count("guerrilla.daemon[0] stopped") == log.count("guerrilla.daemon[1] stopped") == 1


def test_children_without_their_parent_end_gracefully(make: Make) -> None:
    daemon = make()
    children = pids(daemon)
    with ExitStack() as stack:
        clients = [stack.enter_context(Wire(daemon.port)) for _ in range(8)]
        for client in clients:
            in_data(client)
        daemon.process.kill()
        daemon.process.wait(TIMEOUT)
        until(lambda: refused(daemon))
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
    until(lambda: not any(map(is_there, children)))
    assert len(daemon.rows()) == 8
    assert daemon.log_text().count("the parent process is gone: stopping") == 2


@pytest.mark.parametrize("form", ["text", "json"])
def test_all_have_one_log(make: Make, form: str) -> None:
    daemon = make(top=f'log_file = "all.log"\nlog_format = "{form}"')
    for _ in range(24):
        assert send(daemon)[0] == 250
    old = daemon.folder / "old.log"
    # Lines come a little later than the answers.
    until(lambda: (daemon.folder / "all.log").read_text().count("guerrilla.mail") == 24)
    (daemon.folder / "all.log").rename(old)
    daemon.process.send_signal(signal.SIGUSR1)
    until((daemon.folder / "all.log").exists)
    asked(daemon, "reopen-logs")
    for _ in range(24):
        assert send(daemon)[0] == 250
    daemon.stop()
    lines = old.read_text().splitlines() + (daemon.folder / "all.log").read_text().splitlines()
    mails = [line for line in lines if "guerrilla.mail" in line]
    assert len(mails) == 48
    if form == "json":
        found = [json.loads(line) for line in lines]
        assert {one.get("process") for one in found} == {0, 1, None}
        assert {one["process"] for one in found if one["logger"] == "guerrilla.mail"} == {0, 1}
    else:
        assert {line.split()[2] for line in mails} == {"guerrilla.mail[0]", "guerrilla.mail[1]"}
        assert any(" guerrilla.processes started 2 processes" in line for line in lines)
    assert old.read_text().count("guerrilla.mail") == 24


def test_there_is_one_pid_file_and_one_control_socket(make: Make, tmp_path: Path) -> None:
    pid_file = tmp_path / "all.pid"
    daemon = make(top=f'pid_file = "{pid_file}"')
    assert pid_file.read_text() == f"{daemon.pid}\n"
    assert sorted(tmp_path.glob("*.sock")) == [tmp_path / "all.pid.sock"]
    with pytest.raises(DaemonError, match=f"belongs to a running daemon, pid {daemon.pid}"):
        make(top=f'pid_file = "{pid_file}"')
    assert ask(f"{pid_file}.sock", "status")["ok"]
    daemon.stop()
    assert not pid_file.exists()
    assert not list(tmp_path.glob("*.sock"))


def test_a_status_for_a_person(make: Make) -> None:
    daemon = make()
    first, second = pids(daemon)
    told = subprocess.run(
        [sys.executable, "-m", "guerrilla", "status", "-c", os.fspath(daemon.config_file)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    ).stdout.splitlines()
    lines = [line for line in told if line.startswith("  process ")]
    assert lines[0].startswith(f"  process    0: serving, pid {first}, up ")
    assert lines[1].startswith(f"  process    1: serving, pid {second}, up ")
    assert lines[0].endswith(" MiB")
    daemon.stop()


def test_a_stop_over_the_control_socket(make: Make) -> None:
    daemon = make()
    children = pids(daemon)
    done = subprocess.run(
        [sys.executable, "-m", "guerrilla", "stop", "-c", os.fspath(daemon.config_file)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout == "stopped\n"
    assert daemon.process.wait(TIMEOUT) == 0
    assert not any(map(is_there, children))


HANGING = """\
import threading, guerrilla

@guerrilla.processor("Hanging")
class Hanging(guerrilla.Processor):
    def open(self):
        open("hanging", "w").close()
        threading.Event().wait()
    def save(self, envelope):
        return None
"""


def test_a_signal_ends_a_start_that_hangs(make: Make, tmp_path: Path) -> None:
    said: list[str] = []

    def start() -> None:
        with pytest.raises(DaemonError) as caught:
            make(module=HANGING, chain="Hanging|SQL")
        said.append(str(caught.value))

    thread = threading.Thread(target=start)
    thread.start()
    until(lambda: list(tmp_path.rglob("hanging")))
    (parent,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if is_mine(path, tmp_path)
    )
    os.kill(parent, signal.SIGTERM)
    thread.join(TIMEOUT)
    assert said == ["guerrillad: SIGTERM: stopped before it had started\n"]


def is_mine(cmdline: Path, folder: Path) -> bool:
    """Whether it is a parent that serves a config in this folder."""
    with suppress(OSError):
        words = cmdline.read_bytes().decode(errors="replace").split("\0")
        return "serve" in words and any(word.startswith(f"{folder}/") for word in words)
    return False


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


def test_a_service_manager_hears_of_all_of_them(make: Make, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(TIMEOUT)
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"}
        daemon = make(environment=environment)
        said = manager.recv(4096).decode().splitlines()
        assert said[0] == "READY=1"
        assert all(one["state"] == "serving" for one in processes(daemon))
        assert manager.recv(4096) == b"WATCHDOG=1"
        # One that stands still is looked after, and no reason to end all others.
        first = pids(daemon)[0]
        os.kill(first, signal.SIGSTOP)
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        os.kill(first, signal.SIGCONT)
        # All that was said came from the parent alone.
        for pid in pids(daemon):
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        daemon.stop()
        until(lambda: manager.recv(4096).startswith(b"STOPPING=1"))
