"""`guerrillad config --schema`: a config as JSON Schema, for editors and for checks elsewhere."""

from __future__ import annotations

from typing import Any, Final

from guerrilla.config import AppConfig
from guerrilla.reference.keys import Key, groups, options_of, remarks, sentence

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_TITLE: Final = "Config of guerrilla"

_DESCRIPTION: Final = "Every key, whether its feature is built or not. JSON and TOML are equal."

_BOUNDS: Final = {"ge": "minimum", "le": "maximum"}
"""What pydantic leaves of a bound where a validator of ours stands before it."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a config, JSON or TOML.

    It is narrower than `guerrillad check` where a schema can only be so: keys and names are spelt
    as the documentation has them, and null does not stand for "not set" everywhere.
    """
    found: dict[str, Any] = _tidy(AppConfig.model_json_schema(by_alias=True))
    for group in groups():
        if group.readers:
            _add_options(found, group.readers[0], [key.name for key in group.keys])
        if not group.is_built and group.path:
            found["properties"][group.path]["description"] += " Not built yet."
        for key in group.keys:
            _mark(found, key)
    return {"$schema": _DIALECT, **found, "title": _TITLE, "description": _DESCRIPTION}


def _add_options(found: dict[str, Any], reader: str, names: list[str]) -> None:
    own = _tidy(options_of(reader).model_json_schema())["properties"]
    found["$defs"]["BackendConfig"]["properties"] |= {name: own[name] for name in names}


def _mark(found: dict[str, Any], key: Key) -> None:
    """Says of a key what is said in the other forms; a secret is marked as the dialect does."""
    place = found
    for step in key.path.replace("[]", "").split("."):
        place = _resolved(found, place)["properties"][step]
    place["description"] = place.get("description", "") + remarks(key)
    if key.is_secret:
        place["writeOnly"] = True


def _resolved(found: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """The object that a property holds: itself, one it refers to, an item's, an optional one."""
    inner = [place, place.get("items", {}), *place.get("anyOf", ())]
    reference = next((one["$ref"] for one in inner if "$ref" in one), None)
    if reference is None:
        return place
    target: dict[str, Any] = found["$defs"][reference.rpartition("/")[2]]
    return target


def _tidy(value: Any) -> Any:
    """Without the titles that only repeat a key, descriptions on one line, bounds as bounds."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidy = {_BOUNDS.get(key, key): _tidy(item) for key, item in value.items()}
    if isinstance(tidy.get("title"), str):
        del tidy["title"]
    if isinstance(tidy.get("description"), str):
        tidy["description"] = sentence(tidy["description"])
    return tidy
