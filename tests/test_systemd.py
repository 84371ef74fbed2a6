"""What systemd is told, by a socket of the test's own; and the unit file."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guerrilla.cli import main
from guerrilla.config import AppConfig
from guerrilla.processes.children import DELAYS, MAX_EARLY
from guerrilla.processes.place import GRACE
from guerrilla.running.systemd import ServiceManager
from tests.daemons import Make, Until
from tests.running import RunningDaemon

UNIT = Path(__file__).parent.parent / "examples" / "systemd/guerrilla.service"


class Manager:
    """What listens where systemd would."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(20)

    def next(self) -> dict[str, str]:
        """The next message, as its assignments."""
        lines = self.socket.recv(65_536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def next_but_watchdog(self) -> dict[str, str]:
        while (found := self.next()) == {"WATCHDOG": "1"}:
            pass
        return found

    def environment(self, **others: str) -> dict[str, str]:
        return {**os.environ, "NOTIFY_SOCKET": self.address, **others}


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"@guerrilla-test-{os.getpid()}-{time.monotonic_ns()}"
    found = Manager(str(tmp_path / "notify") if request.param == "path" else name)
    yield found
    found.socket.close()


def test_a_daemon_tells_what_it_does(manager: Manager, tmp_path: Path) -> None:
    environment = manager.environment(WATCHDOG_USEC="200000")
    with RunningDaemon(tmp_path, environment=environment) as daemon:
        status = f"listening on {daemon.addresses[0]}"
        assert manager.next() == {"READY": "1", "STATUS": status}
        assert manager.next() == {"WATCHDOG": "1"}
        began = time.monotonic_ns() // 1_000
        daemon.process.send_signal(signal.SIGHUP)
        reloading = manager.next_but_watchdog()
        assert reloading.pop("RELOADING") == "1"
        assert began <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1_000
        assert reloading == {}
        assert manager.next_but_watchdog() == {"READY": "1", "STATUS": status}
        daemon.stop()
        assert manager.next_but_watchdog() == {"STOPPING": "1", "STATUS": "stopping"}
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next_but_watchdog()


def test_what_the_control_socket_asks_for_is_told_too(manager: Manager, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, environment=manager.environment()) as daemon:
        assert list(manager.next()) == ["READY", "STATUS"]
        text = daemon.config_file.read_text()
        second = '\n[[servers]]\nlisten_interface = "127.0.0.2:0"\n[backend_config]'
        daemon.config_file.write_text(text.replace("[backend_config]", second))
        assert main(["reload", "-c", str(daemon.config_file)]) == 0
        assert list(manager.next()) == ["RELOADING", "MONOTONIC_USEC"]
        # Where it listens now.
        assert manager.next()["STATUS"].startswith(
            f"listening on {daemon.addresses[0]}, 127.0.0.2:"
        )
        assert main(["stop", "-c", str(daemon.config_file)]) == 0
        assert manager.next() == {"STOPPING": "1", "STATUS": "stopping"}


def test_it_is_told_twice_in_the_time_of_the_watchdog_that_it_lives(
    manager: Manager, make: Make
) -> None:
    daemon = make()
    daemon.start()
    service = ServiceManager({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"})
    asked: list[float] = []

    def is_well(within: float) -> bool:
        asked.append(within)
        return daemon.is_well(10)  # The supervisor looks once a second, and not in each tenth.

    began = time.monotonic()
    service.watch(is_well)
    assert [manager.next() for _ in range(5)] == [{"WATCHDOG": "1"}] * 5
    taken = time.monotonic() - began
    service.close()
    assert {service.watchdog, *asked} == {0.1}
    assert 0.19 < taken < 5


def test_a_daemon_whose_supervisor_hangs_is_not_said_to_live(
    manager: Manager, make: Make, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = make()
    daemon.start()
    assert daemon.is_well(10)
    parts = daemon._parts
    assert parts is not None
    supervisor = parts.supervisor
    supervisor.stop()
    supervisor.looked_at -= 60
    assert not daemon.is_well(10)
    service = ServiceManager({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"})
    service.watch(daemon.is_well)
    until(lambda: "no sign of life for 0.1 s" in caplog.text)
    service.close()
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next()


def test_before_its_start_a_daemon_is_not_well(make: Make) -> None:
    assert not make().is_well(10)


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234"])
def test_nothing_is_told_where_nobody_listens(name: str) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"})
    assert not service.is_there
    service.ready("x")
    service.watch(lambda _: pytest.fail("nobody asked"))
    service.stopping()
    service.close()
    assert not ServiceManager({}).is_there


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog_is_ours_and_a_number(variables: dict[str, str], seconds: float) -> None:
    assert ServiceManager(variables).watchdog == seconds


def test_a_systemd_that_is_gone_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    service.ready("x")
    assert "systemd cannot be told READY=1: " in caplog.text


def test_a_status_is_one_assignment(manager: Manager) -> None:
    ServiceManager({"NOTIFY_SOCKET": manager.address}).ready("a\nSTOPPING=1")
    assert manager.next() == {"READY": "1", "STATUS": "a STOPPING=1"}


def test_a_stop_is_told_once_and_a_reload_that_fails_ends_too(manager: Manager) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": manager.address})
    with pytest.raises(ValueError, match="bad"), service.reloading(lambda: "still here"):
        raise ValueError("bad")
    service.stopping()
    service.stopping()
    told = [list(manager.next()) for _ in range(3)]
    assert told == [["RELOADING", "MONOTONIC_USEC"], ["READY", "STATUS"], ["STOPPING", "STATUS"]]
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next()


# --- The unit file --------------------------------------------------------------------------------


def unit(section: str = "Service") -> dict[str, list[str]]:
    """The keys of a section, each with its values."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    # A key may come several times: so each has its number.
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    numbered = [f"{n}:{line}" if "=" in line and line[0].isalpha() else line
                for n, line in enumerate(lines)]  # fmt: skip
    parser.read_string("\n".join(numbered))
    assert parser.sections() == ["Unit", "Service", "Install"]
    found: dict[str, list[str]] = {}
    for key, value in parser.items(section):
        found.setdefault(key.partition(":")[2], []).append(value)
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_unit_says_what_the_daemon_does() -> None:
    keys = unit()
    assert keys["Type"] == ["notify"]
    program, *arguments = shlex.split(keys["ExecStart"][0])
    assert (Path(program).name, Path(program).is_absolute()) == ("guerrillad", True)
    assert arguments[:2] == ["serve", "-c"]
    with pytest.raises(SystemExit) as told:
        main([*arguments, "--help"])  # every argument is one that the command knows
    assert told.value.code == 0
    assert keys["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    # As long as the parent of several processes waits before it kills one.
    assert seconds(keys["TimeoutStopSec"][0]) > AppConfig.default().shutdown_timeout + GRACE
    assert seconds(keys["WatchdogSec"][0]) >= 10  # the supervisor looks once a second
    folders = {
        "ConfigurationDirectory": "/etc/guerrilla/",
        "RuntimeDirectory": "/run/guerrilla/",
        "StateDirectory": "/var/lib/guerrilla",
        "LogsDirectory": "/var/log/guerrilla",
    }
    assert {name: keys[name] for name in folders} == {name: ["guerrilla"] for name in folders}
    assert arguments[2].startswith(folders["ConfigurationDirectory"])
    assert arguments[4].startswith(folders["RuntimeDirectory"])
    assert keys["WorkingDirectory"] == [folders["StateDirectory"]]


def test_systemd_does_not_start_for_ever_what_gives_up_at_each_start() -> None:
    """Not even several processes, of which each has been tried for some times before."""
    limits, restart = unit("Unit"), unit()["RestartSec"][0]
    a_start = 2.0
    a_try = sum(DELAYS[: MAX_EARLY - 1]) + MAX_EARLY * a_start + seconds(restart)
    starts = int(limits["StartLimitBurst"][0])
    assert seconds(limits["StartLimitIntervalSec"][0]) > starts * a_try


def test_the_unit_is_hardened() -> None:
    keys = unit()
    for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert keys[name] == ["CAP_NET_BIND_SERVICE"]
    assert keys["ProtectSystem"] == ["strict"]
    on = ["DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"]
    on += ["RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "LockPersonality"]
    on += [f"ProtectKernel{what}" for what in ("Tunables", "Modules", "Logs")]
    assert {name: keys[name] for name in on} == {name: ["yes"] for name in on}
    assert set(keys["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}


def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    """With the program that is here in place of the one in /opt."""
    text = UNIT.read_text(encoding="utf-8")
    ours = tmp_path / "guerrillad"
    ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m guerrilla "$@"\n', encoding="utf-8")
    ours.chmod(0o755)
    assert text.count("/opt/guerrilla/bin/guerrillad") == 1
    copy = tmp_path / "guerrilla.service"
    copy.write_text(text.replace("/opt/guerrilla/bin/guerrillad", str(ours)), encoding="utf-8")
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # the two tests above have looked at it, as far as one can without
        return
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
