"""Files of passwords for tests, with hashes that cost next to nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import argon2
import bcrypt

from guerrilla.passwords.hashes import prepared

SECRET: Final = "correct horse battery staple"

_CHEAP: Final = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def quick_argon2(password: str = SECRET) -> str:
    return _CHEAP.hash(prepared(password))


def quick_bcrypt(password: str = SECRET, *, kind: str = "2y", cost: int = 4) -> str:
    octets = prepared(password).encode()[:72]
    hashed = bcrypt.hashpw(octets, bcrypt.gensalt(cost)).decode()
    return hashed.replace("$2b$", f"${kind}$")


def write_users(path: Path, *lines: str, mode: int = 0o600) -> Path:
    """A new file in the place of the old one, as a careful program makes it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    fresh.chmod(mode)
    os.replace(fresh, path)
    return path
