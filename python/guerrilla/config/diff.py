"""What a reload has to tell: the events for the differences between two configs.

The order and the rules are Go-Guerrilla's: the backend, the config as a whole, its single keys,
then each server of the new config, at last the servers that are gone.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from guerrilla.config.app import AppConfig
from guerrilla.config.masking import mask_value
from guerrilla.config.section import Section
from guerrilla.config.server import ServerConfig, ordinals, server_name
from guerrilla.events import Change, ConfigChange, Event, ServerChange

_KEYS: Final = {
    Event.BACKEND_CONFIG: ("backend_config", "backends"),
    Event.ALLOWED_HOSTS: ("allowed_hosts",),
    Event.PID_FILE: ("pid_file",),
    Event.LOG_FILE: ("log_file",),
    Event.LOG_LEVEL: ("log_level",),
    Event.SERVER_LOG_FILE: ("log_file",),
    Event.SERVER_TIMEOUT: ("timeout",),
    Event.SERVER_MAX_CLIENTS: ("max_clients",),
    Event.SERVER_TLS_CONFIG: ("tls",),
    Event.SERVER_START: ("is_enabled",),
    Event.SERVER_STOP: ("is_enabled",),
}
"""The keys that an event is about; one that is not here is about all of them, or about none."""

_SILENT: Final = frozenset(
    {
        Event.REOPEN_LOG_FILE,  # published by who reopens the logs, never by a reload
        Event.SERVER_REOPEN_LOG_FILE,
        Event.SERVER_NEW,
        Event.SERVER_REMOVE,
    }
)
"""Events whose name says it all."""

_LENGTH: Final = 120
"""Characters of a value in a line for people."""


def changes(old: AppConfig, new: AppConfig, *, tls_changed: Collection[str] = ()) -> list[Change]:
    """The events that a reload from `old` to `new` publishes, in order.

    Args:
        old: what is in force.
        new: what is to be.
        tls_changed: names of servers whose files of TLS changed on disk, which the
            keys do not show.

    Returns:
        Never empty: a reload opens the logs of servers anew that stay where they are.
    """
    found = [Change(event, ConfigChange(old, new)) for event in _config_events(old, new)]
    if old != new or any(server.name in tls_changed for server in new.servers):
        at = 1 if found and found[0].event is Event.BACKEND_CONFIG else 0
        found.insert(at, Change(Event.NEW_CONFIG, ConfigChange(old, new)))
    before = {server.name: server for server in old.servers}
    for server in new.servers:
        name = server.name
        change = ServerChange(name, before.pop(name, None), server)
        events = _server_events(change.old, server, tls_changed=name in tls_changed)
        found += [Change(event, change) for event in events]
    found += [
        Change(Event.SERVER_REMOVE, ServerChange(name, server, None))
        for name, server in before.items()
    ]
    return found


def reopened(config: AppConfig) -> list[Change]:
    """The events for logs that were opened anew without a reload: the main one, then each server's.

    A server without a log of its own is told of too, as at a reload.
    """
    servers = [ServerChange(server.listen_interface, server, server) for server in config.servers]
    return [
        Change(Event.REOPEN_LOG_FILE, ConfigChange(config, config)),
        *(Change(Event.SERVER_REOPEN_LOG_FILE, server) for server in servers),
    ]


def describe(change: Change) -> str:
    """The change as a line for people: the event, the server, each key with its values.

    `server_change:timeout 127.0.0.1:25: timeout 30 -> 60`. Secrets are masked, and long values
    cut.
    """
    payload = change.payload
    name = f" {payload.name}" if isinstance(payload, ServerChange) else ""
    head = f"{change.event}{name}"
    if change.event in _SILENT or payload.old is None or payload.new is None:
        return head
    differences = [
        line
        for key, line in _differences(payload.old, payload.new)
        if key in _KEYS.get(change.event, (key,))
    ]
    # Without a key that differs it is their files that do.
    return f"{head}: {', '.join(differences) or 'files of tls'}"


def _config_events(old: AppConfig, new: AppConfig) -> Iterator[Event]:
    """Of single keys of the config."""
    if (old.backend_config, old.backends) != (new.backend_config, new.backends):
        yield Event.BACKEND_CONFIG
    if old.allowed_hosts != new.allowed_hosts:
        yield Event.ALLOWED_HOSTS
    if old.pid_file != new.pid_file:
        yield Event.PID_FILE
    if old.log_file != new.log_file:
        yield Event.LOG_FILE
    if old.log_level != new.log_level:
        yield Event.LOG_LEVEL


def _server_events(
    old: ServerConfig | None, new: ServerConfig, *, tls_changed: bool
) -> Iterator[Event]:
    """Of one server of the new config."""
    if old is None:
        yield Event.SERVER_NEW
        return
    if old != new or tls_changed:
        yield Event.SERVER_UPDATE_CONFIG
    if old.is_enabled != new.is_enabled:
        # It starts with all of its new config, or ends: there is nothing to change in it.
        yield Event.SERVER_START if new.is_enabled else Event.SERVER_STOP
        return
    yield Event.SERVER_LOG_FILE if old.log_file != new.log_file else Event.SERVER_REOPEN_LOG_FILE
    if old.timeout != new.timeout:
        yield Event.SERVER_TIMEOUT
    if old.max_clients != new.max_clients:
        yield Event.SERVER_MAX_CLIENTS
    if old.tls != new.tls or tls_changed:
        yield Event.SERVER_TLS_CONFIG


def _differences(old: Section, new: Section) -> Iterator[tuple[str, str]]:
    """The top-level key of each difference, and `PATH OLD -> NEW`."""
    before, after = (section.model_dump(by_alias=True) for section in (old, new))
    for key in dict.fromkeys((*before, *after)):
        for path, *values in _leaves(key, before.get(key), after.get(key)):
            # By the whole path: what lies in a table of secrets is one.
            one, other = (_shown(mask_value(path, value)) for value in values)
            yield key, f"{path} {one} -> {other}" if one != other else f"{path} changed"


def _leaves(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each value that differs, with the path of its key."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _leaves(f"{path}.{key}", old.get(key), new.get(key))
    elif path == "servers":
        yield path, _names(old), _names(new)
    else:
        yield path, old, new


def _names(servers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Servers by name: what changed in each is told by its own events."""
    interfaces = [server["listen_interface"] for server in servers]
    return list(map(server_name, interfaces, ordinals(interfaces)))


def _shown(value: object) -> str:
    """A value as JSON, but a text without quotes and an empty one as `none`."""
    if value is None or value == "":
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(mark if mark.isprintable() else "?" for mark in text)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"
