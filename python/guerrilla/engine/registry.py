"""Where the names of a chain come from.

In this order, the first that knows the name wins: `Daemon.add_processor`, the decorators of this
module, the table of built-in processors, installed packages (entry points of the group
`guerrilla.processors`). Names are compared without case. So a program, and a module of `import`,
may put its own in the place of a built-in processor, and a package that is merely installed cannot.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from guerrilla.config.chains import stage_of
from guerrilla.config.fields import nearest
from guerrilla.engine import installed
from guerrilla.engine.base import Processor
from guerrilla.engine.imported import note
from guerrilla.errors import ConfigError
from guerrilla.processors import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_Stage = TypeVar("_Stage", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a processor comes from.

    Attributes:
        kind: `module` for one that is registered by code of one's own.
        module: where it is defined.
        package: the name of its package; empty where it is of none.
        version: of the package.
    """

    kind: Literal["built-in", "package", "module"]
    module: str
    package: str = ""
    version: str = ""

    def __str__(self) -> str:
        """In words: `package NAME VERSION`."""
        if self.kind == "package":
            return f"package {self.package or self.module} {self.version}".rstrip()
        return f"module {self.module}" if self.kind == "module" else self.kind


class Registry:
    """Names to processor classes.

    Args:
        parent: asked for names this one does not know.
    """

    def __init__(self, parent: Registry | None = None) -> None:
        """Starts empty."""
        self._parent = parent
        self._classes: dict[str, tuple[str, type[Processor]]] = {}

    def add(self, name: str, processor: object) -> None:
        """Makes `processor`, a subclass of `Processor`, known as `name`.

        The same class from a module that is executed again replaces itself.

        Raises:
            ValueError: the name is taken by another class, or cannot stand in a chain.
            TypeError: not such a class.
        """
        if not (isinstance(processor, type) and issubclass(processor, Processor)):
            message = f"processor {name}: a subclass of Processor is expected, not {processor!r}"
            raise TypeError(message)
        key = _key(name)
        known = self._classes.get(key)
        if known is not None and not _same(known[1], processor):
            message = f"there is a processor {known[0]} already: {_where(known[1])}"
            raise ValueError(message)
        self._classes[key] = (name, processor)

    def own(self, name: str) -> type[Processor] | None:
        """The class added here under that name."""
        found = self._classes.get(name.strip().casefold())
        return found[1] if found else None

    def find(self, name: str) -> type[Processor]:
        """The class of that name; a built-in one is imported now.

        Args:
            name: with an alias or without: `Redis:hot` is `Redis`.

        Raises:
            ConfigError: no such name (the message has the nearest one), or it cannot be imported.
        """
        name = stage_of(name).processor
        found = self._lookup(name)
        if found is not None:
            return found
        found = installed.load(name)
        if found is not None:
            return found
        known = self.names()
        hint = nearest(name.strip(), known) or f"; known: {', '.join(known)}"
        message = f"unknown processor {name.strip()!r}{hint}"
        raise ConfigError(message)

    def names(self) -> list[str]:
        """Every name that can stand in a chain, sorted, as its author writes it."""
        names = {_key(name): name for name in TABLE.names}
        for key, points in installed.entry_points().items():
            names.setdefault(key, points[0].name)
        names.update(self._own_names())
        return sorted(names.values(), key=str.casefold)

    def origin(self, name: str) -> Origin | None:
        """Where the processor of that name comes from; nothing is imported. None: nobody knows."""
        own = self.own(name)
        if own is not None:
            return Origin("module", own.__module__)
        if self._parent is not None:
            return self._parent.origin(name)
        target = TABLE.target(name)
        if target is not None:
            return Origin("built-in", target.partition(":")[0])
        for point in installed.entry_points().get(name.strip().casefold(), []):
            return Origin("package", point.module, *installed.package_of(point))
        return None

    def _lookup(self, name: str) -> type[Processor] | None:
        """Own names, then the parent's, then the table."""
        own = self.own(name)
        if own is not None:
            return own
        if self._parent is not None:
            return self._parent._lookup(name)  # noqa: SLF001 - the same class
        target = TABLE.target(name)
        return _load(name, target) if target is not None else None

    def _own_names(self) -> dict[str, str]:
        names = self._parent._own_names() if self._parent is not None else {}  # noqa: SLF001
        names.update({key: name for key, (name, _) in self._classes.items()})
        return names


DECORATED = Registry()
"""What the decorators have registered in this process."""


def processor(name: str, *, stores: bool = False) -> Callable[[_Stage], _Stage]:
    """Makes a function `(envelope) -> Reply | Replies | None`, plain or async, a stage of a chain.

    A `Processor` subclass can be decorated as well.

    Args:
        name: what `save_process` calls it.
        stores: when it passes a mail on, that mail is durably saved.

    Raises:
        ValueError: the name is taken, or cannot stand in a chain.
    """

    def register(stage: _Stage) -> _Stage:
        if isinstance(stage, type):
            if stores:
                setattr(stage, "stores", True)  # noqa: B010 - of a type mypy does not know
            DECORATED.add(name, stage)
        else:
            _add_function(name, "save", stage, stores=stores)
        return stage

    return register


def validator(name: str) -> Callable[[_Stage], _Stage]:
    """Makes a function `(transaction, recipient) -> Reply | None` a stage of `validate_process`.

    Plain or async; a function that is a `processor` of the same name stays it.

    Raises:
        ValueError: the name is taken, or cannot stand in a chain.
    """

    def register(stage: _Stage) -> _Stage:
        _add_function(name, "validate", stage, stores=False)
        return stage

    return register


def authenticator(name: str) -> Callable[[_Stage], _Stage]:
    """Makes a function `(transaction, credentials) -> Reply | None` a stage of `auth_process`.

    Plain or async; it accepts by `guerrilla.AUTHENTICATED`, see `Processor.authenticate`. One that
    is a `processor` or a `validator` of the same name stays it.

    Raises:
        ValueError: the name is taken, or cannot stand in a chain.
    """

    def register(stage: _Stage) -> _Stage:
        _add_function(name, "authenticate", stage, stores=False)
        return stage

    return register


def import_modules(names: Iterable[str], beside: Path | None = None) -> list[str]:
    """Imports the modules of `backend_config.import`, which register processors.

    A module is looked for as Python does, then in the folder `beside` (that of the config file),
    which stays on the path since a module may import others later.

    Returns:
        What went wrong, one line a module; empty when all is well.
    """
    folder = str(beside.resolve()) if beside is not None else None
    problems = []
    for name in names:
        if folder is not None and folder not in sys.path:
            sys.path.append(folder)
        try:
            importlib.import_module(name)
            note(name)
        except ModuleNotFoundError as error:
            missing = error.name or name
            where = f" or in {folder}" if folder is not None else ""
            problems.append(
                f"backend_config.import: {name}: no module {missing!r} on the Python path{where}"
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of others
            problems.append(f"backend_config.import: {name}: {type(error).__name__}: {error}")
    return problems


def _add_function(name: str, method: str, function: object, *, stores: bool) -> None:
    if not callable(function):
        message = f"processor {name}: a function or a class is expected"
        raise TypeError(message)
    body = {
        method: staticmethod(function),
        "__module__": getattr(function, "__module__", __name__),
        "__qualname__": getattr(function, "__qualname__", name),
        "__doc__": function.__doc__,
    }
    if stores:
        body["stores"] = True
    other = DECORATED.own(name)
    if other is not None and issubclass(other, _Function) and method not in other.__dict__:
        # A validator beside a processor of one name: one class with both. So an authenticator.
        for key in ("__module__", "__qualname__", "__doc__"):
            del body[key]
        for key, value in body.items():
            setattr(other, key, value)
        return
    DECORATED.add(name, type(name, (_Function,), body))


class _Function(Processor):
    """A stage made from functions."""


def _key(name: str) -> str:
    plain = name.strip()
    if not plain or "|" in plain or ":" in plain or not plain.isprintable():
        message = f"{name!r} cannot be the name of a processor"
        raise ValueError(message)
    return plain.casefold()


def _same(one: type, other: type) -> bool:
    return one is other or _where(one) == _where(other)


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _load(name: str, target: str) -> type[Processor]:
    """Imports `module:Class`."""
    module, _, attribute = target.partition(":")
    try:
        found: type[Processor] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"processor {name} cannot be loaded: {error}"]) from error
    return found
