"""The backends of a config: `backend_config`, which is the default one, and those of `backends`.

Each has chains, workers, queues and time limits of its own; a server names the one that saves its
mails.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from guerrilla.config import chain_names
from guerrilla.engine.backend import backend_stage
from guerrilla.engine.base import OF_MAILS, PROCESS
from guerrilla.engine.chain import Chain, ChainSettings, build
from guerrilla.engine.figures import StageBook
from guerrilla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guerrilla.config import AppConfig, BackendConfig
    from guerrilla.engine.backend import BackendFactory
    from guerrilla.engine.base import TaskName
    from guerrilla.engine.registry import Registry

DEFAULT: Final = "default"
"""The name of the backend that `backend_config` describes."""

_PATH: Final = "backend_config"


def backends_of(config: AppConfig) -> dict[str, BackendConfig]:
    """Every backend by its name, the default one first."""
    return {DEFAULT: config.backend_config, **config.backends}


def path_of(name: str) -> str:
    """Where a backend stands in the config."""
    return _PATH if name == DEFAULT else f"backends.{name}"


def placed_in(name: str, problems: Iterable[str]) -> list[str]:
    """Problems of a backend by their place: what is said of `backend_config` is meant of it."""
    if name == DEFAULT:
        return list(problems)
    path = path_of(name)
    return [
        line
        if line.startswith((f"{path}.", f"{path}:"))
        else f"{path}{line.removeprefix(_PATH)}"
        if line.startswith((f"{_PATH}.", f"{_PATH}:"))
        else f"{path}: {line}"
        for line in problems
    ]


def tasks(config: AppConfig, name: str, factory: BackendFactory | None) -> list[TaskName]:
    """What a backend has workers for: questions only where something answers them.

    Spooled mail has them where the chain spools.
    """
    keys = backends_of(config)[name]

    def wanted(task: TaskName) -> bool:
        own = is_asked(factory, name, task)
        if task == "spooled":
            return keys.spools != "never" and not own
        return task == "save" or own or bool(chain_names(keys.chain(task)))

    return [task for task in PROCESS if wanted(task)]


def make_chain(
    config: AppConfig,
    registry: Registry,
    name: str,
    task: TaskName,
    factory: BackendFactory | None,
    *,
    book: StageBook | None = None,
) -> Chain[Any]:
    """A new chain of a backend for one worker, not opened.

    Args:
        config: has the backend.
        registry: knows the processors.
        name: of the backend.
        task: what the worker does.
        factory: what stands in place of the chains of the default backend.
        book: where its stages count.

    Raises:
        ConfigError: every name and every option that is wrong.
    """
    keys = backends_of(config)[name]
    settings = ChainSettings(
        save_timeout=keys.gw_save_timeout,
        check_timeout=keys.gw_val_rcpt_timeout,
        auth_timeout=keys.gw_auth_timeout,
        concurrency=keys.save_concurrency,
        figures=partial((book or StageBook()).of, name, task),
    )
    if factory is not None and is_asked(factory, name, task):
        return Chain([("backend", backend_stage(factory()))], task, settings)
    try:
        return build(keys.chain(task), task, keys.values(), registry, settings)
    except ConfigError as error:
        raise ConfigError(placed_in(name, error.problems)) from error


def keep_backends(
    old: AppConfig, new: AppConfig, failed: Iterable[str]
) -> tuple[AppConfig, list[str]]:
    """The new config, with the old backend in place of each of `failed`.

    A server that names one that was not there before stays with the backend that it had; one that
    is new too is left out, with a problem for each.
    """
    before, after = backends_of(old), backends_of(new)
    for name in failed:
        if name in before:
            after[name] = before[name]
        else:
            del after[name]
    had = {server.listen_interface: server.backend for server in old.servers}
    servers, problems = [], []
    for index, server in enumerate(new.servers):
        name = server.backend
        if name not in after and server.listen_interface in had:
            name = had[server.listen_interface]
            after.setdefault(name, before[name])
        if name in after:
            servers.append(server.model_copy(update={"backend": name}))
        else:
            problems.append(f"servers[{index}].backend: {name} could not be started")
    backend_config = after.pop(DEFAULT)
    fields = {"backend_config": backend_config, "backends": after, "servers": tuple(servers)}
    return new.model_copy(update=fields), problems


def is_asked(factory: BackendFactory | None, name: str, task: TaskName) -> bool:
    """Whether a backend of one's own stands in place of that chain.

    It may have nothing to say to recipients, or to logins.
    """
    if factory is None or name != DEFAULT:
        return False
    if task == "authenticate":
        return bool(getattr(factory, "authenticates", hasattr(factory, "authenticate_batch")))
    return task in OF_MAILS or bool(getattr(factory, "checks_recipients", True))
