"""What a reload publishes: Go-Guerrilla's events, order and rules, and where ours differ."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerrilla.config import AppConfig, from_mapping
from guerrilla.config.diff import changes
from guerrilla.events import Change, ConfigChange, Event, ServerChange

A, B, C = "127.0.0.1:2525", "127.0.0.1:2526", "127.0.0.1:2527"
KEYS = {"private_key_file": "a.key", "public_key_file": "a.crt"}


def config(*servers: dict[str, Any], **keys: Any) -> AppConfig:
    """A config with these servers, each with an own `listen_interface` if it names none."""
    tables = [
        {"host_name": "mx", "listen_interface": name} | server
        for name, server in zip((A, B, C), servers or ({},), strict=False)
    ]
    return from_mapping({"allowed_hosts": ["example.com"], "servers": tables, **keys})


def names(old: AppConfig, new: AppConfig, tls_changed: Collection[str] = ()) -> list[str]:
    """The events without what comes each time: server logs that are opened anew."""
    found = changes(old, new, tls_changed=tls_changed)
    return [change.event for change in found if change.event is not Event.SERVER_REOPEN_LOG_FILE]


def lines(old: AppConfig, new: AppConfig, tls_changed: Collection[str] = ()) -> list[str]:
    return [str(change) for change in changes(old, new, tls_changed=tls_changed)]


def test_equal_configs_only_open_the_logs_of_servers_anew() -> None:
    one = config({}, {"log_file": "b.log"})
    assert changes(one, config({}, {"log_file": "b.log"})) == [
        Change(Event.SERVER_REOPEN_LOG_FILE, ServerChange(server.listen_interface, server, server))
        for server in one.servers
    ]


@pytest.mark.parametrize(
    ("keys", "event"),
    [
        ({"allowed_hosts": ["example.net"]}, Event.ALLOWED_HOSTS),
        ({"pid_file": "other.pid"}, Event.PID_FILE),
        ({"log_file": "other.log"}, Event.LOG_FILE),
        ({"log_level": "error"}, Event.LOG_LEVEL),
    ],
)
def test_a_key_of_the_config_has_its_event(keys: dict[str, Any], event: Event) -> None:
    old, new = config(), config(**keys)
    assert names(old, new) == [Event.NEW_CONFIG, event]
    (change,) = [change for change in changes(old, new) if change.event is event]
    assert change.payload == ConfigChange(old, new)


def test_the_backend_comes_before_the_config() -> None:
    old = config(backend_config={"save_process": "Debugger"})
    new = config(backend_config={"save_process": "SQL"})
    assert names(old, new) == [Event.BACKEND_CONFIG, Event.NEW_CONFIG]


def test_a_processors_key_is_a_change_of_the_backend() -> None:
    old = config(backend_config={"sql_dsn": "a.db"})
    new = config(backend_config={"sql_dsn": "b.db"})
    assert names(old, new) == [Event.BACKEND_CONFIG, Event.NEW_CONFIG]


def test_another_backend_is_a_change_of_the_backend() -> None:
    new = config(backends={"slow": {"save_process": "SQL"}})
    assert names(config(), new) == [Event.BACKEND_CONFIG, Event.NEW_CONFIG]


def test_a_key_without_an_event_of_its_own_is_a_new_config() -> None:
    assert names(config(), config(max_memory="64 MiB")) == [Event.NEW_CONFIG]


def test_everything_at_once_comes_in_go_guerrillas_order() -> None:
    old = config({}, {}, {})
    new = config(
        {
            "log_file": "a.log",
            "timeout": 5,
            "max_clients": 7,
            "tls": {"start_tls_on": True, **KEYS},
        },
        {"listen_interface": "127.0.0.1:9999"},
        {"is_enabled": False},
        allowed_hosts=["."],
        pid_file="p",
        log_file="l",
        log_level="error",
        backend_config={"save_process": "SQL"},
    )
    found = [(c.event, getattr(c.payload, "name", "")) for c in changes(old, new)]
    assert found == [
        (Event.BACKEND_CONFIG, ""),
        (Event.NEW_CONFIG, ""),
        (Event.ALLOWED_HOSTS, ""),
        (Event.PID_FILE, ""),
        (Event.LOG_FILE, ""),
        (Event.LOG_LEVEL, ""),
        (Event.SERVER_UPDATE_CONFIG, A),
        (Event.SERVER_LOG_FILE, A),
        (Event.SERVER_TIMEOUT, A),
        (Event.SERVER_MAX_CLIENTS, A),
        (Event.SERVER_TLS_CONFIG, A),
        (Event.SERVER_NEW, "127.0.0.1:9999"),
        (Event.SERVER_UPDATE_CONFIG, C),
        (Event.SERVER_STOP, C),
        (Event.SERVER_REMOVE, B),
    ]


@pytest.mark.parametrize(
    ("keys", "events"),
    [
        ({"timeout": 5}, [Event.SERVER_TIMEOUT]),
        ({"max_clients": 7}, [Event.SERVER_MAX_CLIENTS]),
        ({"log_file": "a.log"}, [Event.SERVER_LOG_FILE]),
        ({"tls": {"start_tls_on": True, **KEYS}}, [Event.SERVER_TLS_CONFIG]),
        ({"max_size": 5}, []),
        ({"trusted_proxies": ["10.0.0.1"]}, []),
        ({"host_name": "other"}, []),
    ],
)
def test_a_key_of_a_server_has_its_event(keys: dict[str, Any], events: list[Event]) -> None:
    old, new = config({}, {}), config(keys, {})
    assert names(old, new) == [Event.NEW_CONFIG, Event.SERVER_UPDATE_CONFIG, *events]
    for change in changes(old, new)[1:-1]:
        assert change.payload == ServerChange(A, old.servers[0], new.servers[0])


def test_a_log_file_that_changed_is_not_opened_anew_as_well() -> None:
    old, new = config({}, {}), config({"log_file": "a.log"}, {})
    reopened = [
        change.payload.name
        for change in changes(old, new)
        if change.event is Event.SERVER_REOPEN_LOG_FILE and isinstance(change.payload, ServerChange)
    ]
    assert reopened == [B]


@pytest.mark.parametrize("is_enabled", [True, False])
def test_enabling_drops_the_servers_other_events(*, is_enabled: bool) -> None:
    """It starts with the whole new config, which the payload has."""
    old = config({"is_enabled": not is_enabled}, {})
    new = config({"is_enabled": is_enabled, "timeout": 5, "max_clients": 7, "log_file": "x"}, {})
    found = [change for change in changes(old, new) if getattr(change.payload, "name", "") == A]
    event = Event.SERVER_START if is_enabled else Event.SERVER_STOP
    assert [change.event for change in found] == [Event.SERVER_UPDATE_CONFIG, event]
    assert found[1].payload == ServerChange(A, old.servers[0], new.servers[0])


def test_a_server_that_moves_is_another_one() -> None:
    old, new = config({}), config({"listen_interface": B})
    assert names(old, new) == [Event.NEW_CONFIG, Event.SERVER_NEW, Event.SERVER_REMOVE]
    _, added, removed = changes(old, new)
    assert added.payload == ServerChange(B, None, new.servers[0])
    assert removed.payload == ServerChange(A, old.servers[0], None)


def test_servers_are_matched_by_where_they_listen_not_by_their_place() -> None:
    old = config({}, {"listen_interface": B, "timeout": 5})
    new = config({"listen_interface": B, "timeout": 5}, {"listen_interface": A})
    assert names(old, new) == [Event.NEW_CONFIG]


def test_servers_of_the_same_port_0_are_matched_by_their_order() -> None:
    where = {"listen_interface": "127.0.0.1:0"}
    old = config(where, where)
    new = config(where, where | {"timeout": 60}, where)
    first, *found = (line for line in lines(old, new) if "reopen" not in line)
    assert first == (
        "config_change:new_config: servers "
        '["127.0.0.1:0", "127.0.0.1:0#2"] -> ["127.0.0.1:0", "127.0.0.1:0#2", "127.0.0.1:0#3"]'
    )
    assert found == [
        "server_change:update_config 127.0.0.1:0#2: timeout 30 -> 60",
        "server_change:timeout 127.0.0.1:0#2: timeout 30 -> 60",
        "server_change:new_server 127.0.0.1:0#3",
    ]
    assert lines(new, old)[-1] == "server_change:remove_server 127.0.0.1:0#3"


def test_a_key_file_that_changed_is_a_change_of_tls() -> None:
    one = config({"tls": {"start_tls_on": True, **KEYS}}, {})
    assert names(one, one, tls_changed=[A]) == [
        Event.NEW_CONFIG,
        Event.SERVER_UPDATE_CONFIG,
        Event.SERVER_TLS_CONFIG,
    ]
    assert names(one, one, tls_changed=["127.0.0.1:1"]) == []


def test_a_change_names_key_and_values() -> None:
    old = config({"timeout": 30}, log_level="debug", spill_size=1)
    new = config({"timeout": "1m30s"}, log_level="error", spill_size=2)
    assert lines(old, new) == [
        "config_change:new_config: servers changed, log_level debug -> error, spill_size 1 -> 2",
        "config_change:log_level: log_level debug -> error",
        f"server_change:update_config {A}: timeout 30 -> 90",
        f"server_change:reopen_log_file {A}",
        f"server_change:timeout {A}: timeout 30 -> 90",
    ]


def test_a_change_names_nested_keys_and_what_is_not_set() -> None:
    old = config({"tls": KEYS})
    new = config({"tls": {**KEYS, "root_cas_file": "ca.crt", "start_tls_on": True}})
    assert lines(old, new)[-1] == (
        f"server_change:tls_config {A}: tls.start_tls_on false -> true, "
        f"tls.root_cas_file none -> ca.crt"
    )


def test_a_change_of_files_says_so() -> None:
    one = config({"tls": {"start_tls_on": True, **KEYS}})
    assert lines(one, one, tls_changed=[A]) == [
        "config_change:new_config: files of tls",
        f"server_change:update_config {A}: files of tls",
        f"server_change:reopen_log_file {A}",
        f"server_change:tls_config {A}: files of tls",
    ]


def test_servers_come_and_go_by_name() -> None:
    assert lines(config({}), config({"listen_interface": B})) == [
        f'config_change:new_config: servers ["{A}"] -> ["{B}"]',
        f"server_change:new_server {B}",
        f"server_change:remove_server {A}",
    ]


def test_no_change_shows_a_secret() -> None:
    old = config(backend_config={"sql_dsn": "u:hunter2@tcp(h)/a", "api_token": "hunter2"})
    new = config(
        backend_config={
            "sql_dsn": "u:swordfish@tcp(h)/b",
            "api_token": "swordfish",
            "processors": {"Second": {"redis_password": "swordfish"}},
            "secrets": {"a": "swordfish"},
        }
    )
    found = lines(old, new)
    assert found[0] == (
        "config_change:backend_config: backend_config.processors.second none -> "
        '{"redis_password": "***"}, backend_config.sql_dsn u:***@tcp(h)/a -> u:***@tcp(h)/b, '
        "backend_config.api_token changed, backend_config.secrets none -> ***"
    )
    assert not any(secret in line for secret in ("hunter2", "swordfish") for line in found)


def test_a_value_cannot_forge_a_line_nor_fill_one() -> None:
    new = config(backend_config={"sql_dsn": "a\nserver_change:stop_server " + "x" * 500})
    line = lines(config(), new)[0]
    assert "\n" not in line
    assert len(line) < 400


# Any two configs

SERVERS = st.lists(
    st.fixed_dictionaries(
        {"listen_interface": st.sampled_from([A, B, C])},
        optional={
            "is_enabled": st.booleans(),
            "timeout": st.sampled_from([1, 2]),
            "max_clients": st.sampled_from([1, 2]),
            "max_size": st.sampled_from([1, 2]),
            "log_file": st.sampled_from(["a", "b"]),
            "tls": st.sampled_from([{}, {"start_tls_on": True, **KEYS}]),
        },
    ),
    min_size=1,
    unique_by=lambda server: str(server["listen_interface"]),
)
CONFIGS = st.builds(
    lambda servers, keys: config(*servers, **keys),
    SERVERS,
    st.fixed_dictionaries(
        {},
        optional={
            "pid_file": st.sampled_from(["a", "b"]),
            "log_level": st.sampled_from(["info", "error"]),
            "backend_config": st.sampled_from([{}, {"sql_dsn": "a"}, {"sql_dsn": "b"}]),
        },
    ),
)


@given(CONFIGS, CONFIGS, st.sets(st.sampled_from([A, B, C])))
def test_whoever_obeys_the_events_has_the_new_config(
    old: AppConfig, new: AppConfig, tls_changed: set[str]
) -> None:
    servers = {server.listen_interface: server for server in old.servers}
    running = {name for name, server in servers.items() if server.is_enabled}
    found = changes(old, new, tls_changed=tls_changed)
    for change in found:
        payload = change.payload
        if isinstance(payload, ConfigChange):
            assert (payload.old, payload.new) == (old, new)
            continue
        assert servers.get(payload.name) in (payload.old, payload.new)
        if payload.new is None:
            del servers[payload.name]
            running.discard(payload.name)
            continue
        servers[payload.name] = payload.new
        starts = change.event is Event.SERVER_NEW and payload.new.is_enabled
        if starts or change.event is Event.SERVER_START:
            assert payload.name not in running
            running.add(payload.name)
        elif change.event is Event.SERVER_STOP:
            running.remove(payload.name)
    assert servers == {server.listen_interface: server for server in new.servers}
    assert running == {name for name, server in servers.items() if server.is_enabled}
    assert len(set(map(str, found))) == len(found)
    assert all(str(change).isprintable() for change in found)
