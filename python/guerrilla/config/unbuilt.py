"""Keys that are read and checked, and whose feature is not built yet.

A config that sets one is refused at start: to ignore it in silence would leave a server open that
its owner thinks closed. Who builds a feature deletes its line here.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from guerrilla.config.app import AppConfig, DashboardConfig
from guerrilla.config.section import Section, key_of
from guerrilla.errors import shown


@dataclass(frozen=True)
class _Later:
    """A key whose feature comes later.

    Attributes:
        field: of the section; `auth.required` is within one.
        feature: what is not built.
        is_set: whether a value asks for it; by default each that is not the key's own default.
    """

    field: str
    feature: str
    is_set: Callable[[Any], bool] | None = None


def _is_shown(dashboard: DashboardConfig | None) -> bool:
    return dashboard is not None and dashboard.is_enabled


_TOP: Final = (
    _Later("dashboard", "the dashboard", is_set=_is_shown),
    _Later("metrics", "metrics"),
)

_SERVER: Final = ()


def unbuilt(config: AppConfig) -> list[str]:
    """What the config asks for and is not built yet.

    Returns:
        One line each: the path of the key, what is not built, and what to do.
    """
    servers = [(f"servers[{index}]", server) for index, server in enumerate(config.servers)]
    return [
        *_set_in("", config, _TOP),
        *(line for path, server in servers for line in _set_in(path, server, _SERVER)),
    ]


def unbuilt_keys() -> dict[str, str]:
    """What is not built, by the path of its key, as `servers[].auth.required`."""
    tables = (("", _TOP), ("servers[].", _SERVER))
    return {f"{path}{later.field}": later.feature for path, table in tables for later in table}


def _set_in(path: str, section: Section, table: Iterable[_Later]) -> Iterator[str]:
    for later in table:
        owner, field = _owner(section, later.field)
        value = getattr(owner, field)
        default = type(owner).model_fields[field].get_default(call_default_factory=True)
        if later.is_set(value) if later.is_set else value != default:
            key = later.field.removesuffix(field) + key_of(type(owner), field)
            where = f"{path}{'.' if path else ''}{key}"
            yield f"{where}: {later.feature} is not built yet; {_advice(default)}"


def _owner(section: Section, path: str) -> tuple[Section, str]:
    """The section that holds the field of a path such as `auth.required`."""
    *outer, field = path.split(".")
    for name in outer:
        section = getattr(section, name)
    return section, field


def _advice(default: object) -> str:
    if isinstance(default, float) and default.is_integer():
        default = int(default)  # as a person writes it
    if isinstance(default, bool | int | float) or (isinstance(default, str) and default):
        return f"remove the key, or set it to {shown(default)}"
    return "remove the key"
