"""A reload as those hear it who have subscribed: Go-Guerrilla's events, of a daemon that runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.events import ConfigChange, Event, ServerChange
from tests.certificates import Pair, self_signed
from tests.daemons import Make, config, connect, send
from tests.wire import Wire

FIRST, SECOND, THIRD = (f"127.0.0.{number}:0" for number in (1, 2, 3))
Raw = dict[str, Any]

GO_GUERRILLAS: Final = [event for event in Event if event.partition(":")[0].endswith("_change")]
COMPANIONS: Final = {Event.NEW_CONFIG, Event.SERVER_UPDATE_CONFIG, Event.SERVER_REOPEN_LOG_FILE}
"""They come beside those that say what changed."""


def servers(folder: Path) -> Raw:
    """Three servers, of which the third is disabled; the first has TLS."""
    raw = config()
    tls = self_signed(folder, stem="tls").section()
    raw["servers"] = [
        {"listen_interface": FIRST, "tls": tls},
        {"listen_interface": SECOND, "log_file": "off"},
        {"listen_interface": THIRD, "is_enabled": False},
    ]
    return raw


def of_server(index: int, **keys: Any) -> Callable[[Raw], object]:
    return lambda raw: raw["servers"][index].update(keys)


def at_top(**keys: Any) -> Callable[[Raw], object]:
    return lambda raw: raw.update(keys)


EDITS: Final[dict[Event, tuple[Callable[[Raw], object], str]]] = {
    Event.NEW_CONFIG: (at_top(max_memory="64 MiB"), ""),
    Event.ALLOWED_HOSTS: (at_top(allowed_hosts=["other.example"]), ""),
    Event.PID_FILE: (at_top(pid_file="FOLDER/pid"), ""),
    Event.LOG_FILE: (at_top(log_file="FOLDER/log"), ""),
    Event.LOG_LEVEL: (at_top(log_level="error"), ""),
    Event.BACKEND_CONFIG: (lambda raw: raw["backend_config"].update(save_workers_size=2), ""),
    Event.SERVER_NEW: (lambda raw: raw["servers"].append({"listen_interface": ":0"}), ":0"),
    Event.SERVER_REMOVE: (lambda raw: raw["servers"].pop(1), SECOND),
    Event.SERVER_UPDATE_CONFIG: (of_server(1, max_size=100), SECOND),
    Event.SERVER_START: (of_server(2, is_enabled=True, timeout=7), THIRD),
    Event.SERVER_STOP: (of_server(1, is_enabled=False, max_clients=7), SECOND),
    Event.SERVER_LOG_FILE: (of_server(1, log_file="FOLDER/log"), SECOND),
    Event.SERVER_REOPEN_LOG_FILE: (lambda raw: raw, ""),
    Event.SERVER_TIMEOUT: (of_server(1, timeout=7), SECOND),
    Event.SERVER_MAX_CLIENTS: (of_server(1, max_clients=7), SECOND),
    Event.SERVER_TLS_CONFIG: (of_server(0, tls={}), FIRST),
}
"""What changes for each event, and the server that it is about."""


def hear(daemon: Daemon) -> list[tuple[Event, Any]]:
    """What is heard from now on, each time with the new config in force."""
    heard: list[tuple[Event, Any]] = []

    def handler(event: Event, payload: ConfigChange | ServerChange) -> None:
        if isinstance(payload, ConfigChange):
            assert daemon.config == payload.new
        elif payload.new is not None:
            assert payload.new in daemon.config.servers
        heard.append((event, payload))

    for event in GO_GUERRILLAS:
        daemon.subscribe(event, partial(handler, event))
    return heard


def edited(folder: Path, raw: Raw, edit: Callable[[Raw], object]) -> Raw:
    edit(raw)
    for table in (raw, *raw["servers"]):
        for key, value in table.items():
            if isinstance(value, str):
                table[key] = value.replace("FOLDER", str(folder))
    return raw


def test_there_is_an_edit_for_each_event_of_a_reload() -> None:
    assert {*EDITS, Event.REOPEN_LOG_FILE} == set(GO_GUERRILLAS)


@pytest.mark.parametrize("event", EDITS)
def test_a_difference_is_published_once_it_is_in_force(
    make: Make, tmp_path: Path, event: Event
) -> None:
    raw = servers(tmp_path)
    daemon = make(raw)
    heard = hear(daemon)  # before the start is as good as after it
    with daemon:
        old = daemon.config
        edit, name = EDITS[event]
        new = from_mapping(edited(tmp_path, raw, edit))
        report = daemon.reload_config(new)
        assert report.ok
        assert heard == [(change.event, change.payload) for change in report.changes]
        assert {found for found, _ in heard} - COMPANIONS == {event} - COMPANIONS
        payloads = [payload for found, payload in heard if found is event]
        if event is Event.SERVER_REOPEN_LOG_FILE:
            assert [payload.name for payload in payloads] == [FIRST, SECOND, THIRD]
        elif event.startswith("config_change:"):
            assert payloads == [ConfigChange(old, new)]
        else:
            by_name = [{s.listen_interface: s for s in one.servers} for one in (old, new)]
            assert payloads == [ServerChange(name, *(one.get(name) for one in by_name))]


def test_logs_that_are_opened_anew_are_told_of(make: Make, tmp_path: Path) -> None:
    daemon = make(servers(tmp_path))
    heard = hear(daemon)
    daemon.reopen_logs()
    assert heard == []  # nothing was open
    with daemon:
        daemon.reopen_logs()
    assert [(event, getattr(payload, "name", "")) for event, payload in heard] == [
        (Event.REOPEN_LOG_FILE, ""),
        *((Event.SERVER_REOPEN_LOG_FILE, name) for name in (FIRST, SECOND, THIRD)),
    ]


def test_new_content_of_a_key_file_is_a_change_of_tls(make: Make, tmp_path: Path) -> None:
    """Though no key of the config differs; of the servers that have the files, and of no other."""
    one, two = self_signed(tmp_path, stem="one"), self_signed(tmp_path, stem="two")
    live = Pair(tmp_path / "live.key", tmp_path / "live.crt")
    live.become(one)
    raw = config()
    raw["servers"] = [
        {"listen_interface": FIRST, "tls": live.section()},
        {"listen_interface": SECOND, "tls": one.section()},
    ]
    with make(raw) as daemon:
        heard = hear(daemon)
        live.become(two)
        assert daemon.reload_config(from_mapping(raw)).ok
        assert [payload.name for event, payload in heard if event is Event.SERVER_TLS_CONFIG] == [
            FIRST
        ]
        heard.clear()
        assert daemon.reload_config(from_mapping(raw)).ok
        assert {event for event, _ in heard} == {Event.SERVER_REOPEN_LOG_FILE}


def test_a_config_that_is_wrong_publishes_nothing(make: Make, tmp_path: Path) -> None:
    raw = servers(tmp_path)
    with make(raw) as daemon:
        heard = hear(daemon)
        raw["allowed_hosts"] = ["other.example"]
        raw["backend_config"]["save_process"] = "Kepper"
        with pytest.raises(ValueError, match="Kepper"):
            daemon.reload_config(from_mapping(raw))
        assert heard == []
        assert send(daemon)[0] == 250


def test_a_time_limit_of_one_server_is_not_that_of_another(make: Make, tmp_path: Path) -> None:
    raw = servers(tmp_path)
    with make(raw) as daemon:
        other = Wire(daemon.addresses[1])
        with connect(daemon) as wire, other:
            raw["servers"][0]["timeout"] = "200ms"
            assert daemon.reload_config(from_mapping(raw)).ok
            for client in (wire, other):
                assert client.ask(b"NOOP\r\n").startswith("250 ")
            assert wire.rest() == ["421 4.4.2 Timeout, closing the connection"]
            assert other.ask(b"NOOP\r\n").startswith("250 ")


def test_what_cannot_start_stays_and_the_log_says_why(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = servers(tmp_path)
    with make(raw) as daemon, caplog.at_level(logging.ERROR, "guerrilla.reload"):
        raw["servers"][0]["tls"]["private_key_file"] = str(tmp_path / "missing.key")
        raw["backend_config"]["save_process"] = "Keeper|SQL"
        raw["backend_config"]["sql_dsn"] = str(tmp_path / "missing" / "mail.db")
        failures = daemon.reload_config(from_mapping(raw)).failures
        assert len(failures) == 2
        said = [r.getMessage() for r in caplog.records if r.name == "guerrilla.reload"]
        assert said == [f"{failure}; what was there before stays" for failure in failures]
        assert send(daemon)[0] == 250
        with connect(daemon) as wire:
            assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
