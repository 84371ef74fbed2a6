"""The types of a config's fields. Each says what it expected: `expected an integer, got 'many'`.

They are strict: `"100"` is no integer, and `1` is not `true`, as in Go-Guerrilla.
"""

import difflib
import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from guerrilla._core import ascii_host
from guerrilla.errors import expected
from guerrilla.units import parse_seconds

# At most 255 octets: RFC 5321 §4.5.3.1.2.
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?")

_MODE = re.compile(r"0?[0-7]{3}")

LogLevel = Literal["debug", "info", "warning", "error", "fatal", "panic"]
LOG_LEVELS: Final = get_args(LogLevel)

MAX_COUNT: Final = 2**31 - 1
"""More than any count here needs; the core's counters hold it."""


def nearest(name: str, known: Collection[str]) -> str:
    """`; did you mean 'max_size'?`, or nothing when no known name is near."""
    folded = {key.casefold(): key for key in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def whole(minimum: int, maximum: int = MAX_COUNT) -> BeforeValidator:
    """Takes an integer within bounds."""
    # The bound that only guards the core's counters is not worth a word until it is passed.
    least = f"of at least {minimum}" if maximum == MAX_COUNT else f"from {minimum} to {maximum}"

    def check(value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise expected(f"an integer {least}", value)
        if value > maximum:
            raise expected(f"an integer from {minimum} to {maximum}", value)
        return value

    return BeforeValidator(check)


def one_of(*names: str, or_none: bool = False) -> BeforeValidator:
    """Takes one of some names, in any case; with `or_none` an empty text means None."""
    by_fold = {name.casefold(): name for name in names}

    def check(value: object) -> object:
        if or_none and value in ("", None):
            return None
        name = by_fold.get(value.casefold()) if isinstance(value, str) else None
        if name is None:
            raise expected(f"one of {', '.join(names)}", value)
        return name

    return BeforeValidator(check)


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not _is_clean(value):
        raise expected("a text that is not empty", value)
    return value


def _maybe_text(value: object) -> str | None:
    # An empty string is how Go-Guerrilla's files say "not set".
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _is_clean(value):
        raise expected("a text", value)
    return value


def _mode(value: object) -> str | None:
    if value is None or value == "":
        return None
    # No number: TOML and JSON write 660 as a decimal one.
    if not isinstance(value, str) or _MODE.fullmatch(value) is None:
        raise expected("a mode in octal, as '0660'", value)
    return value


def _is_clean(text: str) -> bool:
    """No NUL and no lone surrogate, which JSON can write and no path or name can hold."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _items(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise expected("a list", value)
    return value


def _table(value: object) -> object:
    if not isinstance(value, Mapping | BaseModel):
        raise expected("an object", value)
    return value


def _empty_is_none(value: object) -> object:
    return None if isinstance(value, Mapping) and not value else value


def _positive_seconds(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds == 0:
        raise expected("a duration over 0", value)
    return seconds


def _host(value: object) -> str:
    # What is said to clients, and written into headers, is ASCII.
    host = _in_ascii(value) if isinstance(value, str) else ""
    if is_host(host) or is_literal(host):
        return host
    raise expected("a host name or an address literal", value)


def _allowed_host(value: object) -> str:
    # As it is written: the core compares names in their A-form.
    entry = value.strip() if isinstance(value, str) else ""
    plain = _in_ascii(entry)
    if plain == "." or is_host(plain) or is_literal(plain):
        return entry
    if not _is_wildcard(plain):
        raise expected("a host name, *.example.com, [127.0.0.1], [IPv6:::1] or .", value)
    return entry


def _network(value: object) -> str:
    what = "an address or network such as '10.0.0.0/8' or '::1'"
    if not isinstance(value, str):  # ip_network would take an integer
        raise expected(what, value)
    try:
        # Host bits may be set: 127.0.0.1/8 means 127.0.0.0/8.
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise expected(what, value) from None


def pattern_in_ascii(pattern: str) -> str:
    """A host name or a pattern for such with each label in its A-form (IDNA), in lower case.

    Raises:
        ValueError: a label that is not ASCII and has a wildcard too, or that no host name has.
    """
    if pattern.isascii():
        return pattern.lower()
    labels = pattern.split(".")
    if any(not label.isascii() and set(label) & set("*?[]") for label in labels):
        message = "a label with a wildcard has to be ASCII"
        raise ValueError(message)
    if not any(set(label) & set("*?[]") for label in labels):
        return ascii_host(pattern)
    return ".".join(ascii_host(label) for label in labels)


def _in_ascii(text: str) -> str:
    """An internationalised name in its A-form; as it is where it is none."""
    if text.isascii():
        return text
    try:
        return pattern_in_ascii(text)
    except ValueError:
        return text


def is_host(text: str) -> bool:
    """Whether this is a host name, by its characters; an IPv4 address is none."""
    return _HOST.fullmatch(text) is not None and not is_address(text) and ".." not in text


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_literal(text: str) -> bool:
    """Whether this is an address literal (RFC 5321 §4.1.3): `[127.0.0.1]`, `[IPv6:::1]`."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    inner = text[1:-1]
    is_v6 = inner[:5].casefold() == "ipv6:"
    try:
        (ipaddress.IPv6Address if is_v6 else ipaddress.IPv4Address)(inner[5:] if is_v6 else inner)
    except ValueError:
        return False
    return True


def _is_wildcard(text: str) -> bool:
    plain = not (text.startswith("[") and text.endswith("]"))
    return plain and any(mark in text for mark in "*?[") and text.isascii() and text.isprintable()


Flag = Annotated[bool, BeforeValidator(_flag)]
"""`true` or `false`, nothing else."""

Count = Annotated[int, whole(0), Field(ge=0, le=MAX_COUNT)]
"""An integer of at least 0; 0 means off or no limit."""

Positive = Annotated[int, whole(1), Field(ge=1, le=MAX_COUNT)]
"""An integer of at least 1."""

PositiveSeconds = Annotated[
    float,
    BeforeValidator(_positive_seconds),
    WithJsonSchema({"type": ["number", "string"], "exclusiveMinimum": 0, "examples": ["30s"]}),
]
"""A duration that is not 0."""

Text = Annotated[str, BeforeValidator(_text)]
"""A text that is not empty."""

MaybeText = Annotated[str | None, BeforeValidator(_maybe_text)]
"""A text, or not set; an empty one is not set."""

Mode = Annotated[str | None, BeforeValidator(_mode)]
"""The permissions of a file, in octal, or not set."""

Host = Annotated[str, BeforeValidator(_host)]
"""A host name, as the greeting says it."""

AllowedHost = Annotated[str, BeforeValidator(_allowed_host)]
"""An entry of `allowed_hosts`."""

Network = Annotated[str, BeforeValidator(_network)]
"""An address or a network, normalised: `10.0.0.0/8`."""

ITEMS = BeforeValidator(_items)
"""For a field that is a list."""

TABLE = BeforeValidator(_table)
"""For a field that is an object."""

EMPTY_IS_NONE = BeforeValidator(_empty_is_none)
"""For a section whose empty form `{}` means that it is not set."""
