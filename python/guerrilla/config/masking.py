"""Secrets are never shown: not in a `repr`, an error, a log or the output of a command."""

import re
from collections.abc import Mapping
from typing import Final

MASK: Final = "***"

# Of header fields any may be one: `Authorization`, `X-Api-Key`, and whatever a server asks for.
_SECRET_KEY = re.compile(r"passw|passphrase|secret|token|credential|http_headers", re.IGNORECASE)
_DSN_KEY = re.compile(r"dsn", re.IGNORECASE)
# Each takes all up to the last @: a password may hold one, and to hide too much does no harm.
_URL_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")
_GO_PASSWORD = re.compile(r"^([^:/@]*):.*@", re.DOTALL)
_ASSIGNED = re.compile(
    r"((?:password|passwd|pwd|passphrase|secret|token)\s*=\s*)('(?:[^'\\]|\\.)*'|[^&;\s]+)",
    re.IGNORECASE,
)


def may_hold_secret(key: str) -> bool:
    """Whether a key is named for a secret, or for a DSN, which may have a password in it."""
    return bool(_SECRET_KEY.search(key) or _DSN_KEY.search(key))


def mask_text(text: str) -> str:
    """Hides the passwords of URLs (`scheme://user:PASSWORD@host`) and of `password=…`."""
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def mask_value(key: str, value: object) -> object:
    """A copy of a value without its secrets.

    Args:
        key: the key it stands under; one named for a password, secret or token hides it whole, one
            named for a DSN hides Go's `user:PASSWORD@tcp(…)` too.
        value: a string, number, mapping, sequence or model; mappings and sequences are walked.
    """
    if _SECRET_KEY.search(key) and value not in (None, "", False):
        return dict.fromkeys(value, MASK) if isinstance(value, Mapping) else MASK
    if isinstance(value, Mapping):
        return {name: mask_value(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mask_value(key, item) for item in value)
    if not isinstance(value, str):
        return value
    if _DSN_KEY.search(key) and "://" not in value:
        value = _GO_PASSWORD.sub(rf"\1:{MASK}@", value)
    return mask_text(value)
