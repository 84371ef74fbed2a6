"""Hashes of passwords: argon2 and bcrypt, each by a library of its own.

No function here puts a hash or a password into what it raises.
"""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, cast

from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    import argon2

__all__ = ["HashError", "check", "make", "prepared", "verify"]

BCRYPT_LENGTH: Final = 72
"""Octets of a password that bcrypt looks at."""

_BCRYPT: Final = re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_ARGON2: Final = re.compile(r"\$argon2id?\$(?:[A-Za-z0-9+/=,]+\$){3}[A-Za-z0-9+/]+")
_OTHERS: Final = (
    (re.compile(r"\{"), "a scheme in braces: take it off before $2 or $argon2id$, else"),
    (re.compile(r"\$apr1\$|\$1\$"), "an MD5 hash, which is found by trying"),
    (re.compile(r"\$[56]\$"), "a hash of crypt's SHA-2 kinds, which is found by trying"),
    (re.compile(r"\$y\$|\$7\$"), "a hash of yescrypt or scrypt, for which there is no library"),
    (re.compile(r"\$argon2d\$"), "argon2d, which is not meant for passwords"),
    (re.compile(r"\$2"), "a bcrypt hash of an unknown kind, or a damaged one"),
    (re.compile(r"\$argon2"), "an argon2 hash of an unknown kind, or a damaged one"),
)
_ADVICE: Final = "make it anew with 'guerrillad password', or with 'htpasswd -B -C 12'"


class HashError(GuerrillaError):
    """A hash that cannot be used; the text says why, and has nothing of it."""


def prepared(text: str) -> str:
    """A name or a password in the one form that it is compared in: NFC (RFC 8265 section 4)."""
    return unicodedata.normalize("NFC", text)


def check(hashed: str) -> None:
    """Looks at a hash, without the time that a password takes.

    Raises:
        HashError: it is none that a password is checked against here, or its library is missing.
    """
    if _BCRYPT.fullmatch(hashed):
        _library("bcrypt", "bcrypt")
        return
    if _ARGON2.fullmatch(hashed):
        library = _library("argon2", "argon2-cffi")
        try:
            found = library.extract_parameters(hashed)
        except library.exceptions.InvalidHashError:
            found = None
        if found is not None and found.salt_len >= 8 and found.hash_len >= 4:  # noqa: PLR2004 - RFC 9106 section 3.1
            return
    what = next((text for form, text in _OTHERS if form.match(hashed)), "")
    what = what or "no hash of bcrypt or argon2, but a password in the clear or an old hash"
    raise HashError(f"{what}{' ' if what.endswith(' else') else ': '}{_ADVICE}")


def verify(hashed: str, password: str) -> bool:
    """Whether it is the password; takes as long where it is not.

    Args:
        hashed: one that `check` takes.
        password: `prepared`.

    Raises:
        HashError: it cannot be checked, as where its library finds no memory.
    """
    octets = password.encode("utf-8", "surrogatepass")
    if hashed.startswith("$2"):
        return _verify_bcrypt(hashed, octets)
    errors = _library("argon2", "argon2-cffi").exceptions
    try:
        return _hasher().verify(hashed, octets)
    except errors.VerifyMismatchError:
        return False
    except (errors.VerificationError, errors.InvalidHashError) as error:
        raise HashError(f"argon2 cannot check a password: {error}") from None


def make(password: str) -> str:
    """A new hash: argon2id, with the parameters that its library recommends (RFC 9106 section 4).

    Raises:
        HashError: the library is missing.
    """
    return _hasher().hash(prepared(password))


def _verify_bcrypt(hashed: str, octets: bytes) -> bool:
    library = _library("bcrypt", "bcrypt")
    try:
        # Of a longer password the rest would not count: any end would do for it.
        found = library.checkpw(octets[:BCRYPT_LENGTH], hashed.encode("ascii"))
    except ValueError:
        raise HashError("bcrypt cannot check a password: its salt is damaged") from None
    return bool(found) and len(octets) <= BCRYPT_LENGTH


@functools.cache
def _hasher() -> argon2.PasswordHasher:
    library = _library("argon2", "argon2-cffi")
    return cast("argon2.PasswordHasher", library.PasswordHasher())


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HashError(
            f"needs the Python package {package} ({error}): pip install 'guerrilla[auth]'"
        ) from None
