"""Another config for a daemon that runs: what takes effect, on whom, and what stays."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.errors import ConfigError
from guerrilla.events import ConfigChange, Event, ServerChange
from tests.certificates import encrypted, self_signed
from tests.daemons import Keeper, Make, config, connect, send, where
from tests.wire import HELLO, TRANSACTION, Wire, until

MAIL = b"From: from@example.org"
GONE = "421 4.3.2 Not accepting mail here any more, please connect again"


@pytest.fixture
def running(make: Make) -> Iterator[Daemon]:
    """A daemon with one server."""
    with make() as daemon:
        yield daemon


Edit = Callable[[dict[str, Any]], object]


def changed(edit: Edit) -> AppConfig:
    """The config of `running`, edited."""
    raw = config()
    edit(raw)
    return from_mapping(raw)


def server(**keys: Any) -> AppConfig:
    """The same with other keys of its server."""
    return changed(lambda raw: raw["servers"][0].update(keys))


def reload(daemon: Daemon, new: AppConfig) -> None:
    """One that succeeds."""
    assert daemon.reload_config(new).failures == ()
    assert daemon.config == new


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def is_closed(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def with_second(port: int, **keys: Any) -> AppConfig:
    second = {"listen_interface": f"127.0.0.1:{port}", "host_name": "mx2.example.com", **keys}
    return changed(lambda raw: raw["servers"].append(second))


# --- Servers --------------------------------------------------------------------------------------


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


def test_a_port_in_use_leaves_the_rest_in_force(running: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        new = with_second(port)
        new = new.model_copy(update={"allowed_hosts": ("other.example",)})
        report = running.reload_config(new)
        assert not report.ok
        (line,) = report.failures
        assert line.startswith("servers[1].listen_interface: cannot listen: Address already in use")
        assert send(running)[0] == 550
        assert send(running, to="to@other.example")[0] == 250
    # The next reload tries again, though nothing has changed.
    assert running.reload_config(new).ok
    with Wire(port) as second:
        assert second.greeting.startswith("220 mx2.example.com ")


# --- What a session obeys -------------------------------------------------------------------------


def test_a_session_obeys_the_new_config_where_it_has_no_transaction(running: Daemon) -> None:
    with connect(running) as idle, connect(running) as busy:
        busy.begin()
        reload(running, server(max_size=100, host_name="other.example.com", max_recipients=1))
        # What began by the old one ends by it.
        assert busy.ask(b"x" * 200 + b"\r\n.\r\n").startswith("250 ")
        for wire in (idle, busy):
            wire.send(HELLO)
            lines = wire.lines()
            assert lines[0] == "250-other.example.com Hello"
            assert "250-SIZE 100" in lines
            assert wire.ask(b"MAIL FROM:<a@b.example> SIZE=101\r\n").startswith("552 ")


def test_max_clients_is_resized_and_drops_nobody(running: Daemon) -> None:
    with connect(running) as first, connect(running) as second:
        reload(running, server(max_clients=1))
        for wire in (first, second):
            assert wire.deliver(MAIL).startswith("250 ")
        with connect(running, greeted=False) as refused:
            assert refused.reply().startswith("421 4.7.0 ")
        reload(running, server(max_clients=3))
        with connect(running) as third:
            assert third.deliver(MAIL).startswith("250 ")


def test_timeout_changes_for_who_is_connected(running: Daemon) -> None:
    with connect(running) as wire:
        reload(running, server(timeout="200ms"))
        assert wire.ask(b"NOOP\r\n").startswith("250 ")
        assert wire.rest() == ["421 4.4.2 Timeout, closing the connection"]


def test_allowed_hosts_change(running: Daemon) -> None:
    with connect(running) as wire:
        reload(running, changed(lambda raw: raw.update(allowed_hosts=["other.example"])))
        wire.send(HELLO + TRANSACTION)
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "550", "554"]


def test_tls_is_turned_on_and_its_certificate_changes(running: Daemon, tmp_path: Path) -> None:
    first = self_signed(tmp_path, "one.example", stem="one")
    second = self_signed(tmp_path, "two.example", stem="two")
    with connect(running) as wire:
        assert wire.ask(b"STARTTLS\r\n").startswith("500 ")
        reload(running, server(tls=first.section()))
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
        with encrypted(wire) as inner:
            reload(running, server(tls=second.section()))
            assert inner.deliver(MAIL).startswith("250 ")
    with connect(running) as wire:
        wire.ask(b"STARTTLS\r\n")
        with encrypted(wire) as inner:
            shown = inner.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            assert shown == second.der()


def test_a_bad_key_leaves_the_old_one_and_the_rest_in_force(
    running: Daemon, tmp_path: Path
) -> None:
    pair = self_signed(tmp_path, stem="good")
    reload(running, server(tls=pair.section()))
    bad = pair.section(private_key_file=str(tmp_path / "missing"))
    report = running.reload_config(server(tls=bad, max_size=100))
    (line,) = report.failures
    assert line.startswith(f"servers[0].tls.private_key_file: {tmp_path}/missing: ")
    with connect(running) as wire:
        wire.send(HELLO)
        assert "250-SIZE 100" in wire.lines()
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
        with encrypted(wire) as inner:
            assert inner.ask(HELLO).startswith("250 ")


# --- Chains ---------------------------------------------------------------------------------------


def backend(**keys: Any) -> AppConfig:
    """The config of `running` with other keys of its backend."""
    return from_mapping(config(**keys))


def test_the_old_chain_serves_until_the_new_one_has_opened(
    running: Daemon, keeper: type[Keeper]
) -> None:
    reload(running, backend(save_process="HeadersParser|Header|Keeper", save_workers_size=2))
    until(lambda: keeper.did.count("close") == 1)
    assert keeper.did == ["open", "open", "open", "close"]
    assert send(running) == (250, send_text(keeper, running))
    assert keeper.envelopes[-1].delivery_header != b""


def send_text(keeper: type[Keeper], running: Daemon) -> bytes:
    """The reply to the mail that was just kept."""
    return f"2.0.0 OK: queued as {keeper.envelopes[-1].queued_id}".encode()


def test_a_mail_in_the_hands_of_the_old_chain_is_answered_by_it(
    running: Daemon, keeper: type[Keeper]
) -> None:
    with connect(running) as wire:
        wire.begin()
        wire.send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(30)
        reload(running, backend(save_batch_size=7))
        assert send(running)[0] == 250
        keeper.release.set()
        assert wire.reply().startswith("250 ")
    until(lambda: keeper.did.count("close") == 1)


def test_a_chain_that_does_not_open_leaves_the_old_one(
    running: Daemon, keeper: type[Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Keeper) -> None:
        raise OSError("no database")

    monkeypatch.setattr(keeper, "open", refuse)
    new = backend(save_workers_size=2)
    new = new.model_copy(update={"allowed_hosts": ("other.example",)})
    report = running.reload_config(new)
    assert report.failures == ("Keeper: OSError: no database",)
    assert running.config.backend_config.save_workers_size == 1
    assert send(running, to="to@other.example")[0] == 250


def test_checks_are_turned_on_and_off(running: Daemon, keeper: type[Keeper]) -> None:
    for process, code in (("Keeper", 550), ("", 250), ("Keeper", 550)):
        reload(running, backend(validate_process=process))
        assert send(running, to="nobody@example.com")[0] == code
    assert len(keeper.kept) == 1


# --- The rest of the daemon -----------------------------------------------------------------------


def test_a_config_that_is_wrong_changes_nothing(running: Daemon) -> None:
    before = running.config
    new = backend(save_process="HeadersParser|Kepper")
    with pytest.raises(ConfigError, match="Kepper"):
        running.reload_config(new)
    assert running.config is before
    assert send(running)[0] == 250


def test_log_and_pid_file_move(running: Daemon, tmp_path: Path) -> None:
    log, pid = tmp_path / "main.log", tmp_path / "main.pid"
    names = {"log_file": str(log), "pid_file": str(pid), "log_level": "debug"}
    reload(running, changed(lambda raw: raw.update(names)))
    assert send(running)[0] == 250
    until(lambda: " connected" in log.read_text())
    assert pid.read_text().strip().isdigit()
    missing = str(tmp_path / "missing" / "file")
    wrong = {**names, "log_file": missing, "pid_file": missing}
    report = running.reload_config(changed(lambda raw: raw.update(wrong)))
    assert [line.partition(":")[0] for line in report.failures] == ["log_file", "pid_file"]
    assert (running.config.log_file, running.config.pid_file) == (str(log), str(pid))
    assert pid.exists()
    reload(running, from_mapping(config()))
    assert not pid.exists()


def test_the_log_of_a_server_and_the_form_change(running: Daemon, tmp_path: Path) -> None:
    main, own = tmp_path / "main.log", tmp_path / "own.log"
    names = {"log_file": str(main), "log_format": "json", "log_level": "info"}
    new = changed(lambda raw: (raw.update(names), raw["servers"][0].update(log_file=str(own))))
    reload(running, new)
    assert send(running)[0] == 250
    until(lambda: '"guerrilla.mail"' in own.read_text())
    assert "guerrilla.mail" not in main.read_text()
    missing = str(tmp_path / "missing" / "own.log")
    report = running.reload_config(
        changed(lambda raw: (raw.update(names), raw["servers"][0].update(log_file=missing)))
    )
    assert report.failures == (f"servers[0].log_file: {missing}: No such file or directory",)
    assert running.config == new


def test_what_a_running_process_cannot_obey_is_told(running: Daemon) -> None:
    report = running.reload_config(changed(lambda raw: raw.update(user="root")))
    assert report.failures == ("user: takes effect at the next start",)
    assert running.config.user is None


def test_memory_for_bodies_is_live(running: Daemon) -> None:
    reload(running, changed(lambda raw: raw.update(max_memory=4 << 20, spill_size=0)))
    assert running.stats()["memory_limit"] == 4 << 20
    reload(running, changed(lambda raw: raw.update(spill_size="64 KiB")))
    with connect(running) as wire:
        assert wire.deliver(b"x" * 990 + (b"\r\n" + b"x" * 990) * 100).startswith("250 ")
    assert running.stats()["spilled"] == 1


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
