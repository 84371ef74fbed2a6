"""What `guerrillad check` looks at: all that a start would, but that nothing is bound or served."""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guerrilla.config import mask_value
from guerrilla.config.writing import in_units, readable
from guerrilla.control.server import OFF
from guerrilla.engine.backends import placed_in
from guerrilla.engine.base import PROCESS
from guerrilla.engine.chain import read_options
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.errors import ConfigError, StartError
from guerrilla.running.opening import make_core
from guerrilla.running.parts import Plan
from guerrilla.running.privileges import become

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

    from guerrilla.config import AppConfig, BackendConfig, ServerConfig
    from guerrilla.engine.base import TaskName
    from guerrilla.engine.chain import Chain
    from guerrilla.running.privileges import Identity

OPEN_LIMIT: Final = 60.0
"""Seconds that a chain has to open and close: what a start gives it, too."""

_NO_FILES: Final = frozenset({"stderr", "stdout", "off"})


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, a line each, which begins with the key of the config.

    Attributes:
        problems: what a start would refuse.
        warnings: what works and is hardly meant.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check(
    config: AppConfig,
    folder: Path | None = None,
    *,
    connect: bool = False,
    open_limit: float = OPEN_LIMIT,
) -> Findings:
    """Looks at names, options, modules, accounts, host names and files, as the user that it is.

    Args:
        config: what to look at.
        folder: of the config file, for modules beside it.
        connect: opens and closes each chain too, where nothing else is wrong. Where a start would
            become another user before it does, so does the process, for good: what the chain makes
            would else belong to root.
        open_limit: seconds that a chain has for it.
    """
    plan = Plan(config, Registry(DECORATED), folder, None)
    found = plan.look()
    problems = found.problems + _file_problems(config)
    if found.servers:
        problems += _core_problems(config, found.servers)
    if connect and not problems:
        problems += _connect_problems(plan, found.identity, open_limit)
    return Findings(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(found.warnings)))


def effective(config: AppConfig) -> dict[str, Any]:
    """The config with every default, secrets masked; in each backend those of its chains too."""
    shown = readable(config)
    registry = Registry(DECORATED)
    _add_options(shown["backend_config"], config.backend_config, registry)
    for name, backend in config.backends.items():
        _add_options(shown["backends"][name], backend, registry)
    return shown


def _add_options(shown: dict[str, Any], backend: BackendConfig, registry: Registry) -> None:
    """All options of each stage: in the backend's table, or in its own where it has one."""
    values = backend.values()
    for stage in backend.stages:
        place = shown
        if stage.alias or stage.table in backend.processors:
            place = shown["processors"].setdefault(stage.table, {})
        # One that is wrong is told by `check`; the rest is worth showing.
        with suppress(ConfigError, ValueError):
            options = read_options(stage.name, registry.find(stage.processor), values)
            for key, value in _defaults(options):
                place.setdefault(key, value)


def _defaults(options: BaseModel) -> Iterator[tuple[str, object]]:
    """The options of a processor by their keys in a config."""
    for field, value in options.model_dump(mode="json").items():
        info = type(options).model_fields[field]
        key = (info.validation_alias if isinstance(info.validation_alias, str) else field).lower()
        yield key, mask_value(key, in_units(value, info))


def _file_problems(config: AppConfig) -> list[str]:
    """Whether log, pid file, control socket and spool could be made; none of them is."""
    log = None if config.log_file in _NO_FILES else config.log_file
    socket = None if config.control_socket == OFF else config.control_socket
    spool = None if config.spool is None else config.spool.path
    problems = []
    for key, path, look in (
        ("spool.path", spool, _look_at_tree),
        ("log_file", log, _try_to_write),
        ("pid_file", config.pid_file, _try_to_write),
        ("control_socket", socket, _look_at_folder),
    ):
        try:
            if path is not None:
                look(path)
        except OSError as error:
            problems.append(f"{key}: {path}: {error.strerror or error}")
    return problems


def _try_to_write(path: str) -> None:
    """Opens a file that is there; of one that is not, looks whether its folder takes it."""
    try:
        # Without waiting: a pipe that nobody reads would take its time.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        _look_at_folder(path)


def _look_at_tree(path: str) -> None:
    """Whether a folder takes files; of one that is not there, the nearest one above it."""
    while not os.path.lexists(path) and (above := os.path.dirname(path)) != path:
        path = above
    _look_into(path or os.curdir)


def _look_at_folder(path: str) -> None:
    _look_into(os.path.dirname(path) or os.curdir)


def _look_into(folder: str) -> None:
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _core_problems(config: AppConfig, servers: list[tuple[ServerConfig, str]]) -> tuple[str, ...]:
    """What the core cannot obey or read. Ports are not tried: a running daemon may have them."""
    try:
        # 50: `logging.CRITICAL`; a core that only reads has nothing to log.
        make_core(config, servers, tasks={}, log_level=50).close()
    except StartError as error:
        return error.problems
    return ()


def _connect_problems(plan: Plan, identity: Identity | None, limit: float) -> list[str]:
    problems: list[str] = []
    try:
        if identity is not None:
            become(identity)
    except StartError as error:
        return list(error.problems)
    for name, tasks in plan.tasks.items():
        for task in tasks:
            problems += placed_in(name, _try(plan.make_chain(name, task), task, limit))
    return problems


def _try(chain: Chain[Any], task: TaskName, limit: float) -> list[str]:
    """Opens and closes every stage of a chain in a thread of its own, as a worker does."""
    problems: list[str] = []

    def run() -> None:
        try:
            problems.extend(chain.attempt())
        except BaseException as error:  # noqa: BLE001 - code of others
            problems.append(f"{PROCESS[task]}: {type(error).__name__}: {error}")

    thread = threading.Thread(target=run, name=f"guerrilla-check-{task}", daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        what = f"{chain.opening}: open" if chain.opening else "close"
        hangs = f"backend_config.{PROCESS[task]}: {what} has not ended within {limit:g} s"
        return [*problems, hangs]
    return problems
