"""The text of a config to plain values: JSON as Go-Guerrilla has it, or TOML."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from guerrilla.config.folding import ParsedObject
from guerrilla.errors import ConfigError, shown

Format = Literal["json", "toml"]

_TOML_POSITION = re.compile(r"\s*\(at line (\d+), column (\d+)\)")
_TOML_END = " (at end of document)"


def parse(text: str, format_: Format, source: str) -> Mapping[str, Any]:
    """Reads a config's text.

    Raises:
        ConfigError: it is not JSON or TOML, with line and column; or no object.
    """
    try:
        parsed = _parse_json(text) if format_ == "json" else tomllib.loads(text)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
    except tomllib.TOMLDecodeError as error:
        problem = _toml_problem(str(error), text)
    except RecursionError:
        problem = f"not {format_.upper()}: nested too deeply"
    except ValueError as error:  # an integer of thousands of digits, or NaN
        problem = f"not {format_.upper()}: {error}"
    else:
        if isinstance(parsed, Mapping):
            return parsed
        problem = f"expected an object of keys, got {shown(parsed)}"
    raise ConfigError(f"{source}: {problem}") from None


def guess_format(text: str) -> Format:
    """JSON where the text is JSON, or begins as a JSON object does; else TOML."""
    if text.lstrip().startswith("{"):
        return "json"
    try:
        _parse_json(text)
    except (ValueError, RecursionError):
        return "toml"
    return "json"


def _parse_json(text: str) -> object:
    parsed: object = json.loads(text, object_pairs_hook=ParsedObject, parse_constant=_no_constant)
    return parsed


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is no number of JSON"
    raise ValueError(message)


def _toml_problem(message: str, text: str) -> str:
    found = _TOML_POSITION.search(message)
    if found is not None:
        line, column = found[1], found[2]
        message = message.replace(found[0], "")
    else:  # the text ended too early: name its end
        line, column = str(text.count("\n") + 1), str(len(text) - text.rfind("\n"))
        message = message.replace(_TOML_END, "")
    return f"line {line}, column {column}: not TOML: {message}"
