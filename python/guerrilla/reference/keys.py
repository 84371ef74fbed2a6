"""Every key of a config, with what a person wants to know of it, from the models."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, get_origin

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind

from guerrilla.config import AppConfig, BackendConfig, Section, ServerConfig
from guerrilla.config.fields import MAX_COUNT
from guerrilla.config.masking import may_hold_secret
from guerrilla.config.section import key_of, section_in
from guerrilla.config.server import machine_name
from guerrilla.config.unbuilt import unbuilt_keys
from guerrilla.config.writing import in_units
from guerrilla.processors import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from guerrilla.engine.base import Processor

EXAMPLES: Final[dict[str, object]] = {
    "pid_file": "guerrilla.pid",
    "control_socket": "guerrilla.sock",
    "user": "mail",
    "group": "mail",
    "spool.path": "spool",
    "metrics.listen_interface": "127.0.0.1:9090",
    "servers[].unix_mode": "0660",
    "servers[].host_name": "mx.example.com",
    "servers[].log_level": "info",
    "servers[].log_file": "server.log",
    "servers[].tls.private_key_file": "mx.key",
    "servers[].tls.public_key_file": "mx.crt",
    "servers[].tls.root_cas_file": "clients.pem",
    "servers[].tls.client_auth_type": "VerifyClientCertIfGiven",
    "servers[].tls.certificates[].private_key_file": "other.key",
    "servers[].tls.certificates[].public_key_file": "other.crt",
    "backend_config.primary_mail_host": "mx.example.com",
    "backend_config.fcgi_connection_address": "/run/php/guerrilla.sock",
    "backend_config.http_url": "https://example.com/inbound",
    "backend_config.forward_address": "mail.example.com:25",
    "backend_config.forward_helo": "mx.example.com",
}
"""What stands in the sample for a key that has no default, or one that is the machine's own."""

_WORDS: Final = {"string": "text", "boolean": "`true`, `false`", "object": "table"}
"""What a plain type takes, in words."""

_ALL_OF: Final = {"servers": ServerConfig(listen_interface="127.0.0.1:2525")}
"""Where the default of a list is not empty: what its only item is."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: as a config spells it.
        path: `servers[].tls.watch`.
        kind: what it takes, in words: `duration`, `integer of at least 1`.
        default: as a config would write it; None where it has none, or the machine's own.
        initial: what the config without a file has, which may differ within a table.
        is_required: where its table stands.
        meaning: sentences, in Markdown.
        is_secret: it is, or may hold, a secret, and is never shown.
        is_built: its feature is.
    """

    name: str
    path: str
    kind: str
    default: object
    initial: object
    is_required: bool
    meaning: str
    is_secret: bool
    is_built: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The keys of one table of a config.

    Attributes:
        path: `servers[].tls`; empty for the top.
        meaning: paragraphs, in Markdown.
        keys: in the order of the model.
        is_default: the config without a file has it.
        is_built: its feature is.
        readers: the processors that read the keys; none for those of the table's own.
    """

    path: str
    meaning: tuple[str, ...]
    keys: tuple[Key, ...]
    is_default: bool
    is_built: bool = True
    readers: tuple[str, ...] = ()


def groups() -> list[Group]:
    """Every table, and after `backend_config` the keys of each built-in processor."""
    found = []
    for group in _groups(AppConfig, AppConfig.default(), "", is_default=True):
        found.append(group)
        if group.path == "backend_config":
            found += _processor_groups({key.name for key in group.keys})
    return found


def built_in(name: str) -> type[Processor]:
    """The class of a built-in processor."""
    module, _, attribute = (TABLE.target(name) or "").partition(":")
    found: type[Processor] = getattr(importlib.import_module(module), attribute)
    return found


def options_of(name: str) -> type[BaseModel]:
    """The options of a built-in processor."""
    return built_in(name).Options


def option_keys(options: type[BaseModel]) -> list[Key]:
    """The keys that a processor reads, also those of the backend's own that it shares.

    What stands in `backend_config` when a key of the backend is not set, the backend says.
    """
    fields = BackendConfig.model_fields
    shared = {key_of(BackendConfig, name): info for name, info in fields.items()}
    properties = _properties(options, options)
    keys = []
    for field, info in options.model_fields.items():
        name = info.validation_alias if isinstance(info.validation_alias, str) else field
        source = shared.get(name, info)
        value = None if source.is_required() else source.get_default(call_default_factory=True)
        key = _key(name, f"backend_config.{name}", source, value, properties.get(name, {}))
        keys.append(replace(key, meaning=sentence(info.description)))
    return keys


def of_processors(names: Sequence[str]) -> str:
    """`the processors SQL and MySQL`."""
    *most, last = names
    return f"the processors {', '.join(most)} and {last}" if most else f"the processor {last}"


def remarks(key: Key) -> str:
    """What is said of a key beside its meaning: each with a space before it."""
    built = "" if key.is_built else " Not built yet."
    return f"{built} A password in it is never shown." if key.is_secret else built


def sentence(text: str | None) -> str:
    """A docstring on one line."""
    return " ".join((text or "").split())


def _groups(
    section: type[Section], default: object, path: str, *, is_default: bool
) -> Iterator[Group]:
    properties = _properties(AppConfig, section)
    keys: list[Key] = []
    inner: list[Group] = []
    for field, info in section.model_fields.items():
        name = key_of(section, field)
        where = f"{path}.{name}" if path else name
        found = section_in(info.annotation)
        value = getattr(default, field, None if info.is_required() else info.get_default())
        if found is None or get_origin(info.annotation) is dict:
            keys.append(_key(name, where, info, value, properties[name]))
        elif get_origin(info.annotation) is tuple:
            item = _ALL_OF.get(where)
            given = is_default and item is not None
            inner += _groups(found, item, f"{where}[]", is_default=given)
        else:
            given = is_default and value is not None
            inner += _groups(found, value, where, is_default=given)
    is_built = path not in unbuilt_keys()
    yield Group(path, _paragraphs(section.__doc__), tuple(keys), is_default, is_built)
    yield from inner


def _processor_groups(own: set[str]) -> Iterator[Group]:
    """Each key once, under the first processor that reads it and all others that do."""
    readers = {name: option_keys(options_of(name)) for name in TABLE.names}
    told = set(own)
    for first, keys in readers.items():
        mine = tuple(key for key in keys if key.name not in told)
        names = {key.name for key in mine}
        told |= names
        if mine:
            every = (name for name, of in readers.items() if names <= {key.name for key in of})
            others = tuple(name for name in every if name != first)
            yield Group("backend_config", (), mine, is_default=True, readers=(first, *others))


def _key(name: str, path: str, info: FieldInfo, value: object, schema: dict[str, Any]) -> Key:
    # Of a list the model's own: an empty one may stand for one of the machine's own.
    default = None if info.is_required() or info.default_factory is machine_name else value
    if isinstance(info.default, bool | tuple):
        default = info.default
    initial = info.default if isinstance(info.default, tuple) else value
    return Key(
        name=name,
        path=path,
        kind=kind_of(schema),
        default=in_units(default, info),
        initial=None if info.default_factory is machine_name else in_units(initial, info),
        is_required=info.is_required(),
        meaning=sentence(info.description),
        is_secret=may_hold_secret(name),
        is_built=path not in unbuilt_keys(),
    )


def _properties(root: type[BaseModel], of: type[BaseModel]) -> dict[str, Any]:
    schema = root.model_json_schema(by_alias=True, schema_generator=_Lenient)
    inner = schema.get("$defs", {})
    found: dict[str, Any] = (schema if root is of else inner[of.__name__])["properties"]
    # An enumeration stands beside them.
    return {
        name: inner[item["$ref"].rpartition("/")[2]] if "$ref" in item else item
        for name, item in found.items()
    }


class _Lenient(GenerateJsonSchema):
    """A type that JSON has no form for, as a processor of others may have it, takes any value."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # as pydantic declares it  # noqa: RUF012
        "skipped-choice",
        "non-serializable-default",
    }

    def handle_invalid_for_json_schema(self, schema: object, error_info: str) -> JsonSchemaValue:
        del schema, error_info
        return {}


def kind_of(schema: dict[str, Any]) -> str:
    """What a key takes, in words, from its JSON Schema."""
    schema = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)
    if "enum" in schema:
        return ", ".join(f"`{name}`" for name in schema["enum"])
    match schema.get("type"):
        case ["integer" | "number" as first, "string"]:
            return "size" if first == "integer" else "duration"
        case "array":
            return f"list: {kind_of(schema.get('items', {}))}"
        case "integer" | "number" as name:
            return _number(name, schema)
        case list():
            return "name or number"
        case name:  # One that is not here, as a model of its own, only its author can describe.
            return _WORDS.get(str(name), "value")


def _number(name: str, schema: dict[str, Any]) -> str:
    # pydantic leaves `ge` and `le` as they are where a validator of ours stands before them.
    least = schema.get("minimum", schema.get("ge", 0))
    most = schema.get("maximum", schema.get("le", MAX_COUNT))
    if most != MAX_COUNT:
        return f"{name} from {least} to {most}"
    return f"{name} of at least {least}"


def _paragraphs(text: str | None) -> tuple[str, ...]:
    return tuple(sentence(part) for part in (text or "").split("\n\n"))
