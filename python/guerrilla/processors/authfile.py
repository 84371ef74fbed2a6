"""AuthFile: checks user and password against a file of hashes."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from typing import TYPE_CHECKING, Annotated, Final

import pydantic

from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, Unavailable, expected
from guerrilla.passwords.file import shared
from guerrilla.passwords.hashes import prepared, verify
from guerrilla.passwords.lines import LinesError
from guerrilla.reply import AUTHENTICATED, NOT_AUTHENTICATED
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from guerrilla._core import Credentials, Reply, Transaction
    from guerrilla.passwords.file import PasswordFile, Users

__all__ = ["AuthFile"]

log = logging.getLogger("guerrilla.processors.authfile")


class AuthFile(Processor):
    """Checks user and password of AUTH against a file with lines `USER:HASH`, of bcrypt or argon2.

    A wrong password is refused, `535 5.7.8`; a user that is not in the file is passed on, after the
    time that a wrong password takes.
    """

    class Options(Processor.Options):
        """Keys of `backend_config`."""

        model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

        auth_file: Annotated[str, pydantic.Field(validate_default=True)] = ""
        """The file with the users, read again when it has changed: a line `USER:HASH` each, as
        `guerrillad password` and `htpasswd -B` make it. A chain that names AuthFile needs it."""
        auth_cache_ttl: Seconds = 0.0
        """How long a password that was right is remembered, in memory and not in the clear, so that
        it is not hashed again. 0: not at all."""

        @pydantic.field_validator("auth_file", mode="before")
        @classmethod
        def _path(cls, value: object) -> object:
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                raise expected("the path of a file with lines USER:HASH", value)
            return value

    def __init__(self, options: Options) -> None:
        """Opens nothing."""
        super().__init__(options)
        self._path = options.auth_file
        self._file: PasswordFile | None = None
        self._remembered = Remembered(options.auth_cache_ttl)

    def open(self) -> None:
        """Reads the file.

        Raises:
            ConfigError: it cannot be read or used.
        """
        where = f"backend_config.auth_file: {self._path}"
        self._file = shared(self._path)
        try:
            self._file.open()
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror or error}") from error
        except LinesError as error:
            raise ConfigError([f"{where}: {problem}" for problem in error.problems]) from None
        if not self._file.users().all:
            raise ConfigError(
                f"{where}: there is no user in it: "
                f"guerrillad password --user NAME --file {self._path}"
            )

    def close(self) -> None:
        """Forgets all."""
        self._file = None
        self._remembered.clear()

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply | None:
        """Accepts a user of the file with its password."""
        del transaction
        users = self._users()
        user, password = prepared(credentials.username), prepared(credentials.password)
        hashed = users.hashes.get(user)
        if hashed is None:
            verify(users.stand_in(user), password)
            return None
        if self._remembered.has(user, hashed, password):
            return AUTHENTICATED
        if not verify(hashed, password):
            return NOT_AUTHENTICATED
        self._remembered.add(user, hashed, password)
        return AUTHENTICATED

    def _users(self) -> Users:
        if self._file is None:
            raise Unavailable("not open")
        users = self._file.users()
        if not users.all:
            # Emptied on purpose, or about to be written: nobody is let in, and nobody is told
            # that a password is wrong which may be right.
            raise Unavailable(f"{self._path}: there is no user in it")
        return users


_LONGEST: Final = 65_536
"""Users that are remembered; one more, and all are forgotten."""


class Remembered:
    """Passwords that were right: a keyed digest of each, whose key no one else has.

    Args:
        ttl: seconds; 0 for not at all.
    """

    def __init__(self, ttl: float) -> None:
        """Remembers nothing."""
        self._ttl = ttl
        self._key = secrets.token_bytes(32)
        self._until: dict[str, tuple[bytes, float]] = {}

    def has(self, user: str, hashed: str, password: str) -> bool:
        """Whether this password was right for this user, and the user's hash is the same."""
        digest, until = self._until.get(user, (b"", 0.0))
        if until <= time.monotonic():
            return False
        return hmac.compare_digest(digest, self._digest(hashed, password))

    def add(self, user: str, hashed: str, password: str) -> None:
        """This one was right now."""
        if self._ttl:
            if len(self._until) >= _LONGEST:
                self._until.clear()
            self._until[user] = self._digest(hashed, password), time.monotonic() + self._ttl

    def clear(self) -> None:
        """Forgets all."""
        self._until.clear()

    def _digest(self, hashed: str, password: str) -> bytes:
        octets = f"{hashed}\0{password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, octets, "sha256")
