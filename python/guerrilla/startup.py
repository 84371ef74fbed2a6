"""What is looked at before a daemon opens anything: each function tells every problem it finds."""

from __future__ import annotations

import contextlib
import resource
from functools import partial
from typing import TYPE_CHECKING, Any

from guerrilla.addresses import resolve
from guerrilla.backend import backend_stage
from guerrilla.chain import Chain, ChainSettings, build, option_keys
from guerrilla.config import LATER_KEYS, chain_names, check_processor_keys, unbuilt
from guerrilla.errors import ConfigError
from guerrilla.registry import import_modules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from guerrilla.backend import BackendFactory
    from guerrilla.base import TaskName
    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.registry import Registry


def tasks(config: AppConfig, backend: BackendFactory | None) -> list[TaskName]:
    """What there are workers for: checks only where something answers them."""
    checks = _is_asked(backend, "validate") or chain_names(config.backend_config.validate_process)
    return ["save", "validate"] if checks else ["save"]


def config_problems(
    config: AppConfig, registry: Registry, folder: Path | None, backend: BackendFactory | None
) -> list[str]:
    """Keys that are not built, modules that do not import, processors and keys nobody knows.

    Args:
        config: what is to run.
        registry: the daemon's.
        folder: of the config file, for modules beside it.
        backend: what stands in place of the chains; their names and keys do not count then.
    """
    problems = unbuilt(config)
    if backend is not None:
        return problems
    failed = import_modules(config.backend_config.import_, folder)
    problems += failed
    if failed:
        # What they would have registered cannot be told from what is misspelt.
        return problems
    for task in tasks(config, None):
        try:
            make_chain(config, registry, task, None)
        except ConfigError as error:
            problems += error.problems
    try:
        known = _known_keys(config, registry)
        check_processor_keys(config, known, read_by=partial(_keys_read, registry))
    except ConfigError as error:
        problems += error.problems
    return problems


def make_chain(
    config: AppConfig, registry: Registry, task: TaskName, backend: BackendFactory | None
) -> Chain[Any]:
    """A new chain for one worker, not opened.

    Raises:
        ConfigError: every name and every option that is wrong.
    """
    keys = config.backend_config
    settings = ChainSettings(
        save_timeout=keys.gw_save_timeout,
        check_timeout=keys.gw_val_rcpt_timeout,
        concurrency=keys.save_concurrency,
    )
    if backend is not None and _is_asked(backend, task):
        return Chain([("backend", backend_stage(backend()))], task, settings)
    names = keys.save_process if task == "save" else keys.validate_process
    return build(names, task, keys.values(), registry, settings)


def resolve_servers(config: AppConfig) -> tuple[list[tuple[ServerConfig, str]], list[str]]:
    """Each enabled server with each of its addresses, and a problem for each that has none."""
    found: list[tuple[ServerConfig, str]] = []
    problems = []
    for index, server in enumerate(config.servers):
        if not server.is_enabled:
            continue
        try:
            found += [(server, address) for address in resolve(server.address)]
        except OSError as error:
            problems.append(f"servers[{index}].listen_interface: {error}")
    if not found and not problems:
        problems.append("servers: none is enabled")
    return found, problems


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


def _is_asked(backend: BackendFactory | None, task: TaskName) -> bool:
    """Whether a backend stands in place of that chain; it may have nothing to say to recipients."""
    if task == "validate":
        return bool(getattr(backend, "checks_recipients", backend is not None))
    return backend is not None


def _known_keys(config: AppConfig, registry: Registry) -> set[str]:
    """The keys that processors read: all known ones, where those of the chains do not suffice."""
    backend = config.backend_config
    options = {*backend.options, *(key for table in backend.processors.values() for key in table)}
    known = set(LATER_KEYS)
    for chain in (backend.save_process, backend.validate_process):
        known |= _keys_of(chain_names(chain), registry)
    # Only now: it imports every processor there is, with its driver.
    return known if known.issuperset(options) else known | _keys_of(registry.names(), registry)


def _keys_of(names: Sequence[str], registry: Registry) -> set[str]:
    # One without its driver, or unknown: told elsewhere where a chain names it.
    return {key for name in names for key in _keys_read(registry, name) or ()}


def _keys_read(registry: Registry, name: str) -> set[str] | None:
    """What the processor of that name reads; None for one that is not there."""
    try:
        return option_keys(registry.find(name))
    except ConfigError:
        return None
