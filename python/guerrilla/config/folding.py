"""Key names, before the values: case folded, repeated and unknown ones found.

Files of Go-Guerrilla write keys in any case, so `Max_Clients` is `max_clients`, and both in one
object are one key too many.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_origin

from guerrilla.config.fields import nearest
from guerrilla.config.section import Section, key_of, section_in
from guerrilla.errors import shown

_MAX_DEPTH: Final = 32
"""Far more than any config needs, far less than Python's stack holds."""

_TOO_DEEP: Final = f"nested more than {_MAX_DEPTH} levels deep"

_MAX_KEY: Final = 60


class ParsedObject(dict[str, Any]):
    """A JSON object that remembers which keys were written more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        """Takes the pairs as written; of a repeated key the last one stays."""
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.repeated = [key for key, count in counts.items() if count > 1]


def fold(
    section: type[Section], raw: Mapping[str, Any], *, ignore_unknown: bool
) -> tuple[dict[str, Any], list[str]]:
    """Brings the keys of a config to the spelling of the models.

    A value of null counts as not set, as Go reads it.

    Returns:
        The folded config, and a line for each key that is repeated or unknown.
    """
    problems = list(_misshapen(raw, "", 0))
    if any(problem.endswith(_TOO_DEEP) for problem in problems):
        return {}, problems
    folded = _fold_section(section, raw, "", problems, ignore_unknown=ignore_unknown)
    return folded, problems


def join(path: str, key: str) -> str:
    """The path of a key within the object at `path`; always one line."""
    if not key.isprintable() or len(key) > _MAX_KEY:
        key = shown(key)
    return f"{path}.{key}" if path else key


def _misshapen(value: object, path: str, depth: int) -> Iterator[str]:
    """A line for each key that is repeated, and for what is nested too deeply."""
    if depth > _MAX_DEPTH:
        yield f"{path[:_MAX_KEY]}…: {_TOO_DEEP}"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _misshapen(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, Mapping):
        yield from _repeated(value, path)
        for key, item in value.items():
            yield from _misshapen(item, join(path, key), depth + 1)


def _repeated(value: Mapping[str, object], path: str) -> Iterator[str]:
    if isinstance(value, ParsedObject):
        yield from (f"{join(path, key)}: this key stands here twice" for key in value.repeated)
    first: dict[str, str] = {}
    for key in value:
        other = first.setdefault(key.casefold(), key)
        if other != key:
            yield f"{join(path, key)}: this key stands here twice, also as {shown(other)}"


def _fold_section(
    section: type[Section],
    raw: Mapping[str, Any],
    path: str,
    problems: list[str],
    *,
    ignore_unknown: bool,
) -> dict[str, Any]:
    fields = {key_of(section, field).casefold(): field for field in section.model_fields}
    takes_any = section.model_config.get("extra") == "allow"
    folded: dict[str, Any] = {}
    for key, value in raw.items():
        if value is None:
            continue
        field = fields.get(key.casefold())
        if field is not None:
            known = key_of(section, field)
            folded[known] = _fold_value(
                section.model_fields[field].annotation,
                value,
                join(path, known),
                problems,
                ignore_unknown=ignore_unknown,
            )
        elif takes_any:
            folded[key.lower()] = _plain(value)
        elif not ignore_unknown:
            spelt = [key_of(section, name) for name in section.model_fields]
            problems.append(f"{join(path, key)}: unknown key{nearest(key, spelt)}")
    return folded


def _fold_value(
    annotation: object, value: object, path: str, problems: list[str], *, ignore_unknown: bool
) -> object:
    section = section_in(annotation)
    if section is None:
        return _plain(value)
    if isinstance(value, list | tuple):
        return [
            _fold_value(section, item, f"{path}[{index}]", problems, ignore_unknown=ignore_unknown)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, Mapping):
        return value  # of a wrong type, as the model will say
    if get_origin(annotation) is dict:
        return {
            name: _fold_value(
                section, item, join(path, name), problems, ignore_unknown=ignore_unknown
            )
            for name, item in value.items()
        }
    return _fold_section(section, value, path, problems, ignore_unknown=ignore_unknown)


def _plain(value: object) -> object:
    """The value without `ParsedObject`s."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
