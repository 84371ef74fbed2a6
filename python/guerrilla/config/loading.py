"""A config from a file, a text or a mapping; every problem in it at once, a line each."""

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from guerrilla.config.app import AppConfig
from guerrilla.config.folding import fold, join
from guerrilla.config.masking import mask_text
from guerrilla.config.parsing import Format, guess_format, parse
from guerrilla.errors import ConfigError, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_FORMATS: Final[dict[str, Format]] = {".json": "json", ".toml": "toml"}


def load(path: str | PathLike[str]) -> AppConfig:
    """Reads a config file and checks its types and names; it opens no other file.

    The suffix tells the format: `.json` or `.toml`; any other holds either.

    Raises:
        ConfigError: the file cannot be read, is neither JSON nor TOML, or holds a bad key or value;
            a line each, as `FILE: servers[0].max_clients: expected an integer of at least 1, got
            'many'`.
    """
    source = fspath(path)  # as its user wrote it: Path would drop a leading ./
    text = _read(source)
    format_ = _FORMATS.get(Path(source).suffix.lower()) or guess_format(text)
    return loads(text, format=format_, source=source)


def loads(text: str, *, format: Format = "json", source: str = "<string>") -> AppConfig:  # noqa: A002
    """Reads a config from a text and checks its types and names; it opens no file.

    Args:
        text: JSON or TOML.
        format: which of the two.
        source: what the problems name as their file.

    Raises:
        ConfigError: as `load`.
    """
    return from_mapping(parse(text, format, source), source=source)


def from_mapping(raw: Mapping[str, Any], *, source: str = "<mapping>") -> AppConfig:
    """Makes a config of plain values, as JSON and TOML give them; keys in any case.

    Raises:
        ConfigError: as `load`.
    """
    # Read before all else, since it decides what the reading of all else may complain of.
    ignore_unknown = any(
        key.casefold() == "ignore_unknown_keys" and value is True for key, value in raw.items()
    )
    folded, problems = fold(AppConfig, raw, ignore_unknown=ignore_unknown)
    try:
        config = AppConfig.model_validate(folded)
    except ValidationError as error:
        config = None
        problems += [line for details in error.errors() for line in _lines(details)]
    if config is None or problems:
        raise ConfigError(f"{source}: {mask_text(problem)}" for problem in problems)
    return config


def _read(source: str) -> str:
    try:
        return Path(source).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        problem = "no such file"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    except ValueError:  # a NUL in the path
        problem = "not a path"
    raise ConfigError(f"{source}: {problem}") from None


def _lines(details: "ErrorDetails") -> Iterable[str]:
    path = _path(details["loc"])
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):  # of a section as a whole: each line begins with its key
        return [f"{path}.{problem}" if path else problem for problem in cause.problems]
    if details["type"] == "missing":
        return [f"{path}: this key is required"]
    # Without a cause of ours it is what pydantic itself found.
    message = str(cause or f"{details['msg']}, got {shown(details['input'])}")
    return [f"{path}: {message}" if path else message]


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path = f"{path}[{step}]" if isinstance(step, int) else join(path, step)
    return path
