"""Another config for a daemon that runs: its servers, its file, and what stays."""

from __future__ import annotations

import json
import logging
import socket
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.errors import ConfigError
from guerrilla.events import ConfigChange, Event, ServerChange
from tests.daemons import Keeper, Make, config, connect, send, where
from tests.reloads import (
    MAIL,
    backend,
    changed,
    is_closed,
    reload,
    server,
    shows,
    with_second,
)
from tests.services.base import free_port
from tests.wire import HELLO, Wire, until

GONE = "421 4.3.2 Not accepting mail here any more, please connect again"

# --- Servers --------------------------------------------------------------------------------------


@shows("at once", "servers[]")
def test_a_server_is_added_and_removed_while_another_serves(
    running: Daemon, keeper: type[Keeper]
) -> None:
    port = free_port()
    with connect(running) as first:
        reload(running, with_second(port))
        assert running.addresses[1] == f"127.0.0.1:{port}"
        with Wire(port) as second:
            assert second.greeting.startswith("220 mx2.example.com ")
            assert second.deliver(MAIL).startswith("250 ")
            reload(running, from_mapping(config()))
            assert second.rest() == [GONE]
        assert is_closed(port)
        assert len(running.addresses) == 1
        assert first.deliver(MAIL).startswith("250 ")
    assert len(keeper.kept) == 2


def test_servers_of_the_same_port_0_keep_their_ports(make: Make, tmp_path: Path) -> None:
    def raw(*hosts: str, **keys: Any) -> dict[str, Any]:
        """A server for each of these names, all of the same `listen_interface`."""
        found = config()
        base = found["servers"][0]
        found["servers"] = [base | {"host_name": host} for host in hosts]
        found["servers"][-1] |= keys
        return found

    log = tmp_path / "second.log"
    with make(raw("one.example", "two.example", log_file=str(log), max_clients=1)) as daemon:
        ports = [where(daemon, index)[1] for index in range(2)]
        assert ports[0] != ports[1]
        with connect(daemon) as first, Wire(ports[1]) as second:
            assert first.greeting.startswith("220 one.example ")
            assert second.greeting.startswith("220 two.example ")
            with Wire(ports[1], greeted=False) as refused:
                assert refused.reply().startswith("421 4.7.0 ")
            shown = daemon.status()["servers"]
            assert [(one["name"], one["clients"], one["max_clients"]) for one in shown] == [
                ("127.0.0.1:0", 1, 100),
                ("127.0.0.1:0#2", 1, 1),
            ]
            until(lambda: log.exists() and "127.0.0.1:0#2: refused" in log.read_text())
            reload(daemon, from_mapping(raw("one.example", "2.example", "three.example")))
            assert [where(daemon, index)[1] for index in range(2)] == ports
            assert len(set(daemon.addresses)) == 3
            second.send(HELLO)
            assert second.lines()[0].startswith("250-2.example")
            # The last goes; those before stay.
            reload(daemon, from_mapping(raw("one.example")))
            assert second.rest() == [GONE]
            assert daemon.addresses == [f"127.0.0.1:{ports[0]}"]
            assert is_closed(ports[1])
            assert first.deliver(MAIL).startswith("250 ")


def test_a_problem_of_the_second_server_of_a_port_0_is_told_of_it(running: Daemon) -> None:
    files = {"private_key_file": "/nowhere/key", "public_key_file": "/nowhere/crt"}
    second = config()["servers"][0] | {"tls": {"start_tls_on": True, **files}}
    report = running.reload_config(changed(lambda raw: raw["servers"].append(second)))
    assert len(report.failures) == 2
    assert all(line.startswith("servers[1].tls.") for line in report.failures)
    assert len(running.addresses) == 1


@shows("at once", "servers[].is_enabled")
def test_a_session_of_a_server_that_goes_finishes_its_transaction(
    running: Daemon, keeper: type[Keeper]
) -> None:
    port = free_port()
    reload(running, with_second(port))
    with Wire(port) as wire:
        wire.begin()
        reload(running, with_second(port, is_enabled=False))
        wire.send(MAIL + b"\r\n.\r\n")
        stored, gone = wire.rest()
        assert stored.startswith("250 2.0.0 ")
        assert gone == GONE
    assert keeper.kept == [MAIL + b"\r\n"]
    reload(running, with_second(port))
    with Wire(port) as again:
        assert again.deliver(MAIL).startswith("250 ")


@shows("at once", "servers[].unix_mode")
def test_who_may_connect_to_a_unix_socket(make: Make, tmp_path: Path) -> None:
    """The file stays, and nobody is dropped; a link that took its place is left alone."""
    path, other = tmp_path / "mail.sock", tmp_path / "other"

    def raw(mode: str | None) -> dict[str, Any]:
        found = config()
        found["servers"][0] |= {"listen_interface": f"unix:{path}", "unix_mode": mode}
        return found

    def mode() -> int:
        return stat.S_IMODE(path.lstat().st_mode)

    with make(raw("0600")) as daemon, Wire(f"unix:{path}") as wire:
        assert mode() == 0o600
        for told, found in (("666", 0o666), ("0660", 0o660), (None, 0o660)):
            reload(daemon, from_mapping(raw(told)))
            assert mode() == found
        assert wire.deliver(MAIL).startswith("250 ")
        path.unlink()
        other.touch(0o600)
        path.symlink_to(other)
        reload(daemon, from_mapping(raw("0666")))
        assert stat.S_IMODE(other.stat().st_mode) == 0o600


@shows("at once", "servers[].listen_interface")
def test_a_server_that_moves_to_all_addresses_takes_the_port_from_itself(make: Make) -> None:
    port = free_port()

    def at(interface: str) -> dict[str, Any]:
        raw = config()
        raw["servers"][0]["listen_interface"] = interface
        return raw

    with make(at(f"127.0.0.1:{port}")) as daemon, Wire(port) as old:
        reload(daemon, from_mapping(at(f"0.0.0.0:{port}")))
        assert daemon.addresses == [f"0.0.0.0:{port}"]
        assert old.rest() == [GONE]
        with Wire(port) as new:
            assert new.deliver(MAIL).startswith("250 ")


def test_a_name_that_nobody_knows_leaves_the_server_where_it_listens(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not closed and bound again: who waits would be reset, and below 1024 it takes root."""
    real = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **keys: Any) -> Any:
        if host == "mx.nowhere.example":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *rest, **keys)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    raw = config()
    with make(raw) as daemon, connect(daemon) as old:
        before = daemon.addresses
        moved = config()
        moved["servers"][0] |= {"listen_interface": "mx.nowhere.example:0", "host_name": "new"}
        moved["allowed_hosts"] = ["other.example"]
        report = daemon.reload_config(from_mapping(moved))
        (line,) = report.failures
        assert line.startswith("servers[0].listen_interface: host 'mx.nowhere.example' does not")
        assert daemon.addresses == before
        assert daemon.config.servers == from_mapping(raw).servers
        assert daemon.config.allowed_hosts == ("other.example",)
        assert old.ask(HELLO).startswith("250 ")


def test_a_port_in_use_leaves_the_rest_in_force(running: Daemon) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        new = with_second(port)
        new = new.model_copy(update={"allowed_hosts": ("other.example",)})
        report = running.reload_config(new)
        assert not report.ok
        (line,) = report.failures
        assert line.startswith("servers[1].listen_interface: cannot listen: Address already in use")
        # What it tells is what is in force.
        assert Event.SERVER_NEW not in {change.event for change in report.changes}
        assert [server["name"] for server in running.status()["servers"]] == ["127.0.0.1:0"]
        assert send(running)[0] == 550
        assert send(running, to="to@other.example")[0] == 250
    # The next reload tries again, though nothing has changed.
    report = running.reload_config(new)
    assert report.ok
    assert Event.SERVER_NEW in {change.event for change in report.changes}
    assert running.config == new
    with Wire(port) as second:
        assert second.greeting.startswith("220 mx2.example.com ")


def test_a_server_that_cannot_move_stays_where_it_is(running: Daemon, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        there = f"127.0.0.1:{taken.getsockname()[1]}"
        own = tmp_path / "own.log"
        moved = {"listen_interface": there, "log_file": str(own), "host_name": "moved.example.com"}
        report = running.reload_config(server(**moved))
        (line,) = report.failures
        assert line.startswith("servers[0].listen_interface: cannot listen: ")
        assert {change.event for change in report.changes} == {Event.SERVER_REOPEN_LOG_FILE}
        assert running.config == from_mapping(config())
        with connect(running) as wire:
            assert wire.greeting.startswith("220 mx.example.com ")
            assert wire.deliver(MAIL).startswith("250 ")
        assert own.read_text() == ""
    assert running.reload_config(server(**moved)).ok
    assert running.addresses == [there]


def test_a_server_that_cannot_be_enabled_stays_disabled(running: Daemon) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        reload(running, with_second(port, is_enabled=False))
        before = running.config
        report = running.reload_config(with_second(port, max_size=100))
        assert len(report.failures) == 1
        assert running.config == before
        assert Event.SERVER_START not in {change.event for change in report.changes}
    report = running.reload_config(with_second(port, max_size=100))
    assert report.ok
    assert Event.SERVER_START in {change.event for change in report.changes}


# --- The rest of the daemon -----------------------------------------------------------------------


def test_a_config_that_is_wrong_changes_nothing(running: Daemon) -> None:
    before = running.config
    new = backend(save_process="HeadersParser|Kepper")
    with pytest.raises(ConfigError, match="Kepper"):
        running.reload_config(new)
    assert running.config is before
    assert send(running)[0] == 250


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (("allowed_hosts", ["*.[a"]), "allowed_hosts: "),
        (("trusted_proxies", ["fe80::1%lo"]), "servers[0].trusted_proxies: "),
    ],
)
def test_a_config_that_the_core_refuses_changes_nothing(
    running: Daemon, keeper: type[Keeper], tmp_path: Path, wrong: tuple[str, Any], place: str
) -> None:
    """Not even the log, the pid file or the chains, which a reload replaces before the core."""
    before = running.config
    raw = config(save_workers_size=2)
    raw |= {"log_file": str(tmp_path / "own"), "pid_file": str(tmp_path / "pid")}
    raw["servers"][0] |= {"log_file": str(tmp_path / "server"), "host_name": "new.example"}
    key, value = wrong
    (raw if key in raw else raw["servers"][0])[key] = value
    with pytest.raises(ConfigError) as caught:
        running.reload_config(from_mapping(raw))
    (line,) = caught.value.problems
    assert line.startswith(place)
    assert list(tmp_path.iterdir()) == []
    assert running.config is before
    assert keeper.did == ["open"]
    with connect(running) as wire:
        assert wire.greeting.startswith("220 mx.example.com ")


def test_a_file_that_is_wrong_does_not_become_the_file_of_the_daemon(
    make: Make, tmp_path: Path
) -> None:
    """The next reload reads the one that it runs by."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(config(save_process="Keeper")))
    bad.write_text(json.dumps(config(save_process="Kepper")))
    daemon = make()
    daemon.load_config(good)
    with daemon:
        with pytest.raises(ConfigError, match=r"bad\.json: .*Kepper"):
            daemon.reload_config_file(bad)
        assert daemon.config_file == good
        assert daemon.reload_config_file().ok


def test_a_chain_that_stores_nothing_is_warned_of_at_a_reload_too(
    running: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report = running.reload_config(backend(save_process="HeadersParser"))
    (warning,) = report.warnings
    assert "stores" in warning
    assert warning in caplog.messages
    assert running.warnings() == [warning]
    assert running.reload_config(from_mapping(config())).warnings == ()


def test_what_changed_is_published_behind_the_change(running: Daemon) -> None:
    heard: list[tuple[str, object]] = []

    def hear(event: str, payload: object) -> None:
        heard.append((event, payload))

    for event in (Event.ALLOWED_HOSTS, Event.SERVER_TIMEOUT, Event.SERVER_NEW):
        running.subscribe(event, partial(hear, event))
    port = free_port()
    new = with_second(port).model_copy(update={"allowed_hosts": (".",)})
    report = running.reload_config(new)
    first, second = (payload for _, payload in heard)
    assert isinstance(first, ConfigChange)
    assert first.new.allowed_hosts == (".",)
    assert isinstance(second, ServerChange)
    assert second.name == f"127.0.0.1:{port}"
    events = [str(change.event) for change in report.changes]
    assert [event for event in events if "reopen" not in event] == [
        "config_change:new_config",
        "config_change:allowed_hosts",
        "server_change:new_server",
    ]


def test_before_start_and_after_the_end_there_is_nothing_to_reload(make: Make) -> None:
    daemon = make()
    with pytest.raises(RuntimeError, match="runs"):
        daemon.reload_config(from_mapping(config()))
    daemon.set_config(server(host_name="set.example.com"))
    daemon.start()
    with connect(daemon) as wire:
        assert wire.greeting.startswith("220 set.example.com ")
    with pytest.raises(RuntimeError, match="reload_config"):
        daemon.set_config(daemon.config)
    daemon.shutdown()
    with pytest.raises(RuntimeError, match="runs"):
        daemon.reload_config(from_mapping(config()))


def test_a_file_is_read_again(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.toml"
    text = """
allowed_hosts = ["example.com"]
log_file = "off"
[[servers]]
listen_interface = "127.0.0.1:0"
host_name = "one.example.com"
[backend_config]
save_process = "Keeper"
"""
    path.write_text(text)
    daemon = make()
    daemon.load_config(path)
    with daemon:
        path.write_text(text.replace("one.", "two."))
        assert daemon.reload_config_file().ok
        with connect(daemon) as wire:
            assert wire.greeting.startswith("220 two.example.com ")
        path.write_text(text.replace("allowed_hosts", "alowed_hosts"))
        with pytest.raises(ConfigError, match="alowed_hosts"):
            daemon.reload_config_file()
        assert where(daemon)[1] > 0


@shows("at once", "watch_config")
def test_a_changed_file_is_read_by_itself(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "guerrilla.toml"

    def write(host: str, *, watch: bool) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(
            f"""
log_file = "off"
watch_config = {str(watch).lower()}
[[servers]]
listen_interface = "127.0.0.1:0"
host_name = "{host}"
[backend_config]
save_process = "Keeper"
"""
        )
        fresh.replace(path)

    def greets(host: str) -> bool:
        with connect(daemon) as wire:
            return wire.greeting.startswith(f"220 {host} ")

    write("one.example.com", watch=False)
    daemon = make()
    daemon.load_config(path)
    with daemon:
        write("two.example.com", watch=True)
        assert greets("one.example.com")
        assert daemon.reload_config_file().ok
        write("three.example.com", watch=False)
        until(lambda: greets("three.example.com"))
        other = tmp_path / "other.toml"
        path.replace(other)
        write("four.example.com", watch=True)  # which nobody looks at now
        other.write_text(path.read_text().replace("four", "five"))
        assert daemon.reload_config_file(other).ok
        assert greets("five.example.com")
        other.write_text(path.read_text().replace("four", "six"))
        until(lambda: greets("six.example.com"))
