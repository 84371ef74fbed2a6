"""The signature of a request: who has the secret knows that guerrilla sent it, and when."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["VERSION", "sign"]

VERSION: Final = "v1"
"""Stands before each signature, so that another way to sign can come beside it."""


def sign(secrets: Sequence[str], timestamp: str, pieces: Iterable[bytes | memoryview]) -> str:
    """The value of `X-Guerrilla-Signature`: `v1=HEX`, one for each secret, with commas between.

    Args:
        secrets: while one takes the place of another there are two.
        timestamp: seconds since the epoch, as the request has them.
        pieces: what is signed behind the timestamp and a dot.
    """
    start = timestamp.encode() + b"."
    found = [hmac.new(secret.encode(), start, "sha256") for secret in secrets]
    for piece in pieces:
        for one in found:
            one.update(piece)
    return ",".join(f"{VERSION}={one.hexdigest()}" for one in found)
