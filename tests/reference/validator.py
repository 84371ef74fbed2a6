"""As much of JSON Schema as ours uses, so that a test can hold a config to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
_KNOWN = {
    *("$schema", "$defs", "$ref", "title", "description", "default", "examples", "writeOnly"),
    *("type", "enum", "anyOf", "properties", "additionalProperties", "required", "items"),
    *("minimum", "maximum", "exclusiveMinimum"),
}


def errors(root: dict[str, Any], value: Any) -> list[str]:
    """What the schema says against a value, a path and a word each."""
    return list(_errors(root, root, value, ""))


def _errors(root: dict[str, Any], schema: Any, value: Any, path: str) -> Iterator[str]:
    assert set(schema) <= _KNOWN, f"the validator does not know {set(schema) - _KNOWN}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from _errors(root, root["$defs"][name], value, path)
    choices = schema.get("anyOf", [])
    if choices and all(list(_errors(root, one, value, path)) for one in choices):
        yield f"{path}: anyOf"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: enum"
    yield from _wrong_type(schema, value, path)
    if isinstance(value, dict):
        yield from _in_object(root, schema, value, path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _errors(root, schema.get("items", {}), item, f"{path}[{index}]")


def _wrong_type(schema: Any, value: Any, path: str) -> Iterator[str]:
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(_is(value, name) for name in names):
        yield f"{path}: type"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{path}: range"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            yield f"{path}: range"


def _is(value: Any, name: str) -> bool:
    is_flag = isinstance(value, bool)
    return isinstance(value, _TYPES[name]) and (not is_flag or name == "boolean")


def _in_object(root: dict[str, Any], schema: Any, value: Any, path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    yield from (
        f"{path}.{name}: missing" for name in schema.get("required", []) if name not in value
    )
    for name, item in value.items():
        where = f"{path}.{name}"
        if name in properties:
            yield from _errors(root, properties[name], item, where)
        elif others is False:
            yield f"{where}: unknown"
        elif others is not True:
            yield from _errors(root, others, item, where)
