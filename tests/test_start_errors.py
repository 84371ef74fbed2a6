"""`guerrillad serve` with a config it cannot serve: one line that says what and where, exit 1."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import RunningDaemon

TIMEOUT = 60.0
"""Seconds a start may take to fail, a name that is looked up among them."""

LISTEN = {"servers": [{"listen_interface": "127.0.0.1:0"}]}


def refused(folder: Path, config: Path) -> list[str]:
    """Serves with that config, which must fail; what it said, without the program's name."""
    done = subprocess.run(
        [sys.executable, "-m", "guerrilla", "serve", "-c", os.fspath(config)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("guerrillad: ") for line in lines), lines
    return [line.removeprefix("guerrillad: ") for line in lines]


def write(folder: Path, text: str | bytes, name: str = "guerrilla.json") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def config(**keys: Any) -> str:
    return json.dumps({**LISTEN, "log_file": "off", **keys})


# --- The file -------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing.toml"
    assert refused(tmp_path, path) == [f"{path}: no such file"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    # Not a matter of modes, which do not hold for root.
    path = tmp_path / "guerrilla.toml"
    path.mkdir()
    (line,) = refused(tmp_path, path)
    assert line.startswith(f"{path}: ")
    assert "directory" in line.lower()


def test_a_link_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.toml"
    path.symlink_to(path)
    (line,) = refused(tmp_path, path)
    assert line.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("guerrilla.json", '{"servers": [}', "line 1"),
        ("guerrilla.json", "", "JSON"),
        ("guerrilla.json", "[]", "guerrilla.json: "),
        ("guerrilla.json", "\0\0", "guerrilla.json: "),
        ("guerrilla.json", b"\xff\xfe{}", "UTF-8"),
        ("guerrilla.toml", "servers = [\n\n", "line 3"),
        ("guerrilla.toml", 'log_level = "info"\nlog_level = "debug"\n', "line 2"),
        ("guerrilla.toml", "[servers\n", "line 1"),
        ("guerrilla.toml", b"a = '\xff'", "UTF-8"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, name: str, text: str | bytes, part: str) -> None:
    path = write(tmp_path, text, name)
    (line,) = refused(tmp_path, path)
    assert line.startswith(f"{path}: ")
    assert part in line


# --- Keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"log_levle": "info"}, ["log_levle", "unknown key", "'log_level'"]),
        (
            {"servers": [{"listen_interface": "127.0.0.1:0", "max_client": 3}]},
            ["servers[0].max_client", "unknown key", "'max_clients'"],
        ),
        ({"backend_config": {"sql_dns": "x"}}, ["backend_config.sql_dns", "'sql_dsn'"]),
        ({"max_memory": [1]}, ["max_memory", "a size such as", "a list"]),
        ({"log_level": "loud"}, ["log_level", "debug, info", "'loud'"]),
        ({"allowed_hosts": {"a": 1}}, ["allowed_hosts"]),
        (
            {"servers": [{"listen_interface": "127.0.0.1:0", "timeout": "soon"}]},
            ["servers[0].timeout", "a duration such as", "'soon'"],
        ),
        (
            {"servers": [{"listen_interface": "127.0.0.1:99999"}]},
            ["servers[0].listen_interface", "port", "99999"],
        ),
        (
            {"backend_config": {"save_workers_size": "many"}},
            ["backend_config.save_workers_size", "'many'"],
        ),
        (
            {"backend_config": {"save_process": "HeadersParser|Shuot"}},
            ["backend_config.save_process", "Shuot"],
        ),
        (
            {"backend_config": {"validate_process": "Nobody"}},
            ["backend_config.validate_process", "Nobody"],
        ),
        ({"backend_config": {"import": ["not_there"]}}, ["backend_config.import", "not_there"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_key_that_is_wrong(tmp_path: Path, keys: dict[str, Any], parts: list[str]) -> None:
    path = write(tmp_path, config(**keys))
    (line,) = refused(tmp_path, path)
    assert line.startswith(f"{path}: ")
    assert [part for part in parts if part not in line] == [], line


def test_every_key_that_asks_for_what_is_not_built(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        config(
            dashboard={"is_enabled": True},
            metrics={"listen_interface": "127.0.0.1:0"},
        ),
    )
    lines = refused(tmp_path, path)
    assert all("not built" in line for line in lines), lines
    keys = sorted(line.removeprefix(f"{path}: ").partition(":")[0] for line in lines)
    assert keys == [
        "dashboard",
        "metrics",
    ]


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import sys; sys.exit('bye')", "SystemExit"),
    ],
)
def test_a_module_that_fails_on_import(tmp_path: Path, code: str, part: str) -> None:
    (tmp_path / "broken.py").write_text(f"{code}\n", encoding="utf-8")
    path = write(tmp_path, config(backend_config={"import": ["broken"]}))
    (line,) = refused(tmp_path, path)
    assert line.startswith(f"{path}: backend_config.import")
    assert "broken" in line
    assert part in line


def test_a_processor_that_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "closed.py").write_text(
        "import guerrilla\n"
        "@guerrilla.processor('Closed')\n"
        "class Closed(guerrilla.Processor):\n"
        "    def open(self):\n"
        "        raise OSError('the door is locked')\n",
        encoding="utf-8",
    )
    backend = {"import": ["closed"], "save_process": "Closed", "save_workers_size": 3}
    (line,) = refused(tmp_path, write(tmp_path, config(backend_config=backend)))
    assert "Closed: OSError: the door is locked" in line


# --- Listeners ------------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    servers = [{"listen_interface": "nonexistent.invalid:2525"}]
    path = write(tmp_path, config(servers=servers))
    (line,) = refused(tmp_path, path)
    assert line.startswith(f"{path}: servers[0].listen_interface: ")
    assert "nonexistent.invalid" in line


def test_every_listener_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no socket", encoding="utf-8")
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for taken in (first, second):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ports.append(taken.getsockname()[1])
        failing = [
            f"127.0.0.1:{ports[0]}",
            f"127.0.0.1:{ports[1]}",
            f"unix:{tmp_path}/file",
            f"unix:{tmp_path}/no/folder",
        ]
        servers = [{"listen_interface": name} for name in ["127.0.0.1:0", *failing]]
        lines = refused(tmp_path, write(tmp_path, config(servers=servers)))
    assert len(lines) == len(failing)
    for name, line in zip(failing, lines, strict=True):
        assert name in line


def test_a_name_that_does_not_resolve_hides_no_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failing = ["nonexistent.invalid:2525", f"127.0.0.1:{taken.getsockname()[1]}"]
        names = [f"unix:{tmp_path}/mail.sock", *failing]
        servers = [{"listen_interface": name} for name in names]
        path = write(tmp_path, config(servers=servers))
        lines = refused(tmp_path, path)
    assert len(lines) == len(failing)
    for index, (name, line) in enumerate(zip(failing, lines, strict=True), 1):
        assert line.startswith(f"{path}: servers[{index}].listen_interface: ")
        assert name.removesuffix(":2525") in line
    assert not (tmp_path / "mail.sock").exists()


def test_a_second_daemon_names_the_port_and_the_first_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    with RunningDaemon(folder) as daemon:
        servers = [{"listen_interface": daemon.addresses[0]}]
        (line,) = refused(tmp_path, write(tmp_path, config(servers=servers)))
        assert daemon.addresses[0] in line
        assert "in use" in line
        with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
            assert client.recv(4) == b"220 "


def test_a_start_that_fails_leaves_no_socket_file(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = [f"unix:{tmp_path}/mail.sock", f"127.0.0.1:{taken.getsockname()[1]}"]
        servers = [{"listen_interface": name} for name in names]
        (line,) = refused(tmp_path, write(tmp_path, config(servers=servers)))
    assert names[1] in line
    assert not (tmp_path / "mail.sock").exists()
