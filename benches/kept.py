"""Figures of a run, kept as JSON beside the program that measured them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Made = TypeVar("Made")


def read(path: Path, program: str, made: Callable[[dict[str, Any]], Made]) -> Made:
    """What a file tells.

    Args:
        path: the file.
        program: what has written it.
        made: makes the figures of what the JSON says.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none of that program's; the text names it.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return made(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no figures of {program}: {error!r}") from error


def written(told: Mapping[str, Any]) -> str:
    """As JSON: a line a figure, and of a table a line a row, so that a change can be read."""
    return "{\n" + ",\n".join(_lines(told)) + "\n}\n"


def _lines(told: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in told.items():
        if isinstance(value, tuple):
            rows = ",\n".join(f"    {_json(row)}" for row in value)
            lines.append(f"  {_json(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {_json(key)}: {_json(value)}")
    return lines


def _json(value: Any) -> str:
    return json.dumps(rounded(value), ensure_ascii=False)


def rounded(value: Any) -> Any:
    """The same with as many digits as say something."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
