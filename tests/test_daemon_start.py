"""What stops a daemon from starting, and what it leaves behind then."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path
from typing import Any

import pydantic
import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.running.pidfile import PidFile
from tests.daemons import Keeper, Make, config, problems, send

# What stops a start


def test_everything_that_is_wrong_is_told_at_once(make: Make, tmp_path: Path) -> None:
    raw = config(save_process="HeaderParser", **{"import": ["daemon_nowhere"]})
    raw["servers"].append({"listen_interface": "nowhere.invalid:25"})
    raw["processes"] = 2
    found = problems(make(raw))
    for part in ("processes", "daemon_nowhere", "nowhere.invalid"):
        assert sum(part in problem for problem in found) == 1
    del raw["backend_config"]["import"]
    raw["backend_config"]["redis_interfacee"] = "x"
    found = problems(make(raw))
    for part in ("'HeadersParser'", "backend_config.redis_interfacee"):
        assert sum(part in problem for problem in found) == 1


def test_unknown_keys_of_processors_can_be_ignored(make: Make) -> None:
    with make(config(no_such_key=1), ignore_unknown_keys=True) as daemon:
        assert send(daemon)[0] == 250


def test_a_key_of_a_processor_that_is_not_in_the_chain_is_fine(make: Make) -> None:
    with make(config(sleep_seconds=0)) as daemon:
        assert send(daemon)[0] == 250


def test_ports_in_use_are_named_and_all_of_them(make: Make, keeper: type[Keeper]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        names = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in (one, two)]
        raw = config()
        raw["servers"] += [{"listen_interface": name} for name in names]
        found = problems(make(raw))
    for name in names:
        assert sum(name in problem for problem in found) == 1
    assert keeper.did == []  # Ports come first.


def test_a_stage_that_does_not_open_stops_the_start(make: Make, keeper: type[Keeper]) -> None:
    class Broken(Processor):
        def open(self) -> None:
            message = "connection refused"
            raise ConnectionError(message)

    daemon = make(config(save_process="Keeper|Broken"))
    daemon.add_processor("Broken", Broken)
    assert problems(daemon) == ("Broken: ConnectionError: connection refused",)
    assert keeper.did == ["open", "close"]


def test_a_value_a_processor_refuses_stops_the_start(make: Make) -> None:
    class Strict(Processor):
        class Options(pydantic.BaseModel):
            strict_size: int

    daemon = make(config(save_process="Strict", strict_size="big"))
    daemon.add_processor("Strict", Strict)
    (problem,) = problems(daemon)
    assert problem.startswith("backend_config.strict_size: ")


def test_problems_of_a_config_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.toml"
    path.write_text('[backend_config]\nsave_process = "Nonesuch"\n')
    (problem,) = problems(Daemon.from_file(path))
    assert problem.startswith(f"{path}: backend_config.save_process: ")


def test_what_cannot_be_opened_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.json"

    def problem(**keys: Any) -> str:
        path.write_text(json.dumps({**config(save_process="HeadersParser"), **keys}))
        (line,) = problems(Daemon.from_file(path))
        return line

    nowhere = str(tmp_path / "nowhere" / "file")
    reason = "No such file or directory"
    assert problem(log_file=nowhere) == f"{path}: log_file: {nowhere}: {reason}"
    assert problem(pid_file=nowhere) == f"{path}: pid_file: {nowhere}: {reason}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        servers = [{"listen_interface": "127.0.0.1:0"}, {"listen_interface": where}]
        line = problem(servers=servers)
    assert line.startswith(f"{path}: servers[1].listen_interface: {where}: cannot listen: ")


def test_no_server_at_all_stops_the_start(make: Make) -> None:
    raw = config()
    raw["servers"][0]["is_enabled"] = False
    assert problems(make(raw)) == ("servers: none is enabled",)


def test_a_log_that_cannot_be_written_stops_the_start(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.log"
    (problem,) = problems(make(log_file=str(path)))
    assert problem.startswith(f"log_file: {path}: ")


def test_more_clients_than_files_stop_the_start(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 250))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: limits.append(pair))
    raw = config()
    raw["servers"] = [
        {"listen_interface": f"127.0.0.{host}:0", "max_clients": 100} for host in (1, 2, 3)
    ]
    (problem,) = problems(make(raw))
    assert "300" in problem
    assert "250" in problem
    raw["servers"].pop()
    with make(raw):
        assert limits[-1] == (250, 250)


# Pid file


def test_the_pid_file_lives_as_long_as_the_daemon(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    with make(pid_file=str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        (problem,) = problems(make(pid_file=str(path)))
        assert str(os.getpid()) in problem
        assert str(path) in problem
        assert path.exists()
    assert not path.exists()


def test_a_start_that_fails_leaves_no_pid_file(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        raw = config()
        raw["servers"][0]["listen_interface"] = f"127.0.0.1:{taken.getsockname()[1]}"
        problems(make(raw, pid_file=str(path)))
    assert not path.exists()


def test_the_pid_file_of_a_dead_daemon_is_taken_over(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    path.write_text(f"{os.getppid()}\nand a long rest")
    with make(pid_file=str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_that_cannot_be_written_stops_the_start(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "guerrilla.pid"
    (problem,) = problems(make(pid_file=str(path)))
    assert problem == f"pid_file: {path}: No such file or directory"


def test_a_pid_file_that_could_not_be_written_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "guerrilla.pid"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            PidFile(path)
    assert not path.exists()
    PidFile(path).remove()


def test_the_pid_file_of_another_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.pid"
    first = PidFile(path)
    path.unlink()
    second = PidFile(path)
    first.remove()
    assert path.exists()
    second.remove()
    assert not path.exists()


def test_what_has_stopped_starts_again_with_the_config_of_now(
    make: Make, keeper: type[Keeper], tmp_path: Path
) -> None:
    pid = tmp_path / "main.pid"
    daemon = make(pid_file=str(pid))
    for host in ("one.example.com", "two.example.com"):
        raw = config()
        raw["servers"][0]["host_name"] = host
        daemon.set_config(from_mapping({**raw, "pid_file": str(pid)}))
        with daemon:
            assert send(daemon)[0] == 250
            assert daemon.stats()["messages_accepted"] == 1
            assert keeper.envelopes[-1].host_name == host
            with pytest.raises(RuntimeError, match="runs already"):
                daemon.start()
        assert daemon.wait(0)
        assert not pid.exists()
    assert keeper.did == ["open", "close"] * 2


def test_a_start_that_failed_can_be_tried_again(make: Make, keeper: type[Keeper]) -> None:
    # Where nobody else takes the port that is free meanwhile.
    with socket.create_server(("127.9.2.4", 0)) as taken:
        raw = config()
        raw["servers"][0]["listen_interface"] = f"127.9.2.4:{taken.getsockname()[1]}"
        daemon = make(raw)
        assert len(problems(daemon)) == 1
    with daemon:
        assert send(daemon)[0] == 250
    assert len(keeper.kept) == 1
