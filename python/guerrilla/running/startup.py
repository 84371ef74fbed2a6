"""What is looked at before a daemon opens anything: each function tells every problem it finds."""

from __future__ import annotations

import contextlib
import logging
import resource
from functools import partial
from typing import TYPE_CHECKING, Final

from guerrilla._core import Core
from guerrilla.config import (
    BackendConfig,
    check_processor_keys,
    unbuilt,
)
from guerrilla.engine.backends import (
    DEFAULT,
    backends_of,
    make_chain,
    path_of,
    placed_in,
    tasks,
)
from guerrilla.engine.chain import option_keys
from guerrilla.engine.registry import import_modules
from guerrilla.errors import ConfigError
from guerrilla.running.addresses import resolve
from guerrilla.running.settings import core_settings, placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.engine.backend import BackendFactory
    from guerrilla.engine.registry import Registry

_ANYWHERE: Final = "127.0.0.1:0"
"""An address for a core that binds none."""


def config_problems(
    config: AppConfig, registry: Registry, folder: Path | None, backend: BackendFactory | None
) -> list[str]:
    """All that is wrong with a config as far as its text and its modules tell.

    Keys that are not built, what the core cannot obey, modules that do not import, processors and
    keys nobody knows.

    Args:
        config: what is to run.
        registry: the daemon's.
        folder: of the config file, for modules beside it.
        backend: what stands in place of the chains of `backend_config`, whose names and keys do
            not count then.
    """
    problems = unbuilt(config) + _core_refuses(config) + _nobody_could_send(config, backend)
    names = [name for name in backends_of(config) if backend is None or name != DEFAULT]
    problems += _spool_problems(config, names)
    failed = _import_all(config, names, folder)
    problems += failed
    if failed or not names:
        # What they would have registered cannot be told from what is misspelt.
        return problems
    for name in names:
        for task in tasks(config, name, None):
            if task == "spooled":  # Both sides of the spool are looked at together.
                continue
            try:
                make_chain(config, registry, name, task, None)
            except ConfigError as error:
                problems += error.problems
    if backend is not None:
        config = config.model_copy(update={"backend_config": BackendConfig()})
    try:
        known = _known_keys(config, registry)
        check_processor_keys(config, known, read_by=partial(_keys_read, registry))
    except ConfigError as error:
        problems += error.problems
    return problems


def _core_refuses(config: AppConfig) -> list[str]:
    """What the core cannot obey, whatever files and host names there are; nothing is opened."""
    servers = [(server, _ANYWHERE) for server in config.servers if server.is_enabled]
    settings = core_settings(config, servers, tasks={}, log_level=logging.CRITICAL)
    for server in settings["servers"]:
        server["tls"] = None  # Its files are read when a start, or a reload, gets to them.
    try:
        Core(settings).close()
    except ValueError as error:
        return placed(config, str(error))
    except MemoryError as error:
        return [str(error)]
    return []


def _nobody_could_send(config: AppConfig, backend: BackendFactory | None) -> list[str]:
    """Servers that want every client to log in, and have nobody who checks that."""
    return [
        f"servers[{index}].auth.required: nobody could send, as {path_of(server.backend)} has no "
        "auth_process"
        for index, server in enumerate(config.servers)
        if server.is_enabled
        and server.auth.required
        and not server.xclient_on  # Then a proxy may say who has logged in there.
        and server.backend in backends_of(config)
        and "authenticate" not in tasks(config, server.backend, backend)
    ]


def _spool_problems(config: AppConfig, names: Sequence[str]) -> list[str]:
    """Where the spool stands in chains of these backends, and must not."""
    backends, has_spool = backends_of(config), config.spool is not None
    return [
        f"{path_of(name)}.{problem}"
        for name in names
        for problem in backends[name].spool_problems(has_spool=has_spool)
    ]


def _import_all(config: AppConfig, names: Sequence[str], folder: Path | None) -> list[str]:
    """Imports the modules of those backends; a problem for each that does not import."""
    backends = backends_of(config)
    found: list[str] = []
    for name in names:
        found += placed_in(name, import_modules(backends[name].import_, folder))
    return found


def resolve_servers(
    config: AppConfig, resolved: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[tuple[ServerConfig, str]], list[str]]:
    """Each enabled server with each of its addresses, and a problem for each that has none.

    Args:
        config: whose servers they are.
        resolved: addresses that are known already, as `Place.resolved`.
    """
    found: list[tuple[ServerConfig, str]] = []
    problems = []
    for index, server in enumerate(config.servers):
        if not server.is_enabled:
            continue
        try:
            known = (resolved or {}).get(server.listen_interface)
            addresses = known or resolve(server.address)
            found += [(server, address) for address in addresses]
        except OSError as error:
            problems.append(f"servers[{index}].listen_interface: {error}")
    if not found and not problems:
        problems.append("servers: none is enabled")
    return found, problems


def named(file: Path | None, problems: Iterable[str]) -> list[str]:
    """Problems of a config, with the file that it came from."""
    return [problem if file is None else f"{file}: {problem}" for problem in problems]


def raise_file_limit(servers: Sequence[tuple[ServerConfig, str]]) -> list[str]:
    """Raises the soft limit of open files to the hard one; a problem when that is too little.

    A connection is a file: over the limit nothing could be accepted, stored or logged.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems call the hard limit endless and yet refuse it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = sum(server.max_clients for server, _ in servers)
    if hard != resource.RLIM_INFINITY and clients > hard:
        problem = (
            f"servers: max_clients adds up to {clients}, and the hard limit of open files "
            f"(ulimit -Hn) is {hard}"
        )
        return [problem]
    return []


def _known_keys(config: AppConfig, registry: Registry) -> set[str]:
    """The keys that processors read: all known ones, where those of the chains do not suffice."""
    known: set[str] = set()
    used: set[str] = set()
    for backend in backends_of(config).values():
        used.update(backend.options, *backend.processors.values())
        for stage in backend.stages:
            known |= _keys_of([stage.name], registry)
    # Only now: it imports every processor there is, with its driver.
    return known if known >= used else known | _keys_of(registry.names(), registry)


def _keys_of(names: Sequence[str], registry: Registry) -> set[str]:
    # One without its driver, or unknown: told elsewhere where a chain names it.
    return {key for name in names for key in _keys_read(registry, name) or ()}


def _keys_read(registry: Registry, name: str) -> set[str] | None:
    """What the processor of that name reads; None for one that is not there."""
    try:
        return option_keys(registry.find(name))
    except ConfigError:
        return None
