"""Durations and sizes, as a config writes them.

`Seconds` and `Bytes` are types for the fields of a model; a processor's `Options` use them too.
"""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Final, TypeGuard

from pydantic import BeforeValidator, WithJsonSchema

from guerrilla.errors import expected

MAX_SECONDS: Final = 100 * 365 * 86_400
"""100 years: less than any clock or lock of Python overflows at (`threading.TIMEOUT_MAX`)."""

MAX_BYTES: Final = 2**63 - 1
"""What the core counts with, and more than any file system holds."""

_DURATION = "a duration such as '30s', '1h2m3.5s' or '500ms', or a number of seconds"
_SIZE = "a size such as '64 MiB', '10MB' or '1 GiB', or a number of bytes"

# Go's time.ParseDuration knows these. Fractions, so that '0.1s' and '100ms' are the same number.
_SECONDS_PER_UNIT: Final = {
    "ns": Fraction(1, 1_000_000_000),
    "us": Fraction(1, 1_000_000),
    "\u00b5s": Fraction(1, 1_000_000),  # the micro sign
    "\u03bcs": Fraction(1, 1_000_000),  # the Greek letter mu
    "ms": Fraction(1, 1_000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}"
_PART = re.compile(rf"({_NUMBER})(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")

# Only units that say whether they count by 1000 or 1024: '64M' means one to a disk maker and the
# other to a programmer.
_BYTES_PER_UNIT: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE_PATTERN = re.compile(rf"({_NUMBER})[ ]?([A-Za-z]{{0,3}})")


def parse_seconds(value: object) -> float:
    """Reads a duration: `"1h2m3.5s"` as Go writes it, or a plain number of seconds.

    Returns:
        Seconds, 0 to `MAX_SECONDS`.

    Raises:
        ValueError: what was expected and what was found.
    """
    if isinstance(value, str):
        seconds = _seconds_of(value)
    elif _is_whole(value) or (isinstance(value, float) and math.isfinite(value)):
        seconds = Fraction(value)
    else:
        raise expected(_DURATION, value)
    if seconds < 0:
        raise expected("a duration that is not negative", value)
    if seconds > MAX_SECONDS:
        raise expected("a duration of at most 100 years", value)
    return float(seconds)


def parse_bytes(value: object) -> int:
    """Reads a size: `"64 MiB"` (powers of 1024), `"10MB"` (of 1000), or a plain number of bytes.

    Returns:
        Bytes, 0 to `MAX_BYTES`.

    Raises:
        ValueError: what was expected and what was found.
    """
    if isinstance(value, str):
        size = _bytes_of(value)
    elif _is_whole(value):
        size = value
    else:
        raise expected(_SIZE, value)
    if size < 0:
        raise expected("a size that is not negative", value)
    if size > MAX_BYTES:
        raise expected("a size of at most 8 EiB", value)
    return size


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    WithJsonSchema({"type": ["number", "string"], "minimum": 0, "examples": ["30s", "1h30m"]}),
]
"""A duration in seconds; a config may write a number or a Go duration."""

Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 0, "examples": ["64 MiB"]}),
]
"""A size in bytes; a config may write a number or a size with a unit."""


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _seconds_of(text: str) -> Fraction:
    stripped = text.strip()
    sign, digits = (
        (-1, stripped[1:]) if stripped.startswith("-") else (1, stripped.removeprefix("+"))
    )
    if digits == "0":  # the only duration that Go takes without a unit
        return Fraction(0)
    parts = list(_PART.finditer(digits))
    if not parts or "".join(part[0] for part in parts) != digits:
        raise expected(_DURATION, text)
    return sign * sum(
        (Fraction(Decimal(part[1])) * _SECONDS_PER_UNIT[part[2]] for part in parts), Fraction(0)
    )


def _bytes_of(text: str) -> int:
    stripped = text.strip()
    negative = stripped.startswith("-")
    match = _SIZE_PATTERN.fullmatch(stripped.removeprefix("-"))
    factor = _BYTES_PER_UNIT.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise expected(_SIZE, text)
    size = Fraction(Decimal(match[1])) * factor
    if size.denominator != 1:
        raise expected("a whole number of bytes", text)
    return -size.numerator if negative else size.numerator
