"""Secrets are never shown: not in a `repr`, an error, a log or the output of a command."""

import re
from collections.abc import Mapping
from typing import Final

MASK: Final = "***"

# `api_key` is a secret; what names a file, as `private_key_file`, is none.
_SECRET_KEY = re.compile(
    r"passw|passphrase|secret|token|credential|(?:api|access|auth|signing|hmac|private)_?key$",
    re.IGNORECASE,
)
# Of header fields any may be one: `Authorization`, `X-Api-Key`, and whatever a server asks for.
_HEADERS_KEY = re.compile(r"http_headers", re.IGNORECASE)
_DSN_KEY = re.compile(r"dsn", re.IGNORECASE)
# Whoever has the URL of a webhook can often post to it: its path or its query is the secret.
_WEBHOOK_KEY = re.compile(r"http_url$", re.IGNORECASE)
_BEHIND_HOST = re.compile(r"^((?>(?:[^/?#]*://)?)[^/?#]*)[/?#].+", re.DOTALL)
_URL_USER = re.compile(r"(://)[^:/?#]*@")
# Each takes all up to the last @: a password may hold one, and to hide too much does no harm.
_URL_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")
_GO_PASSWORD = re.compile(r"^([^:/@]*):.*@", re.DOTALL)
_ASSIGNED = re.compile(
    r"((?:password|passwd|pwd|passphrase|secret|token)\s*=\s*)('(?:[^'\\]|\\.)*'|[^&;\s]+)",
    re.IGNORECASE,
)


def may_hold_secret(key: str) -> bool:
    """Whether a key is named for a secret, or for what may have one in it, as a DSN."""
    kinds = (_SECRET_KEY, _HEADERS_KEY, _DSN_KEY, _WEBHOOK_KEY)
    return any(kind.search(key) for kind in kinds)


def mask_text(text: str) -> str:
    """Hides the passwords of URLs (`scheme://user:PASSWORD@host`) and of `password=…`."""
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def mask_value(key: str, value: object) -> object:
    """A copy of a value without its secrets.

    Args:
        key: the key it stands under; one named for a password, secret or token hides it whole, one
            named for a DSN hides Go's `user:PASSWORD@tcp(…)` too, one for a webhook all but the
            host and a user that has a password; of header fields the names are left.
        value: a string, number, mapping, sequence or model; mappings and sequences are walked.
    """
    if _SECRET_KEY.search(key) and value not in (None, "", False):
        return MASK
    if _HEADERS_KEY.search(key) and value:
        return dict.fromkeys(value, MASK) if isinstance(value, Mapping) else MASK
    if isinstance(value, Mapping):
        return {name: mask_value(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mask_value(key, item) for item in value)
    if not isinstance(value, str):
        return value
    if _DSN_KEY.search(key) and "://" not in value:
        value = _GO_PASSWORD.sub(rf"\1:{MASK}@", value)
    text = mask_text(value)
    if _WEBHOOK_KEY.search(key):
        text = _URL_USER.sub(rf"\1{MASK}@", _BEHIND_HOST.sub(rf"\1/{MASK}", text))
    return text
