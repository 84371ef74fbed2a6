"""From the config to what the core obeys, and from what it says back to the config's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerrilla.config.app import MIN_MEMORY
from guerrilla.engine.backends import backends_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from guerrilla._core import BackendSettings, CoreSettings, ServerSettings, TLSSettings
    from guerrilla.config import AppConfig, BackendConfig, ServerConfig, TLSConfig
    from guerrilla.engine.base import TaskName


def core_settings(
    config: AppConfig,
    servers: Sequence[tuple[ServerConfig, str]],
    *,
    tasks: Mapping[str, Collection[TaskName]],
    log_level: int,
    processes: int = 1,
) -> CoreSettings:
    """What the core obeys, from the config.

    Args:
        config: what is to run.
        servers: as `resolve_servers` gives them.
        tasks: what each backend has workers for.
        log_level: a number of `logging`.
        processes: how many share `max_memory`.
    """
    return {
        "servers": [
            _server_settings(server, address, tasks.get(server.backend, ()))
            for server, address in servers
        ],
        "allowed_hosts": list(config.allowed_hosts),
        "max_memory": max(MIN_MEMORY, config.max_memory // processes),
        "spill_size": config.spill_size,
        "backends": [
            _backend_settings(name, backend, tasks.get(name, ()))
            for name, backend in backends_of(config).items()
        ],
        "log_level": log_level,
    }


def placed(config: AppConfig, text: str) -> list[str]:
    """Problems of the core by their place in the config.

    `127.0.0.1:25: tls.root_cas_file: …` becomes `servers[0].tls.root_cas_file: …`. What is said of
    each address of a server is told once; a line that names no server stays as it is.

    Args:
        config: what the core was made from.
        text: one problem a line, which begins with the name of a server.
    """
    return list(dict.fromkeys(_placed(config, line) for line in text.splitlines()))


def place(config: AppConfig, name: str) -> str:
    """Where a server of the core stands in the config, as `servers[0]`; the name if nowhere."""
    return next(
        (
            f"servers[{index}]"
            for index, server in enumerate(config.servers)
            if server.is_enabled and server.name == name
        ),
        name,
    )


def _placed(config: AppConfig, line: str) -> str:
    names = [server.name for server in config.servers if server.is_enabled]
    found = [name for name in names if line.startswith(f"{name}: ")]
    if not found:
        return line
    # The path of a unix socket may hold what looks like the end of a shorter name.
    name = max(found, key=len)
    return f"{place(config, name)}.{line.removeprefix(f'{name}: ')}"


def _server_settings(
    server: ServerConfig, address: str, tasks: Collection[TaskName]
) -> ServerSettings:
    return {
        "name": server.name,
        "address": address,
        "unix_mode": None if server.unix_mode is None else int(server.unix_mode, 8),
        "host_name": server.host_name,
        "max_size": server.max_size,
        "timeout": server.timeout,
        "max_clients": server.max_clients,
        "max_recipients": server.max_recipients,
        "max_errors": server.max_errors,
        "max_idle_commands": server.max_idle_commands,
        "max_header_size": server.max_header_size,
        "max_received_hops": server.max_received_hops,
        "helo_required": server.helo_required,
        "bare_newline": server.bare_newline,
        "data_timeout": server.data_timeout,
        "min_data_rate": server.min_data_rate,
        "xclient": server.xclient_on,
        "proxy_protocol": server.proxy_protocol,
        "trusted_proxies": list(server.trusted_proxies),
        "max_messages": server.max_messages,
        "max_connections_per_ip": server.max_connections_per_ip,
        "max_connection_rate_per_ip": server.max_connection_rate_per_ip,
        "ipv6_prefix": server.ipv6_prefix,
        "greet_delay": server.greet_delay,
        "backend": server.backend,
        "tls": _tls_settings(server.tls) if server.tls.is_on else None,
        "protocol": server.protocol,
        "extensions": server.extensions,
        "auth": {
            "offered": "authenticate" in tasks,
            "required": server.auth.required,
            "relay": server.auth.relay,
            "allow_plaintext": server.auth.allow_plaintext,
            "failure_delay": server.auth.failure_delay,
            "max_failures": server.auth.max_failures,
        },
    }


def _backend_settings(
    name: str, backend: BackendConfig, tasks: Collection[TaskName]
) -> BackendSettings:
    return {
        "name": name,
        "save_timeout": backend.gw_save_timeout,
        "check_timeout": backend.gw_val_rcpt_timeout,
        "check_recipients": "validate" in tasks,
        "auth_timeout": backend.gw_auth_timeout,
        "authenticate": "authenticate" in tasks,
        "cache_ttl": backend.validate_cache_ttl,
        "breaker_failures": backend.breaker_failures,
        "breaker_reset": backend.breaker_reset,
        "spools": backend.spools if "spooled" in tasks else "never",
    }


def _tls_settings(tls: TLSConfig) -> TLSSettings:
    return {
        # Within TLS there is no second one to offer.
        "start_tls": tls.start_tls_on and not tls.tls_always_on,
        "always_on": tls.tls_always_on,
        "required": tls.required,
        "certificates": tls.pairs,
        "root_cas_file": tls.root_cas_file,
        "client_auth": tls.effective_client_auth_type,
        "protocols": list(tls.effective_protocols),
        "ciphers": list(tls.effective_ciphers),
        "curves": list(tls.effective_curves),
        "prefer_server_ciphers": tls.prefer_server_cipher_suites,
    }
