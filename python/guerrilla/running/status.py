"""What a running daemon tells of itself."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from guerrilla._core import __version__
from guerrilla.engine.backends import DEFAULT, backends_of, is_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla.config import AppConfig
    from guerrilla.engine.backend import BackendFactory
    from guerrilla.running.parts import Parts


def counters(parts: Parts) -> dict[str, Any]:
    """All counters of the core, of the workers and of reloads.

    Those of the default backend stand at the top too; `backends` has those of each by its name,
    and `stages` those of each stage, as `StageBook.snapshot`.
    """
    found: dict[str, Any] = dict(parts.core.stats())
    found["log_records_dropped"] += parts.logs.lost
    names = backends_of(parts.config)
    backends: dict[str, dict[str, int]] = {name: _of_queues(parts, name) for name in names}
    for pool in parts.pools:
        task = pool.settings.name
        workers = {
            f"{task}_workers": pool.ready,
            f"{task}_workers_abandoned": pool.abandoned,
            f"{task}_workers_replaced": pool.replaced,
        }
        # A reload may just be taking its backend out, or bringing it in.
        if pool.settings.backend in backends:
            backends[pool.settings.backend] |= workers
    found |= backends[DEFAULT]
    found["reloads"] = parts.reloads
    found["reload_failures"] = parts.reload_failures
    found["backends"] = backends
    found["stages"] = parts.book.snapshot()
    return found


def status(
    parts: Parts | None,
    config: AppConfig,
    warnings: Sequence[str],
    factory: BackendFactory | None = None,
) -> dict[str, Any]:
    """In values of JSON; of a daemon that does not run, what it would run.

    Chains in whose place `factory` stands are empty, whatever the config says.
    """
    backends = {name: _chains(config, name, factory) for name in backends_of(config)}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": 0.0 if parts is None else round(time.monotonic() - parts.began, 3),
        "servers": _servers(parts, config),
        "validate_process": backends[DEFAULT]["validate_process"],
        "backends": backends,
        "reloads": 0 if parts is None else parts.reloads,
        "warnings": list(warnings),
        "stats": {} if parts is None else counters(parts),
    }


def _chains(config: AppConfig, name: str, factory: BackendFactory | None) -> dict[str, str]:
    backend = backends_of(config)[name]
    return {
        "save_process": "" if is_asked(factory, name, "save") else backend.save_process,
        "validate_process": "" if is_asked(factory, name, "validate") else backend.validate_process,
        "auth_process": "" if is_asked(factory, name, "authenticate") else backend.auth_process,
    }


def _of_queues(parts: Parts, name: str) -> dict[str, int]:
    try:
        return parts.core.backend(name).stats()
    except ValueError:  # A reload takes it out at this moment.
        return {}


def _servers(parts: Parts | None, config: AppConfig) -> list[dict[str, Any]]:
    clients: dict[str, int] = {}
    addresses: dict[str, list[str]] = {}
    if parts is not None:
        clients = dict(parts.core.clients())
        addresses = dict(parts.core.addresses_by_server())
    return [
        {
            "name": server.name,
            "host_name": server.host_name,
            "is_enabled": server.is_enabled,
            "addresses": addresses.get(server.name, []),
            "clients": clients.get(server.name, 0),
            "max_clients": server.max_clients,
            "backend": server.backend,
        }
        for server in config.servers
    ]
