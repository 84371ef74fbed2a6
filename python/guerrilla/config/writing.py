"""A config as a person writes it: sizes and times with their units, and the text of TOML."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import WithJsonSchema
from pydantic.fields import FieldInfo

from guerrilla.config.masking import mask_value
from guerrilla.config.section import Section, key_of
from guerrilla.units import parse_seconds

_SIZES: Final = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES: Final = ((3600, "h"), (60, "m"), (1, "s"))
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_UNPAIRED: Final = re.compile("[\ud800-\udfff]")


def readable(section: Section, *, mask: bool = True) -> dict[str, Any]:
    """The effective config or a section of it, by config names, in the values of a config file.

    What is not set is left out. A config that is read from the result is equal, secrets excepted.

    Args:
        section: what to show.
        mask: shows secrets as `***`.
    """
    shown: dict[str, Any] = {}
    for field, info in type(section).model_fields.items():
        value = getattr(section, field)
        if value is not None:
            key = key_of(type(section), field)
            shown[key] = _value(value, info, key, mask=mask)
    for key, value in (section.model_extra or {}).items():
        if value is not None:
            shown[key] = mask_value(key, value) if mask else value
    return shown


def in_units(value: object, info: FieldInfo) -> object:
    """A size as `"10 MiB"` and a time as `"30s"`, where the field is one; else the value."""
    schema = next((item for item in info.metadata if isinstance(item, WithJsonSchema)), None)
    kinds = (schema.json_schema or {}).get("type") if schema is not None else None
    if kinds == ["integer", "string"] and isinstance(value, int):
        return size_text(value)
    if kinds == ["number", "string"] and isinstance(value, int | float):
        return time_text(value)
    return value


def size_text(size: int) -> str | int:
    """Bytes by the largest unit that divides them; the number where none does."""
    found = ((size // unit, name) for unit, name in _SIZES if size and size % unit == 0)
    return next((f"{count} {name}" for count, name in found), size)


def time_text(seconds: float) -> str | int | float:
    """Seconds as Go writes a duration, in one unit; the number where that would not be it."""
    if not seconds:
        return 0
    if seconds == int(seconds):
        found = ((int(seconds) // unit, name) for unit, name in _TIMES if not seconds % unit)
        return next(f"{count}{name}" for count, name in found)
    text = f"{seconds * 1000:.0f}ms"
    return text if parse_seconds(text) == seconds else seconds


def toml(values: Mapping[str, Any]) -> str:
    """The text of TOML for values of JSON; what is None is left out.

    Keys come before tables, and tables in the order of `values`. A config may hold what TOML
    cannot: an unpaired surrogate becomes U+FFFD.
    """
    return "\n".join(_table(values, ())) + "\n" if values else ""


def toml_value(value: object) -> str:
    """One value, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        pairs = [f"{_key(name)} = {toml_value(item)}" for name, item in _set(value)]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value if item is not None)}]"
    # JSON's escapes are those of TOML, which wants DEL among them.
    text = json.dumps(_UNPAIRED.sub("\ufffd", str(value)), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def _value(value: object, info: FieldInfo, key: str, *, mask: bool) -> object:
    if isinstance(value, Section):
        return readable(value, mask=mask)
    if mask:  # Whole, before it is taken apart: the fields within `http_headers` have any name.
        value = mask_value(key, value)
    if isinstance(value, tuple | list):
        return [_value(item, info, key, mask=mask) for item in value]
    if isinstance(value, Mapping):
        return {name: _value(item, info, name, mask=mask) for name, item in value.items()}
    return in_units(value, info)


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Lines of a table without its head: its keys, then the tables within it."""
    inner = [(key, value) for key, value in _set(values) if _is_table(value)]
    for key, value in _set(values):
        if not _is_table(value):
            yield f"{_key(key)} = {toml_value(value)}"
    for key, value in inner:
        where = (*path, key)
        name = ".".join(_key(part) for part in where)
        many = isinstance(value, list | tuple)
        for table in value if many else (value,):
            yield ""
            yield f"[[{name}]]" if many else f"[{name}]"
            yield from _table(table, where)


def _is_table(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping) and bool(value)


def _set(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in values.items() if value is not None]


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)
